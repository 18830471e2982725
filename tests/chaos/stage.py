"""What all scenarios share: folders, the seed, undisturbed runs to compare with, and the record of what was killed."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import psutil

from tests.chaos.kills import Kill
from tests.chaos.learners import Subject
from tests.chaos.notes import Board, is_alive
from tests.chaos.verdict import Verdict

MARK = "MEDRAY_CHAOS"
"""In the environment of everything a scenario starts, so that what outlives it is found."""


@dataclass(frozen=True)
class Run:
    """One run to be killed: its folder, its subject, its notes."""

    folder: Path
    subject: Subject
    board: Board


@dataclass
class Stage:
    """Where the scenarios play.

    Attributes:
        folder: scratch space for all of them.
        seed: decides every kill.
        learners: names in `LEARNERS`, each gets its own run.
        most: kills in each run.
    """

    folder: Path
    seed: int
    learners: Sequence[str]
    most: int
    kills: list[Kill] = field(default_factory=list)
    verdicts: list[tuple[str, str, Verdict]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    _terminal: TextIO = field(default_factory=lambda: sys.stdout)
    _references: dict[tuple[str, int], Path] = field(default_factory=dict)

    def rng(self, *key: str) -> random.Random:
        """Random numbers of one run, the same whichever others there are."""
        return random.Random(" ".join((str(self.seed), *key)))

    def run(self, scenario: str, learner: str) -> Run:
        """A fresh folder."""
        folder = self.folder / scenario / learner
        board = Board(folder / "notes", folder / "run" / "checkpoints" / "train")
        return Run(folder / "run", Subject(learner, folder / "notes"), board)

    def reference(self, learner: str, workers: int, fit: Callable[[Path, Subject], None]) -> Path:
        """The folder of an undisturbed run on so many workers; ``fit`` makes it unless there is one."""
        key = (learner, workers)
        if key not in self._references:
            run = self.run(f"undisturbed{workers}", learner)
            fit(run.folder, run.subject.undisturbed())
            self._references[key] = run.folder
        return self._references[key]

    def killed(self, kill: Kill, then: str = "") -> None:
        """Record a kill, and tell."""
        self.kills.append(kill)
        print(f"{kill}{then and '; '}{then}", file=self._terminal, flush=True)

    def judge(self, scenario: str, learner: str, verdict: Verdict) -> None:
        """Record how a run ended, and tell."""
        self.verdicts.append((scenario, learner, verdict))
        said = "as if undisturbed" if verdict.ok else "WRONG"
        print(
            f"{scenario:8} {learner:8} {said}: {verdict.samples:g} samples lost or repeated, "
            f"largest weight difference {verdict.weights:g}",
            *verdict.problems,
            sep="; ",
            file=self._terminal,
            flush=True,
        )


def leaked(stage: Stage, scenario: str, patience_s: float = 20.0) -> list[str]:
    """Processes of a scenario that are still there, after some time to end by themselves."""
    deadline = time.monotonic() + patience_s
    while (found := _alive(stage, scenario)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _alive(stage: Stage, scenario: str) -> list[str]:
    noted = {int(path.name) for path in (stage.folder / scenario).glob("*/notes/*") if is_alive(int(path.name))}
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == os.environ[MARK] and process.status() != psutil.STATUS_ZOMBIE:
                noted.add(process.pid)
        except psutil.Error:
            continue
    return [_described(pid) for pid in sorted(noted - {os.getpid()})]


def _described(pid: int) -> str:
    try:
        return f"{pid} {psutil.Process(pid).name()}"
    except psutil.NoSuchProcess:
        return str(pid)
