"""Image quality by hand and against MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import PSNRMetric

from medray.metrics.image_quality import image_quality


def test_a_constant_error_by_hand() -> None:
    reference = np.full((8, 8), 1.0)
    reference[0, 0], reference[7, 7] = 3.0, 5.0  # range 4 over the minimum, peak 5
    scores = image_quality(reference + 0.5, reference)
    assert scores["nrmse_percent"] == pytest.approx(100 * 0.5 / 4)
    assert scores["psnr_db"] == pytest.approx(20 * np.log10(5 / 0.5))


def test_equal_images_are_perfect() -> None:
    image = np.random.default_rng(0).random((16, 16))
    scores = image_quality(image, image)
    assert scores["nrmse_percent"] == 0
    assert scores["psnr_db"] == np.inf
    assert scores["ssim"] == pytest.approx(1.0)


def test_psnr_agrees_with_monai_and_scale_does_not_matter() -> None:
    random = np.random.default_rng(1)
    reference = random.random((32, 32))
    image = reference + 0.1 * random.normal(size=(32, 32))
    scores = image_quality(image, reference)
    metric = PSNRMetric(max_val=float(reference.max()))
    both = (torch.from_numpy(a)[None, None] for a in (image, reference))
    assert scores["psnr_db"] == pytest.approx(float(metric(*both)), rel=1e-6)
    assert image_quality(1000 * image, 1000 * reference) == pytest.approx(scores)
    assert 0 < scores["ssim"] < 1


@pytest.mark.parametrize(
    ("image", "reference", "sentence"),
    [
        (np.ones((8, 8)), np.ones((8, 9)), r"\(8, 8\).*\(8, 9\)"),
        (np.ones((4, 4)), np.eye(4), "7 x 7"),
        (np.ones((8, 8)), np.ones((8, 8)), "constant"),
    ],
)
def test_what_cannot_be_scored_is_said(image: np.ndarray, reference: np.ndarray, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        image_quality(image, reference)
