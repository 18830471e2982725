"""Images at one size: the whole image, masks that keep their area, and the way back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medray.data.case import Case, Volume
from medray.data.fields import FileRef
from medray.data.resized import ResizedReader, back_to
from medray.errors import UserError


def _png(path: Path, array: np.ndarray) -> str:
    Image.fromarray(array).save(path)
    return str(path)


def test_an_image_is_stretched_whole_and_its_masks_united(tmp_path: Path) -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 40:] = 200
    first, second = np.zeros((2, 40, 80), np.uint8)
    first[:10, :20] = 255
    second[20:, 60:] = 255
    case = Case(
        "a",
        "a",
        {
            "image": FileRef(_png(tmp_path / "a.png", image)),
            "label": FileRef(_png(tmp_path / "m.png", first), "label"),
            "label_1": FileRef(_png(tmp_path / "m1.png", second), "label"),
        },
    )
    read = ResizedReader(20).read(case)
    assert read.image.shape == (1, 20, 20)
    assert read.image[0, :, :9].max() < 1e-3
    assert read.image[0, :, 11:].min() > 1 - 1e-3
    assert read.mask is not None
    expected = np.zeros((20, 20), np.uint8)
    expected[:5, :5] = expected[10:, 15:] = 1
    assert np.array_equal(read.mask, expected)


def test_results_go_back_to_the_images_own_pixels() -> None:
    ramp = np.tile(np.linspace(0, 1, 16, dtype=np.float32), (16, 1))
    original = Volume(np.zeros((1, 33, 61), np.uint8), np.eye(4))
    back = back_to(ramp, original)
    assert back.shape == (33, 61)
    inner = back[:, 4:-4]
    assert np.allclose(np.diff(inner, axis=1), 16 / 61 / 15, atol=1e-3)


def test_a_volume_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"scan.nii is 3D \(4 x 4 x 4\)"):
        ResizedReader(8).on_grid(Volume(np.zeros((1, 4, 4, 4)), np.eye(4), "scan.nii"))
