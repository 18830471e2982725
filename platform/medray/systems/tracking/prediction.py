"""New images: from a picture and start points to traces on disk."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from envs.axon.ends import find_ends, with_headings
from envs.axon.episodes import Beginning
from envs.axon.preparation import FloatImage, Intensity, Polarity
from envs.axon.scene import Scene
from envs.axon.starts import Starts, read_starts, start_outside
from envs.axon.traces import Trace, traces_as_json, traces_as_swc
from medray.classical.ridge_following import follow_ridges
from medray.data.case import Volume
from medray.data.readers import read_volume
from medray.data.traces import pixel_size_mm
from medray.data.writers import beside, write_bytes
from medray.errors import UserError
from medray.figures.tracing import overlay_png
from medray.metrics.tracing import covered, densified
from medray.system import Prediction, PredictRequest, Trained
from medray.systems.tracking.axon_tracker import AxonProblem, AxonTrackerConfig
from medray.systems.tracking.policies import load_actor
from medray.systems.tracking.scenes import Preparation
from medray.systems.tracking.stopping import Rules
from medray.systems.tracking.tracing import follow

log = logging.getLogger(__name__)

FloatArray = NDArray[np.float64]

SHORT_PX = 8.0
"""A trace in a guessed direction that ends sooner has found nothing."""
_SAME_PX, _SAME_SHARE = 2.0, 0.8
"""A trace that lies this near to a longer one over so much of its length is the same structure."""
_MAX_STEPS = 1000
_LOOKS: Mapping[str, tuple[str, ...]] = {"polarity": get_args(Polarity), "intensity": get_args(Intensity)}
_OPTIONS = ("steps", "entropy", *_LOOKS)
_UNKNOWN = np.full(2, np.nan)


@dataclass(frozen=True)
class Limits:
    """Where predictions stop at the latest.

    Attributes:
        steps: of a trace.
        entropy: that a trace may not stay above, nats.
    """

    steps: int
    entropy: float


def predict(config: AxonTrackerConfig, trained: Trained, request: PredictRequest) -> Prediction:
    """Trace an image's structures and write them as SWC and JSON, with a picture.

    Raises:
        UserError: the image or the start points cannot be used, or an option is not known; says which and why.
    """
    if request.out.suffix.lower() not in (".swc", ".json"):
        raise UserError(f"--out {request.out}: traces are written as .swc and .json")
    limits = _limits(request, trained.about.get("entropy_limit"))
    volume = read_volume(request.inputs[0])
    _say_what_becomes_of(volume)
    image = _preparation(config, request).of(volume)
    starts, given = _starts(request.inputs[1:], image)
    began = time.perf_counter()
    traces = _trace(config, trained, image, starts, limits)
    if not given:
        traces = without_repeats(traces)
    seconds = time.perf_counter() - began
    files = _write(traces, image, volume, request)
    entropy = np.concatenate([np.zeros(0), *[trace.entropy[np.isfinite(trace.entropy)] for trace in traces]])
    metrics = {"num_traces": float(len(traces)), "length_px": float(sum(trace.length_px for trace in traces))}
    if len(entropy):
        metrics["entropy"] = float(entropy.mean())
    return Prediction(files=files, metrics=metrics, seconds=seconds)


def _say_what_becomes_of(volume: Volume) -> None:
    if volume.array.shape[0] == 3:
        log.warning("%s is in color; its luminance is traced", volume.source)
    if volume.spatial_dims == 3:
        log.warning("%s is a stack of %s; its projection is traced", volume.source, " x ".join(map(str, volume.shape)))


def _write(traces: Sequence[Trace], image: FloatImage, volume: Volume, request: PredictRequest) -> dict[str, Path]:
    name, out = request.inputs[0].name, request.out
    plain = volume.header.get("format") in ("raster", "array")  # their pixels have no size
    size, unit = ((1.0, 1.0), "px") if plain else (pixel_size_mm(volume), "mm")
    swc, told = traces_as_swc(traces, image=name), traces_as_json(traces, image=name, pixel_size=size, unit=unit)
    return {
        "traces": write_bytes(out.with_suffix(".swc"), swc.encode()),
        "json": write_bytes(out.with_suffix(".json"), told.encode()),
        "picture": write_bytes(beside(out, "_overlay.png"), overlay_png(image, traces)),
    }


def _limits(request: PredictRequest, entropy: float | None) -> Limits:
    """The model's own limits, or those of ``--option``."""
    unknown = sorted(set(request.options) - set(_OPTIONS))
    if unknown:
        raise UserError(f"--option {unknown[0]}: this system knows {', '.join(_OPTIONS)}")
    steps = request.options.get("steps", str(_MAX_STEPS))
    limit = request.options.get("entropy", "none" if entropy is None else str(entropy))
    try:
        found = Limits(int(steps), math.inf if limit == "none" else float(limit))
    except ValueError:
        found = Limits(0, math.nan)
    if found.steps < 1 or math.isnan(found.entropy):
        raise UserError(f"--option steps is a whole number from 1, entropy a number or none, got {steps} and {limit}")
    return found


def _preparation(config: AxonTrackerConfig, request: PredictRequest) -> Preparation:
    """As in training, unless ``--option`` says otherwise."""
    chosen: dict[str, Any] = {"polarity": config.polarity, "intensity": config.intensity}
    for name, known in _LOOKS.items():
        chosen[name] = request.options.get(name, chosen[name])
        if chosen[name] not in known:
            raise UserError(f"--option {name} is {' or '.join(known)}, got {chosen[name]}")
    return Preparation(**chosen)


def _starts(files: Sequence[Path], image: FloatImage) -> tuple[Starts, bool]:
    """Start points from the user's file, or the ends that the image shows; and whether the user gave them."""
    if not files:
        found = find_ends(image)
        if not len(found):
            raise UserError("no end of a structure was found in the image; give start points as the second --input")
        return found, False
    try:
        starts = read_starts(files[0])
    except (ValueError, OSError) as error:
        raise UserError(" ".join(str(error).split())) from None
    reason = start_outside(starts, image.shape)
    if reason:
        raise UserError(f"{files[0]}: {reason}")
    return starts, True


def _trace(
    config: AxonTrackerConfig, trained: Trained, image: FloatImage, starts: Starts, limits: Limits
) -> list[Trace]:
    """From every start one trace where the direction is known, else those of both ways along the ridge that lead on."""
    points, headings, owner = with_directions(starts, image)
    if config.method == "minimal_path":
        raise UserError("minimal_path needs both ends of a structure; predict with ridge_following or with the policy")
    if config.method == "ridge_following":
        traces = follow_ridges(image, points, headings)
    else:
        assert trained.weights is not None
        scenes = [Scene(image)]
        problem = AxonProblem(config, scenes)
        actor = load_actor(problem, trained.weights)
        options = replace(config.options, max_steps=limits.steps)
        beginnings = [Beginning(0, *each, _UNKNOWN) for each in zip(points, headings, strict=True)]
        traces = follow(problem, actor, scenes, beginnings, options, Rules(entropy=limits.entropy))
    kept = []
    for number in range(len(starts)):
        kept += plausible([traces[place] for place in np.flatnonzero(owner == number)])
    return kept


def with_directions(starts: Starts, image: FloatImage) -> tuple[FloatArray, FloatArray, NDArray[np.intp]]:
    """Every start with a direction: its own, or the way of the strongest ridge that sets out from it, and back.

    Returns:
        points (m, 2), headings (m, 2) and the number of the start (m,) that each belongs to.
    """
    guessed = np.flatnonzero(~np.isfinite(starts.headings).all(axis=1))
    headings = with_headings(image, starts).headings if len(guessed) else starts.headings
    return (
        np.concatenate([starts.points, starts.points[guessed]]),
        np.concatenate([headings, -headings[guessed]]),
        np.concatenate([np.arange(len(starts)), guessed]),
    )


def plausible(traces: Sequence[Trace]) -> list[Trace]:
    """Those of a start's traces that lead somewhere new: at least 8 px long and not along a longer one.

    A single trace stays whatever it is, and so does the longest of several.
    """
    ordered = sorted(traces, key=lambda trace: -trace.length_px)
    return ordered[:1] + without_repeats([ordered[0], *[t for t in ordered[1:] if t.length_px >= SHORT_PX]])[1:]


def without_repeats(traces: Sequence[Trace]) -> list[Trace]:
    """Traces, the longest first, without those that run within 2 px of longer ones over 80 % of their length."""
    kept: list[Trace] = []
    for trace in sorted(traces, key=lambda one: -one.length_px):
        dense = densified(trace.points)
        if not kept or np.mean(covered(dense, [one.points for one in kept], _SAME_PX)) < _SAME_SHARE:
            kept.append(trace)
    return kept
