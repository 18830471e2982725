"""Rounds go on without the sites that are away, average what came, and are not done twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from medray.engine.workbench import InProcessWorkbench
from medray.metrics.segmentation import Confusion
from medray.systems.segmentation import federation
from medray.systems.segmentation.federation import (
    WEIGHTS,
    Federation,
    Update,
    Weights,
    aggregate,
    participants,
    run_rounds,
)

START: Weights = {"w": torch.tensor([0.0, 0.0])}


class Adds:
    """A site that adds its number to the weights, and keeps a diary of what it was sent."""

    def __init__(self, work: Any, number: float) -> None:
        self.number, self.diary = number, work.out / "diary.txt"

    def train(self, number: int, weights: Weights, own: Weights | None) -> Update:
        self.diary.parent.mkdir(parents=True, exist_ok=True)
        kept = "none" if own is None else f"{float(own['w'][0]):g}"
        with self.diary.open("a") as file:
            file.write(f"round {number} from {float(weights['w'][0]):g} own {kept}\n")
        return Update({"w": weights["w"] + self.number}, int(self.number), self.number, 1.0 / (number + 1))

    def score(self, weights: Weights) -> Confusion:
        return Confusion(tp=int(weights["w"][0]), fp=1)


class Unsteady(InProcessWorkbench):
    """A workbench whose team loses sites: who is away when, by the number of the call."""

    away: Mapping[int, set[str]] = {}
    calls = 0

    @contextmanager
    def team(self, make_member: Any, items: Any, **how: Any) -> Iterator[Any]:
        with super().team(make_member, items, **how) as team:
            yield _Losing(self, team)


class _Losing:
    def __init__(self, work: Unsteady, team: Any) -> None:
        self.work, self.team = work, team

    def call(self, method: str, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        gone = self.work.away.get(self.work.calls, set()) if method == "train" else set()
        self.work.calls += method == "train"
        return self.team.call(method, {name: args for name, args in arguments.items() if name not in gone})


def rounds(work: InProcessWorkbench, **settings: Any) -> tuple[Weights, list[federation.RoundRecord]]:
    from safetensors.torch import load_file

    folder, records = run_rounds(work, Adds, {"a": 1.0, "b": 3.0}, START, Federation(**settings))
    return load_file(folder / WEIGHTS), records


def test_the_average_goes_by_the_number_of_images() -> None:
    updates = [Update({"w": torch.tensor([0.0]), "n": torch.tensor(2)}, 30, 0, 0),
               Update({"w": torch.tensor([4.0]), "n": torch.tensor(7)}, 10, 0, 0)]  # fmt: skip
    merged = aggregate(updates, "samples")
    assert float(merged["w"]) == 1.0
    assert int(merged["n"]) == 7
    assert float(aggregate(updates, "uniform")["w"]) == 2.0


def test_rounds_by_hand(tmp_path: Path) -> None:
    weights, records = rounds(InProcessWorkbench(tmp_path), rounds=2)
    assert float(weights["w"][0]) == pytest.approx(2 * (1 * 1 + 3 * 3) / 4)
    assert [record.answered for record in records] == [("a", "b")] * 2
    assert records[1].drift == {"a": 1.0, "b": 3.0}
    assert records[1].scores["all"]["dice"] == pytest.approx(2 * 10 / (2 * 10 + 2))  # two sites, 5 right and 1 wrong


def test_a_site_that_is_away_is_left_out_of_its_round_and_comes_back(tmp_path: Path) -> None:
    work = Unsteady(tmp_path, quiet=True)
    work.away = {1: {"b"}}
    weights, records = rounds(work, rounds=3)
    assert [record.answered for record in records] == [("a", "b"), ("a",), ("a", "b")]
    assert [record.absent for record in records] == [(), ("b",), ()]
    assert float(weights["w"][0]) == pytest.approx(2.5 + 1.0 + 2.5)


def test_a_round_waits_for_as_many_as_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr(federation.time, "sleep", naps.append)
    work = Unsteady(tmp_path, quiet=True)
    work.away = {0: {"a", "b"}, 1: {"b"}, 2: {"b"}}
    _, records = rounds(work, rounds=1, min_sites=2)
    assert records[0].answered == ("a", "b")
    assert len(naps) == 3
    assert (tmp_path / "sites" / "a" / "diary.txt").read_text().count("round 0") == 1  # not asked again


def test_a_stopped_run_goes_on_with_the_next_round(tmp_path: Path) -> None:
    whole, _ = rounds(InProcessWorkbench(tmp_path / "whole"), rounds=3, keep_own=True)
    rounds(InProcessWorkbench(tmp_path / "parts"), rounds=2, keep_own=True)
    resumed, records = rounds(InProcessWorkbench(tmp_path / "parts"), rounds=3, keep_own=True)
    assert torch.equal(whole["w"], resumed["w"])
    assert len(records) == 3
    for site in ("a", "b"):
        diaries = [(tmp_path / side / "sites" / site / "diary.txt").read_text() for side in ("whole", "parts")]
        assert diaries[0] == diaries[1]
    assert "round 2 from 5 own 3.5\n" in (tmp_path / "whole" / "sites" / "a" / "diary.txt").read_text()


def test_participants_are_drawn_by_the_seed() -> None:
    names = ("a", "b", "c", "d")
    drawn = [participants(names, 0.5, seed) for seed in range(20)]
    assert all(len(chosen) == 2 and list(chosen) == sorted(chosen) for chosen in drawn)
    assert {name for chosen in drawn for name in chosen} == set(names)
    assert participants(names, 0.5, 3) == drawn[3]
    assert len(participants(names, 0.01, 0)) == 1
