"""What a tracker hands back: ordered subpixel polylines, written as SWC and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.axon.polyline import length_of
from envs.axon.swc import swc_text

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Trace:
    """One traced structure.

    Attributes:
        points: (n, 2) x, y in pixels, the start first.
        entropy: (n,) of the policy at each point, in nats; nan where there is none (the last point, other tracers).
        stopped: why it ended, for example ``end reached``, ``steps``, ``entropy``, ``left the image``.
    """

    points: FloatArray
    entropy: FloatArray
    stopped: str

    @property
    def length_px(self) -> float:
        """Arc length."""
        return length_of(self.points)


def traces_as_swc(traces: Sequence[Trace], *, image: str = "") -> str:
    """The text of an SWC file, a tree per trace; `envs.axon.swc` says how the entropy is kept."""
    comments = [f"traces of {image}"] if image else []
    comments += [f"trace {number}: stopped by {trace.stopped}" for number, trace in enumerate(traces)]
    return swc_text([trace.points for trace in traces], [trace.entropy for trace in traces], comments=comments)


def traces_as_json(
    traces: Sequence[Trace], *, image: str = "", pixel_size: tuple[float, float] = (1.0, 1.0), unit: str = "px"
) -> str:
    """The text of a JSON file: an object with the image's name, its unit and a list of traces.

    Each trace has ``points`` [[x, y], ...] in pixels, ``entropy`` (null where there is none), ``stopped``,
    ``length_px`` and ``length`` in the image's unit.

    Args:
        traces: what was traced.
        image: name of the image.
        pixel_size: of a pixel along x and along y, in ``unit``.
        unit: of ``length``: mm, um, px.
    """
    content = {
        "image": image,
        "axes": "xy: x = column, y = row, in pixels, pixel centers at integers",
        "pixel_size": list(pixel_size),
        "unit": unit,
        "traces": [_entry(trace, pixel_size) for trace in traces],
    }
    return json.dumps(content, indent=1) + "\n"


def _entry(trace: Trace, pixel_size: tuple[float, float]) -> Mapping[str, Any]:
    return {
        "points": np.round(trace.points, 4).tolist(),
        "entropy": [round(value, 4) if math.isfinite(value) else None for value in trace.entropy.tolist()],
        "stopped": trace.stopped,
        "length_px": round(trace.length_px, 3),
        "length": round(length_of(trace.points * np.asarray(pixel_size)), 6),
    }
