"""What trackers are given and what they answer."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.axon.options import FRAMES, WINDOW_PX, TrackingOptions


def observation_space() -> spaces.Dict:
    """``views`` for the actor, (12, 11, 11), ``centreline`` for a critic in training, (4, 11, 11); see `Trackers`."""
    window = (WINDOW_PX, WINDOW_PX)
    return spaces.Dict({
        "views": spaces.Box(0.0, 1.0, (3 * FRAMES, *window), np.float32),
        "centreline": spaces.Box(0.0, 1.0, (FRAMES, *window), np.float32),
    })  # fmt: skip


def action_space(options: TrackingOptions) -> spaces.Box:
    """A displacement (x, y) in px."""
    return spaces.Box(-options.max_step_px, options.max_step_px, (2,), np.float32)
