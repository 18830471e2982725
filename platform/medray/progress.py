"""What a person sees while a run trains: a bar on a terminal, a line every few seconds anywhere else.

It follows the run's metrics.jsonl and asks nothing of the workers, wherever they are, but that they write there.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

_NOT_METRICS = {"name", "loop", "step", "epoch", "wall_s", "total_steps", "samples_per_second"}

_WORTH_TELLING = 0.1
"""Share of the time waiting for data from which a person should know."""


class Tail:
    """The new whole lines of a growing JSON-lines file.

    The file may appear late, end in half a line, hold a line that a killed writer never finished, and be replaced by a
    shorter one when an interrupted run goes on from an earlier checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.replaced = False
        """Whether the last `read` found another file than the one before, and so began at its start again."""
        self._inode = 0
        self._offset = 0
        self._rest = b""

    def read(self) -> list[dict[str, Any]]:
        """Records that were completed since the last call; none while there is no file."""
        self.replaced = False
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self.replaced = self._inode != 0
                    self._inode, self._offset, self._rest = status.st_ino, 0, b""
                file.seek(self._offset)
                chunk = file.read()
        except OSError:
            return []
        self._offset += len(chunk)
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        return list(_records(whole))


def _records(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


@dataclass
class State:
    """Where a run is, from the records so far.

    Attributes:
        total_steps: updates in all, 0 while unknown.
        mean_return: of the episodes last learnt from, in reinforcement learning.
        samples_per_second: as the run itself measured it, nan while unknown.
        waiting: share of the time that steps wait for data, likewise.
    """

    total_steps: int = 0
    loop: str = ""
    step: int = 0
    epoch: int = 0
    loss: float = math.nan
    mean_return: float = math.nan
    samples_per_second: float = math.nan
    waiting: float = math.nan

    def __post_init__(self) -> None:
        self._pace: deque[tuple[float, int]] = deque(maxlen=20)

    def update(self, record: Mapping[str, Any], *, now: float | None) -> None:
        """Take in one training record.

        Args:
            record: a line of metrics.jsonl.
            now: when it came, in seconds; None for what was there before, which says nothing about the pace.
        """
        loop, step = str(record.get("loop", "")), _number(record, "step")
        if loop != self.loop or step < self.step:  # another stage, or back at an earlier checkpoint
            self._pace.clear()
            self.total_steps = self.total_steps if loop == self.loop or not self.loop else 0
        self.loop, self.step = loop, int(step)
        self.epoch = int(_number(record, "epoch", self.epoch))
        self.total_steps = int(_number(record, "total_steps", self.total_steps))
        self.loss = _number(record, "loss", math.nan)
        self.mean_return = _number(record, "return_mean", math.nan)
        self.samples_per_second = _number(record, "samples_per_second", self.samples_per_second)
        if now is not None:
            self._pace.append((now, self.step))

    def update_speed(self, record: Mapping[str, Any]) -> None:
        """Take in one record of where the time goes."""
        self.waiting = _number(record, "data_ms") / max(_number(record, "step_ms"), 1e-9)

    def remaining_s(self) -> float:
        """Seconds to the last step at the pace of the last records; nan while it cannot be told."""
        if len(self._pace) < 2 or not self.total_steps:
            return math.nan
        (start, first), (end, last) = self._pace[0], self._pace[-1]
        return (self.total_steps - self.step) * (end - start) / (last - first) if last > first else math.nan


def _number(record: Mapping[str, Any], key: str, otherwise: float = 0.0) -> float:
    value = record.get(key)
    return value if isinstance(value, int | float) and math.isfinite(value) else otherwise


class Display(Protocol):
    """Where progress is shown."""

    def training(self, state: State) -> None:
        """A training record came in."""

    def validation(self, record: Mapping[str, Any]) -> None:
        """A validation, or anything else that was measured besides training, came in."""

    def close(self, state: State | None) -> None:
        """The last call; ``state`` is None if there never was a training record."""


class Lines:
    """Plain lines: every validation, and the training every ``every_s`` seconds at most.

    Args:
        stream: where to.
        every_s: seconds between two lines about the training.
        label: before each line, where several are watched at the same time; validations are left out then.
    """

    def __init__(self, stream: TextIO, *, every_s: float = 5.0, label: str = "") -> None:
        self.stream = stream
        self.every_s = every_s
        self._prefix = f"{label}: " if label else ""
        self._said_at = -math.inf
        self._said = ""

    def training(self, state: State) -> None:
        """Say where the training is, unless it was said a moment ago."""
        now = time.monotonic()
        if now - self._said_at >= self.every_s:
            self._said_at, self._said = now, training_line(state)
            self._write(self._said)

    def validation(self, record: Mapping[str, Any]) -> None:
        """Say what was measured."""
        if not self._prefix:
            self._write(validation_line(record))

    def close(self, state: State | None) -> None:
        """Say where the training ended."""
        if state is not None and training_line(state) != self._said:
            self._write(training_line(state))

    def _write(self, text: str) -> None:
        self.stream.write(f"{self._prefix}{text}\n")
        self.stream.flush()


class Bar:
    """A live bar on a terminal, with a line above it for each validation."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            console=Console(file=stream),
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._progress.add_task("starting", total=None, told="")
        self._progress.start()

    def training(self, state: State) -> None:
        """Move the bar."""
        self._progress.update(
            self._task,
            completed=state.step,
            total=state.total_steps or None,
            description=f"epoch {state.epoch}",
            told="  ".join(_told(state)),
        )

    def validation(self, record: Mapping[str, Any]) -> None:
        """Print what was measured above the bar."""
        self._progress.console.print(validation_line(record), markup=False, highlight=False)

    def close(self, state: State | None) -> None:
        """Leave the bar as it is and give the terminal back."""
        if state is not None:
            self.training(state)
        self._progress.stop()


def training_line(state: State) -> str:
    """For example: ``epoch 3  step 120/600  loss 0.1234  41.2 samples/s  1:23 left``."""
    total = f"/{state.total_steps}" if state.total_steps else ""
    return "  ".join([f"epoch {state.epoch}", f"step {state.step}{total}", *_told(state)])


def validation_line(record: Mapping[str, Any]) -> str:
    """For example: ``validation  step 120  dice 0.81  tre_px 1.3``."""
    parts = [str(record.get("name", "measured"))]
    parts += [f"step {record['step']}"] if "step" in record else []
    parts += [
        f"{key} {value:.4g}"
        for key, value in record.items()
        if key not in _NOT_METRICS and isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return "  ".join(parts)


def _told(state: State) -> list[str]:
    parts = [] if math.isnan(state.loss) else [f"loss {state.loss:.4g}"]
    parts += [] if math.isnan(state.mean_return) else [f"return {state.mean_return:.4g}"]
    if not math.isnan(state.samples_per_second):
        parts.append(f"{state.samples_per_second:.3g} samples/s")
    if state.waiting > _WORTH_TELLING:
        parts.append(f"{state.waiting:.0%} waiting for data")
    left = state.remaining_s()
    if not math.isnan(left):
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        parts.append((f"{hours}:{minutes:02}" if hours else f"{minutes}") + f":{seconds:02} left")
    return parts


@contextmanager
def counted(
    what: str, total: int, *, stream: TextIO | None = None, every_s: float = 5.0
) -> Iterator[Callable[..., None]]:
    """Show how many of ``total`` are done: a bar that goes away, or a line now and then if it takes long.

    Args:
        what: what is being done, as in "checking phantom:abdomen".
        total: how many there are.
        stream: where to show it, standard error by default.
        every_s: seconds between two plain lines.

    Yields:
        a function to call once for each that is done; its arguments are ignored.
    """
    stream = stream or sys.stderr
    done, said_at = 0, time.monotonic()
    if stream.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(file=stream), transient=True, redirect_stdout=sys.stdout.isatty()) as progress:
            task = progress.add_task(what, total=total)
            yield lambda *_: progress.advance(task)
        return

    def tick(*_: object) -> None:
        nonlocal done, said_at
        done += 1
        if time.monotonic() - said_at >= every_s:
            said_at = time.monotonic()
            stream.write(f"{what}: {done} of {total}\n")
            stream.flush()

    yield tick


class Watcher:
    """Shows a run's progress while the block it surrounds trains.

    ``with Watcher(run / "metrics.jsonl"): trainer.fit()``

    Args:
        metrics: the run's metrics.jsonl, or its folder; need not exist yet.
        total_steps: updates in all, where the records do not say it.
        stream: where to show it, standard error by default.
        every_s: seconds between two plain lines, at least.
        poll_s: seconds between two looks at the file.
        label: who trains, where several are watched at the same time; they share the terminal as plain lines.
    """

    def __init__(
        self,
        metrics: Path,
        *,
        total_steps: int = 0,
        stream: TextIO | None = None,
        every_s: float = 5.0,
        poll_s: float = 0.5,
        label: str = "",
    ) -> None:
        self.label = label
        self.state = State(total_steps=total_steps)
        self._tail = Tail(metrics / "metrics.jsonl" if metrics.is_dir() else metrics)
        self._stream = stream or sys.stderr
        self._every_s = every_s
        self._poll_s = poll_s
        self._news = False
        self._shown: set[tuple[str, str, float]] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="medray-progress", daemon=True)

    def __enter__(self) -> Watcher:
        for record in self._tail.read():  # an earlier try's: where the run stands, but no news and no pace
            self._take(record, news=False)
        self._display: Display = (
            Bar(self._stream)
            if self._stream.isatty() and not self.label
            else Lines(self._stream, every_s=self._every_s, label=self.label)
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._look()
        self._display.close(self.state if self._news else None)

    def _follow(self) -> None:
        while not self._stopped.wait(self._poll_s):
            self._look()

    def _look(self) -> None:
        records = self._tail.read()
        shown = set(self._shown)
        if self._tail.replaced:  # what a resumed try keeps of the file comes again; it is not news
            self._shown.clear()
        for record in records:
            self._take(record, news=not self._tail.replaced or _key(record) not in shown)

    def _take(self, record: Mapping[str, Any], *, news: bool) -> None:
        self._shown.add(_key(record))
        if record.get("name") == "train":
            self.state.update(record, now=time.monotonic() if news else None)
            if news:
                self._news = True
                self._display.training(self.state)
        elif record.get("name") == "speed":
            self.state.update_speed(record)
        elif news:
            self._display.validation(record)


def _key(record: Mapping[str, Any]) -> tuple[str, str, float]:
    return str(record.get("name")), str(record.get("loop")), _number(record, "step")
