"""Stain CycleGAN: the paper's sizes, its losses by hand, slides of any size without seams, what a user gets wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from medray.data.case import Case
from medray.data.regions import HeldPicture, open_picture
from medray.data.sources import open_source
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.learner import Step, seed_of
from medray.nn.tiling import Tiling
from medray.system import PredictRequest, Trained
from medray.systems.synthesis.generators import ResidualUNet, ResnetGenerator
from medray.systems.synthesis.slides import (
    color_augmented,
    reinhard_of,
    tissue_pixels,
    to_image,
    to_pixels,
    translated,
)
from medray.systems.synthesis.stain_cyclegan import StainConfig, TranslatorLearner, make_judge, patch_at
from medray.systems.synthesis.stain_system import ScoredSlide, StainCycleGan, by_lab, claim_seed, judge, summarize

TINY: dict[str, Any] = {
    "depth": 1, "width": 4, "judge_width": 4, "judge_layers": 1, "patch_px": 32, "batch_size": 2, "num_epochs": 1,
    "updates_per_epoch": 2, "segmenter_width": 4, "segmenter_patch_px": 32, "segmenter_updates": 10, "tile_px": 64,
    "kept_px": 32, "step_px": 16,
}  # fmt: skip


@pytest.mark.parametrize(("depth", "millions"), [(1, 0.11), (2, 0.50), (3, 2.06)])
def test_the_generators_have_the_papers_sizes(depth: int, millions: float) -> None:
    """Table 1: 0.11, 0.45 and 2.0 million; depth 2 is 0.05 million larger than stated whatever the block."""
    assert sum(p.numel() for p in ResidualUNet(depth, 32).parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_the_baseline_has_the_papers_size() -> None:
    network = ResnetGenerator(32)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(2.85, abs=0.01)
    assert network(torch.zeros(1, 3, 32, 48)).shape == (1, 3, 32, 48)


def test_a_judge_sees_70_pixels() -> None:
    """One answer for 70 x 70 px but for the padding: the gradient of an inner answer reaches just so far."""
    network = make_judge(replace(StainConfig(), judge_width=4))
    for module in network.modules():
        if isinstance(module, torch.nn.InstanceNorm2d):
            module.forward = lambda x: x  # type: ignore[method-assign]  # statistics would reach everywhere
    image = torch.rand(1, 3, 128, 128, requires_grad=True)
    network(image)[-1][0, 0, 7, 7].backward()
    assert image.grad is not None
    reached = image.grad[0].abs().sum(0) > 0
    assert (reached.any(0).sum(), reached.any(1).sum()) == (70, 70)


@torch.no_grad()
@pytest.mark.parametrize("depth", [1, 3])
def test_strips_give_what_the_network_gives(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, image = ResidualUNet(depth, 4), torch.rand(2, 3, 72, 104) * 2 - 1
    expected = network(image)
    monkeypatch.setattr("medray.systems.synthesis.generators._STRIPS_FROM_PX", 0)
    monkeypatch.setattr("medray.nn.strips.STRIP", 13)
    difference = (network(image) - expected).abs().max()
    assert 0 < difference < 0.2 / 127.5  # skips in half precision: less than a fifth of a gray level


def test_bytes_survive_the_networks_range() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    np.testing.assert_array_equal(to_pixels(to_image(pixels)), pixels)


def test_patches_stay_inside() -> None:
    image = np.arange(48).reshape(6, 8)
    assert patch_at(image, 0, 4)[0, 0] == 0
    assert patch_at(image, 47, 4)[-1, -1] == 47
    assert patch_at(image, 3 * 8 + 4, 4)[0, 0] == 1 * 8 + 2


def test_tissue_is_darker_than_its_surroundings() -> None:
    pixels = np.full((40, 40, 3), 240, dtype=np.uint8)
    assert len(tissue_pixels(pixels, 11)) == 1600  # nothing stands out: everywhere
    pixels[10:14, 20:24] = 80
    rows, columns = np.divmod(tissue_pixels(pixels, 11), 40)
    assert {(int(r), int(c)) for r, c in zip(rows, columns, strict=True)} >= {(10, 20), (13, 23)}
    assert rows.min() >= 10
    assert columns.max() <= 23


def _learner(**changes: Any) -> TranslatorLearner:
    sides = by_lab(open_source("phantom:kidney?n=2&size=64").cases, StainConfig(**TINY))
    torch.manual_seed(0)
    return TranslatorLearner(StainConfig(**{**TINY, **changes}), sides["A"], sides["B"])


def test_the_identity_loss_holds_each_translation_to_its_own_source() -> None:
    learner = _learner()
    batch = learner.collate([0, 1], 0)
    learner.networks["b_to_a"].forward = lambda x: x + 0.25  # type: ignore[method-assign]
    learner.networks["a_to_b"].forward = lambda x: x - 0.5  # type: ignore[method-assign]
    step = Step({})
    source = learner._identity(batch, batch.b + 0.25, batch.a - 0.5, step)  # eq. 1
    assert source.mean == pytest.approx((0.25 + 0.5) / 2)
    learner.config = replace(learner.config, identity="target")
    target = learner._identity(batch, batch.b * 0, batch.a * 0, step)
    assert target.mean == pytest.approx((0.25 + 0.5) / 2)  # of images of the lab each leads to


def test_its_weight_falls_to_zero() -> None:
    learner = _learner(identity_weight=4.0, identity_epochs=20)
    assert [learner.identity_weight(epoch) for epoch in (0, 5, 10, 20, 50)] == [4.0, 3.0, 2.0, 0.0, 0.0]


def test_a_step_moves_all_four_networks_and_each_by_its_own_loss() -> None:
    learner = _learner()
    before = {name: p.clone() for name, p in learner.networks.named_parameters()}
    optimizers = learner.configure_optimizers()
    logged = learner.training_step(learner.collate([0, 1], 0), Step(optimizers))
    moved = {name.split(".")[0] for name, p in learner.networks.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"b_to_a", "a_to_b", "judge_a", "judge_b"}
    assert all(p.grad is None for p in learner.networks.parameters())  # nothing of one update is left to the other's
    assert all(np.isfinite(value.mean) for value in logged.values())


def test_a_patch_depends_on_its_index_and_epoch_alone() -> None:
    learner = _learner()
    alone, together = learner.collate([3], 1), learner.collate([0, 3], 1)
    assert torch.equal(alone.a[0], together.a[1])
    assert torch.equal(alone.b[0], together.b[1])
    assert not torch.equal(alone.a, learner.collate([3], 2).a)


def test_no_color_draw_changes_nothing() -> None:
    pixels = open_source("phantom:kidney?n=1&size=64").cases[0].volume("image").array.transpose(1, 2, 0)
    assert np.abs(color_augmented(pixels, [0.5] * 5).astype(int) - pixels).max() <= 1
    assert np.abs(color_augmented(pixels, [0.9] * 5).astype(int) - pixels).mean() > 10


def test_reinhard_gives_the_other_labs_mean_and_deviation() -> None:
    a, b = (
        np.ascontiguousarray(case.volume("image").array.transpose(1, 2, 0))
        for case in open_source("phantom:kidney?n=1&size=64").cases
    )
    matched = reinhard_of(iter([a]))
    again = reinhard_of(iter([matched(b)]))
    np.testing.assert_allclose(again.mean, matched.mean, atol=1.0)
    np.testing.assert_allclose(again.std, matched.std, atol=1.0)


def _slide(size: int, drift: float = 0.5) -> NDArray[np.uint8]:
    case = open_source(f"phantom:kidney?n=1&size={size}&drift={drift}").cases[1]
    return np.ascontiguousarray(case.volume("image").array.transpose(1, 2, 0))


def test_overlapping_tiles_leave_no_seams_and_tiles_side_by_side_do() -> None:
    """The difference to the whole slide's translation jumps at tile borders where tiles lie side by side."""
    torch.manual_seed(3)
    network, slide = ResidualUNet(1, 8), HeldPicture(_slide(256))
    whole = translated(network, slide, Tiling(tile=256, kept=256, step=256), 2).astype(float)

    def seam(tiling: Tiling) -> float:
        error = translated(network, slide, tiling, 2) - whole
        jumps = np.abs(np.diff(error, axis=0)).mean(axis=(1, 2))
        borders = np.arange(tiling.step, 256, tiling.step) - 1
        return float(jumps[borders].mean() / np.delete(jumps, borders).mean())

    assert seam(Tiling(tile=64, kept=64, step=64)) > 1.5
    assert seam(Tiling(tile=64, kept=32, step=16, blend="pyramid")) < 1.1


def test_scores_are_pooled_over_slides() -> None:
    counts = np.zeros((3, 256), dtype=np.int64)
    counts[:, 100] = 10
    moved = np.roll(counts, 7, axis=1)
    trained = Trained(weights=None, about={"labs": ["A", "B"], "colors": [counts.tolist(), moved.tolist()]})
    slides = [
        ScoredSlide(
            {"case": "b", "lab": "B", "dice_raw": 0.3, "dice_translated": 0.8, "ssim": 0.9}, "B", moved, counts
        ),
        ScoredSlide({"case": "a", "lab": "A", "dice_home": 0.9}, "A", counts, counts),
    ]
    summary = summarize(slides, trained).summary
    assert summary["recovered"] == pytest.approx(0.5 / 0.6)
    assert (summary["color_distance_raw_levels"], summary["color_distance_translated_levels"]) == (7.0, 0.0)


def test_the_claim_is_judged_by_its_four_bounds() -> None:
    rows: list[Any] = [
        {"variant": "plain", "seed": 0, "case": "b", "dice_raw": 0.1},
        {"variant": "plain", "seed": 0, "recovered": 0.7},
        {"variant": "both", "seed": 0, "augmentation_gain": 0.01},
        {"variant": "overlapped", "seed": 0, "seam_ratio": 1.0},
        {"variant": "naive", "seed": 0, "seam_ratio": 1.5},
    ]
    assert all(check.held for check in judge(rows))
    assert not any(check.held for check in judge([{**r, "recovered": 0.5, "augmentation_gain": 0.1, "seam_ratio": 1.15}
                                                  for r in rows]))  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[StainCycleGan, Trained]:
    system = StainCycleGan(StainConfig(**TINY))
    work = InProcessWorkbench(tmp_path_factory.mktemp("run"), quiet=True, tensorboard=False)
    return system, system.train(work, system.split(open_source("phantom:kidney?n=2&size=64"), 0))


def test_both_stages_are_kept(model: tuple[StainCycleGan, Trained], tmp_path: Path) -> None:
    system, trained = model
    assert set(trained.fits) == {"train", "segmenter"}
    assert set(trained.files) == {"segmenter"}
    work = InProcessWorkbench(tmp_path, quiet=True, tensorboard=False)
    found = system.evaluate(work, trained, open_source("phantom:kidney?n=1&size=64&seed=9").cases)
    assert {row["lab"]: "dice_home" in row for row in found.rows} == {"A": True, "B": False}
    assert {"dice_raw", "dice_translated", "dice_home", "ssim", "color_distance_translated_levels"} <= set(
        found.summary
    )
    assert len(found.figures) == 1


@pytest.mark.parametrize("name", ["slide.tif", "slide.png"])
def test_a_slide_of_any_size_comes_back_at_its_size(
    model: tuple[StainCycleGan, Trained], tmp_path: Path, name: str
) -> None:
    system, trained = model
    pixels = _slide(150)[:131]
    if name.endswith(".tif"):
        tifffile.imwrite(tmp_path / name, pixels, photometric="rgb", tile=(32, 48), compression="zlib")
    else:
        Image.fromarray(pixels).save(tmp_path / name)
    result = system.predict(trained, PredictRequest([tmp_path / name], tmp_path / f"out_{name}"))
    written = open_picture(tmp_path / f"out_{name}")
    assert written.shape == (131, 150, 3)
    assert set(result.metrics) == {"color_distance_before_levels", "color_distance_after_levels"}
    stem = Path(name).stem
    assert json.loads((tmp_path / f"out_{stem}_colors.json").read_text()) == pytest.approx(result.metrics)
    assert Image.open(tmp_path / f"out_{stem}_overview.png").size[0] > 300
    back = PredictRequest([tmp_path / name], tmp_path / f"back_{name}", options={"direction": "a_to_b"})
    assert not np.array_equal(
        system.predict(trained, back).files["translated"].read_bytes(), result.files["translated"].read_bytes()
    )
    with pytest.raises(UserError, match="direction=b_to_a or direction=a_to_b"):
        system.predict(trained, PredictRequest([tmp_path / name], tmp_path / "x.png", options={"direction": "up"}))
    with pytest.raises(UserError, match=r"written as \.png, \.tif or \.tiff"):
        system.predict(trained, PredictRequest([tmp_path / name], tmp_path / "x.jpg"))


def _folder(root: Path, labs: dict[str, int], *, gray: bool = False) -> Path:
    for lab, count in labs.items():
        (root / lab).mkdir(parents=True)
        for index in range(count):
            random = np.random.default_rng(seed_of(lab, index))
            pixels = random.integers(0, 255, (40, 40) if gray else (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / lab / f"{lab}{index}.png")
    return root


def test_a_folder_for_each_lab(tmp_path: Path) -> None:
    source = open_source(str(_folder(tmp_path, {"amc": 3, "rumc": 4})))
    config = StainConfig(**{**TINY, "target": "rumc"})
    assert list(by_lab(source.cases, config)) == ["rumc", "amc"]
    assert list(by_lab(source.cases, replace(config, swap=True))) == ["amc", "rumc"]
    assert list(by_lab(source.cases, replace(config, target=""))) == ["amc", "rumc"]
    splits = StainCycleGan(config).split(source, 0)
    assert {case.attributes["class"] for case in splits.train} == {"amc", "rumc"}
    assert {case.attributes["class"] for case in splits.test} == {"amc", "rumc"}
    with pytest.raises(UserError, match="target x is none of the labs amc and rumc"):
        by_lab(source.cases, replace(config, target="x"))


@pytest.mark.parametrize(
    ("labs", "sentence"),
    [
        ({"A": 3, "B": 1}, "the folder B holds 1 image; each lab needs at least 2"),
        ({"A": 3}, r"needs the images of two labs, a folder for each \(A/, B/\), found A"),
        ({"A": 2, "B": 2, "C": 2}, "found A, B, C"),
    ],
)
def test_a_folder_with_too_little_is_named(tmp_path: Path, labs: dict[str, int], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        StainCycleGan(StainConfig(**TINY)).split(open_source(str(_folder(tmp_path, labs))), 0)


def test_a_patient_of_both_labs_is_on_one_side(tmp_path: Path) -> None:
    for lab in ("A", "B"):
        _folder(tmp_path / "x", {lab: 0})
        for index in range(5):
            pixels = np.random.default_rng(seed_of(lab, index)).integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "x" / lab / f"p{index}.png")
    splits = StainCycleGan(StainConfig(**TINY)).split(open_source(str(tmp_path / "x")), 0)
    assert not {case.patient for case in splits.train} & {case.patient for case in splits.test}


def test_gray_and_small_slides_are_named(tmp_path: Path) -> None:
    gray = open_source(str(_folder(tmp_path / "g", {"A": 2, "B": 2}, gray=True)))
    problems = StainCycleGan(StainConfig(**TINY)).problems(gray.cases, {})
    assert len(problems) == 4
    assert problems[0].reason.endswith("A0.png is a grayscale image where an RGB image is expected")
    small = open_source(str(_folder(tmp_path / "s", {"A": 2, "B": 2})))
    reasons = [bad.reason for bad in StainCycleGan(StainConfig(**{**TINY, "patch_px": 64})).problems(small.cases, {})]
    assert "slide of 40 x 40 px is smaller than a training patch of 64 px; lower --config.patch-px" in reasons[0]
    assert not StainCycleGan(StainConfig(**TINY)).problems(small.cases, {})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patch_px": 33}, "patch_px must be a multiple of 2"),
        ({"step_px": 40}, "step <= kept <= tile"),
        ({"patch_px": 4}, "nothing to judge"),
        ({"segmenter_patch_px": 30}, "multiple of 4"),
    ],
)
def test_a_config_that_cannot_work_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        StainConfig(**{**TINY, **changes})


def test_slides_outside_folders_are_told() -> None:
    with pytest.raises(UserError, match="found images outside any folder"):
        by_lab([Case("a", "a", {})], StainConfig())


def test_a_seed_of_the_claim_scores_every_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medray.systems.synthesis.stain_system._SEAM_SLIDE_PX", 144)
    work = InProcessWorkbench(tmp_path, quiet=True, tensorboard=False)
    config = StainConfig(**{**TINY, "patch_px": 16, "updates_per_epoch": 1})
    rows = claim_seed(config, "phantom:kidney?n=2&size=48&seed={seed}", work, 5)
    told = [row["variant"] for row in rows if "case" not in row]
    assert told == ["plain", "augmented", "reinhard", "both", "naive", "overlapped", "printed"]
    assert {row["seed"] for row in rows} == {5}
    assert {check.name.split("_")[0] for check in judge(rows)} == {"recovered", "augmentation", "seam"}
