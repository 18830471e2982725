"""Scans of any size, spacing and orientation as cubes around the humeral head, and heat maps back on the scan.

The cube lies along the scan's own axes in canonical order (to the patient's right, front and top, as closely as they
run so), so that an oblique series is not turned, only resampled: its 4 mm slices are interpolated. What of the cube
lies beyond the scan is filled with the scan's darkest value. Intensities become 0 to 255 by the cube's own percentiles,
as the paper has them; the network sees them over 255, with mean 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medray.data.cache import SampleCache
from medray.data.case import Case, Volume
from medray.data.fields import case_fingerprint
from medray.data.geometry import Grid, canonical, resample
from medray.data.intensity import normalize_intensity
from medray.errors import UserError

CENTER_COLUMN = "center_mm"
_PERCENTILES = (0.5, 99.5)
_GRAY = 255.0


@dataclass(frozen=True)
class Cube:
    """A scan on the network's grid.

    Attributes:
        gray: (S, S, S) uint8, axes to the right, front and top.
        tear: (S, S, S) bool, where the case has a mask of its tear; else None.
        affine: (4, 4), index of the cube to mm, RAS+.
    """

    gray: NDArray[np.uint8]
    tear: NDArray[np.bool_] | None
    affine: NDArray[np.float64]

    @property
    def grid(self) -> Grid:
        """Where its voxels are."""
        return Grid(self.gray.shape, self.affine)

    def network_input(self) -> NDArray[np.float32]:
        """(1, S, S, S), over 255 and with mean 0."""
        values = self.gray.astype(np.float32) / np.float32(_GRAY)
        return np.asarray(values - values.mean())[None]


@dataclass(frozen=True)
class Cropper:
    """How a cube is cut out of a scan.

    Attributes:
        size: S, voxels along each edge.
        edge_mm: length of an edge.
        max_padding: share of the edge that may lie beyond the scan, along each axis.
    """

    size: int
    edge_mm: float
    max_padding: float

    def grid(self, volume: Volume, center_mm: Sequence[float] | None) -> Grid:
        """The cube's grid.

        Args:
            volume: the scan, three axes.
            center_mm: world position of the humeral head, RAS+; the scan's middle if None.

        Raises:
            UserError: not three axes, a center outside the scan, or a scan that holds too little of the cube.
        """
        if volume.spatial_dims != 3 or min(volume.shape) < 2:
            shape = " x ".join(str(n) for n in volume.shape)
            raise UserError(f"{volume.source or 'the image'} of {shape} is a 2D image where a volume is expected")
        turned = Grid.of(canonical(volume))
        center = turned.center if center_mm is None else np.asarray(center_mm, dtype=float)
        self._check(volume, turned, center)
        step = self.edge_mm / self.size
        affine = turned.affine.copy()
        affine[:3, :3] = turned.affine[:3, :3] / np.array(turned.spacing) * step
        affine[:3, 3] = center - affine[:3, :3] @ np.full(3, (self.size - 1) / 2)
        return Grid((self.size,) * 3, affine)

    def _check(self, volume: Volume, turned: Grid, center: NDArray[np.float64]) -> None:
        where = volume.source or "the image"
        index = np.linalg.inv(turned.affine) @ np.append(center, 1.0)
        middle = (index[:3] + 0.5) * np.array(turned.spacing)  # mm from the scan's border
        extent = np.array(turned.shape) * np.array(turned.spacing)
        if ((middle < 0) | (middle > extent)).any():
            told = " ".join(f"{value:.0f}" for value in center)
            raise UserError(f"{where}: the center {told} (mm, RAS+) lies outside the scan")
        covered = np.minimum(middle + self.edge_mm / 2, extent) - np.maximum(middle - self.edge_mm / 2, 0)
        if covered.min() < (1 - self.max_padding) * self.edge_mm - 1e-6:
            sides = " x ".join(f"{value:.0f}" for value in extent)
            raise UserError(
                f"{where} of {sides} mm holds only {covered.min():.0f} mm of the cube of {self.edge_mm:g} mm around "
                f"the humeral head, where {(1 - self.max_padding) * self.edge_mm:.0f} mm are needed along each axis"
            )

    def cut(self, volume: Volume, center_mm: Sequence[float] | None, tear: Volume | None = None) -> Cube:
        """Resample a scan.

        Args:
            volume: the scan, three axes; several channels are averaged.
            center_mm: as of `grid`.
            tear: mask of the tear on any grid in the same space.

        Raises:
            UserError: as `grid`.
        """
        grid = self.grid(volume, center_mm)
        mean = volume.array.mean(axis=0, keepdims=True, dtype=np.float32)
        cube = resample(Volume(mean, volume.affine), grid, fill=None).array
        unit = (normalize_intensity(cube, "percentile", percentiles=_PERCENTILES)[0] + 1) / 2
        gray = np.rint(unit * np.float32(_GRAY)).astype(np.uint8)
        return Cube(gray, None if tear is None else _mask_on(tear, grid), grid.affine)


def _mask_on(tear: Volume, grid: Grid) -> NDArray[np.bool_]:
    """A mask on a coarser grid: half of what its fullest voxel holds, so that a thin tear does not vanish."""
    share = resample(Volume((tear.array != 0).astype(np.float32), tear.affine), grid).array[0]
    return np.asarray(share >= max(0.5 * float(share.max()), 1e-6))


class CubeReader:
    """Reads cases as cubes, through the cache.

    Args:
        cropper: how cubes are cut.
        cache: keeps what was resampled.
    """

    def __init__(self, cropper: Cropper, cache: SampleCache | None = None) -> None:
        self.cropper = cropper
        self.cache = cache or SampleCache()

    def read(self, case: Case, *, with_tear: bool = False) -> Cube:
        """The case's ``image`` around its ``center_mm``.

        Args:
            case: with the field ``image``.
            with_tear: also its field ``tear``, if it has one.

        Raises:
            UserError: a file or the center cannot be read, or the scan holds too little of the cube.
        """
        names = ["image", "tear"] if with_tear and "tear" in case.fields else ["image"]
        key = ("cube", self.cropper, center_text(case), case_fingerprint(case, names))
        kept = self.cache.get(key, lambda: self._decode(case, names))
        tear = kept.get("tear")
        return Cube(kept["gray"], None if tear is None else tear.astype(bool), kept["affine"])

    def _decode(self, case: Case, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        tear = case.volume("tear") if "tear" in names else None
        cube = self.cropper.cut(case.volume("image"), center_of(case), tear)
        kept: dict[str, NDArray[Any]] = {"gray": cube.gray, "affine": cube.affine}
        if cube.tear is not None:
            kept["tear"] = cube.tear.astype(np.uint8)
        return kept


def on_scan(values: NDArray[np.floating[Any]], cube: Grid, scan: Volume) -> Volume:
    """A map on the cube's grid, (S, S, S), on the scan's own: (1, *scan.shape) float32, 0 outside the cube."""
    found = resample(Volume(values.astype(np.float32)[None], cube.affine), Grid.of(scan), antialias=False)
    return Volume(found.array.astype(np.float32), scan.affine, scan.source, scan.header)


def center_text(case: Case) -> str:
    """What a case's table says about the humeral head's position; empty where it says nothing."""
    return case.attributes.get(CENTER_COLUMN, "").strip()


def center_of(case: Case) -> tuple[float, float, float] | None:
    """World position of the humeral head, mm, RAS+; None where the case does not say.

    Raises:
        UserError: it is not three numbers.
    """
    text = center_text(case)
    return parse_center(text, f"its {CENTER_COLUMN}") if text else None


def parse_center(text: str, what: str) -> tuple[float, float, float]:
    """Three numbers, separated by blanks, commas or semicolons.

    Args:
        text: "x y z", mm, RAS+.
        what: is parsed, for the message.

    Raises:
        UserError: anything else.
    """
    parts = text.replace(",", " ").replace(";", " ").split()
    try:
        x, y, z = (float(part) for part in parts)
    except ValueError:
        x = y = z = float("nan")
    if not np.isfinite([x, y, z]).all():
        raise UserError(f"{what} is {text!r} where three numbers are expected: x y z in mm, RAS+")
    return x, y, z
