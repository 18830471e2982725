"""Augmented copies: labels follow the image, nothing depends on anything but the generator."""

from __future__ import annotations

import numpy as np
import torch

from medray.systems.registration.augmentation import augmented, random_positions
from medray.systems.registration.pair_reader import ImagePair


def square_pair(dims: int = 2) -> ImagePair:
    label = np.zeros((24,) * dims, dtype=np.int64)
    label[(slice(8, 16),) * dims] = 3
    image = (label > 0).astype(np.float32) * 1.6 - 0.8
    return ImagePair(
        "p", image, image.copy(), (1.0,) * dims, np.eye(4), label, label.copy(), truth=np.zeros((dims, *label.shape))
    )


def test_labels_follow_the_image_in_2d_and_3d() -> None:
    for dims in (2, 3):
        copy = augmented(square_pair(dims), torch.Generator().manual_seed(1))
        for image, label in ((copy.moving, copy.moving_label), (copy.fixed, copy.fixed_label)):
            assert label is not None
            assert set(np.unique(label)) == {0, 3}
            assert image[label == 3].mean() > image[label == 0].mean() + 0.8
        assert not np.array_equal(copy.moving_label, copy.fixed_label)
        assert copy.truth is None


def test_one_generator_state_gives_one_copy() -> None:
    first, second, other = (augmented(square_pair(), torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.moving, second.moving)
    assert not np.array_equal(first.moving, other.moving)


def test_positions_stay_near_and_do_not_fold() -> None:
    for seed in range(20):
        positions = random_positions((40, 40), torch.Generator().manual_seed(seed))
        identity = torch.stack(torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij"))
        assert (positions[0] - identity).abs().max() < 14
        steps = torch.diff(positions[0, 0], dim=0)
        assert steps.min() > 0
