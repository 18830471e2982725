"""Any part of a picture, however it is stored, and pictures written band by band."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from medray.data.regions import HeldPicture, SegmentedTiff, open_picture, writing_picture
from medray.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 255, (150, 205, 3)).astype(np.uint8)


def _write(path: Path, how: dict[str, Any]) -> None:
    if path.suffix == ".tif" and "pillow" not in how:
        tifffile.imwrite(path, PIXELS, photometric="rgb", **how)
    else:
        Image.fromarray(PIXELS).save(path, compression=how.get("pillow"))


@pytest.mark.parametrize(
    ("name", "how", "kind"),
    [
        ("a.tif", {}, np.memmap),
        ("a.tif", {"tile": (64, 48), "compression": "zlib"}, SegmentedTiff),
        ("a.tif", {"tile": (64, 48)}, SegmentedTiff),
        ("a.tif", {"rowsperstrip": 7, "compression": "zlib", "predictor": True}, SegmentedTiff),
        ("a.tif", {"pillow": "tiff_lzw"}, np.ndarray),
        ("a.png", {}, np.ndarray),
    ],
)
def test_every_region_is_what_was_written(tmp_path: Path, name: str, how: dict[str, Any], kind: type) -> None:
    _write(tmp_path / name, how)
    picture = open_picture(tmp_path / name)
    assert isinstance(picture.pixels if isinstance(picture, HeldPicture) else picture, kind)
    assert picture.shape == (150, 205, 3)
    for top, left, height, width in ((0, 0, 150, 205), (3, 5, 140, 199), (63, 47, 2, 2), (149, 204, 1, 1)):
        expected = PIXELS[top : top + height, left : left + width]
        np.testing.assert_array_equal(picture.read(top, left, height, width), expected)


@pytest.mark.parametrize("name", ["a.tif", "b/a.png"])
def test_what_is_written_in_bands_is_read_back(tmp_path: Path, name: str) -> None:
    with writing_picture(tmp_path / name, (150, 205)) as pixels:
        for top in range(0, 150, 40):
            pixels[top : top + 40] = PIXELS[top : top + 40]
    np.testing.assert_array_equal(open_picture(tmp_path / name).read(0, 0, 150, 205), PIXELS)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), writing_picture(tmp_path / "a.tif", (8, 8)):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def _damaged(path: Path) -> NDArray[Any]:
    tifffile.imwrite(path, PIXELS, photometric="rgb", tile=(64, 48), compression="zlib")
    path.write_bytes(path.read_bytes()[:200])
    return PIXELS


def test_damage_and_gray_are_told(tmp_path: Path) -> None:
    _damaged(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif"):
        open_picture(tmp_path / "a.tif")
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "g.png")
    with pytest.raises(UserError, match=r"g\.png is a grayscale image where an RGB image is expected"):
        open_picture(tmp_path / "g.png")
    with (
        pytest.raises(UserError, match=r"written as \.png, \.tif or \.tiff"),
        writing_picture(tmp_path / "a.jpg", (8, 8)),
    ):
        pass
