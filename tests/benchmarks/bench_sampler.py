"""What M-VAAL's sampler costs: its update against a bare loop and against three channels, and memory while ranking.

    python tests/benchmarks/bench_sampler.py                  128 x 128 px, narrow networks, a few minutes on a core
    python tests/benchmarks/bench_sampler.py --paper --steps 4   the paper's widths, some seconds for each update

Three tables. ``engine``: updates (16 labelled and 16 unlabelled images) through the engine, with reading from the
cache, logging and checkpoints at start and end, against a loop written out in PyTorch on tensors that are there
already. ``channels``: the learner's update with a gray image fed once against three times. Both alternate within a
round, and what counts is the median ratio of CPU time. ``memory``: growth of the process's peak while a pool is ranked,
each size in a process of its own.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from medray.active.sampler import smallest
from medray.data.cache import SampleCache
from medray.data.case import Case, Volume
from medray.engine.loop import LoopSettings, run_loop
from medray.engine.options import LoopOptions
from medray.engine.seeding import seed_everything
from medray.engine.world import World
from medray.learner import Step
from medray.systems.active_learning.mvaal import (
    MvaalLearner,
    MvaalSettings,
    PairBatch,
    build,
    critic_scores,
    reader,
)
from medray.systems.active_learning.mvaal_networks import ToImage, TwoDecoderVae

_NARROW = (16, 32, 64, 128)
_SMALL_POOL = 64


@dataclass(frozen=True)
class Noise:
    """An image of noise, made when it is asked for."""

    number: int
    size: int

    def load(self) -> Volume:
        """(1, size, size) in [0, 1]."""
        array = np.random.default_rng(self.number).random((1, self.size, self.size), dtype=np.float32)
        return Volume(array, np.eye(4), f"noise {self.number}")

    def fingerprint(self) -> str:
        """Of size and seed."""
        return f"noise {self.number} {self.size}"


def _cases(start: int, number: int, size: int) -> tuple[Case, ...]:
    return tuple(
        Case(f"{n:06d}", f"{n}", {"image": Noise(2 * n, size), "auxiliary": Noise(2 * n + 1, size)})
        for n in range(start, start + number)
    )


class Prepared:
    """Makes learners that share a warm cache."""

    def __init__(self, settings: MvaalSettings, num_steps: int) -> None:
        self.settings, size = settings, settings.sampler_size
        self.labelled = _cases(0, settings.sampler_batch_size, size)
        self.unlabelled = _cases(settings.sampler_batch_size, num_steps * settings.sampler_batch_size, size)
        self.cache = SampleCache(memory_gb=2.0)

    def __call__(self) -> MvaalLearner:
        return MvaalLearner(self.settings, self.labelled, self.unlabelled, self.cache)

    def tensors(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Images of each kind, labelled before unlabelled: all of a kind in one tensor."""
        learner = self()
        return [
            tuple(  # type: ignore[misc]
                torch.from_numpy(np.stack([learner.read.image(case, field) for case in cases]))
                for cases in (self.labelled, self.unlabelled)
            )
            for field in learner.fields
        ]


def bare(make: Prepared, images: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """The same networks, losses and optimizers, as one would write them down for one device."""
    seed_everything(0, "init")
    settings, batch = make.settings, make.settings.sampler_batch_size
    networks = build(settings).train()
    vae, critic = networks["vae"], networks["critic"]
    assert isinstance(vae, TwoDecoderVae)
    vae_optimizer = torch.optim.Adam(vae.parameters(), lr=settings.lr_vae)
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=settings.lr_critic)
    total = len(images[0][1])
    order = torch.randperm(total)
    for start in range(0, total, batch):
        chosen, beside = order[start : start + batch], torch.randperm(len(images[0][0]))[:batch]
        both = [torch.cat([labelled[beside], unlabelled[chosen]]) for labelled, unlabelled in images]
        coded = vae(both[0], torch.randn(2 * batch, settings.latent))
        z = coded.latent("sample", torch.randn(2 * batch, settings.latent))
        critic.requires_grad_(False)
        scores = critic(z)
        critic.requires_grad_(True)
        kl = 0.5 * (coded.z_mu.square() + coded.log_variance.exp() - coded.log_variance - 1).sum() / batch
        loss = scores[:batch].mean() - scores[batch:].mean() + kl / (3 * settings.sampler_size**2)
        for modality, (made, wanted) in enumerate(zip(coded.made, both, strict=True)):
            loss = loss + 2 * F.mse_loss(made, vae.normalized(wanted, modality))
        loss.backward()
        vae_optimizer.step()
        vae_optimizer.zero_grad()
        z = z.detach()
        scores, mix = critic(z), torch.rand(batch, 1)
        between = (mix * z[:batch] + (1 - mix) * z[batch:]).requires_grad_(True)
        critic.eval()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        critic.train()
        (scores[batch:].mean() - scores[:batch].mean() + (slope.norm(dim=1) - 1).square().mean()).backward()
        critic_optimizer.step()
        critic_optimizer.zero_grad()


def engine(make: Prepared) -> None:
    """The same through `run_loop`."""
    with tempfile.TemporaryDirectory() as folder:
        run_loop(make, World(), LoopSettings(name="train", run=Path(folder), options=LoopOptions(loader_workers=0)))


def channels_job(settings: MvaalSettings, num_steps: int, *, original: bool = False) -> Callable[[], None]:
    """Updates of a learner; of the original code's, the reconstruction is made by PyTorch's own 1 x 1 convolution."""
    learner = Prepared(settings, 1)()
    learner.begin_epoch(0)
    if original:
        for module in learner.networks.modules():
            if isinstance(module, ToImage):
                module.forward = functools.partial(nn.Conv2d.forward, module)  # type: ignore[method-assign]
    return functools.partial(updates, learner, learner.collate(range(settings.sampler_batch_size), 0), num_steps)


def updates(learner: MvaalLearner, batch: PairBatch, num_steps: int) -> None:
    """The learner's own step again and again on one batch."""
    step = Step(learner.configure_optimizers())
    learner.networks.train()
    for _ in range(num_steps):
        learner.training_step(batch, step)


def compared(jobs: Mapping[str, Callable[[], None]], rounds: int, num_steps: int) -> dict[str, float]:
    """CPU milliseconds per update of two jobs (medians) and how often the first fits into the second."""
    spent: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()  # warm-up
    for number in range(rounds):
        for name in sorted(jobs, reverse=bool(number % 2)):
            began = time.process_time()
            jobs[name]()
            spent[name].append(1000 * (time.process_time() - began) / num_steps)
    first, second = spent
    ratios = [b / a for a, b in zip(spent[first], spent[second], strict=True)]
    found = {f"{name}_ms": round(statistics.median(times), 2) for name, times in spent.items()}
    return {**found, "ratio": round(statistics.median(ratios), 3), "least": round(min(ratios), 3)}


def memory(settings: MvaalSettings, number: int) -> dict[str, float]:
    """Rank a pool of generated images, as `MvaalSampler.rank` does, after a small one that warms up."""
    networks: nn.ModuleDict = build(settings).eval().requires_grad_(False)
    read = reader(settings, None)

    def rank(pool: Sequence[Case]) -> None:
        picks, scores = smallest(pool, critic_scores(networks, read, pool), 100)
        assert len(picks) == min(100, len(pool))
        assert len(scores) == len(pool)

    cases = _cases(0, number, settings.sampler_size)
    rank(cases[:_SMALL_POOL])
    before, began = _peak_mb(), time.perf_counter()
    rank(cases)
    growth, seconds = _peak_mb() - before, time.perf_counter() - began
    images_mb = number * settings.sampler_size**2 * 4 / 1e6
    return {"images": number, "images_mb": round(images_mb, 1), "base_mb": round(before, 1),
            "growth_mb": round(growth, 1), "images_per_s": round(number / seconds, 1)}  # fmt: skip


def _peak_mb() -> float:
    """Of this process alone: what getrusage says, a child inherits from whoever started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError("this kernel does not tell a process's peak memory")


def main() -> None:
    """Print the tables, a JSON line for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="of the images, px")
    parser.add_argument("--channels", type=int, nargs="+", default=_NARROW, help="of the encoder")
    parser.add_argument("--paper", action="store_true", help="the paper's widths: 128 256 512 1024")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="updates of a round")
    parser.add_argument("--pools", type=int, nargs="+", default=(1000, 10000), help="images to rank")
    parser.add_argument("--only", choices=("engine", "channels", "memory"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    channels = MvaalSettings().channels if given.paper else tuple(given.channels)
    settings = MvaalSettings(sampler_size=given.size, channels=channels, sampler_epochs=1)
    if given.only == "memory" and len(given.pools) == 1:
        print(json.dumps(memory(settings, given.pools[0])), flush=True)
        return
    print(f"{given.size} px, channels {channels}, {given.rounds} rounds of {given.steps} updates", flush=True)
    if given.only in (None, "engine"):
        make = Prepared(settings, given.steps)
        jobs: dict[str, Callable[[], None]] = {
            "engine": functools.partial(engine, make),
            "bare": functools.partial(bare, make, make.tensors()),
        }
        print("bare / engine:", json.dumps(compared(jobs, given.rounds, given.steps)), flush=True)
    if given.only in (None, "channels"):
        tripled = replace(settings, gray_channels=3)
        one, three = channels_job(settings, given.steps), channels_job(tripled, given.steps)
        original = channels_job(tripled, given.steps, original=True)
        for name, job in (("three", three), ("original", original)):
            found = compared({"one": one, name: job}, given.rounds, given.steps)
            print(f"{name} / one:", json.dumps(found), flush=True)
    if given.only in (None, "memory"):
        widths = [str(width) for width in channels]
        for number in given.pools:
            command = [sys.executable, __file__, "--only", "memory", "--size", str(given.size), "--pools", str(number)]
            subprocess.run([*command, "--channels", *widths], check=True)


if __name__ == "__main__":
    main()
