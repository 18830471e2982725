"""Rules of the tracking environment; the defaults are the paper's, where it states them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WINDOW_PX = 11
"""Side of every view, in samples."""
FRAMES = 4
"""Time steps an observation holds: this one and the three before it."""
REWARD_SAMPLES = 100
"""Points on the segment travelled, over which the centreline image is averaged (algorithm 1, line 8)."""


@dataclass(frozen=True, kw_only=True)
class TrackingOptions:
    """What a tracker sees, how it is paid and when an episode ends."""

    max_step_px: float = 4.0
    """A displacement reaches from minus to plus this, along each axis (sec. 3)."""
    max_steps: int = 200
    """An episode is cut off after so many steps (sec. 3)."""
    reach_px: float = 3.0
    """The far end counts as reached from this close; the paper names no distance."""
    lost_px: float = 0.0
    """An episode also ends further than this from the centreline, at most 12; 0, the paper's rule, lets it wander."""
    reward: Literal["mean", "integral", "sum"] = "mean"
    """What a step earns from the centreline image under its segment: the mean over 100 points ("average integral of
    intensity", sec. 3), that times the length travelled over ``max_step_px``, or the sum that algorithm 1 prints. The
    first and last pay per step, so creeping pays; the integral pays per pixel."""
    centreline_px: float = 1.0
    """Standard deviation of the Gaussian profile in the centreline image; 0 is a line one pixel wide."""
    scales: tuple[float, ...] = (1.0, 2.0)
    """Sample spacing of the image views, px: full resolution, and twice the window at half of it."""
    wide_blur: float = 0.0
    """Gaussian blur of the image before a view at a spacing above 1 px is sampled, as a fraction of that spacing; about
    half of it keeps thin lines and their noise from slipping between the samples. 0 samples the image as it is."""
    history: bool = True
    """Whether one view shows the path travelled. Without it the view is there and empty."""
    heading: bool = True
    """Whether the path starts with a stub of 6 px that arrives from behind, as the only sign of the initial direction;
    the paper has such a direction and does not say how networks see it. Without it the first view is empty."""
    heading_noise_deg: float = 0.0
    """Standard deviation of the error of the initial direction in training."""
    start_noise_px: float = 0.0
    """Standard deviation of the error of the start point in training, along each axis."""
    either_end: bool = True
    """Start from either end of the centreline, drawn per episode, or always from its first point."""
    view_scale: float = 1.0
    """Widens all views: 1.5 samples windows of 16.5 px at 11 points, as the paper does on real images."""

    def __post_init__(self) -> None:
        for name in ("max_step_px", "max_steps", "reach_px", "view_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0, got {getattr(self, name)}")
        if self.wide_blur < 0:
            raise ValueError(f"wide_blur is 0 or more, got {self.wide_blur}")
        if not 0 <= self.lost_px <= 12:
            raise ValueError(f"lost_px is 0 (never) to 12, got {self.lost_px}")
        if not 1 <= len(self.scales) <= 2 or min(self.scales) <= 0:
            raise ValueError(f"scales are one or two sample spacings in px, got {self.scales}")
