"""What is looked up and refused before a sweep starts."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from toy_sweeps import DialConfig, registered

from medray.errors import UserError
from tuning import run
from tuning.plan import flags_of, plan
from tuning.settings import SweepSettings


@pytest.fixture(autouse=True)
def _dial() -> Iterator[None]:
    with registered():
        yield


def _settings(**more: Any) -> SweepSettings:
    given = {"system": "dial", "search": ("config.rounds=int(1,3)",), "metric": ("score",), "mode": ("max",), **more}
    return SweepSettings(**given)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("config.diary=/a folder/with spaces", "diary", "/a folder/with spaces"),
        ("config.diary=", "diary", ""),
        ("config.sizes=3 4 5", "sizes", (3, 4, 5)),
        ("config.network=yes", "network", True),
        ("config.network=False", "network", False),
        ("config.x=1e-3", "x", 1e-3),
    ],
)
def test_what_is_set_in_all_trials_is_read_by_the_fields_type(text: str, name: str, value: object) -> None:
    assert getattr(plan(_settings(set=(text,))).config, name) == value


def test_a_word_that_is_neither_true_nor_false_is_not_taken_for_false() -> None:
    with pytest.raises(UserError, match=r"config\.network takes True or False, got 'on it'"):
        flags_of(DialConfig, {"network": "on it"})


def test_whoever_gives_up_by_another_metric_says_which_direction_is_better() -> None:
    with pytest.raises(UserError, match="is more or less of mse better"):
        plan(_settings(scheduler="asha", stop_on="mse"))
    assert plan(_settings(scheduler="asha", stop_on="mse", stop_mode="min")).stop_mode == "min"
    assert plan(_settings(scheduler="asha")).stop_mode == "max"


def test_gpus_that_nobody_has_are_an_error_instead_of_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray, "nodes", lambda: [{}])
    with pytest.raises(UserError, match="the Ray cluster has no GPU"):
        run._need_gpus(plan(_settings(use_gpu=True)))
    run._need_gpus(plan(_settings()))


def test_ctrl_c_is_what_it_was_once_tune_is_done() -> None:
    before = signal.getsignal(signal.SIGINT)
    with run._interruptible():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as Tune puts a handler of its own there
    assert signal.getsignal(signal.SIGINT) is before
