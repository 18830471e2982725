"""Reinforcement learning: policies as RLlib modules, and PPO as the engine runs it."""

import logging

# RLlib warns of its own deprecated calls whenever it builds a module; nobody who runs medray can act on it.
logging.getLogger("ray._common.deprecation").setLevel(logging.ERROR)
