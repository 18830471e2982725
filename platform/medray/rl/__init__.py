"""Reinforcement learning: policies as RLlib modules, and PPO as the engine runs it."""
