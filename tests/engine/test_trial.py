"""A run of a sweep: what it is scored on, who hears it, how it is stopped and goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from safetensors.torch import load_file
from toy_sweeps import Dial, DialConfig, registered

from medray.data.sources import open_source
from medray.engine import run as verbs
from medray.engine.host import Host
from medray.engine.options import RunOptions
from medray.engine.rundir import RunDirectory
from medray.engine.trial import TrialResult, run_trial
from medray.engine.workbench import StoppedByUser

OPTIONS = RunOptions(data="phantom:chest_xray?n=12&size=32", num_workers=0)


class Ear(Host):
    """Keeps what it hears; stops the loop after a number of validations."""

    def __init__(self, most: int = 100) -> None:
        super().__init__()
        self.heard: list[tuple[str, dict[str, float]]] = []
        self.most = most

    def observe(self, name: str, metrics: Mapping[str, float]) -> None:
        self.heard.append((name, dict(metrics)))

    def stop_requested(self) -> bool:
        return sum(name == "validation" for name, _ in self.heard) >= self.most


def _run(folder: Path, listener: Host, config: DialConfig, seed: int = 0) -> TrialResult:
    return run_trial(
        RunDirectory.at(str(folder)),
        Dial(config),
        RunOptions(data=OPTIONS.data, num_workers=0, seed=seed),
        open_source(OPTIONS.data),
        preset="smoke",
        variant="dial",
        command="train",
        listener=listener,
    )


def _weights(folder: Path) -> dict[str, list[float]]:
    newest = max((folder / "checkpoints/train").glob("step-*/model.safetensors"))
    return {name: tensor.flatten().tolist() for name, tensor in load_file(newest).items()}


def test_the_listener_hears_the_loop_and_what_the_system_logs(tmp_path: Path) -> None:
    ear = Ear()
    _run(tmp_path / "run", ear, DialConfig(network=True))
    names = [name for name, _ in ear.heard]
    assert names[:3] == ["rounds"] * 3
    assert names.count("validation") == 3
    assert {"mse", "epoch"} <= dict(ear.heard[names.index("validation")][1]).keys()


def test_it_is_scored_on_the_validation_cases(tmp_path: Path) -> None:
    result = _run(tmp_path / "run", Host(), DialConfig())
    whole = Dial(DialConfig()).split(open_source(OPTIONS.data), 0)
    rows = json.loads((tmp_path / "run/evaluation.json").read_text())["variants"]["dial"]["rows"]
    assert [row["case"] for row in rows] == [case.id for case in whole.validation]
    assert result.metrics["cases"] == 2


def test_a_run_that_has_ended_is_not_done_again(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    config = DialConfig(diary=str(diary))
    first = _run(tmp_path / "run", Host(), config)
    done = diary.read_text()
    assert _run(tmp_path / "run", Host(), config).metrics == first.metrics
    assert diary.read_text() == done


def test_stopped_by_its_listener_and_run_again_it_ends_with_the_weights_of_train(tmp_path: Path) -> None:
    with pytest.raises(StoppedByUser):
        _run(tmp_path / "run", Ear(most=1), DialConfig(network=True), seed=4)
    assert not (tmp_path / "run/result.json").exists()
    _run(tmp_path / "run", Host(), DialConfig(network=True), seed=4)
    with registered():
        options = RunOptions(data=OPTIONS.data, num_workers=0, seed=4, out=str(tmp_path))
        trained = verbs.train("dial", DialConfig(network=True), options, preset="smoke", variant="dial")
    assert _weights(tmp_path / "run") == _weights(trained.path)
