"""Parts of pictures that are too large to hold: whole slides exported as TIFF, and large PNGs.

An uncompressed TIFF is mapped into memory, a tiled or stripped one compressed with Deflate is decoded segment by
segment, and everything else (PNG, JPEG, other compressions) is decoded once and kept with 8 bits per channel.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medray.data.pictures import rgb_pixels
from medray.data.readers import read_volume, suffix_of
from medray.data.writers import replacing
from medray.errors import UserError

Pixels = NDArray[np.uint8]
_KEPT_SEGMENTS = 256
_TIFF = (".tif", ".tiff")


class Picture(Protocol):
    """An RGB picture of which any part can be had."""

    shape: tuple[int, int, int]

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """(height, width, 3), inside the picture."""


class HeldPicture:
    """A picture in memory, or mapped into it."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.shape = (int(pixels.shape[0]), int(pixels.shape[1]), 3)

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """See `Picture`."""
        return np.asarray(self.pixels[top : top + height, left : left + width])


class SegmentedTiff:
    """A TIFF decoded tile by tile or strip by strip; the latest ones are kept."""

    def __init__(self, path: Path) -> None:
        import tifffile

        self._file = tifffile.TiffFile(path)
        page: Any = self._file.pages[0]
        self._page = page
        self.shape = (int(page.imagelength), int(page.imagewidth), 3)
        tiled = page.is_tiled
        self._segment = (page.tilelength, page.tilewidth) if tiled else (page.rowsperstrip, page.imagewidth)
        self._across = -(-self.shape[1] // self._segment[1])
        self._kept: OrderedDict[int, Pixels] = OrderedDict()

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """See `Picture`."""
        out = np.empty((height, width, 3), dtype=np.uint8)
        tall, wide = self._segment
        for row in range(top // tall, (top + height - 1) // tall + 1):
            for column in range(left // wide, (left + width - 1) // wide + 1):
                part = self._decoded(row * self._across + column)
                y, x = row * tall, column * wide
                first, begin = max(top, y), max(left, x)
                last, end = min(top + height, y + part.shape[0]), min(left + width, x + part.shape[1])
                out[first - top : last - top, begin - left : end - left] = part[
                    first - y : last - y, begin - x : end - x
                ]
        return out

    def _decoded(self, index: int) -> Pixels:
        if index not in self._kept:
            page, handle = self._page, self._file.filehandle
            handle.seek(page.dataoffsets[index])
            data = handle.read(page.databytecounts[index])
            segment = page.decode(data, index)[0]
            if segment is None:  # left out by the writer: empty
                segment = np.zeros((1, *self._segment, 3), dtype=np.uint8)
            self._kept[index] = np.asarray(segment[0], dtype=np.uint8)
        self._kept.move_to_end(index)
        if len(self._kept) > _KEPT_SEGMENTS:
            self._kept.popitem(last=False)
        return self._kept[index]


def open_picture(path: Path) -> Picture:
    """Open a color picture for reading parts of it.

    Raises:
        UserError: missing, damaged, not 2D, or grayscale.
    """
    if suffix_of(path) not in _TIFF or not _large_rgb(path):
        return HeldPicture(rgb_pixels(read_volume(path), color=True))
    import tifffile

    try:
        return HeldPicture(tifffile.memmap(path, page=0, mode="r"))
    except ValueError:  # compressed or in several pieces
        return SegmentedTiff(path)


def _large_rgb(path: Path) -> bool:
    """Whether it is a TIFF whose first page is 8-bit RGB and can be read in parts; damage is for the reader to name."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            plain = page.photometric == 2 and page.dtype == np.uint8 and page.samplesperpixel == 3
            return bool(plain and page.planarconfig == 1 and page.compression in (1, 8, 32946) and page.imagedepth == 1)
    except (tifffile.TiffFileError, OSError, IndexError, AttributeError, ValueError):
        return False


@contextmanager
def writing_picture(path: Path, shape: tuple[int, int]) -> Iterator[Pixels]:
    """An array (H, W, 3) to fill, which is the picture ``path`` when the block ends; a TIFF is filled on disk.

    Raises:
        UserError: a suffix other than .png, .tif and .tiff, or the folder cannot be written.
    """
    suffix = suffix_of(path)
    if suffix not in (".png", *_TIFF):
        raise UserError(f"--out {path}: pictures are written as .png, .tif or .tiff")
    with replacing(path) as temporary:
        if suffix in _TIFF:
            import tifffile

            pixels = tifffile.memmap(temporary, shape=(*shape, 3), dtype=np.uint8, photometric="rgb")
            yield pixels
            pixels.flush()
        else:
            from PIL import Image

            held = np.zeros((*shape, 3), dtype=np.uint8)
            yield held
            Image.fromarray(held).save(temporary)
