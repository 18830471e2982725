"""The system on files: what a user gets, what he is told, and how trackers go on from trackers."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from envs.axon.starts import Starts
from envs.axon.swc import read_swc
from envs.axon.traces import Trace
from medray.data.sources import open_source
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.system import PredictRequest, Trained
from medray.systems.tracking.axon_tracker import AxonProblem, AxonTrackerConfig
from medray.systems.tracking.axon_tracker_system import AxonTracker
from medray.systems.tracking.judging import judge
from medray.systems.tracking.policies import put_together, starting_weights, take_apart
from medray.systems.tracking.prediction import plausible, with_directions, without_repeats
from medray.systems.tracking.traced_cases import TracedCase, jobs_of

CONFIG = AxonTrackerConfig(channels=(2, 2), hidden=4, max_steps=30)


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    """Networks as they are before they have learnt anything."""
    torch.manual_seed(0)
    save_file(AxonProblem(CONFIG, ()).make_networks().state_dict(), tmp_path / "fit.safetensors")
    files = take_apart(tmp_path / "fit.safetensors", tmp_path / "parts")
    return Trained(weights=files["actor"], about={"entropy_limit": None}, files={"critic": files["critic"]})


def _pixels() -> NDArray[np.uint8]:
    return np.asarray(open_source("phantom:axons?n=1&size=96").cases[0].volume("image").array[0])


def _predict(trained: Trained, *inputs: Path, out: str = "r.swc", **options: str) -> dict[str, Path]:
    request = PredictRequest(inputs, inputs[0].with_name(out), options={"steps": "20", **options})
    return dict(AxonTracker(CONFIG).predict(trained, request).files)


def _starts(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# --- files -----------------------------------------------------------------------------------------------------------


def test_weights_are_taken_apart_and_put_together(trained: Trained, tmp_path: Path) -> None:
    assert trained.weights is not None
    assert {name.split(".")[0] for name in load_file(trained.weights)} == {"actor"}
    whole, again = load_file(tmp_path / "fit.safetensors"), load_file(put_together(trained, tmp_path / "start"))
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_user_gets_swc_json_and_a_picture(trained: Trained, tmp_path: Path) -> None:
    Image.fromarray(_pixels()).save(tmp_path / "a.png")
    starts = _starts(tmp_path / "s.csv", "x,y,dx,dy\n40,50,1,0\n20.5,30.25,0,-2\n")
    files = _predict(trained, tmp_path / "a.png", starts)
    lines, told = read_swc(files["traces"]).branches(), json.loads(files["json"].read_text())
    assert [trace["points"][0] for trace in told["traces"]] == [[40, 50], [20.5, 30.25]]
    assert told["unit"] == "px"
    for line, trace in zip(lines, told["traces"], strict=True):
        np.testing.assert_allclose(line, trace["points"], atol=1e-3)
        assert len(trace["entropy"]) == len(trace["points"]) <= 21
        assert trace["entropy"][-1] is None
        assert trace["stopped"] in ("steps", "own path", "left the image")
    assert Image.open(files["picture"]).size == (576, 576)


@pytest.mark.parametrize("kind", ["8 bit", "16 bit", "color", "tiff", "stack", "nifti", "float"])
def test_images_of_any_kind_give_the_same_traces(
    trained: Trained, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = _pixels()
    starts = _starts(tmp_path / "s.json", "[[40, 50, 1, 0]]")
    path = tmp_path / {"tiff": "a.tif", "stack": "a.tif", "nifti": "a.nii.gz", "float": "a.npy"}.get(kind, "a.png")
    if kind == "16 bit":
        Image.fromarray(pixels.astype(np.uint16) * 257).save(path)
    elif kind == "color":
        Image.fromarray(np.repeat(pixels[..., None], 3, axis=2)).save(path)
    elif kind == "tiff":
        tifffile.imwrite(path, pixels)
    elif kind == "stack":
        tifffile.imwrite(path, np.stack([pixels // 2, pixels, pixels // 3]), photometric="minisblack")
    elif kind == "nifti":
        nibabel.save(nibabel.Nifti1Image(pixels.astype(np.float32), np.diag([0.5, 0.25, 1, 1])), path)
    elif kind == "float":
        np.save(path, pixels / 255)
    else:
        Image.fromarray(pixels).save(path)
    found = json.loads(_predict(trained, path, starts)["json"].read_text())
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    plain = json.loads(_predict(trained, tmp_path / "plain.png", starts)["json"].read_text())
    np.testing.assert_allclose(found["traces"][0]["points"], plain["traces"][0]["points"], atol=1e-2)
    said = {"color": "is in color; its luminance is traced", "stack": "is a stack of 3 x 96 x 96"}.get(kind)
    assert (said in caplog.text) if said else not caplog.records
    assert found["unit"] == ("mm" if kind == "nifti" else "px")
    if kind == "nifti":
        assert found["pixel_size"] == [0.25, 0.5]


def test_without_start_points_the_ends_are_found(trained: Trained, tmp_path: Path) -> None:
    Image.fromarray(_pixels()).save(tmp_path / "a.png")
    told = json.loads(_predict(trained, tmp_path / "a.png")["json"].read_text())
    assert told["traces"]


@pytest.mark.parametrize(
    ("make", "starts", "sentence"),
    [
        (
            lambda: _pixels(),
            "x,y\n200,5\n",
            r"s\.csv: start point 1 at x=200, y=5 px is outside the image of 96 x 96 px",
        ),
        (lambda: _pixels(), "x,y\n", r"s\.csv holds no start points"),
        (lambda: _pixels(), "a,b\n1,2\n", r"columns x and y"),
        (lambda: np.full((40, 40), 7, np.uint8), "x,y\n5,5\n", r"a\.png has the same value everywhere"),
        (lambda: np.zeros((40, 40), np.uint8), "x,y\n5,5\n", r"a\.png has the same value everywhere"),
        (lambda: _pixels()[:15], "x,y\n5,5\n", r"smaller than the tracker's window of 21 x 21"),
    ],
)
def test_what_cannot_be_traced_is_a_sentence(
    trained: Trained, tmp_path: Path, make: Any, starts: str, sentence: str
) -> None:
    Image.fromarray(make()).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=sentence) as caught:
        _predict(trained, tmp_path / "a.png", _starts(tmp_path / "s.csv", starts))
    assert "\n" not in str(caught.value)


def test_wrong_outputs_and_options_are_told(trained: Trained, tmp_path: Path) -> None:
    Image.fromarray(_pixels()).save(tmp_path / "a.png")
    for sentence, given in (
        (r"r\.csv: traces are written as \.swc and \.json", {"out": "r.csv"}),
        ("--option speed: this system knows steps, entropy, polarity, intensity", {"speed": "9"}),
        ("--option polarity is bright or dark or auto, got black", {"polarity": "black"}),
        ("steps is a whole number from 1, entropy a number or none, got 20 and high", {"entropy": "high"}),
    ):
        with pytest.raises(UserError, match=sentence):
            _predict(trained, tmp_path / "a.png", **given)
    peer = AxonTracker(replace(CONFIG, method="minimal_path"))
    with pytest.raises(UserError, match="minimal_path needs both ends"):
        peer.predict(Trained(weights=None), PredictRequest([tmp_path / "a.png"], tmp_path / "r.swc"))


def test_a_ridge_follower_predicts_too(tmp_path: Path) -> None:
    Image.fromarray(_pixels()).save(tmp_path / "a.png")
    peer = AxonTracker(replace(CONFIG, method="ridge_following"))
    found = peer.predict(Trained(weights=None), PredictRequest([tmp_path / "a.png"], tmp_path / "r.json"))
    assert found.metrics["length_px"] > 15
    assert set(found.metrics) == {"num_traces", "length_px"}


# --- start points ----------------------------------------------------------------------------------------------------


def test_a_start_without_a_direction_gets_both_ways() -> None:
    image = np.zeros((60, 60), np.float32)
    image[30, 10:50] = 1
    starts = Starts(np.array([[30.0, 30.0], [12.0, 30.0]]), np.array([[np.nan, np.nan], [0.0, 1.0]]))
    points, headings, owner = with_directions(starts, image)
    assert owner.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(points, [[30, 30], [12, 30], [30, 30]])
    np.testing.assert_allclose(np.abs(headings), [[1, 0], [0, 1], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(headings[0], -headings[2])


def _line(x0: float, x1: float, y: float = 5.0) -> Trace:
    xs = np.linspace(x0, x1, max(2, round(abs(x1 - x0) / 2)))
    return Trace(np.stack([xs, np.full(len(xs), y)], axis=1), np.full(len(xs), np.nan), "steps")


def test_traces_that_lead_nowhere_or_the_same_way_are_dropped() -> None:
    there, back, short, again = _line(50, 90), _line(50, 10), _line(50, 45), _line(52, 80, 6.0)

    def names(traces: list[Trace]) -> set[str]:
        known = {"there": there, "back": back, "short": short, "again": again}
        return {name for name, trace in known.items() if any(trace is one for one in traces)}

    assert names(plausible([short, there])) == {"there"}
    assert names(plausible([there, back])) == {"there", "back"}
    assert names(plausible([there, again])) == {"there"}
    assert names(plausible([short])) == {"short"}
    assert names(without_repeats([again, back, there])) == {"there", "back"}


# --- judging ---------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Precision loss")  # SciPy on entropies that are all equal
def test_scores_of_two_branches_by_hand(tmp_path: Path) -> None:
    """One branch followed 1 px beside it to its end, one left after half of it, 5 px off for the other half."""
    line = np.stack([np.arange(0.0, 41.0), np.full(41, 10.0)], axis=1)
    entropy = np.append(np.full(40, -3.0), np.nan)
    beside = Trace(line + np.array([0, 1.0]), entropy, "end reached")
    away = Trace(
        line + np.where(np.arange(41) > 20, 5.0, 0.0)[:, None] * [[0, 1]], entropy + (np.arange(41) > 20), "steps"
    )
    judged = judge([TracedCase("a", [line, line], [beside, away], [beside, away], 0.01)])
    (row,) = judged.rows
    # The step from (20, 10) to (21, 15) passes (23, 10) at 2.94 px and (24, 10) at 3.92: points 0 to 23 are covered.
    assert row["coverage_pct"] == pytest.approx(100 * (41 + 24) / 82)
    assert row["union_coverage_pct"] == 100
    assert row["error_px"] == pytest.approx((41 * 1 + 20 * 5) / 82)
    assert (row["reached_pct"], row["num_branches"], row["branch_ms"]) == (50, 2, 10)
    assert (row["entropy_on"], row["entropy_off"]) == (-3, -2)
    assert judged.summary["entropy_difference"] == 1


def test_every_case_is_scored_by_a_model_that_has_not_seen_it(tmp_path: Path) -> None:
    cases = open_source("phantom:axons?n=4&size=64").cases
    about = {
        "entropy_limit": None,
        "scored_by": {cases[0].id: "fold0", cases[1].id: "fold1", cases[2].id: "fold0"},
        "fold_entropy_limits": {"fold0": -1.0, "fold1": None},
    }
    paths = {name: tmp_path / name for name in ("fold0", "fold1")}
    jobs = jobs_of(Trained(weights=tmp_path / "all", about=about, files=paths), cases)
    found = {(job.weights.name, tuple(case.id for case in job.cases), job.entropy_limit) for job in jobs if job.weights}
    infinity = float("inf")
    assert found == {
        ("fold0", (cases[0].id, cases[2].id), -1.0),
        ("fold1", (cases[1].id,), infinity),
        ("all", (cases[3].id,), infinity),
    }


# --- training --------------------------------------------------------------------------------------------------------


def _checkpoint(folder: Path, trained: Trained, config: AxonTrackerConfig, *, critic: bool = True) -> Path:
    from dataclasses import asdict

    folder.mkdir()
    assert trained.weights is not None
    (folder / "model.safetensors").write_bytes(trained.weights.read_bytes())
    if critic:
        (folder / "critic.safetensors").write_bytes(trained.files["critic"].read_bytes())
    card = {"system": "axon_tracker", "config": asdict(config), "weights": "model.safetensors"}
    (folder / "medray.json").write_text(json.dumps(card))
    return folder


@pytest.mark.parametrize("critic", [True, False])
def test_training_goes_on_from_a_checkpoint(trained: Trained, tmp_path: Path, critic: bool) -> None:
    where = _checkpoint(tmp_path / "run", trained, CONFIG, critic=critic)
    start = starting_weights(replace(CONFIG, start_from=str(where)), tmp_path / "start", seed=1)
    assert start is not None
    found, whole = load_file(start), load_file(tmp_path / "fit.safetensors")
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in whole if name.startswith("actor."))
    assert torch.equal(found["critic.layers.0.weight"], whole["critic.layers.0.weight"]) == critic
    assert starting_weights(CONFIG, tmp_path / "start", seed=1) is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"max_step_px": 2.0},
            r"was trained with max_step_px 4\.0, this run has 2\.0; give --config\.max-step-px as there",
        ),
        ({"distribution": "gaussian"}, "was trained with distribution beta, this run has gaussian"),
        ({"channels": (4, 2)}, r"was trained with channels \(2, 2\), this run has \(4, 2\)"),
    ],
)
def test_a_checkpoint_made_for_other_steps_is_refused(
    trained: Trained, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    where = _checkpoint(tmp_path / "run", trained, CONFIG)
    with pytest.raises(UserError, match=sentence):
        starting_weights(replace(CONFIG, start_from=str(where), **change), tmp_path / "start", 0)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished checkpoint at"):
        starting_weights(replace(CONFIG, start_from=str(tmp_path)), tmp_path / "start", 0)
    (tmp_path / "medray.json").write_text('{"system": "voca", "config": {"max_step_px": 1}, "weights": "w"}')
    with pytest.raises(UserError, match="its checkpoint is one of voca"):
        starting_weights(replace(CONFIG, start_from=str(tmp_path)), tmp_path / "start", 0)


def test_folds_cover_all_cases_and_leave_a_model_for_each(tmp_path: Path) -> None:
    config = replace(
        CONFIG, folds=2, fold=-1, num_iterations=1, episodes_per_iteration=2, num_envs=2, num_epochs=1, max_steps=5,
        symmetries=True, num_validation=2,
    )  # fmt: skip
    system = AxonTracker(config)
    source = open_source("phantom:axons?n=4&size=64")
    splits = system.split(source, 0)
    assert splits.train == splits.test == source.cases
    work = InProcessWorkbench(tmp_path / "run", quiet=True, tensorboard=False)
    trained = system.train(work, splits)
    assert set(trained.files) == {"critic", "fold0", "fold1"}
    assert set(trained.about["scored_by"]) == {case.id for case in source.cases}
    evaluation = system.evaluate(work, trained, splits.test)
    assert len(evaluation.rows) == 4
    with (tmp_path / "run" / "branches.csv").open() as table:
        assert [row["case"] for row in csv.DictReader(table)] != []
    one = AxonTracker(replace(config, fold=1)).split(source, 0)
    assert len(one.train) == len(one.test) == 2
    assert not {case.id for case in one.train} & {case.id for case in one.test}


def test_centrelines_outside_their_image_are_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "centrelines").mkdir()
    for name, x in (("a", 30), ("b", 130)):
        Image.fromarray(_pixels()).save(tmp_path / "images" / f"{name}.png")
        (tmp_path / "centrelines" / f"{name}.json").write_text(json.dumps([[[5, 5], [x, 40]]]))
    (bad,) = AxonTracker(CONFIG).problems(open_source(str(tmp_path)).cases, {})
    assert bad.case == "b"
    assert "x=130, y=40 px is outside its image of 96 x 96 px" in bad.reason
