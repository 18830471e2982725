"""Random states as functions of a key."""

from __future__ import annotations

import random

import numpy as np
import torch

from medray.learner import seed_of


def seed_everything(*key: int | str) -> None:
    """Seed torch, NumPy and random from a key, so that draws depend on it and not on what ran before."""
    word = seed_of(*key)
    torch.manual_seed(word)
    np.random.seed(word % (1 << 32))  # noqa: NPY002  libraries that draw from the global state
    random.seed(word)
