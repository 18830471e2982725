"""What CSS-Net's helpers cost at inference: parameters in use and time of a slice, beside segmentation alone.

    python tests/benchmarks/bench_css_net.py [--size 128] [--repeats 15]

Prints the number of parameters that `predict` loads of each, the median time of a slice, and the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from medray.systems.shoulder.css_building import make_networks
from medray.systems.shoulder.css_config import VARIANTS, CssConfig
from medray.systems.shoulder.css_presets import PRESETS


def main() -> None:
    """Measure both in turns, in this process on one thread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings = {**PRESETS["demo"].config, "size_px": arguments.size}
    networks = {name: make_networks(CssConfig(**{**settings, **VARIANTS[name].config})) for name in ("seg", "css_net")}
    image, seconds = torch.rand(1, 1, arguments.size, arguments.size), {name: [] for name in networks}
    with torch.inference_mode():
        for _ in range(arguments.repeats + 2):
            for name, parts in networks.items():
                started = time.perf_counter()
                parts["segmenter"](image)
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(found[2:]) for name, found in seconds.items()}
    for name, parts in networks.items():
        used, trained = (sum(p.numel() for p in part.parameters()) for part in (parts["segmenter"], parts))
        print(f"{name}: {used} parameters in use of {trained} trained, {1000 * medians[name]:.1f} ms per slice")
    print(f"time of css_net over seg: {medians['css_net'] / medians['seg']:.3f}")


if __name__ == "__main__":
    main()
