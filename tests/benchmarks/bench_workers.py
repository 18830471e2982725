"""Two workers of one thread each against one, on two free cores.

    python tests/benchmarks/bench_workers.py [--rounds 3]

A U-Net trains on the same global batches on one and on two workers, in turns: as Ray Train workers, and as bare
processes with the same loop, which shows what Ray's own processes take where there is no third core for them. What
counts is the ratio of the median step times.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from medray.engine.loop import LoopSettings, run_loop
from medray.engine.options import LoopOptions, RunOptions
from medray.engine.ray_train import RayWorkbench, ray_session
from medray.engine.rundir import read_json_lines
from medray.engine.world import World
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


def median_step_ms(run: Path) -> float:
    """From the run's own records, the first one left out."""
    records = [r for r in read_json_lines(run / "metrics.jsonl") if r["name"] == "speed"]
    return statistics.median(r["step_ms"] for r in records[1:])


def bare_worker(rank: int, size: int, run: str, steps: int, port: int) -> None:
    """The engine's loop without Ray."""
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    options = LoopOptions(loader_workers=0)
    run_loop(Make(steps), World(rank, size), LoopSettings(name="train", run=Path(run), options=options))
    if size > 1:
        dist.barrier()
    os._exit(0)


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
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {"Ray Train workers": [], "bare processes": []}
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    with ray_session(2), tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            times = {}
            for size in (1, 2) if number % 2 == 0 else (2, 1):
                run = Path(folder) / f"ray-{number}-{size}"
                options = RunOptions(data="", num_workers=size, loader_workers=0)
                RayWorkbench(run, options).fit(Make(arguments.steps))
                times[size] = median_step_ms(run)
            _tell(found["Ray Train workers"], number, times)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            times = {}
            for size in (1, 2) if number % 2 == 0 else (2, 1):
                run = Path(folder) / f"bare-{number}-{size}"
                mp.spawn(bare_worker, args=(size, str(run), arguments.steps, 29471 + number), nprocs=size)
                times[size] = median_step_ms(run)
            _tell(found["bare processes"], number, times)
    for what, ratios in found.items():
        print(f"two / one, {what}: median of {len(ratios)} {statistics.median(ratios):.2f} (at least 1.8 wanted)")


def _tell(ratios: list[float], number: int, times: dict[int, float]) -> None:
    ratios.append(times[1] / times[2])
    print(f"round {number}: {times[1]:.0f} and {times[2]:.0f} ms a step, ratio {ratios[-1]:.2f}, "
          f"load {os.getloadavg()[0]:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
