"""The boundary loss by hand, its schedule, the peers' weights, honest scores, and what a user's mistakes are told."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from rehearsal import StopsAfter, run, same, state_in
from torch.testing import assert_close

from medray.data.cache import SampleCache
from medray.data.case import Case, Source
from medray.data.fields import FileRef
from medray.data.sources import open_source
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.learner import Step
from medray.system import PredictRequest, Trained
from medray.systems.segmentation.boundary_loss import (
    PRESETS,
    AuthorsHalving,
    BoundaryLearner,
    BoundaryLoss,
    BoundaryLossConfig,
    StackReader,
    boundary_loss,
    level_set,
    loss_weights,
    region_loss,
    score_volume,
)

SMALL = BoundaryLossConfig(base=4, size=(32, 32), epochs=3, alpha_step=0.4, batch_size=4)
PHANTOM = "phantom:brain?kind=lesions&n=4&size=32&slices=3&empty=0"


def shift_cost(phi: np.ndarray, s: np.ndarray, g: np.ndarray) -> float:
    """Right side of eq. 4."""
    return float((phi * s).sum() - (phi * g).sum())


def half_plane(edge: int) -> np.ndarray:
    mask = np.zeros((6, 20))
    mask[:, :edge] = 1
    return mask


@pytest.mark.parametrize("d", [1, 3, -3])
def test_a_straight_border_shifted_by_d_costs_half_its_square_per_pixel(d: int) -> None:
    g, s = half_plane(10), half_plane(10 + d)
    assert shift_cost(level_set(g), s, g) == 6 * d**2 / 2  # L d^2 / 2, exactly
    authors = d * (d + 1) / 2  # inward the same sum starts at 0: |d| (|d| - 1) / 2
    assert shift_cost(level_set(g, "authors_int"), s, g) == 6 * authors


def test_a_grown_disc_costs_half_the_squared_distance_of_the_contours() -> None:
    """In the plane: the integral of rho - r over the ring from r to R. Off an axis the half pixel to the edge is up to
    0.45 too much, since some pixel's center lies nearly on the circle; that is 4 % here.
    """
    radius = np.hypot(*(np.indices((81, 81)) - 40))
    r, grown = 20, 38
    g, s = radius <= r, radius <= grown
    ring = 2 * math.pi * ((grown**3 - r**3) / 3 - r * (grown**2 - r**2) / 2)
    assert shift_cost(level_set(g), s, g) == pytest.approx(ring, rel=0.05)


def test_the_level_set_is_negative_inside_and_zero_where_there_is_no_contour() -> None:
    mask = np.zeros((9, 9))
    mask[3:6, 3:6] = 1
    phi = level_set(mask)
    assert (phi[mask == 1] < 0).all()
    assert (phi[mask == 0] > 0).all()
    assert (phi[4, 4], phi[3, 4], phi[2, 4], phi[0, 0]) == (-1.5, -0.5, 0.5, pytest.approx(math.sqrt(18) - 0.5))
    assert not level_set(np.zeros((4, 4))).any()
    assert not level_set(np.ones((4, 4))).any()


def test_the_authors_level_set_is_truncated_towards_zero() -> None:
    mask = np.zeros((9, 9))
    mask[3:6, 3:6] = 1
    phi = level_set(mask, "authors_int")
    assert (phi[4, 4], phi[3, 4], phi[2, 4], phi[2, 2], phi[0, 0]) == (-1, 0, 1, 1, 4)  # sqrt(2) is 1, sqrt(18) is 4


def test_the_loss_is_least_where_the_output_is_the_truth() -> None:
    mask = np.zeros((2, 12, 12))
    mask[:, 4:8, 5:7] = 1
    phi = torch.from_numpy(np.stack([level_set(plane) for plane in mask]))[:, None]
    truth = torch.from_numpy(mask)[:, None].float()
    best = boundary_loss(truth, phi)
    for other in (torch.zeros_like(truth), torch.ones_like(truth), truth * 0.9, truth.roll(1, -1)):
        assert (boundary_loss(other, phi) > best).all()
    assert_close(best, torch.full((2,), 8 * -0.5 / 144))  # every inner pixel of 2 x 4 touches the border
    assert_close(boundary_loss(truth, phi, "sum"), torch.full((2,), -4.0))


def test_the_loss_takes_every_class_and_refuses_other_shapes() -> None:
    phi = torch.randn(2, 3, 5, 5)
    probabilities = torch.rand(2, 3, 5, 5)
    by_hand = sum(boundary_loss(probabilities[:, [c]], phi[:, [c]], "sum") for c in range(3))
    assert_close(boundary_loss(probabilities, phi, "sum"), by_hand)
    with pytest.raises(ValueError, match=r"\(2, 3, 5, 5\) and phi \(2, 1, 5, 5\)"):
        boundary_loss(probabilities, phi[:, :1])


def one_hot(mask: torch.Tensor) -> torch.Tensor:
    return torch.stack([1 - mask, mask], 1)


def test_generalized_dice_is_equation_1() -> None:
    g = torch.zeros(1, 4, 4)
    g[0, 1, 1:3] = 1
    logits = torch.randn(1, 2, 4, 4)
    s = logits.softmax(1)[:, 1]
    w_g, w_b = 1 / 2**2, 1 / 14**2
    overlap = w_g * (g * s).sum() + w_b * ((1 - g) * (1 - s)).sum()
    total = w_g * (s + g).sum() + w_b * (2 - s - g).sum()
    for eps in (0.0, 1e-10):
        config = dataclasses.replace(SMALL, gdl_eps=eps)
        assert_close(region_loss(config, [])(logits, one_hot(g)), (1 - 2 * overlap / total)[None])


def test_on_an_empty_slice_only_the_capped_weight_punishes_what_is_found() -> None:
    gradients = {}
    for eps in (0.0, 1e-10):
        logits = torch.zeros(1, 2, 8, 8, requires_grad=True)
        region_loss(dataclasses.replace(SMALL, gdl_eps=eps), [])(logits, one_hot(torch.zeros(1, 8, 8))).sum().backward()
        assert logits.grad is not None
        gradients[eps] = logits.grad[:, 1]
    assert (gradients[0.0] > 1e-4).all()
    assert gradients[1e-10].abs().max() < 1e-15


def test_rare_pixels_weigh_more_in_the_weighted_cross_entropy() -> None:
    truth = torch.zeros(1, 2, 2)
    truth[0, 0, 0] = 1
    even, found = torch.zeros(1, 2, 2, 2), one_hot(truth) * 50
    losses = {
        name: region_loss(dataclasses.replace(SMALL, region=name), [0.75, 0.25])  # type: ignore[arg-type]
        for name in ("ce", "weighted_ce")
    }
    missed = found.clone()
    missed[0, :, 0, 0] = 0
    assert_close(losses["weighted_ce"](even, one_hot(truth)), losses["ce"](even, one_hot(truth)))
    assert_close(losses["weighted_ce"](missed, one_hot(truth)), 2 * losses["ce"](missed, one_hot(truth)))


@pytest.mark.parametrize("region", ["gdl", "ce", "weighted_ce", "focal", "dice", "tversky"])
def test_every_region_loss_prefers_the_truth_and_is_told_by_image(region: Any) -> None:
    truth = torch.zeros(2, 8, 8)
    truth[0, 2:4, 2:4] = 1
    loss = region_loss(dataclasses.replace(SMALL, region=region), [0.9, 0.1])
    right, wrong = loss(one_hot(truth) * 20, one_hot(truth)), loss(one_hot(1 - truth) * 20, one_hot(truth))
    assert right.shape == (2,)
    assert (right < wrong).all()
    assert_close(loss(one_hot(truth)[:1] * 20, one_hot(truth)[:1]), right[:1])


def test_weights_over_the_epochs() -> None:
    paper = BoundaryLossConfig()
    assert loss_weights(paper, 0) == (1.0, 0.0)
    assert loss_weights(paper, 40) == pytest.approx((0.6, 0.4))
    for epoch in (99, 150):
        assert loss_weights(paper, epoch) == pytest.approx((0.01, 0.99))
    authors = dataclasses.replace(paper, schedule="authors")
    assert loss_weights(authors, 0) == (1.0, 0.01)
    assert loss_weights(authors, 199) == pytest.approx((0.1, 2.0))
    assert loss_weights(dataclasses.replace(paper, schedule="add"), 100) == pytest.approx((1.0, 1.01))
    assert loss_weights(dataclasses.replace(paper, schedule="constant", alpha=0.3), 7) == pytest.approx((0.3, 0.7))
    assert loss_weights(dataclasses.replace(paper, region="none"), 0) == (0.0, 1.0)
    assert loss_weights(dataclasses.replace(paper, distance="none"), 50) == (1.0, 0.0)


def test_the_authors_rule_halves_in_the_first_epoch_and_twenty_after_the_best() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    rule, rates = AuthorsHalving(optimizer, 20), []
    for epoch in range(50):
        rule.step(1.0 if epoch == 3 else 0.5)
        rates.append(optimizer.param_groups[0]["lr"])
    assert [epoch for epoch in range(1, 50) if rates[epoch] != rates[epoch - 1]] == [23, 46]
    assert (rates[0], rates[-1]) == (0.5, 0.125)


def learner(config: BoundaryLossConfig = SMALL, data: str = PHANTOM) -> BoundaryLearner:
    torch.manual_seed(0)
    cases = BoundaryLoss(config).arrange(open_source(data).cases)
    return BoundaryLearner(config, cases[1:], cases[:1], SampleCache(memory_gb=0.1))


@pytest.mark.parametrize("stop", [2, 5, 8])
def test_the_schedule_of_the_loss_is_exact_across_a_restart(stop: int, tmp_path: Path) -> None:
    """Three epochs of three steps with alpha 1, 0.6 and 0.2: what was interrupted ends with the same bits."""
    assert run(learner, tmp_path / "whole")
    assert not run(learner, tmp_path / "parts", StopsAfter(stop))
    assert run(learner, tmp_path / "parts")
    assert same(state_in(tmp_path / "whole"), state_in(tmp_path / "parts")) == []


def test_the_step_blends_as_the_epoch_says() -> None:
    for epoch, alpha in ((0, 1.0), (1, 0.6), (2, 0.2), (30, 0.01)):
        made = learner()
        told = made.training_step(made.collate([0, 1, 2, 3], epoch), Step(made.configure_optimizers(), epoch=epoch))
        mixed = alpha * told["region_loss"].mean + (1 - alpha) * told["distance_loss"].mean
        assert told["loss"].mean == pytest.approx(mixed, rel=1e-5)


def test_gradients_of_parts_of_a_batch_add_up_late_in_the_schedule() -> None:
    """The contract tests stay in the first epoch, where the boundary loss has no weight yet."""

    class Keeps(Step):
        def update(self, name: str, *, max_norm: float | None = None) -> None: ...

    def gradients(parts: list[list[int]]) -> list[torch.Tensor]:
        made = learner()
        step = Keeps(made.configure_optimizers(), epoch=2)
        for part in parts:
            made.training_step(made.collate(part, 2), step)
        return [p.grad / len(parts) for p in made.networks.parameters() if p.grad is not None]

    for whole, half in zip(gradients([[0, 1, 2, 3]]), gradients([[0, 1], [2, 3]]), strict=True):
        assert_close(whole, half, atol=1e-6, rtol=1e-3)


def test_two_modalities_are_channels_and_level_sets_lie_on_the_lesions() -> None:
    batch = learner().collate([0, 4], 0)
    assert batch["image"].shape == (2, 2, 32, 32)
    assert not torch.equal(batch["image"][:, 0], batch["image"][:, 1])
    assert (batch["image"].min() >= 0) & (batch["image"].max() <= 1)
    assert ((batch["phi"][:, 0] < 0) == (batch["truth"] == 1)).all()


def test_several_labels_are_classes_and_others_background(tmp_path: Path) -> None:
    label = np.zeros((32, 32, 2), np.uint8)
    label[4:8, 4:8], label[10:12, 10:12], label[20:24, 20:24] = 3, 1, 2
    case = _case(tmp_path, label)
    reader = StackReader(dataclasses.replace(SMALL, labels=(1, 3)))
    classes = reader.classes(case)
    assert (classes[0, 10, 10], classes[0, 5, 5], classes[0, 21, 21]) == (1, 2, 0)
    phi = reader.level_sets(case)
    assert phi.shape == (2, 2, 32, 32)
    assert phi[0, 1, 5, 5] < 0 < phi[0, 0, 5, 5]


def test_scores_where_something_is_empty() -> None:
    nothing, blob = np.zeros((3, 6, 8), bool), np.zeros((3, 6, 8), bool)
    blob[1, 2:4, 2:4] = True
    both = score_volume(nothing, nothing, (5.0, 1.0, 2.0))
    assert not {"dice", "hd_mm", "hd95_mm"} & set(both)
    assert (both["dice_slice_empty_is_one"], both["hd_slice_empty_is_zero_mm"]) == (1.0, 0.0)
    missed = score_volume(nothing, blob, (5.0, 1.0, 2.0))
    assert missed["dice"] == 0
    assert missed["hd_mm"] == pytest.approx(math.hypot(3 * 5, 6 * 1, 8 * 2))
    assert missed["dice_slice_empty_is_one"] == pytest.approx(2 / 3)  # for finding nothing at all
    assert missed["hd_slice_empty_is_zero_mm"] == pytest.approx(math.hypot(6, 16) / 3)


def test_distances_are_in_mm_along_each_axis_and_lesions_are_counted() -> None:
    truth, found = np.zeros((2, 3, 16, 16), bool)
    truth[0, 2:4, 2:4] = truth[2, 10:12, 10:12] = True
    found[0, 2:4, 4:6] = found[2, 10:12, 10:12] = found[1, 14, 14] = True
    found[0, 2:4, 3] = True
    told = score_volume(found, truth, (50.0, 1.0, 3.0))
    assert told["hd_mm"] == pytest.approx(math.hypot(50, 3, 9))  # the stray pixel in the middle slice
    assert (told["true_lesions"], told["found_lesions"], told["false_lesions"]) == (2, 2, 1)
    assert (told["true_px"], told["found_px"], told["both_px"]) == (8, 11, 6)
    flat = score_volume(found[:1], truth[:1], (1.0, 3.0))
    assert flat["hd_mm"] == 6.0


def test_bad_settings_name_the_remedy() -> None:
    for changes, sentence in (
        ({"size": (100, 96)}, "size is two multiples of 16"),
        ({"region": "none", "distance": "none"}, "there is no loss"),
        ({"labels": (0, 1)}, "0 is background"),
        ({"modalities": ("t1", "t1")}, "different names"),
        ({"alpha": 1.5}, r"alpha lies in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=sentence):
            BoundaryLossConfig(**changes)


def _case(folder: Path, label: np.ndarray, affine: np.ndarray | None = None, **shapes: tuple[int, ...]) -> Case:
    """A patient's files; images are noise, with lesions bright."""
    random, refs = np.random.default_rng(0), {}
    for name in ("flair", "t1", "label"):
        shape = shapes.get(name, label.shape)
        array = label if name == "label" else random.normal(size=shape).astype(np.float32)
        nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), folder / f"{name}.nii.gz")
        refs[name] = FileRef(str(folder / f"{name}.nii.gz"), "label" if name == "label" else "image")
    return Case("p1", "p1", refs)


def test_a_label_that_cannot_be_used_is_set_aside_with_its_reason(tmp_path: Path) -> None:
    label = np.zeros((48, 32, 2), np.uint8)
    label[2, 5], label[24, 16] = 1, 1
    (lost,) = BoundaryLoss(SMALL).problems([_case(tmp_path, label)], {})
    assert lost.reason.startswith("2 of its 4 lesion voxels lie beyond the grid; raise --config.size")
    assert not BoundaryLoss(dataclasses.replace(SMALL, spacing_mm=2.0)).problems([_case(tmp_path, label)], {})
    (elsewhere,) = BoundaryLoss(SMALL).problems([_case(tmp_path, label, flair=(40, 32, 2))], {})
    assert "does not lie on its flair" in elsewhere.reason


def test_no_label_to_train_on_is_one_sentence() -> None:
    config = dataclasses.replace(SMALL, labels=(7,))
    made = BoundaryLoss(config)
    source = open_source(PHANTOM)
    with pytest.raises(UserError, match=r"no label map of the \d training cases holds 7; see --config.labels"):
        made.split(Source("x", tuple(made.arrange(source.cases)), ""), 0)


def test_several_channels_in_one_file_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "flair.npz", array=np.zeros((3, 32, 32), np.float32), affine=np.eye(4))
    case = dataclasses.replace(_case(tmp_path, np.zeros((32, 32, 2), np.uint8)))
    fields = {**case.fields, "flair": FileRef(str(tmp_path / "flair.npz"), "channels")}
    reader = StackReader(dataclasses.replace(SMALL, modalities=("flair",)))
    with pytest.raises(UserError, match="case p1 has 3 channels where one for each of flair is expected"):
        reader.stack(dataclasses.replace(case, fields=fields))


def test_a_prediction_lies_on_the_users_own_grid(tmp_path: Path) -> None:
    crooked = np.array([[0, 0, -3.0, 7], [-1.0, 0, 0, 5], [0, 1.0, 0, -9], [0, 0, 0, 1]])
    _case(tmp_path, np.zeros((30, 40, 5), np.uint8), crooked)
    out = tmp_path / "lesions.nii.gz"
    made = BoundaryLoss(dataclasses.replace(SMALL, labels=(4,), size=(48, 48)))
    about = {"modalities": ["flair", "t1"], "labels": [4]}
    told = made.predict(
        Trained(weights=None, about=about),
        PredictRequest(inputs=[tmp_path / "flair.nii.gz", tmp_path / "t1.nii.gz"], out=out),
    )
    result, probability = nib.load(out), nib.load(told.files["probabilities"])
    assert result.shape == probability.shape == (30, 40, 5)
    np.testing.assert_allclose(result.affine, crooked)
    found = np.asarray(result.dataobj)
    assert set(np.unique(found)) <= {0, 4}
    np.testing.assert_array_equal(found == 4, np.asarray(probability.dataobj) > 0.5)
    measured = json.loads(told.files["measurements"].read_text())
    assert measured["volume_ml"] == pytest.approx((found == 4).sum() * 3 / 1000)


def test_the_paper_preset_is_the_papers() -> None:
    config = BoundaryLossConfig(**PRESETS["paper"].config)
    assert (config.lr, config.batch_size, config.size, config.alpha_step) == (1e-3, 8, (256, 256), 0.01)
    assert config == BoundaryLossConfig()


@pytest.mark.real_data
def test_one_patient_is_trained_on_and_another_scored(tmp_path: Path) -> None:
    beside = Path(__file__).resolve().parents[3].parent / "shared" / "data"
    folder = Path(os.environ.get("MEDRAY_REAL_DATA", beside)) / "ms_brain_mni"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MEDRAY_REAL_DATA")
    coarse = {"base": 4, "every": 8, "epochs": 3, "spacing_mm": 2.0, "size": (96, 112), "normalize": "zscore"}
    made = BoundaryLoss(BoundaryLossConfig(**{**PRESETS["brain"].config, **coarse}))
    source = open_source(str(folder))
    cases = tuple(made.arrange(source.cases))
    assert [case.id for case in cases] == ["patient07", "patient26"]
    assert not made.problems(cases, {})
    splits = made.split(Source("ms", cases, ""), 0)
    assert len(splits.train) == len(splits.test) == 1
    work = InProcessWorkbench(tmp_path, quiet=True, tensorboard=False)
    trained = made.train(work, splits)
    assert math.isfinite(trained.fits["train"].metrics["loss"])
    found = made.evaluate(work, trained, splits.test)
    (row,) = found.rows
    assert row["case"] == splits.test[0].id
    assert int(row["true_lesions"]) > 10
    assert {"dice", "hd_mm", "hd95_mm"} <= set(found.summary)
