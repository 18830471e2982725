"""GMVAE(TV): terms of the ELBO by hand, the table's sizes, restoration and what is set on healthy scans alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence
from torch.testing import assert_close

from medray.data.case import Case, Source
from medray.data.phantoms.brain import cases
from medray.data.readers import read_volume
from medray.engine.options import LoopOptions
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.learner import Step
from medray.system import PredictRequest, Trained
from medray.systems.anomaly.gmvae_tv import (
    Decoder,
    Encoder,
    GmvaeConfig,
    Prior,
    cluster_kl,
    gaussian_kl,
    latent_shape,
    log_responsibilities,
    restore,
    standard_kl,
    total_variation,
)
from medray.systems.anomaly.gmvae_tv_system import VARIANTS, GmvaeTv, judge, make_learner
from medray.systems.anomaly.scans import matched, score, summarize

TINY = GmvaeConfig(
    shape=(38, 38), width=4, num_clusters=3, num_steps=3, batch_size=4, lr=1e-3, restore_steps=3, lambdas=(0.5, 1.8)
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def subjects(n: int = 6, patients: int = 2) -> tuple[Case, ...]:
    return cases(n=n, patients=patients, size=38, slices=2, shift=True)


@pytest.mark.parametrize(
    ("shape", "latent"), [((158, 198), (1, 32, 42)), ((62, 62), (1, 8, 8)), ((94, 94), (1, 16, 16))]
)
def test_the_table_s_sizes_close(shape: tuple[int, int], latent: tuple[int, ...]) -> None:
    config = GmvaeConfig(shape=shape, width=2)
    assert latent_shape(config) == latent
    assert Encoder(config)(torch.zeros(1, 1, *shape)).shape == (1, 4, *latent)
    for part in Decoder(config)(torch.zeros(1, *latent)):
        assert part.shape == (1, 1, *shape)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_variant_gives_slices_of_its_own_size(name: str) -> None:
    config = replace(TINY, **{"code_length": 0, **VARIANTS[name].config})
    z = torch.zeros(2, *latent_shape(config))
    assert Decoder(config)(z)[0].shape == (2, 1, 38, 38)


@pytest.mark.parametrize(
    ("kind", "expected"), [("density", (0.344, 0.607, 0.068)), ("authors", (0.919, 0.081, 0.0004))]
)
def test_responsibilities_at_distance_1(kind: str, expected: tuple[float, ...]) -> None:
    z = torch.ones(1, 1, 1, 1)
    log_precision = torch.tensor([-2.0, 0.0, 2.0]).view(1, 3, 1, 1)
    p = log_responsibilities(z, torch.zeros(1, 3, 1, 1), log_precision, kind).exp().flatten()
    assert_close(p, torch.tensor(expected), atol=2e-2, rtol=0)
    if kind == "density":
        density = Normal(0.0, (-0.5 * log_precision.flatten()).exp()).log_prob(torch.tensor(1.0))
        assert_close(p, density.softmax(0))


def test_kl_terms_agree_with_torch() -> None:
    mean, log_variance, other_mean, other = torch.randn(4, 50)
    first, second = Normal(mean, (0.5 * log_variance).exp()), Normal(other_mean, (0.5 * other).exp())
    assert_close(gaussian_kl(mean, log_variance, other_mean, other), kl_divergence(first, second))
    assert_close(standard_kl(mean, log_variance), kl_divergence(first, Normal(torch.zeros(50), torch.ones(50))))
    p = torch.rand(2, 4, 3, 3).softmax(1)
    uniform = Categorical(probs=torch.full((2, 3, 3, 4), 0.25))
    assert_close(cluster_kl(p.log()), kl_divergence(Categorical(probs=p.movedim(1, -1)), uniform), atol=1e-5, rtol=1e-4)
    assert cluster_kl(torch.tensor([0.0, -200.0]).view(1, 2, 1, 1)).item() == pytest.approx(np.log(2))


def test_a_cluster_that_nobody_belongs_to_leaves_gradients_finite() -> None:
    mean = torch.tensor([0.0, 100.0]).view(1, 2, 1, 1).requires_grad_(True)
    cluster_kl(log_responsibilities(torch.zeros(1, 1, 1, 1), mean, torch.zeros(1, 2, 1, 1))).sum().backward()
    assert mean.grad is not None
    assert torch.isfinite(mean.grad).all()


def test_equation_2_agrees_with_torch_distributions() -> None:
    prior, x, noise = Prior(TINY), torch.rand(2, 1, 38, 38), torch.randn(2, 2, 1, 2, 2)
    stats = prior.encoder(x)
    q_z, q_w = Normal(stats[:, 0], (0.5 * stats[:, 1]).exp()), Normal(stats[:, 2], (0.5 * stats[:, 3]).exp())
    z, w = stats[:, 0] + q_z.stddev * noise[:, 0], stats[:, 2] + q_w.stddev * noise[:, 1]
    mean, log_precision = prior.mixture(w).chunk(2, dim=1)
    clusters = Normal(mean, (-0.5 * log_precision).exp())
    p = clusters.log_prob(z).softmax(1)
    mu_x, log_precision_x = prior.decoder(z)
    expected = (
        Normal(mu_x, (-0.5 * log_precision_x).exp()).log_prob(x).flatten(1).sum(1)
        - (p * kl_divergence(q_z, clusters)).flatten(1).sum(1)
        - kl_divergence(q_w, Normal(torch.zeros(()), torch.ones(()))).flatten(1).sum(1)
        - (p * (p * 3).log()).flatten(1).sum(1)
    )
    assert_close(prior(x, noise).total, expected, rtol=1e-4, atol=1e-2)


def test_free_nats_take_the_gradient_of_the_clusters_away() -> None:
    prior = Prior(replace(TINY, c_free_nats=2.0))  # above log 3, the most there can be
    elbo = prior(torch.rand(1, 1, 38, 38), torch.randn(1, 2, 1, 2, 2))
    assert_close(elbo.kl_c, torch.tensor([2.0 * 4]))
    gradients = torch.autograd.grad(elbo.kl_c.sum(), list(prior.mixture.parameters()), allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_sigma_is_fixed_while_restoring() -> None:
    prior, x = Prior(TINY), torch.rand(1, 1, 38, 38)
    mean = prior.reconstruct(x)
    assert_close(prior(x, fixed_sigma=True).likelihood, -(x - mean).square().sum()[None])


def test_total_variation_by_hand() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[..., 1:3, 1:3] = 2.0  # a square of side 2: perimeter 8, height 2
    assert total_variation(x).item() == 16.0


def test_one_restoration_step_is_the_gradient() -> None:
    prior, y = Prior(replace(TINY, restore_steps=1, alpha=(0.01,))), torch.rand(2, 1, 38, 38)
    x = y.clone().requires_grad_(True)
    prior(x, fixed_sigma=True).total.sum().backward()
    assert x.grad is not None
    assert_close(restore(prior, y, 1.8), y + 0.01 * x.grad)  # at X = Y the TV term has no slope


def test_restoration_stays_in_the_brain_and_within_the_clip() -> None:
    config = replace(TINY, restore_steps=2, alpha=(0.5, 0.5), clip=0.01, masked=True)
    y = torch.rand(1, 1, 38, 38)
    y[..., :20] = 0.0
    change = (restore(Prior(config), y, 1.8) - y).abs()
    assert not change[..., :20].any()
    assert 0 < change.max() <= 2 * 0.5 * 0.01 + 1e-6


def test_a_tv_weight_makes_residuals_flatter() -> None:
    prior, y = Prior(replace(TINY, restore_steps=60)), torch.rand(1, 1, 38, 38)
    free, flat = (total_variation(restore(prior, y, weight) - y).item() for weight in (0.0, 1.8))
    assert flat < 0.5 * free


def test_matching_carries_a_scan_to_the_reference_and_leaves_the_background() -> None:
    random = np.random.default_rng(0)
    image = random.random((2, 8, 8)).astype(np.float32) ** 3
    image[0, 0] = 0.0
    reference = np.quantile(random.normal(0.5, 0.1, 5000), np.linspace(0, 1, 512)).astype(np.float32)
    result = matched(image, reference)
    assert not result[0, 0].any()
    inside = result[image > 0]
    assert np.median(inside) == pytest.approx(0.5, abs=0.02)
    assert (np.argsort(inside) == np.argsort(image[image > 0])).all()


def test_patients_are_never_trained_on() -> None:
    splits = GmvaeTv(TINY).split(Source("x", subjects(), ""), seed=0)
    assert all("label" not in case.fields for case in (*splits.train, *splits.validation))
    assert splits.validation
    assert [case.attributes["class"] for case in splits.test] == ["patient"] * 2


def test_healthy_subjects_alone_are_tested_on_too() -> None:
    splits = GmvaeTv(TINY).split(Source("x", subjects(10, 0), ""), seed=0)
    assert splits.train
    assert splits.validation
    assert splits.test


def test_too_few_healthy_subjects() -> None:
    for healthy, patients in ((1, 3), (2, 0)):
        with pytest.raises(UserError, match=f"{healthy} healthy subjects"):
            GmvaeTv(TINY).split(Source("folder", subjects(healthy, patients), ""), seed=0)


def test_a_patient_in_the_training_split_is_refused() -> None:
    healthy, ill = subjects(3, 1)[:3], subjects(3, 1)[3]
    roles = zip((*healthy, ill), ("train", "train", "val", "train"), strict=True)
    given = tuple(replace(case, attributes={**case.attributes, "split": role}) for case, role in roles)
    with pytest.raises(UserError, match="t2/patient000 has a label map and is not in the split test"):
        GmvaeTv(TINY).split(Source("x", given, ""), seed=0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"shape": (60, 62)}, "2 mod 4"),
        ({"prior": "aae"}, "code_length"),
        ({"prior": "gan", "code_length": 8}, "search"),
        ({"detection": "search"}, "search"),
        ({"code_length": 8}, "latent map"),
        ({"spacing_mm": (1.0,)}, "two values"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(TINY, **changes)


def test_scans_without_brain_are_named() -> None:
    with pytest.raises(UserError, match="skull-stripped"):
        make_learner(replace(TINY, min_brain=0.99), subjects())


@pytest.mark.parametrize("name", ["gmvae_tv", "vae_128", "aae_128", "anogan", "authors"])
def test_every_kind_of_prior_learns_the_same_on_any_batch_of_workers(name: str) -> None:
    """Gradients of the two halves of a batch add up to those of the whole."""
    config = replace(TINY, **VARIANTS[name].config)
    gradients = []
    for parts in ([[0, 1, 2, 3]], [[0, 1], [2, 3]]):
        torch.manual_seed(1)
        learner = make_learner(config, subjects())
        step = _Recorder(learner.configure_optimizers(), parts=len(parts))
        for indices in parts:
            learner.training_step(learner.collate(indices, 0), step)
        gradients.append(step.first)
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-3)


class _Recorder(Step):
    """Adds up the gradients of the first optimizer over parts of a batch, as workers would."""

    def __init__(self, optimizers: dict[str, torch.optim.Optimizer], parts: int) -> None:
        super().__init__(optimizers)
        self.parts = parts
        self.first_name: str | None = None
        self.first: list[torch.Tensor] = []

    def mean(self, total: torch.Tensor, count: torch.Tensor | float) -> torch.Tensor:
        return total / (float(count) * self.parts)

    def update(self, name: str, *, max_norm: float | None = None) -> None:
        self.first_name = self.first_name or name
        parameters = [p for group in self.optimizers[name].param_groups for p in group["params"]]
        if name == self.first_name:
            found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
            self.first = [a + b for a, b in zip(self.first, found, strict=True)] if self.first else found
        self.optimizers[name].zero_grad()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    torch.manual_seed(0)
    work = InProcessWorkbench(tmp_path_factory.mktemp("run"), LoopOptions(), quiet=True, tensorboard=False)
    system = GmvaeTv(TINY)
    return system.train(work, system.split(Source("x", subjects(), ""), seed=0))


def test_lambda_is_the_one_that_changes_healthy_scans_least(trained: Trained) -> None:
    changes = dict(map(tuple, trained.about["changes"]))
    assert set(changes) == {0.5, 1.8}
    assert trained.about["tv_weight"] == min(changes, key=changes.__getitem__)
    assert list(trained.about["thresholds"]) == ["1", "5", "10"]
    first, second, third = trained.about["thresholds"].values()
    assert first > second > third > 0
    json.dumps(trained.about)


def test_evaluation_scores_patients_and_pools_their_pixels(trained: Trained, tmp_path: Path) -> None:
    work = InProcessWorkbench(tmp_path, LoopOptions(), quiet=True, tensorboard=False)
    evaluation = GmvaeTv(TINY).evaluate(work, trained, [c for c in subjects() if "label" in c.fields])
    assert len(evaluation.rows) == 2
    assert {"auc", "dice_fpr5", "dice_youden", "fpr5_percent"} <= set(evaluation.rows[0])
    mean = np.mean([row["dice_fpr5"] for row in evaluation.rows])
    assert evaluation.summary["dice_fpr5"] == pytest.approx(mean)
    assert len(evaluation.figures) == 1
    healthy = GmvaeTv(TINY).evaluate(work, trained, [c for c in subjects() if "label" not in c.fields])
    assert "auc" not in healthy.summary
    assert 0 <= healthy.summary["fpr5_percent"] <= 100


def test_a_perfect_residual_scores_perfectly() -> None:
    from medray.systems.anomaly.scans import Detected, ScanReader

    (case,) = cases(n=0, patients=1, size=38, slices=2)
    scan = ScanReader(TINY.grid).read(case)
    assert scan.lesion is not None
    found = Detected(scan, scan.image, (scan.lesion & scan.brain).astype(np.float32))
    row, counts = score(found, {5: 0.5})
    assert (row["dice_fpr5"], row["fpr5_percent"]) == (1.0, 0.0)
    assert summarize([(row, counts)], {5: 0.5}, ()).summary["auc"] == pytest.approx(1.0)


def test_prediction_lies_on_the_user_s_own_grid(trained: Trained, tmp_path: Path) -> None:
    (case,) = cases(n=0, patients=1, size=44, slices=3)
    volume = case.volume("image")
    affine = volume.affine @ np.diag([-1.0, 1.0, 1.0, 1.0])
    nib.save(nib.Nifti1Image(volume.array[0], affine), tmp_path / "scan.nii.gz")
    request = PredictRequest(inputs=[tmp_path / "scan.nii.gz"], out=tmp_path / "out" / "lesions.nii.gz")
    done = GmvaeTv(TINY).predict(trained, request)
    assert set(done.files) == {"lesions", "residual", "restored", "measurements", "picture"}
    lesions, residual = (read_volume(done.files[name]) for name in ("lesions", "residual"))
    for written in (lesions, residual, read_volume(done.files["restored"])):
        assert written.array.shape == volume.array.shape
        np.testing.assert_allclose(written.affine, affine, atol=1e-4)
    assert set(np.unique(lesions.array)) <= {0, 1}
    measured = json.loads(done.files["measurements"].read_text())
    assert measured["threshold"] == pytest.approx(trained.about["thresholds"]["5"])
    voxel_ml = np.prod(volume.spacing) / 1000
    assert measured["lesion_ml"] == pytest.approx(lesions.array.sum() * voxel_ml, rel=1e-3)


@pytest.mark.parametrize("options", [{"fpr": "3"}, {"limit": "5"}])
def test_unknown_options_are_named(trained: Trained, tmp_path: Path, options: dict[str, str]) -> None:
    np.save(tmp_path / "scan.npy", np.ones((40, 40), dtype=np.float32))
    request = PredictRequest(inputs=[tmp_path / "scan.npy"], out=tmp_path / "o.nii.gz", options=options)
    with pytest.raises(UserError, match=next(iter(options))):
        GmvaeTv(TINY).predict(trained, request)


def test_the_claim_is_judged_by_seed_and_by_patient() -> None:
    rows: list[dict[str, object]] = []
    for seed in (0, 1, 2):
        for variant, auc in (("vae_restoration", 0.8), ("vae_reconstruction", 0.7), ("gmvae_restoration", 0.72)):
            rows.append({"variant": variant, "seed": seed, "auc": auc + 0.01 * seed})
        rows.append({"variant": "gmvae_reconstruction", "seed": seed, "auc": 0.7 + 0.01 * seed})
        rows.append(
            {
                "variant": "gmvae_restoration",
                "seed": seed,
                "case": "a",
                "dice_fpr5": 0.5,
                "dice_youden": 0.4,
                "auc": 0.1,
            }
        )
    vae, gmvae, usable = judge(rows)  # type: ignore[arg-type]
    assert (vae.value, vae.held) == (pytest.approx(0.1), True)
    assert (gmvae.value, gmvae.held) == (pytest.approx(0.02), False)
    assert (usable.value, usable.held) == (pytest.approx(0.1), True)
