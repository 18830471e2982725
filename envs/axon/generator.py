"""Synthetic axons: a smooth curve through a constrained random walk, drawn with noise.

The paper (Dai et al., MIDL 2019, sec. 4.1) names five settings and shows them, but prints no numbers: "polynomial
spline fitted to a constrained random walk", a Gaussian background, brightness and noise like their microscopy images.
The numbers here are this project's, on the scale of 8-bit images; mean and spread of the background follow the gamma
fit of the paper's figure 4.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate, ndimage

from envs.axon.intensity import by_percentile
from envs.axon.polyline import resample
from envs.axon.scene import Scene, line_map

Range = tuple[float, float]
"""Drawn evenly from this interval, once per image."""


@dataclass(frozen=True, kw_only=True)
class AxonSettings:
    """How synthetic images look. Gray values are those of 8-bit images."""

    size_px: int = 128
    """Height and width of the image."""
    num_points: tuple[int, int] = (8, 14)
    """Fewest and most points of the walk."""
    step_px: Range = (8.0, 16.0)
    """Length of each of its steps."""
    turn_deg: float = 25.0
    """Standard deviation of the change of heading per step."""
    max_turn_deg: float = 60.0
    """Sharper turns are not drawn."""
    border_px: float = 8.0
    """The walk keeps this far from the border."""
    clearance_px: float = 10.0
    """And this far from where it has been."""
    amplitude: Range = (80.0, 80.0)
    """Brightness of the axon's middle over the background."""
    width_px: Range = (1.2, 1.2)
    """Standard deviation of its Gaussian profile."""
    gain_variation: float = 0.2
    """Slow change of brightness along it, as a fraction."""
    background: Range = (12.0, 12.0)
    """Mean gray value of the background."""
    noise: Range = (8.0, 8.0)
    """Standard deviation of Gaussian noise."""
    photons: Range = (0.0, 0.0)
    """Photons counted where the image is brightest; few mean strong Poisson noise. 0 leaves it out."""
    blur_px: Range = (0.0, 0.0)
    """Gaussian blur after the photons are counted, which gives their noise a structure."""
    shading: Range = (0.0, 0.0)
    """Amplitude of slow variation of the background."""
    num_others: tuple[int, int] = (0, 0)
    """Fewest and most further axons that may cross."""
    num_gaps: tuple[int, int] = (0, 0)
    """Fewest and most places where the axon fades over a few pixels."""


SETTINGS: Mapping[str, AxonSettings] = {
    "SI": AxonSettings(),
    "SI-RC": AxonSettings(amplitude=(40.0, 40.0)),
    "SI-W": AxonSettings(width_px=(2.5, 2.5)),
    "SI-EN": AxonSettings(noise=(16.0, 16.0)),
    "SI-SN": AxonSettings(noise=(0.0, 0.0), photons=(20.0, 20.0), blur_px=(0.8, 0.8)),
    "shifted": AxonSettings(
        amplitude=(40.0, 40.0), noise=(4.0, 4.0), photons=(15.0, 15.0), num_others=(1, 3), num_gaps=(0, 2)
    ),
    "mixed": AxonSettings(
        amplitude=(25.0, 120.0), width_px=(0.8, 3.0), gain_variation=0.3, noise=(2.0, 14.0), photons=(12.0, 80.0),
        blur_px=(0.0, 1.0), shading=(0.0, 15.0), num_others=(0, 4), num_gaps=(0, 3), turn_deg=30.0, max_turn_deg=75.0
    ),
}  # fmt: skip
"""The paper's five settings: standard, reduced contrast, wide, extra noise, structured noise. Beside them `shifted`, a
domain apart from SI with crossings and gaps, and `mixed`, everything at once, for trackers meant for any image."""


def generate(settings: AxonSettings, seed: int, *, name: str = "") -> Scene:
    """Draw one image, gray values prepared by `by_percentile`; the same for the same settings and seed."""
    raw, centreline = draw(settings, seed)
    return Scene(by_percentile(raw), centreline, name or f"synthetic {seed}")


def draw(settings: AxonSettings, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """An image as a microscope would give it, (H, W) float32 on the 8-bit scale, and the axon's centreline (n, 2)."""
    rng = np.random.default_rng(seed)
    shape = (settings.size_px, settings.size_px)
    amplitude, width = rng.uniform(*settings.amplitude), rng.uniform(*settings.width_px)
    centreline = _curve(settings, rng)
    signal = _profile(
        settings, centreline, shape, amplitude, width, rng, int(rng.integers(*_inclusive(settings.num_gaps)))
    )
    for _ in range(int(rng.integers(*_inclusive(settings.num_others)))):
        other = _curve(replace(settings, num_points=(4, 10), border_px=1.0), rng)
        dimmer = amplitude * rng.uniform(0.5, 1.1)
        signal = np.maximum(signal, _profile(settings, other, shape, dimmer, width * rng.uniform(0.7, 1.3), rng, 0))
    image = rng.uniform(*settings.background) + signal
    if settings.shading[1] > 0:
        coarse = rng.normal(size=(4, 4))
        image = image + rng.uniform(*settings.shading) * ndimage.zoom(
            coarse, settings.size_px / 4, order=3, mode="nearest"
        )
    return _noisy(settings, image, rng), resample(centreline, 1.0)


def _inclusive(bounds: tuple[int, int]) -> tuple[int, int]:
    return bounds[0], bounds[1] + 1


def _curve(settings: AxonSettings, rng: np.random.Generator) -> NDArray[np.float64]:
    while True:
        walk = _walk(settings, rng)
        if walk is None:
            continue
        spline, _ = interpolate.splprep(walk.T, k=3, s=0)
        curve = resample(np.stack(interpolate.splev(np.linspace(0, 1, 20 * len(walk)), spline), axis=1), 0.25)
        if curve.min() >= 1 and curve.max() <= settings.size_px - 2:  # a cubic may swing out between its points
            return curve


def _walk(settings: AxonSettings, rng: np.random.Generator) -> NDArray[np.float64] | None:
    low, high = settings.border_px, settings.size_px - 1 - settings.border_px
    points = [rng.uniform(low, high, 2)]
    heading = rng.uniform(0, 2 * np.pi)
    for _ in range(int(rng.integers(*_inclusive(settings.num_points))) - 1):
        for _ in range(8):
            turn = np.deg2rad(rng.normal(0, settings.turn_deg))
            to = heading + turn
            step = rng.uniform(*settings.step_px)
            point = points[-1] + step * np.array([np.cos(to), np.sin(to)])
            inside = low <= point.min() and point.max() <= high
            if (
                abs(turn) <= np.deg2rad(settings.max_turn_deg)
                and inside
                and _clear(points, point, settings.clearance_px)
            ):
                points.append(point)
                heading = to
                break
        else:
            break
    return np.array(points) if len(points) >= max(4, settings.num_points[0] // 2) else None


def _clear(points: list[NDArray[np.float64]], point: NDArray[np.float64], clearance: float) -> bool:
    """Whether the step to ``point`` stays away from the walk before its last step."""
    if len(points) < 2:
        return True
    earlier = resample(np.array(points), 2.0)[: -int(clearance)] if len(points) > 2 else np.array(points[:1])
    ahead = np.linspace(points[-1], point, 5)[1:]
    return not len(earlier) or bool((((ahead[:, None] - earlier[None]) ** 2).sum(-1) >= clearance**2).all())


def _profile(
    settings: AxonSettings,
    curve: NDArray[np.float64],
    shape: tuple[int, int],
    amplitude: float,
    width: float,
    rng: np.random.Generator,
    num_gaps: int,
) -> NDArray[np.float64]:
    line = line_map(curve, shape)
    count = len(line.points)
    knots = rng.uniform(-1, 1, max(4, count // 80))
    gain = 1 + settings.gain_variation * np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(knots)), knots)
    for _ in range(num_gaps):
        centre, half = rng.uniform(0.15, 0.85) * count, rng.uniform(4, 16)  # quarter pixels: gaps of 2 to 8 px
        gain *= 1 - 0.9 * np.exp(-(((np.arange(count) - centre) / half) ** 4))
    return amplitude * gain[line.nearest] * np.exp(-(line.distance.astype(np.float64) ** 2) / (2 * width**2))


def _noisy(settings: AxonSettings, image: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    if settings.photons[1] > 0:
        peak = rng.uniform(*settings.photons)
        scale = peak / max(image.max(), 1e-6)
        image = rng.poisson(image.clip(0) * scale) / scale
    if settings.blur_px[1] > 0:
        image = ndimage.gaussian_filter(image, rng.uniform(*settings.blur_px))
    noise = rng.uniform(*settings.noise)
    return (image + noise * rng.standard_normal(image.shape)).clip(0, 255).astype(np.float32)


class SyntheticScenes:
    """``count`` different synthetic images, each drawn when it is first asked for and kept while there is room.

    Args:
        settings: how they look; a name of `SETTINGS` or one's own.
        count: how many different ones.
        seed: image i of one seed has nothing in common with image i of another.
        keep: how many stay in memory.
        prepare: from gray values to 0 .. 1.
    """

    def __init__(
        self,
        settings: AxonSettings | str = "SI",
        count: int = 32_000,
        seed: int = 0,
        *,
        keep: int = 1024,
        prepare: Callable[[NDArray[np.float32]], NDArray[np.float32]] = by_percentile,
    ) -> None:
        if isinstance(settings, str) and settings not in SETTINGS:
            raise ValueError(f"there is no setting {settings!r}; there are {', '.join(SETTINGS)}")
        self.settings = SETTINGS[settings] if isinstance(settings, str) else settings
        self.count = count
        self.seed = seed
        self.keep = keep
        self.prepare = prepare
        self._made: OrderedDict[int, Scene] = OrderedDict()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Scene:
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        scene = self._made.get(index)
        if scene is None:
            # One sequence per (seed, index): neighbouring seeds do not share images.
            key = int(np.random.SeedSequence([self.seed, index]).generate_state(1, np.uint64)[0])
            raw, centreline = draw(self.settings, key)
            scene = Scene(self.prepare(raw), centreline, f"synthetic {self.seed}/{index}")
            self._made[index] = scene
            if len(self._made) > self.keep:
                self._made.popitem(last=False)
        self._made.move_to_end(index)
        return scene
