import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import gennorm

from medray.metrics.niqe import NiqeModel, fit_aggd, image_features, normalized


@pytest.mark.parametrize("shape", [0.7, 1.0, 2.0, 4.0])
def test_a_symmetric_fit_finds_the_shape_and_scale_of_scipys_samples(shape):
    values = gennorm.rvs(shape, scale=1.5, size=200_000, random_state=np.random.default_rng(0))
    found, left, right = fit_aggd(values)
    assert found == pytest.approx(shape, rel=0.03)
    assert left == pytest.approx(1.5, rel=0.03)
    assert right == pytest.approx(1.5, rel=0.03)


def test_an_asymmetric_fit_finds_both_scales():
    random = np.random.default_rng(0)
    size = np.abs(gennorm.rvs(1.2, size=300_000, random_state=random))
    # of an asymmetric one, each side has a share in proportion to its scale
    values = np.where(random.random(size.shape) < 0.25, -1.0 * size, 3.0 * size)
    assert fit_aggd(values) == pytest.approx((1.2, 1.0, 3.0), rel=0.03)


def test_values_on_one_side_have_no_fit():
    assert all(math.isnan(value) for value in fit_aggd(np.array([0.0, 1.0, 2.0])))


def test_normalized_intensities_of_noise_have_mean_zero_and_a_constant_image_is_zero():
    assert np.abs(normalized(np.full((20, 20), 128.0))[0]).max() < 1e-9
    noise = np.random.default_rng(0).normal(128, 40, (200, 200))
    values, deviation = normalized(noise)
    assert values.mean() == pytest.approx(0, abs=0.01)
    # what a window of SD 7/6 leaves of white noise: its weights' squares sum to about 1 / (4 pi (7/6)^2)
    assert (deviation**2).mean() == pytest.approx(40**2 * (1 - 1 / (4 * math.pi * (7 / 6) ** 2)), rel=0.03)


def texture(seed, size=128):
    """Edges and grain, as images have them."""
    random = np.random.default_rng(seed)
    blocks = gaussian_filter((gaussian_filter(random.normal(size=(size, size)), 6) > 0).astype(float), 0.7)
    grain = gaussian_filter(random.normal(size=(size, size)), 0.8)
    return np.clip(0.3 + 0.4 * blocks + 0.08 * grain, 0, 1)


@pytest.fixture(scope="module")
def model():
    return NiqeModel.fit([texture(seed) for seed in range(30)], patch_px=32)


def test_images_like_those_it_was_fitted_to_are_nearer_than_blurred_and_noisy_ones(model):
    random = np.random.default_rng(1)
    for seed in range(100, 104):
        image = texture(seed)
        own = model.score(image)
        assert own < model.score(gaussian_filter(image, 1.5))
        assert own < model.score(np.clip(image + random.normal(0, 0.1, image.shape), 0, 1))


def test_more_blur_is_further_away(model):
    scores = [model.score(gaussian_filter(texture(100), sigma)) for sigma in (0.0, 1.0, 2.0)]
    assert scores == sorted(scores)


def test_the_fitted_mean_has_distance_zero():
    image = texture(0)
    features, _ = image_features(image, 32)
    model = NiqeModel(features.mean(axis=0), np.eye(36), 32)
    assert model.score(image) == pytest.approx(0, abs=1e-9)
    shifted = NiqeModel(features.mean(axis=0) + np.eye(36)[0] * 2, np.eye(36), 32)
    own = np.cov(features, rowvar=False)
    expected = 2 * math.sqrt(np.linalg.inv((np.eye(36) + own) / 2)[0, 0])
    assert shifted.score(image) == pytest.approx(expected)


def test_patches_without_texture_do_not_count(model):
    image = texture(100)
    padded = np.zeros((256, 128))
    padded[:128] = image
    assert len(image_features(padded, 32)[0]) <= len(image_features(image, 32)[0]) + 4  # the border's own
    assert math.isnan(model.score(np.full((64, 64), 0.5)))


def test_what_cannot_be_fitted_is_told():
    with pytest.raises(ValueError, match="patch_px must be even, got 33"):
        NiqeModel.fit([texture(0)], patch_px=33)
    with pytest.raises(ValueError, match=r"at least 96 px, got \(64, 64\)"):
        NiqeModel.fit([texture(0, size=64)])
    with pytest.raises(ValueError, match="0 patches of 32 px with texture are too few"):
        NiqeModel.fit([np.zeros((64, 64))], patch_px=32)
