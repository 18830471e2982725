"""Random states as functions of a key."""

from __future__ import annotations

import random

import numpy as np
import torch

from medray.learner import seed_of


def seed_everything(*key: int | str) -> None:
    """Seed torch, NumPy and random from a key, so that draws depend on it and not on what ran before."""
    word = seed_of(*key)
    # Not torch.manual_seed: where no GPU is in use yet it formats and keeps a stack trace for it, at every call.
    torch.default_generator.manual_seed(word)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(word)
    np.random.seed(word % (1 << 32))  # noqa: NPY002  libraries that draw from the global state
    random.seed(word)
