"""When to kill, drawn from the seed; waiting for that moment; and what else may happen to a machine."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medray.engine.checkpoint import WEIGHTS
from tests.chaos.notes import MOMENTS, STARTING, Board, is_alive

WRITING, UPLOADING, ANY, LOADER_KILLED = "writing a checkpoint", "uploading", "", "in the loader process"
_LOOK_EVERY_S = 0.0003
_MOST_STEPS = 12
_LONGEST_PAUSE_S = {STARTING: 0.06, ANY: 0.05}
_USUAL_PAUSE_S = 0.003


@dataclass(frozen=True)
class Aim:
    """When to kill.

    Attributes:
        moment: what the victim is to be doing; `ANY` for whatever it does.
        steps: updates since it started that it may make first.
        pause_s: how long to wait after it was seen doing so; it may then be doing something else.
    """

    moment: str
    steps: int
    pause_s: float


@dataclass(frozen=True)
class Kill:
    """A process that was killed, and what it was doing then."""

    scenario: str
    learner: str
    moments: tuple[str, ...]
    step: int

    def __str__(self) -> str:
        return f"{self.scenario:8} {self.learner:8} killed at step {self.step:3}, {' and '.join(self.moments)}"


def plan(rng: random.Random, moments: Sequence[str], most: int) -> list[Aim]:
    """Aim at each of the moments once, in random order, but at ``most`` of them."""
    chosen = rng.sample(list(moments), min(most, len(moments)))
    return [
        Aim(
            moment,
            0 if moment == STARTING else rng.randrange(_MOST_STEPS),
            rng.random() * _LONGEST_PAUSE_S.get(moment, _USUAL_PAUSE_S),
        )
        for moment in chosen
    ]


def hunt(
    aim: Aim, board: Board, candidates: Callable[[], Sequence[int]], over: Callable[[], bool], timeout_s: float = 120.0
) -> int | None:
    """Wait for the aim and return the process that is there, or None if training ended first.

    Raises:
        TimeoutError: neither comes about.
    """
    deadline = time.monotonic() + timeout_s
    first_step: dict[int, int] = {}
    while time.monotonic() < deadline:
        for pid in candidates():
            seen = board.read(pid)
            if seen.moment != STARTING:
                first_step.setdefault(pid, seen.step)
            if seen.step - first_step.get(pid, seen.step) < aim.steps:
                continue
            doing = {seen.moment, *([UPLOADING] if seen.uploading else [])}
            if aim.moment == WRITING and board.writing(pid):
                doing.add(WRITING)
            if aim.moment in doing or aim.moment == ANY:
                time.sleep(aim.pause_s)
                if is_alive(pid):
                    return pid
        if over():
            return None
        time.sleep(_LOOK_EVERY_S)
    raise TimeoutError(f"was not seen {aim.moment or 'at work'} within {timeout_s:g} s")


def moments_of(board: Board, pid: int) -> tuple[str, ...]:
    """What a process was doing when it died."""
    seen = board.read(pid)
    beside = [(WRITING, board.writing(pid)), (UPLOADING, seen.uploading)]
    return seen.moment, *(moment for moment, so in beside if so)


def all_moments() -> tuple[str, ...]:
    """Everything that kills are to hit."""
    return *MOMENTS, WRITING, UPLOADING, LOADER_KILLED


def end(pid: int) -> None:
    """SIGKILL, and wait until it has had its effect."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.001)


def damage(newest: Path, rng: random.Random, *, weights: bool) -> str:
    """Flip a bit in one file of a checkpoint or cut it short, as failing disks do; returns what was done, in words.

    Args:
        newest: the checkpoint.
        rng: chooses.
        weights: flip one in the weights, which nothing but their checksum would tell.
    """
    file = newest / WEIGHTS if weights else rng.choice(sorted(newest.iterdir()))
    content = bytearray(file.read_bytes())
    if not weights and rng.random() < 0.5:
        file.write_bytes(content[: rng.randrange(len(content))])
        return f"{newest.name}/{file.name} cut short"
    content[rng.randrange(len(content) // 2, len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return f"a bit of {newest.name}/{file.name} flipped"
