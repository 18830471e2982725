"""Do workers wait for data? Gzipped NIfTI volumes, decoded, resampled and augmented, in four ways.

    python tests/benchmarks/bench_loader.py [--volumes 24] [--size 96] [--epochs 4]

Prints for each the share of the step time spent waiting, as the run itself reports it (`data_ms` of `step_ms`), for the
first epoch, when nothing is cached, and for the rest.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import torch
from torch import Tensor, nn

from medray.data.cache import Arrays, SampleCache
from medray.data.fields import file_fingerprint
from medray.data.intensity import normalize_intensity
from medray.data.readers import read_volume
from medray.engine.loop import LoopSettings, run_loop
from medray.engine.options import LoopOptions
from medray.engine.rundir import read_json_lines
from medray.engine.world import World
from medray.learner import Learner, Schedule, Step, SumCount


class Volumes(Learner):
    """A small 3D network on files: decode and normalize (cached), flip and crop (not cached)."""

    def __init__(self, files: Sequence[Path], epochs: int, cache: SampleCache) -> None:
        super().__init__()
        self.files, self.cache = list(files), cache
        layers = [
            nn.Conv3d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv3d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv3d(8, 1, 1),
        ]
        self.networks = nn.ModuleDict({"net": nn.Sequential(*layers)})
        self.schedule = Schedule(num_epochs=epochs, batch_size=2, validate_every_epochs=0)

    def configure_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Any will do."""
        return {"net": torch.optim.Adam(self.networks.parameters())}

    def num_samples(self) -> int:
        """One per file."""
        return len(self.files)

    def _read(self, file: Path) -> Arrays:
        return {"image": normalize_intensity(read_volume(file).array, "percentile").astype(np.float32)}

    def collate(self, indices: Sequence[int], epoch: int) -> Tensor:
        """Cached volumes, augmented."""
        crops = []
        for index in indices:
            file = self.files[index]
            key = ("volumes", file_fingerprint(file), "percentile")
            image = torch.from_numpy(self.cache.get(key, functools.partial(self._read, file))["image"])
            draws = self.sample_generator(index, epoch)
            start = [int(torch.randint(0, size - 47, (), generator=draws)) for size in image.shape[1:]]
            image = image[:, start[0] : start[0] + 48, start[1] : start[1] + 48, start[2] : start[2] + 48]
            crops.append(image.flip(1) if torch.rand((), generator=draws) < 0.5 else image)
        return torch.stack(crops)

    def training_step(self, batch: Tensor, step: Step) -> Mapping[str, SumCount]:
        """One update."""
        error = (self.networks["net"](batch) - batch).square().sum()
        step.backward(step.mean(error, batch.numel()))
        step.update("net")
        return {"loss": SumCount(error.detach(), batch.numel())}


def waiting(run: Path) -> tuple[float, float]:
    """Share of the time spent waiting in the first epoch and in the others."""
    records = [r for r in read_json_lines(run / "metrics.jsonl") if r["name"] == "speed"]
    shares = []
    for part in ([r for r in records if r["epoch"] == 0], [r for r in records if r["epoch"] > 0]):
        shares.append(sum(r["data_ms"] for r in part) / sum(r["step_ms"] for r in part))
    return shares[0], shares[1]


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, default=24)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number in range(arguments.volumes):
            noise = np.random.default_rng(number).normal(100, 20, (arguments.size,) * 3).astype(np.int16)
            files.append(Path(folder) / f"{number}.nii.gz")
            nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), files[-1])
        print(f"{arguments.volumes} volumes of {arguments.size}^3, load {os.getloadavg()[0]:.1f}")
        ways = {
            "in line, no cache": (LoopOptions(loader_workers=0), SampleCache()),
            "in line, memory": (LoopOptions(loader_workers=0), SampleCache(memory_gb=4)),
            "one process ahead, memory": (LoopOptions(loader_workers=1), SampleCache(memory_gb=4)),
            "automatic, memory (the default)": (LoopOptions(), SampleCache(memory_gb=4)),
            "automatic, disk of an earlier run": (LoopOptions(), SampleCache(disk_gb=4, folder=Path(folder) / "cache")),
        }
        earlier = ways["automatic, disk of an earlier run"][1]
        make = Volumes(files, 1, earlier)
        make.collate(range(len(files)), 0)
        for number, (name, (options, cache)) in enumerate(ways.items()):
            run = Path(folder) / str(number)
            settings = LoopSettings(name="train", run=run, options=options, tensorboard=False)
            run_loop(functools.partial(Volumes, files, arguments.epochs, cache), World(), settings)
            first, rest = waiting(run)
            print(f"{name:36} waited {first:6.1%} in the first epoch, {rest:6.1%} after")


if __name__ == "__main__":
    main()
