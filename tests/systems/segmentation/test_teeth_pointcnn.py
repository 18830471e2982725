"""Foveation, layout statistics, Algorithm 2 and the way in and out, by hand and by property."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from medray.data.cache import SampleCache
from medray.data.case import Case, Mesh
from medray.data.phantoms.dental import cases as dental
from medray.data.readers import read_mesh, read_vertex_label
from medray.data.sources import open_source
from medray.errors import UserError
from medray.learner import Step
from medray.system import PredictRequest, Trained
from medray.systems.segmentation.dental_scans import (
    NUM_CLASSES,
    fdi_numbers,
    jaw_of_labels,
    normalized,
    read_scan,
    scan_problems,
    to_classes,
)
from medray.systems.segmentation.teeth_pointcnn import (
    Discriminator,
    LossWeights,
    TeethConfig,
    TeethLearner,
    TeethPointCNN,
    augment,
    foveated,
    judge,
    kernel,
    label_cloud,
    layout_statistics,
    make_segmenter,
    uniform,
)

TINY = TeethConfig(
    num_points=128,
    channels=(8, 8),
    neighbors=(4, 4),
    dilations=(1, 1),
    level_points=(24,),
    num_epochs=1,
    batch_size=2,
    rotation_degrees=10.0,
)
SCANS = dental(n=3, spacing=2.0, pose=10)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_kernel_by_hand() -> None:
    points = np.array([[0, 0, 0], [0.4, 0, 0], [0, 0.8, 0]], dtype=np.float32)
    np.testing.assert_allclose(kernel(points, points[0], 0.4), [1, math.exp(-0.5), math.exp(-2)], rtol=1e-6)


def test_foveated_sampling_has_the_frequencies_of_algorithm_1() -> None:
    points = np.stack([np.linspace(0, 1.5, 8), np.zeros(8), np.zeros(8)], axis=1).astype(np.float32)
    draws, counts, printed = 4000, np.zeros(8), np.zeros(8)
    generator, accepted = random(), kernel(points, points[2], 0.4)
    for _ in range(draws):
        counts[foveated(points, 2, 4, 0.4, generator)] += 1
        chosen = {2}
        while len(chosen) < 4:  # Algorithm 1 as printed
            i = int(generator.integers(8))
            if accepted[i] >= generator.random():
                chosen.add(i)
        printed[list(chosen)] += 1
    assert counts[2] == draws
    np.testing.assert_allclose(counts / draws, printed / draws, atol=0.04)


def test_samples_are_of_one_size_and_repeat_only_where_points_are_few() -> None:
    points = random().normal(size=(20, 3)).astype(np.float32)
    assert len(np.unique(foveated(points, 3, 15, 0.4, random()))) == 15
    for chosen in (foveated(points, 3, 33, 0.4, random()), uniform(20, 33, random())):
        assert len(chosen) == 33
        assert set(chosen) == set(range(20))


def test_layout_statistics_by_hand() -> None:
    points = torch.tensor([[[0.0, 0, 0], [2, 0, 0], [5, 5, 5], [1, 1, 1]]])
    one_hot = torch.nn.functional.one_hot(torch.tensor([[3, 3, 0, 7]]), NUM_CLASSES).float()
    found = layout_statistics(one_hot, points, min_points=1.0)
    assert found.shape == (1, 16, 6)
    assert_close(found[0, 2], torch.tensor([1.0, 0, 0, 1, 0, 0]))  # class 3: mean 1, variance 1 along x
    assert_close(found[0, 6], torch.tensor([1.0, 1, 1, 0, 0, 0]))
    assert found[0, [0, 1, 3, 4, 5, *range(7, 16)]].abs().max() == 0  # absent teeth, and gingiva nowhere
    # 2 points over n0 = 4: mean 0.5; then ((0 - 0.5)^2 + (2 - 0.5)^2) / 4
    assert_close(layout_statistics(one_hot, points, min_points=4.0)[0, 2, [0, 3]], torch.tensor([0.5, 0.625]))


def test_layout_statistics_of_soft_labels_fade_to_zero_rows() -> None:
    points = torch.randn(1, 50, 3)
    soft = torch.full((1, 50, NUM_CLASSES), 1e-4)
    soft[..., 0] = 1 - 16e-4
    assert layout_statistics(soft, points, min_points=15.0).abs().max() < 1e-2


def test_equation_6_starts_at_the_plain_sum_and_balances() -> None:
    weights = LossWeights()
    losses = torch.tensor(2.0), torch.tensor(3.0)
    assert_close(weights(*losses, torch.tensor(1.0)), torch.tensor(2.0 + 3.0 + 1.0))
    with torch.no_grad():
        weights.log_square.copy_(torch.tensor([0.25, 4.0]).log())
    assert_close(weights(*losses, torch.tensor(1.0)), torch.tensor(2.0 / 0.25 + 3.0 / 4.0 + 1.0))


@pytest.mark.parametrize("tnet", ["tooth", "vector"])
def test_the_discriminator_learns_to_tell_a_swap(tnet: str) -> None:
    torch.manual_seed(0)
    network = Discriminator(tnet)  # type: ignore[arg-type]
    real = torch.zeros(32, 16, 6)
    real[:, :, 0] = torch.arange(16) / 8 - 1
    real += 0.02 * torch.randn_like(real)
    swapped = real.clone()
    swapped[:, [4, 5]] = real[:, [5, 4]]
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(120):
        loss = (
            torch.nn.functional.softplus(-network(real)).mean() + torch.nn.functional.softplus(network(swapped)).mean()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (network(real) > 0).float().mean() > 0.9
    assert (network(swapped) < 0).float().mean() > 0.9


def test_augmentation_drops_a_whole_tooth_and_keeps_distances() -> None:
    points, classes = random().normal(size=(60, 3)).astype(np.float32), np.repeat([0, 1, 2], 20)
    config = replace(TINY, drop_tooth=1.0, jitter=0.0, rotation_degrees=180.0)
    moved, left = augment(points, classes, config, random())
    assert len(left) == 40
    assert len(np.unique(left)) == 2
    own = points[np.isin(classes, np.unique(left))]
    np.testing.assert_allclose(
        np.linalg.norm(moved - moved[0], axis=1), np.linalg.norm(own - own[0], axis=1), atol=1e-4
    )
    kept, same = augment(points, classes, replace(config, drop_tooth=0.0), random())
    assert len(kept) == len(same) == 60


class Oracle(torch.nn.Module):
    """Knows the class by the position within 0.45 of the middle of the sample's densest part, else says 16."""

    def layout(self, points: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
        return {}

    def forward(self, points: torch.Tensor, layout: dict[str, torch.Tensor]) -> torch.Tensor:
        x = points[0, :, 0]
        middle = x[((x[:, None] - x[None]).abs() < 0.3).sum(dim=1).argmax()]
        classes = torch.where((x - middle).abs() < 0.75, (x > 0).long() + 1, 16)
        return torch.nn.functional.one_hot(classes, NUM_CLASSES)[None] * 20.0


def test_algorithm_2_counts_the_dense_region_only_and_covers_everything() -> None:
    line = np.linspace(-2, 2, 900)
    points = np.stack([line, np.zeros(900), np.zeros(900)], axis=1).astype(np.float32)
    config = replace(TINY, num_points=200)
    probabilities, passes = label_cloud(Oracle(), config, points, random())
    assert probabilities.shape == (900, NUM_CLASSES)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert passes >= 5  # 4 long, 0.8 at a time
    inner = np.abs(line) < 1.5  # at the ends of the line the densest part is not where the fovea is
    wrong = probabilities.argmax(axis=1) != (line > 0) + 1
    assert wrong[inner].mean() < 0.01
    far = foveated(points, 450, 200, config.sigma, random())
    assert (np.abs(points[far, 0]) > 0.75).any()  # there were points the oracle is wrong about


def test_uniform_inference_is_one_pass_and_fills_from_neighbors() -> None:
    points = random().normal(size=(400, 3)).astype(np.float32)
    config = replace(TINY, sampling="uniform", num_points=200)
    network = make_segmenter(config)
    probabilities, passes = label_cloud(network, config, points, random())  # type: ignore[arg-type]
    assert passes == 1
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_a_sample_is_the_same_alone_and_beside_others() -> None:
    learner = TeethLearner(TINY, SCANS, SampleCache(memory_gb=0.1))
    together, alone = learner.collate([0, 2], 5), learner.collate([2], 5)
    assert_close(together.points[1:], alone.points)
    assert_close(together.layout["down1"][1:], alone.layout["down1"])
    assert not torch.equal(learner.collate([2], 6).points, alone.points)


def test_only_the_foveas_surroundings_move_the_segmenter() -> None:
    learner = TeethLearner(replace(TINY, adversarial=False), SCANS, SampleCache())
    batch = learner.collate([0], 0)
    far = replace(batch, weights=torch.zeros_like(batch.weights))
    before = [p.clone() for p in learner.networks.parameters()]
    learner.training_step(far, Step(learner.configure_optimizers()))
    assert all(torch.equal(a, b) for a, b in zip(before, learner.networks.parameters(), strict=True))


def test_a_step_moves_both_players_and_the_weights_of_the_losses() -> None:
    learner = TeethLearner(TINY, SCANS, SampleCache())
    before = {name: p.clone() for name, p in learner.networks.named_parameters()}
    found = learner.training_step(learner.collate([0, 1], 0), Step(learner.configure_optimizers()))
    moved = {name.split(".")[0] for name, p in learner.networks.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"segmenter", "discriminator", "loss_weights"}
    assert all(p.grad is None for p in learner.networks["discriminator"].parameters())
    assert {"loss", "accuracy", "discriminator_loss", "layout_loss"} == set(found)


def test_fdi_numbers_run_from_the_patients_right_to_the_left() -> None:
    assert fdi_numbers("upper", "patient_side").tolist() == [0, *range(18, 10, -1), *range(21, 29)]
    assert fdi_numbers("lower", "patient_side")[[1, 16]].tolist() == [48, 38]
    assert fdi_numbers("lower", "mirrored")[[1, 16]].tolist() == [38, 48]
    np.testing.assert_array_equal(to_classes(np.array([0, 48, 41, 31, 38]), "patient_side", "x"), [0, 1, 8, 9, 16])


def test_labels_of_no_use_are_named() -> None:
    for labels, sentence in (([0, 51], "51 is no FDI"), ([11, 31], "both jaws"), ([0, 0], "no tooth"), ([-1], "-1")):
        with pytest.raises(UserError, match=sentence):
            jaw_of_labels(np.array(labels), "p1")


class Held:
    """A field that is what it was given."""

    def __init__(self, value: object) -> None:
        self.value = value

    def load(self) -> object:
        return self.value

    def fingerprint(self) -> str:
        return str(id(self.value))


def test_problems_of_scans() -> None:
    point = Mesh(np.ones((3, 3)), np.array([[0, 1, 2]]))
    deciduous = Mesh(np.eye(3), np.array([[0, 1, 2]]))
    bad = scan_problems(
        [
            Case("dot", "a", {"mesh": Held(point)}),
            Case("child", "b", {"mesh": Held(deciduous), "label": Held(np.array([0, 55, 54]))}),
            Case("image", "c", {"mesh": Held(np.zeros((4, 4)))}),
            SCANS[0],
        ]
    )
    assert [one.case for one in bad] == ["dot", "child", "image"]
    for one, sentence in zip(bad, ("in one place", "54 is no FDI", "not a mesh"), strict=True):
        assert sentence in one.reason


def test_normalization_keeps_shapes() -> None:
    vertices = random().normal(size=(200, 3)) * [9, 5, 1] + 40
    points, scale = normalized(vertices, "x")
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-5)
    assert (points**2).sum(axis=1).mean() == pytest.approx(1, rel=1e-4)
    np.testing.assert_allclose(points * scale + vertices.mean(axis=0), vertices, atol=1e-4)


def test_folds_cover_all_patients_and_keep_jaws_together() -> None:
    source = open_source("phantom:dental?n=7&spacing=2&jaw=both")
    tested: list[str] = []
    for fold in range(3):
        splits = TeethPointCNN(replace(TINY, folds=3, fold=fold)).split(source, 0)
        assert not {c.patient for c in splits.train} & {c.patient for c in splits.test}
        tested += [c.id for c in splits.test]
    assert sorted(tested) == sorted(c.id for c in source.cases)
    with pytest.raises(UserError, match="too few"):
        TeethPointCNN(TINY).split(open_source("phantom:dental?n=1&spacing=2&jaw=both"), 0)


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    from safetensors.torch import save_file

    learner = TeethLearner(TINY, SCANS, SampleCache())
    save_file({k: v.contiguous() for k, v in learner.networks.state_dict().items()}, tmp_path / "model.safetensors")
    return Trained(weights=tmp_path / "model.safetensors", about={"jaws": ["lower", "upper"]})


def test_predict_writes_labels_for_an_stl_in_its_own_order(tmp_path: Path, trained: Trained) -> None:
    trimesh = pytest.importorskip("trimesh")
    mesh = SCANS[0].mesh("mesh")
    trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).export(tmp_path / "p1_lower.stl")
    np.save(tmp_path / "p1.npy", np.repeat(48, 3 * len(mesh.faces)))  # per corner
    request = PredictRequest(
        inputs=[tmp_path / "p1_lower.stl"], out=tmp_path / "out" / "p1.ply", labels=[tmp_path / "p1.npy"]
    )
    done = TeethPointCNN(TINY).predict(trained, request)
    assert set(done.files) == {"labels", "arrays", "teeth", "picture"}
    assert {"iou", "teeth", "passes"} <= set(done.metrics)
    numbers = read_vertex_label(done.files["labels"])
    assert set(numbers) <= {0, *range(31, 39), *range(41, 49)}
    read = read_mesh(tmp_path / "p1_lower.stl")
    np.testing.assert_allclose(read_mesh(done.files["labels"]).vertices, read.vertices, atol=1e-4)
    with np.load(done.files["arrays"]) as arrays:
        assert arrays["probabilities"].shape == (len(read.vertices), NUM_CLASSES)
        np.testing.assert_array_equal(arrays["labels"], numbers)
        assert len(arrays["corner_labels"]) == 3 * len(mesh.faces)
    told = json.loads(done.files["teeth"].read_text())
    assert sum(tooth["vertices"] for tooth in told["teeth"]) + told["gingiva_vertices"] == len(numbers)
    assert done.files["picture"].read_bytes().startswith(b"\x89PNG")


def test_predict_refuses_what_it_cannot_answer(tmp_path: Path, trained: Trained) -> None:
    np.savetxt(tmp_path / "scan.xyz", SCANS[0].mesh("mesh").vertices)
    system, scan = TeethPointCNN(TINY), [tmp_path / "scan.xyz"]
    for options, out, sentence in (
        ({}, "a.ply", "does not say which jaw"),
        ({"jaw": "left"}, "a.ply", "jaw=left is not one of upper, lower"),
        ({"side": "left"}, "a.ply", "no option side"),
        ({"jaw": "upper"}, "a.stl", "written as a .ply"),
    ):
        with pytest.raises(UserError, match=sentence):
            system.predict(trained, PredictRequest(inputs=scan, out=tmp_path / out, options=options))


def test_scans_are_decoded_once() -> None:
    cache = SampleCache(memory_gb=0.1)
    first, second = (read_scan(SCANS[0], "patient_side", cache) for _ in range(2))
    assert first.points is second.points
    assert cache.hits == 1


def test_the_claim_is_judged_on_pairs() -> None:
    scores = {
        "uniform": (0.5, 0.3, 2),
        "nonuniform": (0.6, 0.4, 1),
        "adversarial": (0.6, 0.3, 3),
        "both": (0.7, 0.4, 0),
    }
    rows = [
        {"variant": name, "seed": seed, "case": "a", "iou": iou, "border_iou": border, "order_violations": wrong}
        for name, (iou, border, wrong) in scores.items()
        for seed in range(3)
    ]
    checks = {check.name: check for check in judge(rows)}
    assert [check.held for check in checks.values()] == [True, True, False]
    assert checks["iou_both_minus_uniform"].value == pytest.approx(0.2)
    assert checks["order_violations_uniform_minus_adversarial"].value == pytest.approx(-1)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"neighbors": (8,)}, "one value per X-Conv layer"),
        ({"fold": 5}, "fold counts from 0"),
        ({"sigma": 0.0}, "above 0"),
        ({"grid_cells": 12}, "grid_cells"),
    ],
)
def test_a_config_that_cannot_work_is_refused(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TeethConfig(**wrong)  # type: ignore[arg-type]
