"""A synthetic abdomen in two contrasts: a body and six organs, every subject another smooth deformation of one atlas.

Stands in for unpaired CT and MR slices with organ labels (SUTS, Blendowski & Heinrich, MIDL 2019). The two contrasts
order the organs differently, MR carries a bias field and shows structures that CT does not, and both are noisy: the
private structures and the bias are what hand-made descriptors stumble over. The true map of every subject to the atlas
is part of the case, so that the displacement between any two subjects is known.

Axes run to the patient's Right, Anterior and Superior side; the 2D phantom is a coronal slice (Right, Superior) by the
same code. All lengths are given in pixels of an image of 96 pixels a side and scale with its size.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medray.data.case import Case, Volume

FloatArray = NDArray[np.float64]
Contrast = Literal["ct", "mr"]

ORGANS = ("liver", "spleen", "left_kidney", "right_kidney", "left_psoas", "right_psoas")
"""Label values 1 to 6 in this order; 0 is everything else."""

_CENTERS = {  # fractions of the field of view along Right, Anterior, Superior
    "body": (0.50, 0.50, 0.50),
    "liver": (0.67, 0.56, 0.68),
    "spleen": (0.27, 0.42, 0.69),
    "left_kidney": (0.29, 0.38, 0.42),
    "right_kidney": (0.71, 0.38, 0.39),
    "left_psoas": (0.42, 0.40, 0.32),
    "right_psoas": (0.58, 0.40, 0.32),
}
_RADII = {
    "body": (0.44, 0.34, 0.47),
    "liver": (0.18, 0.20, 0.14),
    "spleen": (0.09, 0.12, 0.11),
    "left_kidney": (0.065, 0.07, 0.10),
    "right_kidney": (0.065, 0.07, 0.10),
    "left_psoas": (0.045, 0.05, 0.16),
    "right_psoas": (0.045, 0.05, 0.16),
}
_BODY_VALUE: dict[Contrast, float] = {"ct": 0.45, "mr": 0.70}
_ORGAN_VALUES: dict[Contrast, tuple[float, ...]] = {
    "ct": (0.75, 0.70, 0.90, 0.90, 0.60, 0.60),
    "mr": (0.35, 0.15, 0.25, 0.30, 0.55, 0.50),
}
_UNITS: dict[Contrast, tuple[float, float]] = {"ct": (300.0, -160.0), "mr": (1000.0, 0.0)}
"""Scale and offset from the values above to HU (air at the low end of an abdominal window) and to scanner units."""

_REFERENCE_SIZE = 96
_FIELD_OF_VIEW_MM = 384.0  # 4 mm pixels at the reference size
_WARP_SIGMA, _WARP_PEAK = 12.0, 8.0
_SCALE_SPREAD, _SHIFT_SPREAD = 0.06, 2.5
_EDGE_WIDTH = 0.7  # half width of the blur across an organ's border, as of partial volume
_TEXTURE, _TEXTURE_SIGMA = 0.03, 1.5
_BLOB_SIGMA, _BIAS_SIGMA = 3.0, 24.0
_MIN_SIZE = 32
_MARGIN = 1.5  # sigmas of noise beyond either border, so that opposite borders have little in common after wrapping


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One subject and how it is imaged; everything that its fields depend on.

    Attributes:
        seed: of the whole phantom.
        group: 0 or 1, which of the two unpaired groups of subjects it belongs to.
        index: number within the group.
        contrast: how tissue is shown.
        size: pixels along every axis.
        dims: 2 or 3.
        noise: standard deviation of the pixel noise; organ contrasts are 0.1 to 0.5.
        bias: amplitude of the multiplicative bias field, MR only.
        blobs: contrast of the structures that only MR shows.
    """

    seed: int
    group: int
    index: int
    contrast: Contrast
    size: int
    dims: int
    noise: float
    bias: float
    blobs: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along each axis."""
        return (self.size,) * self.dims

    @property
    def pixels(self) -> float:
        """Pixels of this image per pixel of the reference size."""
        return self.size / _REFERENCE_SIZE

    def random(self, stream: str) -> np.random.Generator:
        """One stream per ingredient: turning the noise off leaves the anatomy as it is."""
        return np.random.default_rng([self.seed, self.group, self.index, *stream.encode()])


@dataclass(frozen=True)
class AbdomenField:
    """One field of a subject, generated when loaded."""

    subject: Subject
    name: Literal["image", "label", "to_atlas"]

    def load(self) -> Volume:
        """The image (1 channel, float32), the label map (1 channel, int16) or the map to the atlas.

        The map is a displacement a in pixels, one channel per array axis: the subject's tissue at x lies at x + a(x)
        in the atlas.
        """
        to_atlas = _to_atlas(self.subject)
        if self.name == "to_atlas":
            array: NDArray[Any] = to_atlas.astype(np.float32)
        elif self.name == "label":
            array = _label(self.subject, to_atlas)[None]
        else:
            array = _image(self.subject, to_atlas).astype(np.float32)[None]
        return Volume(array, _affine(self.subject), source=f"phantom:abdomen {self.fingerprint()}")

    def fingerprint(self) -> str:
        """Every parameter by name."""
        values = (f"{f.name}={getattr(self.subject, f.name)}" for f in fields(self.subject))
        return f"{self.name} {' '.join(values)}"


def cases(
    n: int = 10,
    seed: int = 0,
    size: int = 96,
    dims: Literal[2, 3] = 2,
    hard: bool = True,
    monomodal: bool = False,
    noise: float | None = None,
    bias: float | None = None,
    blobs: float | None = None,
) -> tuple[Case, ...]:
    """Subjects of two unpaired groups, each imaged once.

    Args:
        n: subjects per modality. Subject i does not depend on n.
        seed: of everything.
        size: pixels along each axis, over a field of view of 384 mm; 48 to 64 are plenty in 3D.
        dims: 2 for coronal slices, 3 for volumes.
        hard: noise 0.12, bias 0.5 and blobs 0.3; off: none of them.
        monomodal: show both groups as CT, under the modalities ``ct`` and ``ct2``.
        noise: standard deviation of the pixel noise, in place of what ``hard`` says.
        bias: amplitude of the bias field of MR, below 1, likewise.
        blobs: contrast of the structures that only MR shows, likewise.

    Returns:
        2 n cases with the fields ``image``, ``label`` (values 1 to 6, see `ORGANS`) and ``to_atlas`` (see
        `AbdomenField`), and the attribute ``modality``. CT is in HU, MR in arbitrary units.

    Raises:
        ValueError: a parameter is out of range.
    """
    if n < 1:
        raise ValueError(f"n counts subjects per modality and must be at least 1, got {n}")
    if dims not in (2, 3):
        raise ValueError(f"dims is 2 or 3, got {dims}")
    if size < _MIN_SIZE:
        raise ValueError(f"size must be at least {_MIN_SIZE} pixels for the organs to show, got {size}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    strengths = {"noise": (noise, 0.12), "bias": (bias, 0.5), "blobs": (blobs, 0.3)}
    chosen = {name: (default * hard if given is None else given) for name, (given, default) in strengths.items()}
    for name, value in chosen.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must lie in [0, 1), got {value}")
    groups: tuple[tuple[str, Contrast], ...] = (("ct", "ct"), ("ct2", "ct") if monomodal else ("mr", "mr"))
    return tuple(
        _case(
            modality,
            Subject(seed=seed, group=group, index=index, contrast=contrast, size=size, dims=dims, **chosen),
        )
        for group, (modality, contrast) in enumerate(groups)
        for index in range(n)
    )


def _case(modality: str, subject: Subject) -> Case:
    name = f"{modality}/subject{subject.index:03d}"
    names: tuple[Literal["image", "label", "to_atlas"], ...] = ("image", "label", "to_atlas")
    return Case(
        id=name,
        patient=f"{modality}-subject{subject.index:03d}",
        fields={field_name: AbdomenField(subject, field_name) for field_name in names},
        attributes={"modality": modality, "labels": " ".join(f"{i}={name}" for i, name in enumerate(ORGANS, start=1))},
    )


def _affine(subject: Subject) -> FloatArray:
    """Index to mm, RAS+, world zero in the middle. In 2D the columns are Right, Superior and, across, Posterior."""
    spacing = _FIELD_OF_VIEW_MM / subject.size
    affine = np.eye(4)
    affine[:3, :3] = (
        np.diag([spacing] * 3) if subject.dims == 3 else spacing * np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    )
    affine[:3, 3] = -affine[:3, : subject.dims].sum(1) * (subject.size - 1) / 2
    return affine


def _smooth_noise(random: np.random.Generator, shape: tuple[int, ...], sigma: float) -> FloatArray:
    """Gaussian-smoothed white noise of mean 0 and variance 1, the same everywhere up to the border."""
    margin = int(np.ceil(_MARGIN * sigma))
    white = random.normal(size=tuple(length + 2 * margin for length in shape))
    smooth = ndimage.gaussian_filter(white, sigma, mode="wrap")
    inner = smooth[tuple(slice(margin, margin + length) for length in shape)]
    return np.asarray(inner / smooth.std())


def _to_atlas(subject: Subject) -> FloatArray:
    """Displacement to the atlas in pixels, (D, *shape): a smooth field, a scale about the middle, and a shift."""
    random, pixels = subject.random("anatomy"), subject.pixels
    scale = random.normal(1.0, _SCALE_SPREAD)
    shift = random.normal(0.0, _SHIFT_SPREAD * pixels, size=subject.dims).reshape(-1, *(1,) * subject.dims)
    warp = np.stack([_smooth_noise(random, subject.shape, _WARP_SIGMA * pixels) for _ in range(subject.dims)])
    warp *= _WARP_PEAK * pixels / np.linalg.norm(warp, axis=0).max()
    from_middle = np.indices(subject.shape) - (subject.size - 1) / 2
    return np.asarray(warp + (scale - 1.0) * from_middle + shift)


def _depth(subject: Subject, atlas: FloatArray, name: str) -> FloatArray:
    """About the distance in pixels to an ellipsoid's border, positive inside, at atlas positions (D, *shape)."""
    axes = (0, 2) if subject.dims == 2 else (0, 1, 2)
    across = (-1, *(1,) * subject.dims)
    center = (np.array(_CENTERS[name])[list(axes)] * subject.size - 0.5).reshape(across)
    radii = (np.array(_RADII[name])[list(axes)] * subject.size).reshape(across)
    return np.asarray((1.0 - np.linalg.norm((atlas - center) / radii, axis=0)) * radii.min())


def _label(subject: Subject, to_atlas: FloatArray) -> NDArray[np.int16]:
    """Organ values, (*shape). The ellipsoids do not overlap."""
    atlas = np.indices(subject.shape) + to_atlas
    label = np.zeros(subject.shape, dtype=np.int16)
    for value, name in enumerate(ORGANS, start=1):
        label[_depth(subject, atlas, name) > 0] = value
    return label


def _image(subject: Subject, to_atlas: FloatArray) -> FloatArray:
    """Tissue with soft borders, then what no other image shares: texture, blobs, bias, noise. HU or scanner units."""
    atlas, shape, pixels = np.indices(subject.shape) + to_atlas, subject.shape, subject.pixels

    def soft(name: str) -> FloatArray:
        return np.asarray(
            1.0 / (1.0 + np.exp(-np.clip(_depth(subject, atlas, name) / (_EDGE_WIDTH * pixels), -30, 30)))
        )

    base, body = _BODY_VALUE[subject.contrast], soft("body")
    tissue = np.full(shape, base)
    for name, value in zip(ORGANS, _ORGAN_VALUES[subject.contrast], strict=True):
        tissue += (value - base) * soft(name)
    tissue += _TEXTURE * _smooth_noise(subject.random("texture"), shape, _TEXTURE_SIGMA * pixels)
    if subject.contrast == "mr":
        tissue += subject.blobs * _blobs(subject)
        bias = _smooth_noise(subject.random("bias"), shape, _BIAS_SIGMA * pixels)
        tissue *= 1.0 + subject.bias * bias / np.abs(bias).max()
    values = tissue * body + subject.noise * subject.random("noise").normal(size=shape)
    scale, offset = _UNITS[subject.contrast]
    return np.asarray(scale * values + offset)


def _blobs(subject: Subject) -> FloatArray:
    """Bright and dark spots, in [-1, 1], over about a third of the image: this subject's bowel and vessels."""
    noise = _smooth_noise(subject.random("blobs"), subject.shape, _BLOB_SIGMA * subject.pixels)
    return np.asarray((np.tanh((noise - 1.0) / 0.2) + np.tanh((noise + 1.0) / 0.2)) / 2)
