import math

import pytest
import torch

from medray.systems.super_resolution.perceptual import small_network
from medray.systems.super_resolution.train_features import NUM_KINDS, changed, with_unit_blocks


def test_blocks_get_a_deviation_of_one_and_later_blocks_see_no_change():
    network, images = small_network("random"), torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    before = network(images)
    with_unit_blocks(network, images)
    after = network(images)
    for old, new in zip(before, after, strict=True):
        assert float(new.std()) == pytest.approx(1, abs=1e-4)
        torch.testing.assert_close(new, old / old.std(), rtol=1e-3, atol=1e-4)


def test_every_change_but_the_first_changes_the_patch_and_is_the_same_for_the_same_generator():
    patch = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))
    for kind in range(NUM_KINDS):
        first, second = (changed(patch, kind, torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(first, second)
        assert first.shape == patch.shape
        assert math.isclose(float((first - patch).abs().max()), 0) == (kind == 0)
