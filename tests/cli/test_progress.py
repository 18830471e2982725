"""Following a metrics file that appears late, breaks off, and is rewound."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medray.progress import State, Tail, Watcher, counted, training_line, validation_line


def train(step: int, **more: float) -> str:
    return json.dumps({"name": "train", "loop": "train", "step": step, "epoch": step // 10, "loss": 1 / step, **more})


def validation(step: int, dice: float) -> str:
    return json.dumps({"name": "validation", "loop": "train", "step": step, "epoch": 0, "wall_s": 1.0, "dice": dice})


def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited 10 s in vain")


def test_tail_gives_whole_lines_once(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    tail = Tail(file)
    assert tail.read() == []  # not there yet
    file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [r["step"] for r in tail.read()] == [1, 2]
    assert tail.read() == []
    with file.open("a") as more:
        more.write('ep": 3}\n')
    assert tail.read() == [{"step": 3}]


def test_tail_passes_over_a_line_its_writer_never_finished(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2, "lo{"step": 2}\n7\n{"step": 3}\n')
    assert [r["step"] for r in Tail(file).read()] == [1, 3]


def test_tail_starts_again_when_the_file_is_replaced(tmp_path: Path) -> None:
    file, partial = tmp_path / "metrics.jsonl", tmp_path / "metrics.tmp"
    file.write_text('{"step": 1}\n{"step": 2}\n')
    tail = Tail(file)
    tail.read()
    assert not tail.replaced
    partial.write_text('{"step": 1}\n{"step": 9, "longer": "than what was there before"}\n')
    os.replace(partial, file)
    assert [r["step"] for r in tail.read()] == [1, 9]
    assert tail.replaced


def test_time_left_is_the_steps_left_at_the_pace_so_far() -> None:
    state = State(total_steps=100)
    for now, step in ((0.0, 10), (10.0, 30)):  # 2 steps a second, 70 to go
        state.update({"step": step}, now=now)
    assert state.remaining_s() == pytest.approx(35.0)
    state.update({"step": 5}, now=11.0)  # back at an earlier checkpoint: the old pace says nothing
    assert state.remaining_s() != state.remaining_s()


def test_lines_say_where_the_run_is() -> None:
    state = State(total_steps=600)
    state.update({"step": 100, "epoch": 3, "loss": 0.2}, now=0.0)
    state.update({"step": 120, "epoch": 3, "loss": 0.12345, "samples_per_second": 41.23}, now=10.0)
    assert training_line(state) == "epoch 3  step 120/600  loss 0.1235  41.2 samples/s  4:00 left"
    record = {
        "name": "validation",
        "loop": "train",
        "step": 120,
        "epoch": 3,
        "wall_s": 9.5,
        "dice": 0.81,
        "tre_px": None,
    }
    assert validation_line(record) == "validation  step 120  dice 0.81"


def test_lines_of_reinforcement_learning_tell_the_return() -> None:
    state = State()
    state.update({"loop": "train", "step": 7, "epoch": 7, "total_steps": 50, "return_mean": 12.345}, now=None)
    assert training_line(state) == "epoch 7  step 7/50  return 12.35"


def test_watcher_prints_plain_lines_of_a_late_file(tmp_path: Path) -> None:
    file, stream = tmp_path / "metrics.jsonl", io.StringIO()
    with Watcher(file, total_steps=40, stream=stream, poll_s=0.01, every_s=1000.0):
        time.sleep(0.03)
        file.write_text(train(1) + "\n" + train(2) + "\n" + validation(2, 0.5) + "\n" + train(3)[:10])
        until(lambda: "validation" in stream.getvalue())
        with file.open("a") as more:
            more.write(train(3)[10:] + "\n" + train(40, total_steps=40) + "\n")
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[1] for line in lines] == ["step 1/40", "step 2", "step 40/40"]
    assert lines[1] == "validation  step 2  dice 0.5"


def test_watchers_of_several_say_who_trains(tmp_path: Path) -> None:
    stream = io.StringIO()
    logs = {name: tmp_path / f"{name}.jsonl" for name in ("learner", "sampler")}
    with (
        Watcher(logs["learner"], stream=stream, poll_s=0.01, every_s=0.0, label="learner"),
        Watcher(logs["sampler"], stream=stream, poll_s=0.01, every_s=0.0, label="sampler"),
    ):
        for number, file in enumerate(logs.values(), start=1):
            file.write_text(f"{train(number)}\n{validation(number, 0.5)}\n")
        until(lambda: stream.getvalue().count("\n") == 2)
    told = sorted(line.split("  ")[:2] for line in stream.getvalue().splitlines())
    assert told == [["learner: epoch 0", "step 1"], ["sampler: epoch 0", "step 2"]]


def test_watcher_tells_a_resumed_run_once(tmp_path: Path) -> None:
    file, partial, stream = tmp_path / "metrics.jsonl", tmp_path / "metrics.tmp", io.StringIO()
    file.write_text("".join(line + "\n" for line in (train(1), validation(1, 0.1), train(2))))
    with Watcher(tmp_path, stream=stream, poll_s=0.01, every_s=0.0) as watcher:
        assert watcher.state.step == 2
        partial.write_text("".join(line + "\n" for line in (train(1), validation(1, 0.1))))
        os.replace(partial, file)
        until(lambda: watcher.state.step == 1)
        with file.open("a") as more:
            more.write(train(2) + "\n" + validation(2, 0.2) + "\n")
        until(lambda: "0.2" in stream.getvalue())
    lines = stream.getvalue().splitlines()
    assert len([line for line in lines if "validation" in line]) == 1
    assert "dice 0.1" not in stream.getvalue()
    assert lines[0].startswith("epoch 0  step 2")


def test_watcher_ends_with_an_error_inside_and_shows_what_there_was(tmp_path: Path) -> None:
    stream = io.StringIO()

    def interrupted() -> None:
        with Watcher(tmp_path, stream=stream):
            (tmp_path / "metrics.jsonl").write_text(train(4) + "\n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "step 4" in stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_watcher_draws_a_bar_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Watcher(tmp_path, total_steps=8, stream=stream, poll_s=0.01):
        (tmp_path / "metrics.jsonl").write_text(train(8) + "\n" + validation(8, 0.75) + "\n")
    assert "8/8" in stream.getvalue()
    assert "validation  step 8  dice 0.75" in stream.getvalue()


def test_counted_says_how_far_it_is() -> None:
    stream = io.StringIO()
    with counted("checking", 3, stream=stream, every_s=0.0) as tick:
        for case in range(3):
            tick(case)
    assert stream.getvalue() == "checking: 1 of 3\nchecking: 2 of 3\nchecking: 3 of 3\n"
    quiet = io.StringIO()
    with counted("checking", 1, stream=quiet) as tick:
        tick()
    assert quiet.getvalue() == ""
