"""A synthetic brain as a stack of axial slices, in several MR contrasts, healthy or not, and as k-space.

Every subject is another smooth deformation of one anatomy: cerebrospinal fluid, a wavy cortical ribbon, white matter,
deep grey nuclei, two ventricles. Three kinds of data set are made of it:

``tumors``   healthy subjects, and patients with compact bright (some dark) lesions of 3 to 15 % of the brain. For
             anomaly detection: texture and noise keep a generative model from reproducing a scan exactly.
``lesions``  patients with 0 to 6 small hyperintense spots a slice, periventricular clusters and far ones, beside
             vessels and rim artefacts that look alike; many slices have none. For highly unbalanced segmentation.
``kspace``   fully sampled complex k-space of one coil, with a smooth phase and a coil's shading. For reconstruction.

Arrays run to the patient's Right, Anterior and Superior side, (size, size, slices), as `geometry.canonical` has them;
k-space is (slices, rows, columns) as raw-data files keep it. Lengths without a unit are in half fields of view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medray.data.case import Case, FieldRef, Volume

FloatArray = NDArray[np.float64]
Kind = Literal["tumors", "lesions", "kspace"]

CONTRASTS: Mapping[str, Mapping[str, float]] = {
    "t1": {"csf": 0.25, "grey": 0.60, "white": 0.85, "lesion": 0.72, "vessel": 0.95, "tumor": 0.45},
    "t2": {"csf": 1.00, "grey": 0.58, "white": 0.42, "lesion": 0.72, "vessel": 0.20, "tumor": 0.78},
    "flair": {"csf": 0.15, "grey": 0.55, "white": 0.45, "lesion": 0.85, "vessel": 0.85, "tumor": 0.80},
}
"""Mean intensity by tissue and contrast, before the subject's own variation."""

_FIELD_OF_VIEW_MM = 220.0
_SLICE_MM = 5.0
_BRAIN_RADII = (0.70, 0.86, 1.30)  # along Right, Anterior, Superior
_SLICE_RANGE = (-0.25, 0.45)  # where the stack begins and ends, from base to vertex
_EDGE_PX = 0.5  # half width of the blur across borders, as of partial volume
_RIBBON, _RIBBON_WAVE = 0.80, 0.08  # where grey matter begins, in parts of the radius, and how far it meanders
_RIM, _RIM_WAVE = 0.94, 0.03
_SUBJECT_SPREAD = 0.05  # of tissue intensities, relative
_TUMOR_AREA = (0.03, 0.15)  # parts of a slice's brain
_DARK_TUMORS = 0.2
_DARK_VALUE = 0.18
_MAX_SPOTS = 6
_SPOT_RADIUS_PX, _SPOT_SPREAD_PX = (1.0, 4.0), 0.4
_MIN_SIZE = 32
_GAMMA_SHIFT, _GAIN_SHIFT = 0.75, 1.3
_UNITS = 1000.0  # a scanner's arbitrary units
_DEFAULT_CONTRASTS: Mapping[str, str] = {"tumors": "t2", "lesions": "flair,t1", "kspace": "t1"}
_DEFAULT_NOISE: Mapping[str, float] = {"tumors": 0.03, "lesions": 0.06, "kspace": 0.01}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One subject and how it is imaged; everything its fields depend on.

    Attributes:
        kind: of the data set.
        seed: of the whole phantom.
        index: number of the subject within its group.
        patient: whether it has lesions.
        size: pixels along both axes of a slice.
        slices: number of slices.
        contrast: a key of `CONTRASTS`.
        noise: standard deviation of the noise; white matter in T1 is 0.85.
        bias: amplitude of the multiplicative bias field (in k-space: of the coil's shading).
        texture: amplitude of fine tissue texture.
        empty: share of slices without a spot (kind lesions).
        shift: whether intensities went through another scanner's gain and gamma.
    """

    kind: Kind
    seed: int
    index: int
    patient: bool
    size: int
    slices: int
    contrast: str
    noise: float
    bias: float
    texture: float
    empty: float
    shift: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Pixels along each axis."""
        return (self.size, self.size, self.slices)

    @property
    def pixel(self) -> float:
        """Pixel size in half fields of view."""
        return 2.0 / self.size

    def random(self, stream: str) -> np.random.Generator:
        """One stream per ingredient: another contrast or noise leaves the anatomy as it is."""
        return np.random.default_rng([self.seed, self.index, int(self.patient), *self.kind.encode(), *stream.encode()])


@dataclass(frozen=True)
class BrainField:
    """One field of a subject, generated when loaded."""

    subject: Subject
    name: Literal["image", "label", "kspace"]

    def load(self) -> Volume | NDArray[np.complex64]:
        """The image (1, X, Y, Z) in scanner units, the label map (values 0, 1), or k-space (Z, rows, columns)."""
        if self.name == "kspace":
            return _kspace(self.subject)
        if self.name == "label":
            array: NDArray[Any] = (_lesion_part(self.subject) >= 0.5).astype(np.uint8)
        else:
            array = _image(self.subject).astype(np.float32)
        return Volume(array[None], _affine(self.subject), source=f"phantom:brain {self.fingerprint()}")

    def fingerprint(self) -> str:
        """Every parameter by name."""
        values = (f"{f.name}={getattr(self.subject, f.name)}" for f in fields(self.subject))
        return f"{self.name} {' '.join(values)}"


@dataclass(frozen=True)
class _Anatomy:
    """Where a subject's tissues are, as memberships in [0, 1], (size, size, slices).

    Attributes:
        tissues: csf, grey and white; they sum to ``brain``.
        brain: everything inside the skull.
        radius: 0 in the middle, 1 at the border of the brain.
        ventricles: the part of csf in the middle.
    """

    tissues: Mapping[str, FloatArray]
    brain: FloatArray
    radius: FloatArray
    ventricles: FloatArray


def cases(
    kind: Kind = "tumors",
    n: int = 20,
    patients: int = 0,
    seed: int = 0,
    size: int = 62,
    slices: int = 4,
    modalities: str = "",
    noise: float | None = None,
    bias: float = 0.15,
    texture: float = 0.05,
    empty: float = 0.4,
    shift: bool = False,
) -> tuple[Case, ...]:
    """Subjects, each a stack of slices in one or more contrasts.

    Args:
        kind: what the data set is for, see the module's text.
        n: subjects; with ``kind=tumors`` healthy ones. Subject i does not depend on n.
        patients: with ``kind=tumors`` subjects with a tumour, beside the n healthy ones.
        seed: of everything.
        size: pixels along both axes of a slice, over a field of view of 220 mm.
        slices: slices per subject, 5 mm apart.
        modalities: contrasts of `CONTRASTS` with a comma between them; t2 for tumors, flair,t1 for lesions and t1 for
            k-space if left out. Each is a case of its own, as files of a patient are.
        noise: standard deviation of the noise; 0.03, 0.06 and 0.01 for the three kinds if left out.
        bias: amplitude of the bias field, below 1.
        texture: amplitude of fine texture that no model can predict, below 1.
        empty: with ``kind=lesions`` the share of slices without lesion.
        shift: with ``kind=tumors``: render the patients with another gain and gamma.

    Returns:
        Cases with the field ``image``, and ``label`` where there are lesions; with ``kind=kspace`` the field
        ``kspace``. Attributes: modality, and with ``kind=tumors`` class (healthy or patient).

    Raises:
        ValueError: a parameter is out of range.
    """
    contrasts = (modalities or _DEFAULT_CONTRASTS[kind]).split(",")
    unknown = [name for name in contrasts if name not in CONTRASTS]
    if unknown:
        raise ValueError(f"modalities are some of {', '.join(CONTRASTS)}, got {unknown[0]!r}")
    strengths = {"noise": _DEFAULT_NOISE[kind] if noise is None else noise, "bias": bias, "texture": texture}
    for name, value in {**strengths, "empty": empty}.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must lie in [0, 1), got {value}")
    if n < 0 or patients < 0 or n + patients < 1 or slices < 1 or seed < 0:
        raise ValueError("n, patients and seed must not be negative, and there must be a subject and a slice")
    if size < _MIN_SIZE:
        raise ValueError(f"size must be at least {_MIN_SIZE} pixels for the ventricles to show, got {size}")
    groups = [(n, kind == "lesions"), (patients if kind == "tumors" else 0, True)]
    subjects = [
        Subject(
            kind=kind,
            seed=seed,
            index=index,
            patient=patient,
            size=size,
            slices=slices,
            contrast=contrast,
            empty=empty,
            shift=shift and patient,
            **strengths,
        )
        for count, patient in groups
        for contrast in contrasts
        for index in range(count)
    ]
    return tuple(_case(subject) for subject in subjects)


def _case(subject: Subject) -> Case:
    group = "patient" if subject.kind == "tumors" and subject.patient else "subject"
    person = f"{group}{subject.index:03d}"
    names: tuple[Literal["image", "label", "kspace"], ...] = ("image", "label") if subject.patient else ("image",)
    if subject.kind == "kspace":
        names = ("kspace",)
    attributes = {"modality": subject.contrast}
    if subject.kind == "tumors":
        attributes["class"] = "patient" if subject.patient else "healthy"
    refs: dict[str, FieldRef] = {name: BrainField(subject, name) for name in names}
    return Case(f"{subject.contrast}/{person}", person, refs, attributes)


def _affine(subject: Subject) -> FloatArray:
    """Index to mm, RAS+, world zero in the middle."""
    spacing = np.array([_FIELD_OF_VIEW_MM / subject.size] * 2 + [_SLICE_MM])
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -spacing * (np.array(subject.shape) - 1) / 2
    return affine


def _noise(random: np.random.Generator, shape: tuple[int, ...], sigma_px: float) -> FloatArray:
    """Gaussian-smoothed white noise of mean 0 and variance 1; slices are a fifth as related as neighbours in a slice.

    It wraps around the border; the brain does not reach it.
    """
    sigma = (sigma_px, sigma_px, *(sigma_px / 5,) * (len(shape) - 2))
    smooth = ndimage.gaussian_filter(random.normal(size=shape), sigma, mode="wrap")
    return np.asarray((smooth - smooth.mean()) / smooth.std())


def _soft(depth: FloatArray, subject: Subject) -> FloatArray:
    """From 0 outside to 1 inside across a border, given the depth in half fields of view."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(depth / (_EDGE_PX * subject.pixel), -30, 30))))


def _anatomy(subject: Subject) -> _Anatomy:
    """The last few are kept: an image and its label, or two contrasts, are asked for one after the other."""
    return _build_anatomy(replace(subject, contrast="t1", noise=0.0, bias=0.0, texture=0.0, empty=0.0, shift=False))


def _positions(subject: Subject) -> FloatArray:
    """Atlas position of every voxel, (3, *shape): a smooth warp, a scale, a turn in the plane and a shift."""
    random = subject.random("shape")
    in_plane = (np.arange(subject.size) + 0.5) * subject.pixel - 1.0
    low, high = _SLICE_RANGE
    through = low + (high - low) * (np.arange(subject.slices) + 0.5) / subject.slices
    x, y, z = np.meshgrid(in_plane, in_plane, through, indexing="ij")
    angle = random.normal(0.0, np.deg2rad(3.0))
    scale = random.normal(1.0, 0.04, size=3)
    shift = random.normal(0.0, 0.015, size=3)
    turned = (x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle), z)
    coarse = random.normal(0.0, 0.035, size=(3, 5, 5, 3))
    zoom = np.array(subject.shape) / (5, 5, 3)
    warp = [ndimage.zoom(component, zoom, order=3, mode="nearest", grid_mode=True) for component in coarse]
    return np.stack([t * s + d + w for t, s, d, w in zip(turned, scale, shift, warp, strict=True)])


@lru_cache(maxsize=8)
def _build_anatomy(subject: Subject) -> _Anatomy:
    x, y, z = _positions(subject)
    random = subject.random("tissue")
    radii, scale_px = _BRAIN_RADII, subject.size / 64
    radius = np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2)
    width = radii[0]  # from parts of the radius to half fields of view
    brain = _soft((1.0 - radius) * width, subject)
    folds = _noise(random, subject.shape, 1.8 * scale_px)
    white = _soft((_RIBBON + _RIBBON_WAVE * folds - radius) * width, subject)
    inner = _soft((_RIM + _RIM_WAVE * _noise(random, subject.shape, 2.5 * scale_px) - radius) * width, subject)
    swelling = np.exp(random.normal(0.0, 0.2))
    ventricles = np.zeros(subject.shape)
    nuclei = np.zeros(subject.shape)
    for side in (-1, 1):
        bend = x - side * (0.13 + 0.10 * (y - 0.05) ** 2)
        horn = np.sqrt((bend / 0.065) ** 2 + ((y - 0.05) / 0.30) ** 2 + (z / 0.55) ** 2)
        ventricles = np.maximum(ventricles, _soft((1.0 - horn / swelling) * 0.065, subject))
        nucleus = np.sqrt(((x - side * 0.29) / 0.08) ** 2 + ((y - 0.08) / 0.20) ** 2 + (z / 0.35) ** 2)
        nuclei = np.maximum(nuclei, _soft((1.0 - nucleus) * 0.08, subject))
    csf = brain * np.maximum(1.0 - inner, ventricles)
    grey = (brain - csf) * np.maximum(1.0 - white, nuclei)
    return _Anatomy({"csf": csf, "grey": grey, "white": brain - csf - grey}, brain, radius, ventricles)


def _lesion_part(subject: Subject) -> FloatArray:
    """Membership in lesions, (*shape)."""
    if not subject.patient:
        return np.zeros(subject.shape)
    return _tumor(subject)[0] if subject.kind == "tumors" else _spots(subject)


def _tumor(subject: Subject) -> tuple[FloatArray, float]:
    """A compact blob with an irregular border through all slices, and whether it is dark (1) or bright (0)."""
    random, anatomy = subject.random("tumor"), _anatomy(subject)
    brain = anatomy.brain > 0.5
    wanted = random.uniform(*_TUMOR_AREA)
    angle, reach = random.uniform(0, 2 * np.pi), random.uniform(0.25, 0.55)
    center = np.array([reach * np.cos(angle) * _BRAIN_RADII[0], reach * np.sin(angle) * _BRAIN_RADII[1]])
    x, y, z = _positions(subject)
    squeeze = random.uniform(0.8, 1.25)
    distance = np.sqrt(((x - center[0]) * squeeze) ** 2 + ((y - center[1]) / squeeze) ** 2 + (0.5 * z) ** 2)
    distance += 0.04 * _noise(random, subject.shape, 4.0 * subject.size / 64)
    distance[~brain] = np.inf
    reached = np.quantile(distance[brain], wanted)
    return _soft(reached - distance, subject) * brain, float(random.random() < _DARK_TUMORS)


def _spots(subject: Subject) -> FloatArray:
    """0 to 6 small spots in each slice: half of them beside the ventricles, half far from them in white matter."""
    random, anatomy = subject.random("spots"), _anatomy(subject)
    full = max(1, round((1 - subject.empty) * subject.slices))
    part = np.zeros(subject.shape)
    white = anatomy.tissues["white"] > 0.8
    for index in random.choice(subject.slices, full, replace=False):
        far = ndimage.distance_transform_edt(anatomy.ventricles[..., index] < 0.5)
        near = white[..., index] & (far < 0.08 * subject.size)
        isolated = white[..., index] & (far > 0.16 * subject.size)
        for number in range(random.integers(1, _MAX_SPOTS + 1)):
            allowed = near if number % 2 == 0 and near.any() else isolated if isolated.any() else white[..., index]
            if allowed.any():
                part[..., index] = np.maximum(part[..., index], _spot(random, allowed, _spot_radius(random), subject))
    return part


def _spot_radius(random: np.random.Generator) -> float:
    """In pixels; most are small."""
    return float(np.clip(_SPOT_RADIUS_PX[0] + random.exponential(_SPOT_SPREAD_PX), *_SPOT_RADIUS_PX))


def _spot(random: np.random.Generator, allowed: NDArray[np.bool_], radius_px: float, subject: Subject) -> FloatArray:
    """A disc around one of the allowed pixels, (size, size)."""
    places = np.argwhere(allowed)
    center = places[random.integers(len(places))]
    distance = np.linalg.norm(np.indices(allowed.shape) - center.reshape(2, 1, 1), axis=0)
    return _soft((radius_px + 0.25 - distance) * subject.pixel, subject)


def _look_alikes(subject: Subject) -> FloatArray:
    """Vessels (dots in the sulci) and rim artefacts (arcs along the skull), as bright as lesions in FLAIR, (*shape)."""
    random, anatomy = subject.random("vessels"), _anatomy(subject)
    part = np.zeros(subject.shape)
    for index in range(subject.slices):
        radius = anatomy.radius[..., index]
        sulci = (radius > 0.84) & (radius < 0.98)
        for _ in range(random.integers(2, 6)):
            part[..., index] = np.maximum(part[..., index], _spot(random, sulci, random.uniform(0.8, 1.6), subject))
        x, y = np.indices(radius.shape) - (subject.size - 1) / 2
        for _ in range(random.integers(0, 3)):
            away = np.abs(np.angle(np.exp(1j * (np.arctan2(y, x) - random.uniform(0, 2 * np.pi)))))
            arc = (np.abs(radius - 0.97) < 0.03) & (away < random.uniform(0.1, 0.3))
            part[..., index] = np.maximum(part[..., index], 0.8 * arc)
    return part


def _tissue(subject: Subject) -> FloatArray:
    """Intensities before noise, texture and bias, (*shape)."""
    anatomy, values = _anatomy(subject), CONTRASTS[subject.contrast]
    spread = subject.random(f"intensity {subject.contrast}")
    image = np.zeros(subject.shape)
    for name, part in anatomy.tissues.items():
        image += values[name] * spread.normal(1.0, _SUBJECT_SPREAD) * part
    if subject.kind != "tumors":
        part = _look_alikes(subject)
        image += part * (values["vessel"] - image)
    if subject.patient and subject.kind == "tumors":
        part, dark = _tumor(subject)
        value = _DARK_VALUE if dark else values["tumor"] * spread.normal(1.0, _SUBJECT_SPREAD)
        image += part * (value - image)
    elif subject.patient:
        image += _spots(subject) * (values["lesion"] - image)
    return image


def _magnitude(subject: Subject) -> FloatArray:
    """Intensities with texture and bias, without noise."""
    brain = _anatomy(subject).brain
    texture = _noise(subject.random(f"texture {subject.contrast}"), subject.shape, 0.8)
    field = _noise(subject.random(f"bias {subject.contrast}"), subject.shape, 0.25 * subject.size)
    image = _tissue(subject) + subject.texture * texture * brain
    return np.asarray(np.maximum(image, 0.0) * (1.0 + subject.bias * field / np.abs(field).max()))


def _image(subject: Subject) -> FloatArray:
    """Magnitude image in scanner units: Rician noise; with tumours nothing but 0 outside the brain (skull-stripped)."""
    random = subject.random(f"noise {subject.contrast}")
    first, second = subject.noise * random.normal(size=(2, *subject.shape))
    image = np.hypot(_magnitude(subject) + first, second)
    if subject.shift:
        image = _GAIN_SHIFT * image**_GAMMA_SHIFT
    if subject.kind == "tumors":
        image = image * (_anatomy(subject).brain > 0.5)
    return _UNITS * image


def _kspace(subject: Subject) -> NDArray[np.complex64]:
    """Centred orthonormal 2D Fourier transform of each slice's complex image, (slices, rows, columns)."""
    random = subject.random("phase")
    turn = random.normal(0.0, 1.0, size=2)
    line = (np.arange(subject.size) + 0.5) * subject.pixel - 1.0
    ramp = turn[0] * line[:, None, None] + turn[1] * line[None, :, None]
    phase = ramp + 0.8 * _noise(random, subject.shape, 0.2 * subject.size)
    thermal = subject.random("noise").normal(size=(2, *subject.shape)) * subject.noise
    image = _magnitude(subject) * np.exp(1j * phase) + thermal[0] + 1j * thermal[1]
    slices = image.transpose(2, 1, 0)[:, ::-1, ::-1]  # as radiologists look at them: front up, the patient's right left
    centered = np.fft.fft2(np.fft.ifftshift(slices, axes=(1, 2)), norm="ortho")
    return np.fft.fftshift(_UNITS * centered, axes=(1, 2)).astype(np.complex64)
