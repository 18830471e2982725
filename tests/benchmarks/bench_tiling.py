"""Memory and seams of a slide translated in tiles, and of a large image searched for nuclei; each in its own process.

    python tests/benchmarks/bench_tiling.py                      4096 x 4096 px, whole, with a narrow generator
    python tests/benchmarks/bench_tiling.py --width 32 --tiles 2   the paper's generator, the first tiles only

Each part prints one JSON line: peak resident memory of its process, its base (libraries loaded, nothing done), seconds,
tiles done. What counts is peak_mb below 2000. Beyond the first tile it grows by the mapped pages of slide and result
(50 MB each) alone, since results leave in bands.
Not a test: seconds depend on the machine; the memory hardly does.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MALLOC_ARENA_MAX", "2")


class _Enough(Exception):
    pass


def _peak_mb() -> float:
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kib * 1024 / 1e6, 1)


def _slide(side: int, path: Path) -> None:
    """A kidney section of 1024 px, laid out again and again under a slowly changing brightness."""
    import numpy as np
    import tifffile

    from medray.data.sources import open_source

    piece = open_source("phantom:kidney?n=1&size=1024").cases[1].volume("image").array.transpose(1, 2, 0)
    pixels = tifffile.memmap(path, shape=(side, side, 3), dtype=np.uint8, photometric="rgb")
    for top in range(0, side, 1024):
        for left in range(0, side, 1024):
            part = pixels[top : top + 1024, left : left + 1024]
            part[:] = (piece * (0.7 + 0.3 * (top + left) / (2 * side)))[: part.shape[0], : part.shape[1]]
    pixels.flush()


def translate(slide: Path, width: int, depth: int, tiles: int) -> dict[str, float]:
    """Translate the slide as `predict` does, up to a number of tiles; 0 for all."""
    import torch

    from medray.data.regions import open_picture, writing_picture
    from medray.systems.synthesis.generators import ResidualUNet
    from medray.systems.synthesis.slides import translated_bands
    from medray.systems.synthesis.stain_cyclegan import StainConfig

    torch.manual_seed(0)
    config = StainConfig(width=width, depth=depth)
    network, picture, base = ResidualUNet(depth, width).eval(), open_picture(slide), _peak_mb()
    done = 0

    def counted(*_: object) -> None:
        nonlocal done
        done += 1
        if done == tiles:
            raise _Enough

    network.register_forward_hook(counted)
    started = time.perf_counter()
    try:
        with writing_picture(slide.with_name("out.tif"), picture.shape[:2]) as pixels:
            for top, band in translated_bands(network, picture, config.tiling, config.multiple):
                pixels[top : top + len(band)] = band
    except _Enough:
        pass
    seconds = round(time.perf_counter() - started, 1)
    return {"width": width, "tiles": done, "base_mb": base, "peak_mb": _peak_mb(), "seconds": seconds}


def detect(slide: Path, width: int) -> dict[str, float]:
    """Search the slide for nuclei as `predict` does."""
    import torch

    from medray.data.pictures import rgb_pixels
    from medray.data.readers import read_volume
    from medray.systems.detection.voca import Normalization, VocaConfig, VocaNet, accumulate, find_peaks, predict_maps

    torch.manual_seed(0)
    config = VocaConfig(channels=(width, 2 * width, 4 * width, 8 * width))
    network, base, started = VocaNet(config).eval(), _peak_mb(), time.perf_counter()
    pixels = rgb_pixels(read_volume(slide))
    answer = predict_maps(network, pixels, config, Normalization((128.0,) * 3, (50.0,) * 3, 0.3))
    found = find_peaks(accumulate(answer, config), config)
    seconds = round(time.perf_counter() - started, 1)
    return {"width": width, "peaks": len(found.points), "base_mb": base, "peak_mb": _peak_mb(), "seconds": seconds}


def main() -> None:
    """Run each part in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096, help="of the slide, px")
    parser.add_argument("--width", type=int, default=8, help="of the generator and of the detector (paper 32 and 64)")
    parser.add_argument("--depth", type=int, default=3, help="of the generator (paper 3)")
    parser.add_argument("--tiles", type=int, default=0, help="stop the translation after so many tiles; 0: all")
    parser.add_argument("--only", choices=("translate", "detect"), help="one part only")
    parser.add_argument("--slide", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.slide is not None:
        part = given.only
        found = (
            translate(given.slide, given.width, given.depth, given.tiles)
            if part == "translate"
            else detect(given.slide, given.width)
        )
        print(json.dumps({"part": part, "side": given.side, **found}), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / "slide.tif"
        _slide(given.side, slide)
        for part in (given.only,) if given.only else ("translate", "detect"):
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only", part, "--slide", str(slide)], check=True)


if __name__ == "__main__":
    main()
