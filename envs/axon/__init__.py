"""Tracking of thin structures in 2D images as a Gymnasium environment.

Importing this registers `medray/AxonTracking-v0`: ``gymnasium.make("envs.axon:medray/AxonTracking-v0")``, or many
trackers at once with ``gymnasium.make_vec("envs.axon:medray/AxonTracking-v0", num_envs=256,
vectorization_mode="vector_entry_point")``.

x is the column and y the row, in pixels, pixel centres at integers, everywhere.
"""

from envs.axon.batched import AxonTrackingVectorEnv
from envs.axon.generator import SETTINGS, AxonSettings, SyntheticScenes, generate
from envs.axon.options import TrackingOptions
from envs.axon.registration import register
from envs.axon.scene import Scene
from envs.axon.single import AxonTrackingEnv
from envs.axon.trackers import Trackers

__all__ = [
    "SETTINGS",
    "AxonSettings",
    "AxonTrackingEnv",
    "AxonTrackingVectorEnv",
    "Scene",
    "SyntheticScenes",
    "Trackers",
    "TrackingOptions",
    "generate",
    "register",
]

register()
