"""VOCA: targets, votes and peaks by hand; symmetry; seamless tiles; files in and out; what a user gets wrong."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from numpy.typing import NDArray
from PIL import Image

from medray.data.case import Case
from medray.data.fields import FileRef
from medray.data.sources import open_source
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.learner import Step
from medray.system import PredictRequest, Trained
from medray.systems.detection.scoring import ScoredImage, summarize
from medray.systems.detection.voca import (
    CropBatch,
    Normalization,
    VocaConfig,
    VocaLearner,
    VocaNet,
    accumulate,
    crop_corners,
    find_peaks,
    map_losses,
    peak_targets,
    predict_maps,
    turn,
    vote_targets,
)
from medray.systems.detection.voca_system import FOLD_1, Voca, judge, paper_fold, pixel_sums, survey

TINY: dict[str, Any] = {
    "channels": (4, 8), "crop_px": 31, "optimizer": "adam", "learning_rate": 5e-3, "num_epochs": 1,
    "crop_stride_px": 33, "radius_px": 8.0,
}  # fmt: skip
KNOWN = Normalization((128.0,) * 3, (50.0,) * 3, 0.3)


def _answer(targets: NDArray[np.float32]) -> torch.Tensor:
    """What a network that knows the targets would say."""
    answer = torch.from_numpy(targets.copy())
    answer[0] = torch.where(answer[0] > 0, 20.0, -20.0)
    return answer


def test_targets_by_hand() -> None:
    conf, row, column, count = vote_targets(np.array([[2.0, 2.0], [2.0, 6.0]]), (5, 9), 2.5)
    assert conf[2].tolist() == [1] * 9
    assert conf[0].tolist() == [0, 1, 1, 1, 0, 1, 1, 1, 0]  # sqrt(5) < 2.5 < sqrt(8)
    assert column[2].tolist() == [2, 1, 0, -1, -2, 1, 0, -1, -2]  # the pixel between them goes to the first
    assert row[0, 2] == 2
    assert count[2].tolist() == [1, 1, 1, 1, 2, 1, 1, 1, 1]
    assert vote_targets(np.array([[0.0, 0.0]]), (1, 4), 3.0)[0].tolist() == [[1, 1, 1, 0]]  # strictly nearer than r
    assert not vote_targets(np.zeros((0, 2)), (4, 4), 3.0).any()


def test_peaks_by_hand() -> None:
    peaks = peak_targets(np.array([[0.0, 0.0]]), (1, 8))
    assert peaks[0, 0].tolist() == pytest.approx([1 / (1 + 0.8 * d) if d < 6 else 0 for d in range(8)])


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_turned_targets_are_the_targets_of_turned_points(flips: tuple[bool, bool], turns: int) -> None:
    points = np.random.default_rng(1).uniform(0, 20, (6, 2))
    image = np.random.default_rng(2).normal(size=(21, 21, 3))
    turned, maps = turn(image, vote_targets(points, (21, 21), 5.0), flips, turns)
    moved = points.copy()
    if flips[0]:
        moved[:, 1] = 20 - moved[:, 1]
    if flips[1]:
        moved[:, 0] = 20 - moved[:, 0]
    for _ in range(turns):
        moved = np.stack([20 - moved[:, 1], moved[:, 0]], axis=1)
    np.testing.assert_allclose(maps, vote_targets(moved, (21, 21), 5.0), atol=1e-5)
    expected = np.rot90(np.flip(image, [axis for axis, flip in zip((1, 0), flips, strict=True) if flip]), turns)
    np.testing.assert_array_equal(turned, expected)


def test_crops_of_the_papers_images() -> None:
    assert len(crop_corners((500, 500), VocaConfig())) == 484


def test_votes_by_hand() -> None:
    answer = torch.zeros(4, 1, 4)
    answer[0] = torch.tensor([[30.0, 30.0, -30.0, 0.0]])  # Conf 1, 1, 0, 0.5
    answer[2] = torch.tensor([[1.4, 0.0, -1.0, 5.0]])  # to columns 1.4, 1, 1, out of the image
    answer[3] = torch.tensor([[2.0, 3.0, 5.0, 1.0]])
    config = VocaConfig()
    assert accumulate(answer, config)[0].tolist() == pytest.approx([0, 5, 0, 0])
    assert accumulate(answer, config, weighted=False)[0].tolist() == pytest.approx([0, 2, 0, 0])
    answer[2, 0, 3] = 0.0
    assert accumulate(answer, config)[0].tolist() == pytest.approx([0, 5, 0, 0.5])
    assert accumulate(answer, VocaConfig(conf_threshold=0.6))[0].tolist() == pytest.approx([0, 5, 0, 0])
    assert accumulate(answer, VocaConfig(splat="bilinear"))[0].tolist() == pytest.approx([0, 4.2, 0.8, 0.5])
    assert accumulate(answer, VocaConfig(tasks=("conf",)))[0].tolist() == pytest.approx([1, 1, 0, 0.5], abs=1e-6)
    assert accumulate(answer, VocaConfig(tasks=("loc",)))[0].tolist() == pytest.approx([0, 3, 0, 1])


def test_perfect_maps_find_every_nucleus_and_weights_even_out_the_packed_ones() -> None:
    points = np.array([[20.0, 20.0], [20.0, 30.0], [60.0, 60.0]])
    answer = _answer(vote_targets(points, (80, 80), 12.0))
    config = VocaConfig()
    found = {weighted: find_peaks(accumulate(answer, config, weighted=weighted), config) for weighted in (True, False)}
    for one in found.values():
        assert sorted(map(tuple, one.points.tolist())) == sorted(map(tuple, points.tolist()))
    score = {w: dict(zip(map(tuple, one.points.tolist()), one.scores, strict=True)) for w, one in found.items()}
    alone, packed = (60.0, 60.0), (20.0, 20.0)
    assert score[False][packed] < 0.8 * score[False][alone]  # 49 % of the disc is shared and half of that lost
    assert score[True][packed] > 0.95 * score[True][alone]  # each shared pixel counts twice


def test_scores_are_scaled_to_the_best_of_an_image() -> None:
    field = np.zeros((20, 20), dtype=np.float32)
    field[5, 5], field[5, 6], field[5, 8], field[15, 15] = 4.0, 1.0, 3.0, 2.0
    found = find_peaks(field, VocaConfig())
    assert found.points.tolist() == [[5, 5], [15, 15]]  # 3 px away is too near
    assert found.scores.tolist() == [1.0, 0.4]  # 5 within 2 px, and 2
    assert find_peaks(field, VocaConfig(scale_scores=False)).scores.tolist() == [5.0, 2.0]
    assert len(find_peaks(field * 0, VocaConfig()).points) == 0


def test_losses_by_hand() -> None:
    answer, target = torch.zeros(1, 4, 1, 2), torch.zeros(1, 4, 1, 2)
    target[0, 0, 0, 0], target[0, 1, 0, 0], target[0, 2, 0, 0], target[0, 3, 0, 0] = 1, 3.0, 0.5, 2.0
    answer[0, 1:3, 0, 1] = 9.0  # background vectors do not count
    losses = map_losses(answer, target, VocaConfig(), 0.25)
    log2 = float(np.log(2))
    assert float(losses["conf"].total) == pytest.approx(log2 * (0.5 / 0.25 + 0.5 / 0.75))
    assert (float(losses["loc"].total), float(losses["loc"].count)) == pytest.approx((2.5 + 0.125, 1))
    assert (float(losses["wt"].total), float(losses["wt"].count)) == pytest.approx((1.5, 2))
    assert float(map_losses(answer, target, VocaConfig(wt_everywhere=False), 0.25)["wt"].count) == 1
    assert set(map_losses(answer, target, VocaConfig(tasks=("conf", "loc")), 0.25)) == {"conf", "loc"}


def test_pixel_accuracy_is_the_mean_of_both_recalls() -> None:
    target = torch.zeros(4, 1, 4)
    target[0, 0, 0] = 1
    answer = torch.zeros(4, 1, 4) + 1.0
    answer[0, 0, 1] = -1.0
    sums = pixel_sums(answer, target, VocaConfig())
    assert (sums["foreground_recall"], sums["background_recall"]) == ((1, 1), (1, 3))
    scored = ScoredImage(
        case="a", detected=np.zeros((0, 2)), scores=np.zeros(0), reference=np.zeros((0, 2)), hits=np.zeros(0, bool),
        positive_pixels=0, num_pixels=4, nms_s=0.0, pixel_sums=sums,
    )  # fmt: skip
    assert summarize([scored, scored], 6.0).summary["pixel_accuracy"] == pytest.approx((1 + 1 / 3) / 2)


@pytest.mark.parametrize("target", ["votes", "peaks"])
def test_the_papers_sizes_go_in_and_come_out(target: Any) -> None:
    network = VocaNet(VocaConfig(target=target, channels=(4, 4, 4, 4)))
    assert network(torch.zeros(1, 3, 127, 127)).shape == (1, 4 if target == "votes" else 1, 127, 127)
    with pytest.raises(ValueError, match="multiple of 16 less 1"):
        VocaConfig(crop_px=128)


@pytest.mark.parametrize("normalize", ["dataset", "image"])
def test_tiles_leave_no_seams(normalize: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiled and whole agree to rounding also at the tiles' borders, since a margin is wider than the network sees."""
    torch.manual_seed(0)
    config = VocaConfig(channels=(4, 4), crop_px=31, normalize=normalize)
    network = VocaNet(config)
    pixels = np.random.default_rng(0).integers(0, 256, (130, 170, 3)).astype(np.uint8)
    whole = predict_maps(network, pixels, config, KNOWN)
    monkeypatch.setattr("medray.systems.detection.voca._TILE_PX", 96)
    tiled = predict_maps(network, pixels, config, KNOWN)
    assert tiled.shape == (4, 130, 170)
    inner = (slice(None), slice(24, -24), slice(24, -24))  # at the image's border one sees zeros, the other a mirror
    torch.testing.assert_close(tiled[inner], whole[inner], atol=1e-4, rtol=1e-4)


def _trained(config: VocaConfig, tmp_path: Path, cases: Any) -> tuple[Voca, Trained]:
    system = Voca(config)
    work = InProcessWorkbench(tmp_path / "run", quiet=True, tensorboard=False)
    return system, system.train(work, system.split(open_source(cases), 0))


def test_two_half_batches_give_the_gradient_of_the_whole() -> None:
    """What two workers would add up; batch norm frozen, since its statistics are each worker's own."""
    cases = open_source("phantom:nuclei?n=2&size=64").cases
    config = VocaConfig(**TINY)
    known, shapes = survey(cases, lambda case: VocaLearner(config, [], [], KNOWN).read(case))
    learner = VocaLearner(config, cases, shapes, known)
    learner.networks.eval()
    batch: CropBatch = learner.collate([0, 1, 2, 3], 0)
    parts = [CropBatch(batch.image[s], batch.target[s]) for s in (slice(0, 1), slice(1, 4))]
    counts: dict[str, float] = {}
    for part in parts:
        for name, loss in map_losses(learner.networks["net"](part.image), part.target, config, 0.3).items():
            counts[name] = counts.get(name, 0.0) + float(loss.count)
    whole = map_losses(learner.networks["net"](batch.image), batch.target, config, 0.3)
    assert {name: float(loss.count) for name, loss in whole.items()} == counts
    again: CropBatch = learner.collate([2, 3], 0)
    torch.testing.assert_close(again.image, batch.image[2:])  # a crop does not depend on its neighbors
    assert learner.training_step(batch, Step(learner.configure_optimizers()))["loss"].mean > 0


def test_a_user_gets_points_a_picture_and_counts(tmp_path: Path) -> None:
    config = VocaConfig(**TINY, test_fraction=0.5)
    system, trained = _trained(config, tmp_path, "phantom:nuclei?n=2&size=64")
    pixels = np.moveaxis(open_source("phantom:nuclei?n=1&size=90&seed=5").cases[0].volume("image").array, 0, -1)
    Image.fromarray(pixels).save(tmp_path / "tile.bmp")
    result = system.predict(trained, PredictRequest([tmp_path / "tile.bmp"], tmp_path / "nuclei.csv"))
    rows = list(csv.DictReader((tmp_path / "nuclei.csv").open()))
    assert list(rows[0]) == ["x_px", "y_px", "score"]
    assert result.metrics["num_points"] == len(rows)
    assert all(0 <= float(row["x_px"]) < 90 and 0 <= float(row["y_px"]) < 90 for row in rows)
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert Image.open(tmp_path / "nuclei_overlay.png").size == (90, 90)
    assert json.loads((tmp_path / "nuclei_counts.json").read_text())["num_points"] == len(rows)
    with pytest.raises(UserError, match=r"nuclei\.txt: points are written as \.csv or \.json"):
        system.predict(trained, PredictRequest([tmp_path / "tile.bmp"], tmp_path / "nuclei.txt"))


def _image(path: Path, size: tuple[int, int] = (40, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(len(str(path))).integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)


def test_points_beside_images_are_found(tmp_path: Path) -> None:
    _image(tmp_path / "img1" / "img1.bmp")
    scipy.io.savemat(tmp_path / "img1" / "img1_detection.mat", {"detection": np.array([[1.0, 1.0]])})
    _image(tmp_path / "img2" / "img2.bmp")
    (tmp_path / "img2" / "img2.csv").write_text("x,y\n3,4\n")
    system = Voca(VocaConfig(**TINY))
    cases = system.arrange(open_source(str(tmp_path)).cases)
    assert system.required_fields(cases, training=True) == ("image", "points")
    assert all("points" in case.fields for case in cases)
    assert not system.problems(cases, {})


def test_a_folder_of_points_and_a_folder_of_instances_are_found(tmp_path: Path) -> None:
    _image(tmp_path / "a" / "images" / "t.png")
    (tmp_path / "a" / "points").mkdir()
    (tmp_path / "a" / "points" / "t.json").write_text("[[3, 4]]")
    system = Voca(VocaConfig(**TINY))
    (case,) = system.arrange(open_source(str(tmp_path / "a")).cases)
    assert "points" in case.fields
    _image(tmp_path / "b" / "images" / "t.png")
    (tmp_path / "b" / "instances").mkdir()
    Image.fromarray(np.ones((40, 60), np.uint16) * 300).save(tmp_path / "b" / "instances" / "t.png")
    (case,) = system.arrange(open_source(str(tmp_path / "b")).cases)
    assert system.required_fields([case], training=True) == ("image", "label")
    assert not system.problems([case], {})


@pytest.mark.parametrize(
    ("text", "crop", "sentence"),
    [
        ("x,y\n1,1\n70,5\n", 31, r"point 2 at x=70, y=5 px is outside its image of 60 x 40 px"),
        (
            "x,y\n1,1\n",
            63,
            r"its image of 60 x 40 px is smaller than a training crop of 63 px; lower --config\.crop-px",
        ),
        ("a,b\n1,1\n", 31, r"columns x and y, or row and col"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, text: str, crop: int, sentence: str) -> None:
    _image(tmp_path / "t.png")
    (tmp_path / "t.csv").write_text(text)
    case = Case(
        "t", "t", {"image": FileRef(str(tmp_path / "t.png")), "points": FileRef(str(tmp_path / "t.csv"), "table")}
    )
    (bad,) = Voca(VocaConfig(**{**TINY, "crop_px": crop})).problems([case], {})
    assert bad.case == "t"
    assert re.search(sentence, bad.reason)


def test_the_papers_folds() -> None:
    assert len(FOLD_1) == 50
    assert set(range(1, 101)) >= FOLD_1
    cases = [Case(f"img{i}/img{i}", f"img{i}", {}) for i in range(1, 101)]
    splits = paper_fold(cases, 1)
    assert (len(splits.train), len(splits.test)) == (50, 50)
    assert {case.id for case in splits.test} == {f"img{i}/img{i}" for i in FOLD_1}
    assert paper_fold(cases, 2).test == splits.train
    with pytest.raises(UserError, match="needs the images img1 to img100"):
        paper_fold([Case("other", "other", {})], 1)


def test_the_claim_is_judged_on_paired_rows() -> None:
    def row(variant: str, q3: float, positive: float, close: float) -> dict[str, Any]:
        return {
            "variant": variant, "seed": 0, "case": "a", "distance_q3_px": q3, "positive_percent": positive,
            "close_recall": close, "f1": 0.8,
        }  # fmt: skip

    rows = [row("voca", 2.0, 5.0, 0.8), row("voca_nw", 2.0, 9.0, 0.8), row("pr", 2.5, 50.0, 0.7)]
    assert judge(rows, rows).held
    worse = [row("voca", 2.0, 20.0, 0.79), *rows[1:]]
    assert [check.held for check in judge(worse, worse).checks] == [True, False, False]
