"""MIND-SSC against a plain-loop reference, and its invariances."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from medray.nn.mind import mind_ssc, neighbor_pairs


def image(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def reference(values: np.ndarray, radius: int, dilation: int) -> np.ndarray:
    """The definition, one pixel at a time."""
    dims = values.ndim
    pairs = neighbor_pairs(dims)
    reach = radius + dilation
    padded = np.pad(values, reach, mode="edge")
    distance = np.zeros((len(pairs), *values.shape))
    patch = list(itertools.product(range(-radius, radius + 1), repeat=dims))
    for pixel in np.ndindex(values.shape):
        for channel, (a, b) in enumerate(pairs):
            total = 0.0
            for shift in patch:
                at = [p + reach + s for p, s in zip(pixel, shift, strict=True)]
                one = padded[tuple(x + dilation * o for x, o in zip(at, a, strict=True))]
                two = padded[tuple(x + dilation * o for x, o in zip(at, b, strict=True))]
                total += (one - two) ** 2
            distance[(channel, *pixel)] = total / len(patch)
    distance -= distance.min(axis=0)
    variance = distance.mean(axis=0)
    variance = variance.clip(variance.mean() * 1e-3, variance.mean() * 1e3)
    return np.exp(-distance / variance)


@pytest.mark.parametrize(
    ("shape", "radius", "dilation"), [((9, 12), 1, 1), ((9, 12), 2, 2), ((5, 6, 7), 1, 1), ((6, 5, 7), 0, 2)]
)
def test_agrees_with_the_definition(shape, radius, dilation):
    values = image(shape)
    ours = mind_ssc(values, radius=radius, dilation=dilation)[0].numpy()
    np.testing.assert_allclose(ours, reference(values[0, 0].numpy(), radius, dilation), atol=1e-12)


@pytest.mark.parametrize(("dims", "channels", "longest"), [(2, 6, 2.0), (3, 12, math.sqrt(2))])
def test_pairs_of_neighbors(dims, channels, longest):
    pairs = neighbor_pairs(dims)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs) == channels
    assert max(math.dist(a, b) for a, b in pairs) == longest


@pytest.mark.parametrize("shape", [(14, 17), (7, 8, 9)])
def test_inverted_and_rescaled_contrast_gives_the_same_descriptor(shape):
    values = image(shape)
    assert_close(mind_ssc(300.0 - 40.0 * values), mind_ssc(values))


def test_flat_images_are_finite_and_batches_do_not_mix():
    flat, busy = torch.zeros(1, 1, 10, 10, dtype=torch.float64), image((10, 10))
    both = mind_ssc(torch.cat([flat, busy]))
    assert_close(both[0], torch.ones(6, 10, 10, dtype=torch.float64))
    assert_close(both[1:], mind_ssc(busy))


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"\(1, 2, 8, 8\)"):
        mind_ssc(torch.zeros(1, 2, 8, 8))
    with pytest.raises(ValueError, match="dilation"):
        mind_ssc(torch.zeros(1, 1, 8, 8), dilation=0)
    with pytest.raises(ValueError, match="spatial_dims=4"):
        neighbor_pairs(4)
