"""Registration pairs with a known answer, made from co-registered modalities of real patients.

`deformed:FOLDER?moving=t1&fixed=flair` takes, for every patient of a folder (see `medray.data.folders`), two
modalities that lie on one grid, and deforms the moving one by a smooth random field. What a registration has to find
is then known at every pixel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.cluster.vq import kmeans2

from medray.data import folders
from medray.data.affines import Affine
from medray.data.case import Case, Volume
from medray.data.fields import FileRef
from medray.data.geometry import canonical
from medray.data.places import StoredPath, listed, stored
from medray.data.readers import read_volume
from medray.errors import UserError
from medray.storage import is_url

FIELDS = ("moving", "fixed", "moving_label", "fixed_label", "mask", "displacement")
_PAD = 2
"""Control points beyond either end of an axis, so that the cubic spline's support is inside the grid."""
_SETTLED_PX = 1e-3
"""The numerical inverse is done where a further step moves it by less, px."""


def deformed_cases(
    folder: str,
    moving: str = "t1",
    fixed: str = "flair",
    dims: Literal[2, 3] = 2,
    every: int = 4,
    min_area: float = 0.4,
    repeats: int = 1,
    spacing: float = 20.0,
    amplitude: float = 10.0,
    classes: int = 3,
    threshold: float = 0.1,
    seed: int = 0,
) -> tuple[Case, ...]:
    """Pairs of a deformed moving and an untouched fixed image.

    A case has the fields moving, fixed (1, *spatial) float32, moving_label and fixed_label (tissue classes 1.. by
    k-means on the moving modality inside the brain, darkest first, 0 outside), mask (the brain on the fixed grid) and
    displacement (D, *spatial), px in array-axis order: moving(x + displacement(x)) is the undeformed image at x, which
    lies exactly over fixed(x). Images are turned to run Right, Anterior, Superior.

    Args:
        folder: patients whose modalities lie on one grid.
        moving: modality to deform.
        fixed: modality to leave.
        dims: 2 for axial slices, 3 for whole volumes, cut to the brain plus the largest displacement.
        every: take each n-th axial slice.
        min_area: leave out slices whose brain area is less than this fraction of the patient's largest.
        repeats: random fields per slice or volume.
        spacing: px between the random control points of the cubic B-spline.
        amplitude: largest displacement, px; less where the field would fold.
        classes: tissue classes.
        threshold: brain is what is brighter than this fraction of the moving image's range; see `brain_mask`.
        seed: of the fields and the k-means.

    Raises:
        UserError: no patient has both modalities, or they lie on different grids.
        ValueError: a parameter out of range.
    """
    if every < 1 or repeats < 1 or classes < 2:
        raise ValueError(f"every and repeats must be at least 1, classes at least 2; got {every}, {repeats}, {classes}")
    if spacing < 4 or amplitude < 0 or not 0 <= min_area <= 1 or not 0 <= threshold < 1:
        raise ValueError("spacing is at least 4 px, amplitude 0 or more, min_area and threshold between 0 and 1")
    cases = []
    for patient, pair in sorted(_patients(folder, moving, fixed).items()):
        anatomy = Anatomy(*pair, classes, threshold, seed)
        planes: Sequence[int | None] = [None] if dims == 3 else _planes(load_anatomy(anatomy).mask, every, min_area)
        for plane in planes:
            for repeat in range(repeats):
                name = f"{patient}/{'volume' if plane is None else f'z{plane:03d}'}" + (
                    f"/{repeat}" if repeats > 1 else ""
                )
                draw = int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest())
                made = DeformedPair(anatomy, plane, spacing, amplitude, draw)
                refs = {field: DeformedField(made, field) for field in FIELDS}
                attributes = {"moving": moving, "fixed": fixed, **({} if plane is None else {"slice": str(plane)})}
                cases.append(Case(name, patient, refs, attributes))
    return tuple(cases)


def _patients(folder: str, moving: str, fixed: str) -> dict[str, tuple[str, str]]:
    files: dict[str, dict[str, str]] = {}
    for case in folders.discover(_listed(folder)).cases:
        ref = case.fields.get("image")
        if isinstance(ref, FileRef):
            files.setdefault(case.patient, {})[case.attributes.get("modality", "")] = ref.path
    pairs = {patient: (have[moving], have[fixed]) for patient, have in files.items() if {moving, fixed} <= set(have)}
    if not pairs:
        known = sorted({modality for have in files.values() for modality in have if modality})
        raise UserError(
            f"{folder}: no patient has both the modalities {moving} and {fixed}; found {', '.join(known) or 'none'}"
        )
    return pairs


def _listed(folder: str) -> Path | StoredPath:
    return listed(stored(folder) if is_url(folder) else Path(folder).expanduser())


@dataclass(frozen=True)
class Anatomy:
    """The undeformed images of a patient and how brain and tissues are told."""

    moving: str
    fixed: str
    classes: int
    threshold: float
    seed: int


@dataclass(frozen=True)
class LoadedAnatomy:
    """Arrays (X, Y, Z) of a patient in canonical orientation."""

    moving: NDArray[np.float32]
    fixed: NDArray[np.float32]
    mask: NDArray[np.bool_]
    tissue: NDArray[np.uint8]
    affine: Affine


@dataclass(frozen=True)
class DeformedPair:
    """Recipe of one pair. ``plane`` is the axial slice, None for the volume; ``draw`` seeds the field."""

    anatomy: Anatomy
    plane: int | None
    spacing: float
    amplitude: float
    draw: int


@dataclass(frozen=True)
class DeformedField:
    """One field of a pair; generated when asked for, all fields of a pair at once."""

    pair: DeformedPair
    name: str

    def load(self) -> Volume:
        """Generate it.

        Raises:
            UserError: one of the files cannot be read.
        """
        made = make_pair(self.pair)[self.name]
        return Volume(made.array.copy(), made.affine, made.source)  # the made pair is kept: callers may write

    def fingerprint(self) -> str:
        """Content of the two files and the recipe, without paths."""
        anatomy, pair = self.pair.anatomy, self.pair
        files = [FileRef(path).fingerprint() for path in (anatomy.moving, anatomy.fixed)]
        recipe = (anatomy.classes, anatomy.threshold, anatomy.seed, pair.plane, pair.spacing, pair.amplitude, pair.draw)
        return f"deformed:{hashlib.blake2b(repr((files, recipe, self.name)).encode(), digest_size=16).hexdigest()}"


@lru_cache(maxsize=2)
def load_anatomy(anatomy: Anatomy) -> LoadedAnatomy:
    """Read a patient's images and find brain and tissues.

    Raises:
        UserError: unreadable, or the two modalities lie on different grids.
    """
    moving, fixed = canonical(read_volume(anatomy.moving)), canonical(read_volume(anatomy.fixed))
    if moving.shape != fixed.shape or not np.allclose(moving.affine, fixed.affine, atol=1e-2):
        raise UserError(
            f"{anatomy.moving} {moving.shape} and {anatomy.fixed} {fixed.shape} lie on different grids; deformed: "
            "needs co-registered modalities"
        )
    if moving.spatial_dims != 3:
        raise UserError(f"{anatomy.moving} is 2D; deformed: needs volumes")
    values = moving.array[0].astype(np.float32)
    mask = brain_mask(values, anatomy.threshold)
    tissue = tissue_classes(values, mask, anatomy.classes, anatomy.seed)
    return LoadedAnatomy(values, fixed.array[0].astype(np.float32), mask, tissue, moving.affine)


def brain_mask(values: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """What is brighter than ``threshold`` of the way from the 2nd to the 98th percentile of the image (X, Y, Z).

    Of that the largest connected piece, closed by three voxels and filled slice by slice along every axis. On images
    whose skull was removed (background 0) it is the brain, on others the head.
    """
    low, high = np.percentile(values, (2, 98))
    bright = values > low + threshold * (high - low)
    pieces, count = ndimage.label(bright)
    if count == 0:
        return np.asarray(bright, dtype=bool)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    padded = np.pad(pieces == sizes.argmax(), 4)
    closed = ndimage.binary_closing(padded, iterations=3)[4:-4, 4:-4, 4:-4]
    return np.asarray(ndimage.binary_fill_holes(closed), dtype=bool)


def tissue_classes(values: NDArray[np.float32], mask: NDArray[np.bool_], classes: int, seed: int) -> NDArray[np.uint8]:
    """Labels 1..``classes`` by k-means on the intensities inside the mask, darkest first; 0 outside.

    The centers are fitted to at most 50,000 voxels drawn by ``seed``, intensities clipped to the 1st and 99th
    percentile and starting evenly spaced between these; then every voxel gets the nearest.
    """
    inside = values[mask].astype(np.float64)
    labels = np.zeros(values.shape, dtype=np.uint8)
    if inside.size < classes:
        return labels
    inside = np.clip(inside, *np.percentile(inside, (1, 99)))
    sample = np.random.default_rng(seed).choice(inside, size=min(50_000, inside.size), replace=False)
    start = inside.min() + (np.arange(classes) + 0.5) / classes * (inside.max() - inside.min())
    centers = np.sort(kmeans2(sample[:, None], start[:, None], minit="matrix", iter=50)[0][:, 0])
    labels[mask] = np.searchsorted((centers[1:] + centers[:-1]) / 2, inside) + 1
    return labels


def _planes(mask: NDArray[np.bool_], every: int, min_area: float) -> list[int]:
    area = mask.sum(axis=(0, 1))
    return [int(z) for z in np.flatnonzero(area >= max(min_area * area.max(), 1))][::every]


@lru_cache(maxsize=4)
def make_pair(pair: DeformedPair) -> dict[str, Volume]:
    """All fields of a pair, see `deformed_cases`."""
    loaded = load_anatomy(pair.anatomy)
    where, affine = _cut(loaded, pair)
    moving, fixed, mask, tissue = (array[where] for array in (loaded.moving, loaded.fixed, loaded.mask, loaded.tissue))
    spline = RandomSpline.draw(moving.shape, pair.spacing, pair.amplitude, pair.draw)
    backward = spline.inverse()
    positions = np.indices(moving.shape, dtype=np.float64) + backward
    deformed = ndimage.map_coordinates(moving, positions, order=3, mode="constant", cval=float(moving.min()))
    deformed = np.clip(deformed, moving.min(), moving.max())  # the cubic kernel overshoots at edges
    label = ndimage.map_coordinates(tissue, positions, order=0, mode="constant", cval=0)
    source = pair.anatomy.moving
    arrays = {
        "moving": deformed[None].astype(np.float32),
        "fixed": fixed[None],
        "moving_label": label[None],
        "fixed_label": tissue[None],
        "mask": mask[None].astype(np.uint8),
        "displacement": spline.at(np.indices(moving.shape, dtype=np.float64)).astype(np.float32),
    }
    return {
        name: Volume(np.ascontiguousarray(array), affine, pair.anatomy.fixed if name == "fixed" else source)
        for name, array in arrays.items()
    }


def _cut(loaded: LoadedAnatomy, pair: DeformedPair) -> tuple[tuple[slice | int, ...], Affine]:
    """Index of the slice or of the brain's box, and its affine."""
    affine = loaded.affine.copy()
    if pair.plane is not None:
        affine[:3, 3] += affine[:3, 2] * pair.plane
        return (slice(None), slice(None), pair.plane), affine
    margin = int(np.ceil(pair.amplitude)) + 2
    box = ndimage.find_objects(loaded.mask.astype(np.uint8))[0]
    starts = [max(one.start - margin, 0) for one in box]
    where = tuple(
        slice(start, min(one.stop + margin, n)) for start, one, n in zip(starts, box, loaded.mask.shape, strict=True)
    )
    affine[:3, 3] += affine[:3, :3] @ np.array(starts, dtype=np.float64)
    return where, affine


@dataclass(frozen=True)
class RandomSpline:
    """A displacement field that is a cubic B-spline of random control points: smooth, and known between pixels too."""

    coefficients: NDArray[np.float64]
    """(D, *control points), px."""
    spacing: float
    shape: tuple[int, ...]

    @classmethod
    def draw(cls, shape: tuple[int, ...], spacing: float, amplitude: float, seed: int) -> RandomSpline:
        """Uniform random control points, scaled so that the longest vector on the pixels is ``amplitude`` px.

        Where the map x -> x + u(x) would come close to folding (determinant of its Jacobian below 0.2), the whole field
        is scaled down by tenths until it does not: a folded field has no inverse and no true answer.
        """
        dims = len(shape)
        counts = [int(np.ceil((n - 1) / spacing)) + 1 + 2 * _PAD for n in shape]
        raw = np.random.default_rng(seed).uniform(-1.0, 1.0, size=(dims, *counts))
        spline = cls(raw, spacing, shape)
        dense = spline.at(np.indices(shape, dtype=np.float64))
        scale = amplitude / max(float(np.sqrt((dense**2).sum(axis=0)).max()), 1e-12)
        gradients = np.stack([np.stack(np.gradient(component)) for component in dense])
        while scale > 0 and _smallest_determinant(scale * gradients) < 0.2:
            scale *= 0.9
        return cls(raw * scale, spacing, shape)

    def at(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Displacement (D, ...) px at positions (D, ...) px; beyond the image the edge's control points count on."""
        control = positions / self.spacing + _PAD
        return np.stack(
            [ndimage.map_coordinates(c, control, order=3, prefilter=False, mode="nearest") for c in self.coefficients]
        )

    def inverse(self) -> NDArray[np.float64]:
        """V (D, *shape) with v(y) = -u(y + v(y)): then y + v(y) is the point that u takes to y.

        By fixed-point iteration, to steps below 0.001 px; in 3D first on every second voxel, since v is as smooth as u.

        Raises:
            RuntimeError: it does not converge, which a field from `draw` does not do.
        """
        grid = np.indices(self.shape, dtype=np.float64)
        if len(self.shape) == 2:
            return self._solve(grid, -self.at(grid))
        coarse = 2.0 * np.indices([n // 2 + 2 for n in self.shape], dtype=np.float64)
        start = self._solve(coarse, -self.at(coarse))
        return self._solve(
            grid, np.stack([ndimage.map_coordinates(v, grid / 2, order=3, mode="nearest") for v in start])
        )

    def _solve(self, points: NDArray[np.float64], backward: NDArray[np.float64]) -> NDArray[np.float64]:
        """Iterate v <- -u(points + v) where it has not settled yet, averaging old and new if that takes long."""
        points, solution = points.reshape(len(points), -1), backward.reshape(len(points), -1).copy()
        active = np.arange(points.shape[1])
        for step in range(200):
            old = solution[:, active]
            new = -self.at(points[:, active] + old)
            moved = np.abs(new - old).max(axis=0)
            solution[:, active] = new if step < 20 else (new + old) / 2
            active = active[moved >= _SETTLED_PX]
            if not active.size:
                return solution.reshape(backward.shape)
        raise RuntimeError(f"the deformation could not be inverted, {moved.max():.3f} px are left")


def _smallest_determinant(gradients: NDArray[np.float64]) -> float:
    """Smallest determinant of identity + gradients (D, D, *spatial); below 0 the map folds."""
    dims = gradients.shape[0]
    rows = gradients + np.eye(dims).reshape(dims, dims, *[1] * dims)
    if dims == 2:
        return float((rows[0, 0] * rows[1, 1] - rows[0, 1] * rows[1, 0]).min())
    return float((rows[0] * np.cross(rows[1], rows[2], axis=0)).sum(axis=0).min())
