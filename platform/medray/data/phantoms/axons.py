"""Synthetic two-photon images of an axon, as `envs.axon` draws them, with the centreline of the axon to follow.

Stands in for the simulator and the microscopy of Dai et al. (MIDL 2019), whose numbers are not printed; `envs.axon`
says which were chosen. Arrays are as PNG files give them: (1, rows, columns), uint8.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from envs.axon.centrelines import Branch, Centrelines
from envs.axon.generator import SETTINGS, SyntheticScenes
from envs.axon.scene import Scene
from medray.data.case import Case, FieldRef, Volume
from medray.data.traces import as_table

Setting = Literal["SI", "SI-RC", "SI-W", "SI-EN", "SI-SN", "shifted", "mixed"]
_USUAL_PX = 128
_MIN_PX = 48
_FEWEST_POINTS = 4


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Everything that an image depends on.

    Attributes:
        setting: of `envs.axon.generator.SETTINGS`.
        seed: of the whole phantom.
        index: number of the image.
        size: rows and columns, px.
    """

    setting: Setting
    seed: int
    index: int
    size: int

    def fingerprint(self) -> str:
        """Every parameter by name."""
        return " ".join(f"{f.name}={getattr(self, f.name)}" for f in fields(self))


@dataclass(frozen=True)
class AxonImage:
    """The image, drawn when loaded."""

    drawing: Drawing

    def load(self) -> Volume:
        """(1, size, size), uint8."""
        pixels = np.rint(_drawn(self.drawing).image).astype(np.uint8)
        source = f"phantom:axons {self.fingerprint()}"
        return Volume(pixels[None], np.eye(4), source=source, header={"format": "raster"})

    def fingerprint(self) -> str:
        """See `Drawing.fingerprint`."""
        return self.drawing.fingerprint()


@dataclass(frozen=True)
class AxonCentreline:
    """The line to follow, drawn when loaded."""

    drawing: Drawing

    def load(self) -> dict[str, Any]:
        """One branch, its points about 1 px apart, as `read_traces` gives it."""
        scene = _drawn(self.drawing)
        assert scene.centreline is not None
        branch = Branch(scene.centreline, "endpoint-endpoint")
        return as_table(Centrelines((branch,), (self.drawing.size, self.drawing.size), "bright"))

    def fingerprint(self) -> str:
        """See `Drawing.fingerprint`."""
        return self.drawing.fingerprint()


def cases(
    n: int = 40,
    seed: int = 0,
    size: int = 128,
    setting: Setting = "SI",
) -> tuple[Case, ...]:
    """Images with one axon to follow each.

    Args:
        n: images. Image i does not depend on n.
        seed: of everything.
        size: rows and columns, px; smaller images have shorter axons.
        setting: SI (the paper's standard), SI-RC (half the contrast), SI-W (wide), SI-EN (noise), SI-SN (photon noise),
            shifted (low contrast, photon noise, crossing axons, gaps) or mixed (all of it, drawn per image).

    Returns:
        n cases with the fields ``image`` and ``centrelines``; the attribute ``branches`` says that there is one.

    Raises:
        ValueError: a parameter is out of range.
    """
    if n < 1 or seed < 0:
        raise ValueError(f"n must be at least 1 and seed not negative, got {n} and {seed}")
    if size < _MIN_PX:
        raise ValueError(f"size must be at least {_MIN_PX} px for an axon to fit in, got {size}")
    found = []
    for index in range(n):
        drawing = Drawing(setting=setting, seed=seed, index=index, size=size)
        both: dict[str, FieldRef] = {"image": AxonImage(drawing), "centrelines": AxonCentreline(drawing)}
        found.append(Case(f"axon{index:05d}", f"axon{index:05d}", both, {"branches": "1"}))
    return tuple(found)


@functools.lru_cache(maxsize=64)
def _drawn(drawing: Drawing) -> Scene:
    """Kept for a moment: the image and the centreline are asked for one after the other."""
    settings = SETTINGS[drawing.setting]
    shortest, longest = (max(_FEWEST_POINTS, round(k * drawing.size / _USUAL_PX)) for k in settings.num_points)
    settings = replace(settings, size_px=drawing.size, num_points=(shortest, longest))
    return SyntheticScenes(settings, drawing.index + 1, drawing.seed, keep=1, prepare=_as_drawn)[drawing.index]


def _as_drawn(image: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(image, dtype=np.float32)
