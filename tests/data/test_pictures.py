"""Gray pictures that were saved in color, and pictures that are in color."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medray.data.pictures import gray
from medray.data.readers import read_volume
from medray.errors import UserError


def test_three_equal_channels_are_gray_and_color_is_told(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(np.stack([pixels] * 3, axis=-1)).save(tmp_path / "gray.png")
    volume = gray(read_volume(tmp_path / "gray.png"))
    np.testing.assert_array_equal(volume.array, pixels[None])
    assert volume.header["format"] == "raster"
    tinted = np.stack([pixels, pixels, pixels + 1], axis=-1)
    Image.fromarray(tinted).save(tmp_path / "color.png")
    with pytest.raises(UserError, match=r"^.*color\.png is in color where a gray image is expected$"):
        gray(read_volume(tmp_path / "color.png"))
