"""The environment's name for `gymnasium.make`."""

from __future__ import annotations

import gymnasium

ID = "medray/AxonTracking-v0"


def register() -> None:
    """Make `medray/AxonTracking-v0` known to Gymnasium, once."""
    if ID not in gymnasium.registry:
        gymnasium.register(
            id=ID,
            entry_point="envs.axon.single:AxonTrackingEnv",
            vector_entry_point="envs.axon.batched:AxonTrackingVectorEnv",
        )
