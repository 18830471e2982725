import math

import numpy as np
import pytest
import torch

from medray.metrics.super_resolution import perceptual_distance, psnr_db, ssim, vif, welch_p


@pytest.fixture
def pair():
    random = np.random.default_rng(0)
    image = np.kron(random.random((8, 8)), np.ones((8, 8)))
    return np.clip(image + random.normal(0, 0.05, image.shape), 0, 1), image


def test_psnr_takes_a_peak_of_one_whatever_the_images_maximum():
    reference = np.full((4, 4), 0.25)
    assert psnr_db(reference + 0.01, reference) == pytest.approx(40)
    assert psnr_db(reference, reference) == math.inf


def test_ssim_of_constants_by_hand():
    a, b, c1 = 0.2, 0.6, 1e-4
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    assert ssim(np.full((16, 16), a), np.full((16, 16), b)) == pytest.approx(expected)


def test_vif_is_one_for_equal_images_and_falls_with_blur(pair):
    from scipy.ndimage import gaussian_filter

    _, image = pair
    assert vif(image, image) == pytest.approx(1, abs=1e-6)
    blurred = [vif(gaussian_filter(image, sigma), image) for sigma in (0.5, 1, 2)]
    assert 1 > blurred[0] > blurred[1] > blurred[2] > 0


def vif_as_published(image, reference):
    """Sheikh & Bovik 2006 in the pixel domain, written from its equations: noise variance 2, four dyadic scales."""
    from scipy.signal import convolve2d

    kept = told = 0.0
    x, y = 255 * reference, 255 * image
    for scale in range(4):
        side = 2 ** (4 - scale) + 1
        offsets = np.arange(side) - side // 2
        taps = np.exp(-(offsets**2) / (2 * (side / 5) ** 2))
        window = np.outer(taps, taps) / taps.sum() ** 2

        def mean(values, window=window):
            return convolve2d(values, window, mode="valid")

        if scale:
            x, y = mean(x)[::2, ::2], mean(y)[::2, ::2]
        var_x, var_y = mean(x * x) - mean(x) ** 2, mean(y * y) - mean(y) ** 2
        gain = (mean(x * y) - mean(x) * mean(y)) / var_x
        rest = np.where(gain < 0, var_y, var_y - gain * (mean(x * y) - mean(x) * mean(y)))
        gain = np.maximum(gain, 0)
        kept += np.log10(1 + gain**2 * var_x / (rest + 2)).sum()
        told += np.log10(1 + var_x / 2).sum()
    return kept / told


def test_vif_agrees_with_its_equations():
    random = np.random.default_rng(1)  # no flat parts, where libraries set limits of their own
    image, noise = random.random((2, 64, 64))
    assert vif(image + 0.2 * noise, image) == pytest.approx(vif_as_published(image + 0.2 * noise, image), rel=1e-6)


def test_vif_exceeds_one_where_contrast_is_enhanced(pair):
    _, image = pair
    assert vif(0.5 + 1.5 * (image - 0.5), image) > 1


def test_vif_of_a_constant_reference_is_not_a_number(pair):
    image, _ = pair
    assert math.isnan(vif(image, np.full_like(image, 0.5)))


@pytest.mark.parametrize("score", [psnr_db, ssim, vif])
def test_shapes_that_differ_are_refused(score):
    with pytest.raises(ValueError, match=r"\(48, 48\).*\(48, 47\)"):
        score(np.zeros((48, 48)), np.zeros((48, 47)))


def test_images_too_small_for_the_windows_are_refused():
    with pytest.raises(ValueError, match="at least 11 px"):
        ssim(np.zeros((10, 20)), np.zeros((10, 20)))
    with pytest.raises(ValueError, match="at least 41 px"):
        vif(np.zeros((40, 50)), np.zeros((40, 50)))


def test_perceptual_distance_by_hand():
    def block(*vector):
        return torch.tensor(vector).view(1, -1, 1, 1).expand(1, -1, 2, 3)

    right, up, left = block(2.0, 0.0), block(0.0, 5.0), block(-1.0, 0.0)
    assert perceptual_distance([right], [up]).tolist() == pytest.approx([2.0])  # perpendicular
    assert perceptual_distance([right, up], [left, up]).tolist() == pytest.approx([2.0])  # opposite, 4, and equal, 0
    assert perceptual_distance([right], [3 * right]).tolist() == [0.0]  # length does not count


def test_welchs_test_agrees_with_its_formula_and_the_papers_figures():
    from scipy.stats import t

    a, b = [1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 9.0]
    va, vb = np.var(a, ddof=1) / 4, np.var(b, ddof=1) / 3
    statistic = (np.mean(a) - np.mean(b)) / math.sqrt(va + vb)
    freedom = (va + vb) ** 2 / (va**2 / 3 + vb**2 / 2)
    assert welch_p(a, b) == pytest.approx(2 * t.sf(abs(statistic), freedom))

    def sample(mean, sd):  # 919 values whose mean and (population) deviation are the printed ones
        values = np.random.default_rng(0).normal(size=919)
        return mean + sd * (values - values.mean()) / values.std()

    # table 1, PSNR of BliMSR and Real-ESRGAN; the paper prints p = 4.28777e-06
    assert welch_p(sample(26.48864, 6.89493), sample(25.17862, 5.15055)) == pytest.approx(4.28777e-06, rel=1e-3)
