import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from medray.systems.super_resolution.blimsr_losses import (
    adversarial_loss,
    content_loss,
    discriminator_loss,
    dissimilarity_loss,
    gradient_loss,
    perceptual_loss,
)


def images(*rows):
    return torch.tensor([rows], dtype=torch.float32)[None]


def test_content_is_the_mean_absolute_difference_of_each_image():
    first = torch.cat([images([0, 1], [2, 3]), images([0, 0], [0, 0])])
    assert content_loss(first, torch.zeros_like(first)).tolist() == [1.5, 0.0]


def test_gradient_of_a_ramp_against_a_constant_is_half_its_slope():
    ramp = torch.arange(6.0).expand(1, 1, 6, 6)  # slope 1 along the columns, 0 along the rows
    assert gradient_loss(3 * ramp, torch.full_like(ramp, 7.0)).tolist() == [1.5]


def test_gradient_loss_does_not_see_a_shift_of_brightness():
    image = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(gradient_loss(image + 0.3, image), torch.zeros(2), atol=1e-6, rtol=0)


def test_dissimilarity_is_half_of_what_ssim_lacks_to_one():
    random = np.random.default_rng(0)
    mine, other = random.random((2, 20, 24))
    ssim = structural_similarity(
        mine, other, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    loss = dissimilarity_loss(*(torch.tensor(one, dtype=torch.float32)[None, None] for one in (mine, other)))
    assert float(loss) == pytest.approx((1 - ssim) / 2, abs=1e-5)
    assert float(dissimilarity_loss(torch.ones(1, 1, 16, 16), torch.ones(1, 1, 16, 16))) == pytest.approx(0, abs=1e-6)


def test_dissimilarity_of_constants_by_hand():
    # no variance: SSIM is (2 a b + C1) / (a^2 + b^2 + C1) with C1 = 0.01^2
    a, b, c1 = 0.2, 0.6, 1e-4
    loss = dissimilarity_loss(torch.full((1, 1, 12, 12), a), torch.full((1, 1, 12, 12), b))
    assert float(loss) == pytest.approx((1 - (2 * a * b + c1) / (a * a + b * b + c1)) / 2, abs=1e-4)


@pytest.mark.parametrize("loss", [content_loss, gradient_loss, dissimilarity_loss])
def test_each_term_sends_a_gradient_that_lowers_it(loss):
    torch.manual_seed(0)
    image, reference = torch.rand(1, 1, 16, 16, requires_grad=True), torch.rand(1, 1, 16, 16)
    before = loss(image, reference).sum()
    before.backward()
    assert image.grad.abs().sum() > 0
    after = loss(image.detach() - 1e-2 * image.grad / image.grad.norm(), reference)
    assert float(after) < float(before.detach())


@pytest.mark.parametrize("loss", [gradient_loss, dissimilarity_loss])
def test_a_detached_image_sends_none(loss):
    image = torch.rand(1, 1, 16, 16, requires_grad=True)
    assert not loss(image.detach(), torch.rand(1, 1, 16, 16)).requires_grad


def test_perceptual_loss_weighs_the_blocks_means():
    mine = [torch.full((1, 3, 4, 4), 1.0), torch.full((1, 5, 2, 2), 4.0)]
    other = [torch.zeros(1, 3, 4, 4), torch.zeros(1, 5, 2, 2)]
    assert perceptual_loss(mine, other, (0.5, 0.25)).tolist() == [1.5]


def test_adversarial_losses_by_hand():
    logits = torch.tensor([0.0, 2.0])
    expected = [-math.log(0.5), -math.log(1 / (1 + math.exp(-2)))]
    torch.testing.assert_close(adversarial_loss(logits, "vanilla"), torch.tensor(expected))
    assert adversarial_loss(logits, "hinge").tolist() == [0.0, -2.0]
    assert adversarial_loss(logits, "ls").tolist() == [1.0, 1.0]


def test_discriminator_losses_by_hand():
    real, fake = torch.tensor([0.0, 2.0]), torch.tensor([0.0, -3.0])
    expected = [-2 * math.log(0.5), math.log1p(math.exp(-2)) + math.log1p(math.exp(-3))]
    torch.testing.assert_close(discriminator_loss(real, fake, "vanilla"), torch.tensor(expected))
    assert discriminator_loss(real, fake, "hinge").tolist() == [2.0, 0.0]
    assert discriminator_loss(real, fake, "ls").tolist() == [1.0, 10.0]
