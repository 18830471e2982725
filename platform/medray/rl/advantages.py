"""Generalized advantage estimation over complete episodes."""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter


def advantages(
    rewards: np.ndarray, values: np.ndarray, *, terminated: bool, gamma: float, lambda_: float
) -> np.ndarray:
    """Advantages of one episode's steps.

    Args:
        rewards: (T,).
        values: (T + 1,), the critic's, of the first to the final observation. The final one counts where the episode
            was cut off (truncated), since it would have gone on; nothing follows one that terminated.
        terminated: whether it ended by itself.
        gamma: discount per step.
        lambda_: decay of the estimator.

    Returns:
        (T,) float32. Added to ``values[:-1]`` they are the critic's targets.

    Source: Schulman et al., ICLR 2016, eq. 16; A_t = delta_t + gamma lambda A_{t+1}.
    """
    following = values[1:].astype(np.float64)
    if terminated:
        following[-1] = 0.0
    delta = rewards + gamma * following - values[:-1]
    found: np.ndarray = lfilter([1.0], [1.0, -gamma * lambda_], delta[::-1])[::-1]
    return found.astype(np.float32)
