"""M-VAAL as a run: campaigns over seeds and samplers, and what the report shows of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medray.engine.options import RunOptions
from medray.engine.run import evaluate, train
from medray.engine.rundir import read_json_lines
from medray.errors import UserError
from medray.system import System
from medray.systems.active_learning.mvaal_config import PRESETS, VARIANTS, MvaalConfig
from medray.systems.active_learning.mvaal_system import Mvaal

DATA = "phantom:brain_multimodal?n=40&validation=6&test=9&size=32"
FAST = {**PRESETS["smoke"].config, "sampler_epochs": 1, "task_epochs": 1, "initial": 6, "budget": 4}


def run(out: Path, *, compare: tuple[str, ...] = (), **config: Any) -> Path:
    options = RunOptions(data=DATA, out=str(out), num_workers=0, compare=compare)
    return train("mvaal", MvaalConfig(**{**FAST, **config}), options, preset="smoke", variant="mvaal").path


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("runs"), repeats=2, compare=("random", "entropy"))


def told(folder: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((folder / "checkpoints/final/medray.json").read_text())
    return kept


def test_seeds_begin_with_sets_of_their_own(two_seeds: Path) -> None:
    first, second = told(two_seeds)["about"]["campaigns"]
    assert first["rounds"][0]["picks"] != second["rounds"][0]["picks"]
    assert [r["num_labelled"] for r in first["rounds"]] == [r["num_labelled"] for r in second["rounds"]] == [6, 10, 14]


def test_the_log_has_the_means_over_seeds(two_seeds: Path) -> None:
    campaigns = told(two_seeds)["about"]["campaigns"]
    rounds = [record for record in read_json_lines(two_seeds / "metrics.jsonl") if record["name"] == "rounds"]
    means = [sum(c["rounds"][n]["scores"]["dice"] for c in campaigns) / 2 for n in range(3)]
    assert [record["dice"] for record in rounds] == pytest.approx(means)


def test_the_report_shows_all_samplers_and_what_was_picked(two_seeds: Path) -> None:
    names = [figure["name"] for figure in json.loads((two_seeds / "figures/figures.json").read_text())]
    assert names[:2] == ["curves", "mix"]
    assert {"picks", "scores", "costs", "examples", "random-picks", "entropy-picks"} <= set(names)
    assert "random-scores" not in names  # it has none


def test_a_checkpoint_holds_no_image(two_seeds: Path) -> None:
    assert {path.name for path in (two_seeds / "checkpoints/final").iterdir()} == {"medray.json", "model.safetensors"}


def test_the_initial_set_is_the_same_for_every_sampler(two_seeds: Path) -> None:
    ledgers = [two_seeds, *(two_seeds / "compare" / name for name in ("random", "entropy"))]
    begun = [json.loads(next(each.glob("seeds/0/campaign/pool/ledger/000000.json")).read_text()) for each in ledgers]
    assert begun[0] == begun[1] == begun[2]


def test_another_source_is_scored_with_the_last_network(two_seeds: Path, tmp_path: Path) -> None:
    options = RunOptions(data=DATA.replace("n=40", "n=1") + "&seed=5", out=str(tmp_path), num_workers=0)
    found = json.loads((evaluate(two_seeds, options).path / "evaluation.json").read_text())["variants"]["mvaal"]
    assert len(found["rows"]) == 16
    assert 0 <= found["summary"]["dice"] <= 1


@pytest.mark.parametrize(("task", "metric"), [("multi_label", "mean_ap"), ("multi_class", "accuracy")])
def test_the_other_tasks(task: Any, metric: str, tmp_path: Path) -> None:
    data = DATA if task == "multi_label" else "phantom:chest_xray?n=40&validation=6&test=9&size=32"
    config = MvaalConfig(**{**FAST, "task": task, "task_network": "small", "task_size": 32, "rounds": 1})
    options = RunOptions(data=data, out=str(tmp_path), num_workers=0, compare=())
    folder = train("mvaal", config, options, preset="smoke", variant="mvaal").path
    assert metric in json.loads((folder / "result.json").read_text())["metrics"]


def test_the_papers_sizes_by_task() -> None:
    sizes = {task: (c.num_initial, c.budget, c.num_rounds) for task in ("segmentation", "multi_label", "multi_class")
             for c in [MvaalConfig(task=task)]}  # type: ignore[arg-type] # fmt: skip
    assert sizes == {"segmentation": (200, 100, 6), "multi_label": (200, 100, 7), "multi_class": (100, 100, 7)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sampler": "best"}, "sampler is one of mvaal, vaal, random"),
        ({"budget": 0}, "budget must be at least 1"),
        ({"rounds": -1}, "rounds must be 0 or more"),
        ({"answered_share": 0.0}, "answered_share must be above 0"),
        ({"oracle": "human", "repeats": 2}, "people label one campaign"),
        ({"main": "t1", "auxiliary": "t1"}, "two modalities"),
    ],
)
def test_nonsense_is_refused_with_the_remedy(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(MvaalConfig(**FAST), **change)


def test_vaal_differs_from_mvaal_in_gamma_3_alone() -> None:
    config = MvaalConfig(**{**FAST, **VARIANTS["vaal"].config})
    system: System[Any] = Mvaal(config)
    assert VARIANTS["vaal"].config == {"sampler": "vaal"}
    assert "auxiliary" not in system.required_fields((), training=True)
    assert "auxiliary" in Mvaal(MvaalConfig(**FAST)).required_fields((), training=True)


def test_an_initial_set_larger_than_the_pool_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--initial asks for 40"):
        run(tmp_path, initial=40)
