"""A pool in which some kinds are rare, and balanced sets to judge on: what phantoms for active learning share."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import TypeVar

import numpy as np

KindT = TypeVar("KindT", bound=str)
_GOLDEN = (5**0.5 - 1) / 2


def drawn_sets(
    n: int, validation: int, test: int, seed: int, shares: Mapping[KindT, float], stream: str
) -> list[tuple[str, int, KindT]]:
    """Split, number within it and kind of every case.

    Args:
        n: of the pool (``train``), whose kinds have their ``shares``. Case i does not depend on n.
        validation: of the validation set, balanced over the kinds.
        test: of the test set, likewise.
        seed: decides the kinds of the pool.
        shares: of the kinds in order; the last one has what is left.
        stream: name of the draw.

    Raises:
        ValueError: a number is out of range.
    """
    if n < 1 or validation < 0 or test < 0 or seed < 0:
        raise ValueError("n must be at least 1, and validation, test and seed must not be negative")
    kinds, ends = tuple(shares), tuple(accumulate(shares.values()))
    start = np.random.default_rng([seed, *stream.encode()]).random()
    drawn: list[tuple[str, int, KindT]] = []
    for index in range(n):
        at = (start + index * _GOLDEN) % 1.0  # fills [0, 1] evenly from its start: few cases have the shares too
        drawn.append(("train", index, next((k for k, end in zip(kinds, ends, strict=True) if at < end), kinds[-1])))
    balanced = (("validation", validation), ("test", test))
    return drawn + [(split, index, kinds[index % len(kinds)]) for split, count in balanced for index in range(count)]


def stream_of(seed: int, index: int, split: str, stream: str) -> np.random.Generator:
    """Random draws of one case of a split; one stream per ingredient."""
    return np.random.default_rng([seed, index, *f"{split} {stream}".encode()])
