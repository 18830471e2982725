"""Two workers of one thread each against one, on two free cores.

    python tests/benchmarks/bench_workers.py [--rounds 3]

A U-Net trains on the same global batches on one and on two Ray Train workers, in turns; what counts is the ratio of
samples per second, start-up left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from medray.engine.options import RunOptions
from medray.engine.ray_train import RayWorkbench, ray_session
from medray.learner import Learner, Schedule, Step, SumCount


class Net(Learner):
    """A U-Net on noise, steps of about a second."""

    def __init__(self, num_steps: int) -> None:
        from monai.networks.nets import UNet

        super().__init__()
        self.networks = nn.ModuleDict(
            {"net": UNet(spatial_dims=2, in_channels=1, out_channels=2, channels=(16, 32, 64), strides=(2, 2))}
        )
        self.schedule = Schedule(num_epochs=1, batch_size=32, validate_every_epochs=0)
        self.num_steps = num_steps
        self.images = torch.randn(32, 1, 128, 128)

    def configure_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Any will do."""
        return {"net": torch.optim.Adam(self.networks.parameters())}

    def num_samples(self) -> int:
        """Whole batches."""
        return 32 * self.num_steps

    def collate(self, indices: Sequence[int], epoch: int) -> Tensor:
        """From memory."""
        return self.images[[index % 32 for index in indices]]

    def training_step(self, batch: Tensor, step: Step) -> Mapping[str, SumCount]:
        """One update."""
        logits = self.networks["net"](batch)
        error = nn.functional.cross_entropy(logits, (batch[:, 0] > 0).long(), reduction="sum")
        step.backward(step.mean(error, batch.numel()))
        step.update("net")
        return {"loss": SumCount(error.detach(), batch.numel())}


class Make:
    """Picklable."""

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps

    def __call__(self) -> Learner:
        """One learner per worker."""
        return Net(self.num_steps)


def main() -> None:
    """Print the ratio of every round and the median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24)
    arguments = parser.parse_args()
    ratios = []
    with ray_session(2), tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            rates = {}
            for size in (1, 2) if number % 2 == 0 else (2, 1):
                options = RunOptions(data="", num_workers=size, loader_workers=0)
                work = RayWorkbench(Path(folder) / f"{number}-{size}", options)
                rates[size] = work.fit(Make(arguments.steps)).samples_per_second
            ratios.append(rates[2] / rates[1])
            print(f"round {number}: {rates[1]:.1f} and {rates[2]:.1f} samples/s, ratio {ratios[-1]:.2f}, "
                  f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"two workers / one, median of {len(ratios)}: {statistics.median(ratios):.2f} (at least 1.8 wanted)")


if __name__ == "__main__":
    main()
