import numpy as np
import pytest
import torch
from torch.testing import assert_close

from medray.data.case import Volume
from medray.systems.shoulder.goutallier_augmentation import Turn, drawn_turn
from medray.systems.shoulder.goutallier_fat import fat_fraction_percent, fat_mask
from medray.systems.shoulder.goutallier_measures import knows_mm
from medray.systems.shoulder.goutallier_regions import crop, muscle_mask, region_of, whole_image


def box_mask(shape, top, bottom, left, right):
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def test_the_largest_piece_is_the_muscle():
    probability = np.zeros((8, 8), np.float32)
    probability[1:4, 1:5] = 0.9
    probability[6, 6:8] = 1.0
    probability[5, 0] = 0.49
    assert (muscle_mask(probability, (8, 8)) == box_mask((8, 8), 1, 4, 1, 5)).all()


def test_the_mask_lies_on_the_images_own_pixels():
    """A network input of 8 x 8 over an image of 16 x 32: each pixel stands for 2 x 4."""
    found = muscle_mask(box_mask((8, 8), 2, 6, 2, 6).astype(np.float32), (16, 32))
    assert found.shape == (16, 32)
    assert region_of(found).box == (4, 12, 8, 24)


def test_box_and_margin_by_hand():
    mask = box_mask((20, 30), 4, 10, 2, 22)
    mask[4, 2] = False
    assert region_of(mask).box == (4, 10, 2, 22)
    assert region_of(mask, 0.5).box == (1, 13, 0, 30)  # 3 rows and 10 columns more, cut off at the border
    assert (region_of(mask).inside == mask[4:10, 2:22]).all()


def test_without_a_muscle_the_whole_image_is_looked_at_and_told():
    region = region_of(np.zeros((5, 7), dtype=bool))
    assert region.is_fallback
    assert region.box == (0, 5, 0, 7)
    assert not region_of(box_mask((5, 7), 1, 2, 1, 2)).is_fallback


def test_a_crop_is_stretched_and_may_lose_its_background():
    image = np.arange(36, dtype=np.float32).reshape(6, 6)
    mask = box_mask((6, 6), 2, 4, 2, 4)
    mask[2, 2] = False
    region = region_of(mask)
    np.testing.assert_array_equal(crop(image, region, 2), image[None, 2:4, 2:4])
    np.testing.assert_array_equal(crop(image, region, 2, mask_background=True), [[[0, 15], [20, 21]]])
    assert crop(image, whole_image(mask), 12).shape == (1, 12, 12)


def test_turning_by_a_right_angle_is_rot90_and_flipping_is_flipping():
    image = torch.rand(2, 9, 9)
    assert_close(Turn(90.0, False, 1.0).apply(image), image.rot90(1, (1, 2)), atol=1e-5, rtol=0)
    assert_close(Turn(0.0, True, 1.0).apply(image), image.flip(2), atol=1e-5, rtol=0)


def test_a_center_crop_of_half_shows_the_middle():
    image = torch.zeros(1, 8, 8)
    image[:, 2:6, 2:6] = 1.0
    assert float(Turn(0.0, False, 0.5).apply(image).min()) == pytest.approx(0.75**2)  # corners are a quarter outside
    assert float(Turn(0.0, False, 0.4).apply(image).min()) == pytest.approx(1.0)


def test_draws_stay_in_range_and_repeat():
    generator = torch.Generator().manual_seed(0)
    turns = [drawn_turn(generator, 35.0, closest_crop=0.8) for _ in range(200)]
    assert all(abs(turn.angle_deg) <= 35 and 0.8 <= turn.zoom <= 1 for turn in turns)
    assert 60 < sum(turn.flip for turn in turns) < 140
    assert drawn_turn(torch.Generator().manual_seed(0), 35.0, closest_crop=0.8) == turns[0]


def muscle_in_fat(share):
    """A muscle of 10 x 10 dark pixels in bright fat, a share of its rows as bright."""
    image = np.full((20, 20), 0.7, np.float32)
    image[5:15, 5:15] = 0.2
    image[5 : 5 + round(10 * share), 5:15] = 0.7
    noise = np.random.default_rng(0).normal(0, 0.03, image.shape)
    return (image + noise).astype(np.float32), box_mask((20, 20), 5, 15, 5, 15)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.9])
def test_fat_is_what_is_as_bright_as_the_fat_around(share):
    image, muscle = muscle_in_fat(share)
    assert fat_fraction_percent(fat_mask(image, muscle), muscle) == pytest.approx(100 * share)


def test_otsu_inside_the_contour_alone_would_halve_a_healthy_muscle():
    from skimage.filters import threshold_otsu

    image, muscle = muscle_in_fat(0.0)
    assert (image[muscle] > threshold_otsu(image[muscle])).mean() > 0.3


def test_no_muscle_has_no_fat_fraction():
    image, muscle = muscle_in_fat(0.5)
    empty = np.zeros_like(muscle)
    assert not fat_mask(image, empty).any()
    assert np.isnan(fat_fraction_percent(empty, empty))
    assert not fat_mask(np.ones_like(image), muscle).any()


@pytest.mark.parametrize(("kind", "size", "known"), [("raster", 1, False), ("array", 1, False), ("array", 0.5, True),
                                                     ("nifti", 1, True)])  # fmt: skip
def test_a_file_without_pixel_sizes_has_no_millimeters(kind, size, known):
    assert knows_mm(Volume(np.zeros((1, 4, 4)), np.diag([size, size, 1.0, 1.0]), "a", {"format": kind})) is known
