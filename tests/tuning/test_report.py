"""The page of a sweep: what it says is what the study holds, in every state, and nothing in it reaches out."""

from __future__ import annotations

import html
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from made_up_sweeps import DIMENSIONS, HOSTILE, add_trial, made_up_sweep
from optuna.study import Study
from optuna.trial import TrialState

from tuning.report import write_sweep_report
from tuning.report.curves import curve_plot
from tuning.report.figures import Choosable, Plot, importance_plot, pareto, seconds_plot, spreads
from tuning.report.importance import MIN_TRIALS, importances
from tuning.report.landscape import contours, slices
from tuning.report.parallel import BOTTOM, TOP, parallel_coordinates
from tuning.report.results import Results, read_results, seed_values
from tuning.report.summary import sentences, settings, status, tiles
from tuning.report.tables import commands, compared, trial_rows
from tuning.space import Choice, Dimension, Uniform

TWO = {"dice": "max", "tre_px": "min"}
FINISHED = TrialState.COMPLETE


class _Tags(HTMLParser):
    """Elements of a page with their attributes, and the text of its data scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attrs = self.found[-1] if self.found else ("", {})
        if tag == "script" and attrs.get("type") == "application/json" and data.strip():
            self.data.append(data)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    folder = tmp_path_factory.mktemp("suts") / "one"
    study = made_up_sweep(folder)
    write_sweep_report(folder, study)
    return folder, study


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    folder = tmp_path_factory.mktemp("suts") / "two"
    study = made_up_sweep(folder, objectives=TWO)
    return folder, study


def page_of(folder: Path) -> tuple[str, _Tags]:
    text = (folder / "report.html").read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(text)
    return text, tags


def visible(text: str) -> str:
    """The page's words, without its scripts and style."""
    without = re.sub(r"<(script|style)\b.*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", without)).split())


def figures(results: Results, study: Study) -> list[Plot]:
    single = [importance_plot(results, study), curve_plot(results), seconds_plot(results)]
    sets: list[Choosable] = [*slices(results), *contours(results), *pareto(results), *spreads(results)]
    return [plot for plot in single if plot] + [plot for each in sets for plot in each.plots]


@pytest.mark.parametrize(("metric", "mode"), [("dice", "max"), ("tre_px", "min")])
def test_the_first_row_is_the_true_best(tmp_path: Path, metric: str, mode: str) -> None:
    study = made_up_sweep(tmp_path / "sweep", objectives={metric: mode})
    results = read_results(tmp_path / "sweep", study)
    rows = trial_rows(results)
    assert rows[0].number == study.best_trial.number
    assert [row.number for row in rows if row.front] == [study.best_trial.number]
    finished = [trial.value for trial in study.get_trials(states=(FINISHED,))]
    assert [float(row.scores[0].sort) for row in rows[:8]] == sorted(finished, reverse=mode == "max")
    assert [row.state for row in rows[8:]] == ["running", "stopped early", "stopped early", "failed"]
    assert tiles(results)[0].under == f"± 0.01 over 3 seeds, trial {study.best_trial.number}"
    assert f"--config.feature-lr {study.best_trial.params['feature_lr']!r}" in commands(results)[0][1]


def test_the_front_is_what_optuna_calls_best(two: tuple[Path, Study]) -> None:
    folder, study = two
    results = read_results(folder, study)
    front = {trial.number for trial in study.best_trials}
    assert results.front == front
    assert 1 < len(front) < 8
    assert len(commands(results)) == len(front)
    (plot,) = pareto(results)[0].plots
    assert {number for trace in plot.figure["data"] for number in trace["meta"]["trials"]} == set(range(12)) - {
        3,
        5,
        8,
        11,
    }
    assert set(plot.figure["data"][0]["meta"]["trials"]) == front


def test_importances_add_up_to_one_and_find_what_matters(two: tuple[Path, Study], tmp_path: Path) -> None:
    for objective in (0, 1):
        shares = importances(two[1], objective)
        assert set(shares) == {"feature_lr", "features", "grid_spacing"}
        assert sum(shares.values()) == pytest.approx(1.0)
    only = (Dimension("features", Choice(("cnn", "mind"))), Dimension("feature_lr", Uniform(0.9e-2, 1.1e-2)))
    study = made_up_sweep(tmp_path / "sweep", states=[FINISHED] * 10, dimensions=only)
    assert importances(study, 0)["features"] > 0.8


def test_importances_need_trials_that_differ(tmp_path: Path) -> None:
    few = made_up_sweep(tmp_path / "few", states=[FINISHED] * (MIN_TRIALS - 1))
    assert importances(few, 0) == {}
    same = made_up_sweep(tmp_path / "same", states=[])
    for number in range(8):
        add_trial(same, tmp_path / "same", number, FINISHED, {"dice": "max"}, (), (0,))
    assert importances(same, 0) == {}


@pytest.mark.parametrize("sweep", ["one", "two"])
def test_plotly_takes_every_figure(sweep: str, request: pytest.FixtureRequest) -> None:
    folder, study = request.getfixturevalue(sweep)
    made = figures(read_results(folder, study), study)
    assert len(made) == {"one": 3 + 3 + 3 + 1, "two": 3 + 6 + 6 + 1 + 2}[sweep]
    for plot in made:
        go.Figure(json.loads(re.sub(r'"var\(--[a-z0-9]+\)"', '"#123456"', json.dumps(plot.figure))))


def test_the_map_between_trials_is_theirs_and_ends_with_them(tmp_path: Path) -> None:
    dimensions = (Dimension("damping", Uniform(0.0, 1.0)), Dimension("feature_lr", Uniform(1e-4, 1e-1, log=True)))
    study = made_up_sweep(tmp_path / "sweep", states=[FINISHED] * 9, dimensions=dimensions)
    (each,) = contours(read_results(tmp_path / "sweep", study))
    surface, dots = each.plots[0].figure["data"]
    values = [value for row in surface["z"] for value in row]
    inside = [value for value in values if math.isfinite(value)]
    assert 0 < len(inside) < len(values)  # nothing is said beyond the outermost trials
    assert min(dots["marker"]["color"]) <= min(inside)
    assert max(inside) <= max(dots["marker"]["color"])


def test_lines_of_the_parallel_coordinates_meet_their_ticks(one: tuple[Path, Study]) -> None:
    results = read_results(*one)
    chart = parallel_coordinates(results)
    assert chart is not None
    assert [axis.name for axis in chart.axes] == ["feature_lr", "features", "grid_spacing", "dice"]
    best = chart.runs[-1]
    assert (best.number, best.share) == (one[1].best_trial.number, 1.0)
    assert best.ys[-1] == TOP  # the better end of an objective is on top
    assert chart.runs[0].ys[-1] == BOTTOM
    at = {tick.text: tick.at for tick in chart.axes[2].ticks}
    for run in chart.runs:
        (trial,) = [trial for trial in results.trials if trial.number == run.number]
        assert abs(run.ys[2] - at[" ".join(map(str, trial.config["grid_spacing"]))]) <= 9


def test_the_preset_stands_beside_the_best(one: tuple[Path, Study]) -> None:
    rate, features, spacing = compared(read_results(*one))
    assert (rate.searched, rate.default) == ("0.0001 to 0.1, logarithmic", "0.001")
    assert float(rate.best[0]) == pytest.approx(one[1].best_trial.params["feature_lr"], rel=1e-3)
    assert (features.searched, features.default) == ("cnn, mind", "cnn")
    assert spacing.searched.replace("\u00a0", " ") == "20 10 7, 12 8, 16"
    assert spacing.best[0] == one[1].best_trial.params["grid_spacing"]


def test_nothing_in_the_page_can_reach_out(one: tuple[Path, Study]) -> None:
    text, tags = page_of(one[0])
    (policy,) = [attrs["content"] for _, attrs in tags.found if attrs.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.split(None, 1) for rule in (policy or "").split(";"))
    assert rules["default-src"] == "'none'"
    assert set(rules) == {"default-src", "img-src", "style-src", "script-src", "base-uri", "form-action"}
    assert not re.search(r"https?:|\*", (policy or ""))
    assert not re.search(r"@import|url\(\s*['\"]?https?:", text)
    for tag, attrs in tags.found:
        assert tag not in ("link", "iframe", "object", "embed", "form", "base")
        assert not any((attrs.get(name) or "").startswith(("http", "//")) for name in ("src", "href", "srcset"))


def test_a_hostile_failure_stays_text(one: tuple[Path, Study]) -> None:
    text, tags = page_of(one[0])
    assert HOSTILE not in text
    assert HOSTILE in visible(text)
    assert "<script>document.title" not in text
    data = [attrs for tag, attrs in tags.found if tag == "script" and attrs.get("type") == "application/json"]
    scripts = [attrs for tag, attrs in tags.found if tag == "script"]
    assert len(scripts) - len(data) == 3  # plotly, the script of a run's page, the sweep's


def test_what_is_not_a_number_is_told_and_never_in_the_data(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    study = made_up_sweep(folder, odd=True)
    write_sweep_report(folder, study)
    text, tags = page_of(folder)
    results = read_results(folder, study)
    assert "Not ranked, since an objective is not a finite number: trial 0." in visible(text)
    assert results.best(0) is not None
    assert 0 not in results.front

    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    assert len(tags.data) > 10
    for data in tags.data:
        json.loads(data, parse_constant=refuse)
    (row,) = [row for row in trial_rows(results) if row.number == 0]
    assert (row.scores[0].text, row.scores[0].sort) == ("∞", "Infinity")
    assert list(seed_values(results.trials[0], "dice")) == [1, 2]  # the first seed has NaN


@pytest.mark.parametrize(
    ("states", "said", "badge"),
    [
        ([], "No trial has started yet.", ("open", "0 of 12 trials ended")),
        ([TrialState.RUNNING], "No trial has finished yet", ("open", "0 of 12 trials ended")),
        ([FINISHED], "One trial has finished so far", ("open", "1 of 12 trials ended")),
        ([TrialState.FAIL] * 12, "All trials failed", ("bad", "finished without a result")),
        ([TrialState.PRUNED] * 11 + [FINISHED], "One trial has finished", ("good", "finished")),
    ],
)
def test_every_state_is_said(tmp_path: Path, states: list[TrialState], said: str, badge: tuple[str, str]) -> None:
    study = made_up_sweep(tmp_path / "sweep", states=states)
    write_sweep_report(tmp_path / "sweep", study)
    results = read_results(tmp_path / "sweep", study)
    assert said in " ".join(sentences(results))
    assert said in visible(page_of(tmp_path / "sweep")[0])
    assert status(results) == badge


def test_trials_of_another_sweep_are_shown_as_such(tmp_path: Path) -> None:
    study = made_up_sweep(tmp_path / "mine", states=[FINISHED] * 2)
    add_trial(study, tmp_path / "theirs", 2, FINISHED, {"dice": "max"}, DIMENSIONS, (0,), sweep="theirs")
    results = read_results(tmp_path / "mine", study)
    assert sentences(results) == ["The study suts-mine is shared: 1 of the 3 trials are of theirs."]
    links = {row.number: row.link for row in trial_rows(results)}
    assert links[2] == "../theirs/trials/0002/seed-0/report.html"
    for link in links.values():
        assert (tmp_path / "mine" / link).exists()
    assert status(results) == ("open", "2 of 12 trials ended")


def test_seeds_are_drawn_where_no_scheduler_looked(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    study = made_up_sweep(folder, states=[TrialState.FAIL])  # which has no curve
    for seed in (0, 1):
        run = folder / "trials" / "0000" / f"seed-{seed}"
        run.mkdir(parents=True)
        lines = [{"name": "train", "dice": 0.0}]
        lines += [{"name": "validation", "dice": value} for value in (0.5 + seed, None, 0.7 + seed)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"half')
    plot = curve_plot(read_results(folder, study))
    assert plot is not None
    first, second = plot.figure["data"]
    assert first["x"] == [1.0, 2.0, 3.0]
    assert (first["y"][0], second["y"][2]) == (0.5, 1.7)
    assert math.isnan(first["y"][1])
    assert "seed 1" in second["hovertemplate"]


def test_one_seed_has_no_spread_and_the_page_says_how_to_get_one(tmp_path: Path) -> None:
    study = made_up_sweep(tmp_path / "sweep", seeds=(0,))
    write_sweep_report(tmp_path / "sweep", study)
    assert spreads(read_results(tmp_path / "sweep", study)) == []
    assert "Each trial is one run" in visible(page_of(tmp_path / "sweep")[0])


def test_the_same_study_gives_the_same_bytes(one: tuple[Path, Study]) -> None:
    before = (one[0] / "report.html").read_bytes()
    assert write_sweep_report(*one).read_bytes() == before
    assert len(before) < 6e6


def test_a_report_that_cannot_be_made_leaves_the_old_one(one: tuple[Path, Study], monkeypatch: Any) -> None:
    before = (one[0] / "report.html").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr("tuning.report.html.os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        write_sweep_report(*one)
    assert (one[0] / "report.html").read_bytes() == before
    assert not list(one[0].glob(".report*"))


def test_settings_left_to_the_space_are_left_out(one: tuple[Path, Study]) -> None:
    results = read_results(*one)
    given = {"trials": 12, "sampler": "", "storage": "", "search": ["a", "b"], "use_gpu": False}
    shown = dict(settings(replace(results, record=replace(results.record, settings=given))))
    assert list(shown) == ["trials", "storage", "search", "use gpu", "study"]
    assert (shown["search"], shown["use gpu"]) == ("a, b", "False")
    assert shown["storage"] == results.record.storage


def test_a_system_that_is_gone_leaves_a_page_without_its_command(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    study = made_up_sweep(folder)
    saved = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps({**saved, "system": "bygone"}))
    write_sweep_report(folder, study)
    assert "# there is no system 'bygone'" in visible(page_of(folder)[0])
