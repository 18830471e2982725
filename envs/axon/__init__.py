"""Tracking of thin structures in 2D images as a Gymnasium environment.

Importing this registers `medray/AxonTracking-v0`: ``gymnasium.make("envs.axon:medray/AxonTracking-v0")``.
"""

from envs.axon.registration import register

register()
