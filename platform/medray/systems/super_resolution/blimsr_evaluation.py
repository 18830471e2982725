"""How well a generator brings back test images, from blindly degraded and from clean low resolution.

The degradations are drawn from the content of each image alone: the same for every variant, seed and machine, and never
those that a variant was trained on. Names with ``_clean`` are scores from bicubic low resolution, names with
``_bicubic`` those of bicubic interpolation of the degraded one. Like its siblings (table 1) Welch's t-test compares the
two, over images.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.data.fields import case_fingerprint
from medray.learner import seed_of
from medray.metrics.niqe import NiqeModel
from medray.metrics.super_resolution import welch_p
from medray.nn.weights import load_network
from medray.system import Evaluation, Figure, Row, Trained
from medray.systems.super_resolution.blimsr_config import BlimsrConfig
from medray.systems.super_resolution.degradation import DegradationSettings, degrade, draw_plan
from medray.systems.super_resolution.enlarging import upsampler
from medray.systems.super_resolution.high_res import HighResReader
from medray.systems.super_resolution.networks import make_generator
from medray.systems.super_resolution.peer_networks import Bicubic
from medray.systems.super_resolution.perceptual import Features, open_features
from medray.systems.super_resolution.pictures import comparison_png
from medray.systems.super_resolution.scores import image_scores

METRICS = ("psnr_db", "ssim", "vif", "perceptual_distance")
_EXAMPLES = 3
_NIQE_IMAGES = 60
_NIQE_PX = (96, 4)  # the paper's patches, or a fourth of the image


@dataclass(frozen=True)
class Scored:
    """A test image's row, and for the first ones a picture."""

    row: Row
    figure: Figure | None


def reader_of(config: BlimsrConfig, cache: SampleCache | None = None) -> HighResReader:
    """Reads images as this config has them."""
    return HighResReader(config.hu_window, config.scaling, cache)


def trained_generator(config: BlimsrConfig, weights: Path | None) -> nn.Module:
    """The generator with its weights, if it has any."""
    network = make_generator(config)
    if weights is not None:
        load_network(network, weights, prefix="generator.")
    return network


def frozen_degradation(config: BlimsrConfig, case: Case, high: Tensor) -> Tensor:
    """An image (1, H, W) blindly degraded as it always will be, (1, H/4, W/4)."""
    generator = torch.Generator().manual_seed(seed_of("blimsr test", case_fingerprint(case, ["image"])))
    return _degraded(DegradationSettings(kind="blind", strength=config.degradation_strength), high, generator)


def _degraded(settings: DegradationSettings, high: Tensor, generator: torch.Generator) -> Tensor:
    return degrade(high[None], [draw_plan(settings, (high.shape[1], high.shape[2]), generator)])[0]


def score_case(config: BlimsrConfig, trained: Trained, cache: SampleCache, numbered: tuple[int, Case]) -> Scored:
    """Degrade, enlarge and score one test image. Runs as a Ray task."""
    index, case = numbered
    high = reader_of(config, cache).image(case)
    low = frozen_degradation(config, case, high)
    clean = _degraded(DegradationSettings(kind="bicubic"), high, torch.Generator())
    upsample, features = upsampler(trained_generator(config, trained.weights)), _features(config)
    result = upsample(low[None])[0]
    row: Row = {"case": case.id, **image_scores(result, high, features)}
    row |= _niqe(trained, result)
    row |= _named("clean", image_scores(upsample(clean[None])[0], high, features))
    row |= _named("bicubic", image_scores(upsampler(Bicubic())(low[None])[0], high, features))
    if index >= _EXAMPLES:
        return Scored(row, None)
    caption = f"{case.id}: {float(row['psnr_db']):.1f} dB, bicubic {float(row['psnr_db_bicubic']):.1f} dB"
    shown = [one[0].numpy() for one in (low, result, high)]
    picture = case.volume("image").header.get("format") == "raster"
    png = comparison_png(*shown, name=config.generator, title=caption, picture=picture)
    return Scored(row, Figure(f"{config.generator}_{index}", caption, png))


@functools.lru_cache(maxsize=1)
def _features(config: BlimsrConfig) -> Features | None:
    """Opened once in each process, not for each image. What a variant's loss feeds them does not change its score."""
    return open_features(replace(config, perceptual_weights="mean"))


def _named(suffix: str, scores: dict[str, float]) -> dict[str, float]:
    return {f"{name}_{suffix}": value for name, value in scores.items()}


def summarize(scored: Sequence[Scored]) -> Evaluation:
    """Means over images, the spread of the main scores, and p of Welch's t-test against bicubic interpolation."""
    rows = [one.row for one in scored]
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "case" and math.isfinite(float(value)):
                columns.setdefault(name, []).append(float(value))
    summary = {name: sum(values) / len(values) for name, values in columns.items()}
    for name in METRICS:
        ours, theirs = columns.get(name, []), columns.get(f"{name}_bicubic", [])
        if len(ours) > 1:
            summary[f"std_{name}"] = float(np.std(ours, ddof=1))
        if len(ours) > 1 and len(theirs) > 1 and ours != theirs:
            summary[f"welch_p_{name}"] = welch_p(ours, theirs)
    return Evaluation(rows, summary, [one.figure for one in scored if one.figure is not None])


def fit_niqe(read: HighResReader, cases: Sequence[Case], folder: Path) -> None:
    """Learn from high-resolution images what NIQE takes for natural, into ``folder``; nothing if they are too few."""
    spread = cases[:: max(1, len(cases) // _NIQE_IMAGES)]  # slices of a volume lie side by side
    images = [read.image(case)[0].numpy() for case in spread[:_NIQE_IMAGES]]
    patch = min(_NIQE_PX[0], min(min(image.shape) for image in images) // _NIQE_PX[1]) // 2 * 2
    try:
        model = NiqeModel.fit(images, patch_px=patch)
    except ValueError:  # no two patches with texture
        return
    found = {"mean": model.mean, "covariance": model.covariance, "patch_px": np.array([model.patch_px])}
    save_file(found, niqe_file(folder))


def niqe_file(folder: Path) -> Path:
    """Where `fit_niqe` leaves its model."""
    return folder / "niqe.safetensors"


def _niqe(trained: Trained, image: Tensor) -> dict[str, float]:
    if "niqe" not in trained.files:
        return {}
    found = load_file(trained.files["niqe"])
    model = NiqeModel(found["mean"], found["covariance"], int(found["patch_px"][0]))
    if min(image.shape[1:]) < model.patch_px:
        return {}
    return {"niqe": model.score(image[0].numpy())}
