"""The hybrid cascade: its count of weights, where data consistency holds, scale, and the way through files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from medray.data.case import Case, Source
from medray.data.fields import FileRef
from medray.data.kspace import RawReader, from_kspace, gaussian_mask
from medray.data.phantoms.brain import cases
from medray.data.readers import read_volume
from medray.data.sources import open_source
from medray.engine.options import LoopOptions
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.learner import Step
from medray.metrics.image_quality import image_quality
from medray.nn.kspace import magnitude, to_image, to_kspace
from medray.system import PredictRequest, Trained
from medray.systems.reconstruction.hybrid_cascade import (
    Cascade,
    HybridConfig,
    HybridLearner,
    augmented,
    sampling_mask,
    scale_of,
)
from medray.systems.reconstruction.hybrid_cascade_system import (
    VARIANTS,
    HybridCascade,
    Reconstructor,
    judge,
    scores_of,
    wilcoxon_note,
)

TINY = HybridConfig(filters=4, block_depth=1, num_blocks=2, num_epochs=1, batch_size=4)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def subjects(n: int = 5) -> tuple[Case, ...]:
    return cases(kind="kspace", n=n, slices=2, size=32)


def weights_of(config: HybridConfig) -> int:
    return sum(p.numel() for p in Cascade(config).parameters())


@pytest.mark.parametrize(
    ("changes", "count"),
    [({}, 380_172), ({"domains": "KIKIKI"}, 380_172), ({"last_kernel": 3}, 384_780), ({"block_depth": 5}, 504_876)],
)
def test_number_of_weights(changes: dict[str, object], count: int) -> None:
    assert weights_of(HybridConfig(**changes)) == count  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ("zero_filled", "unet", "w_net")])
def test_every_variant_gives_an_image_per_block(name: str) -> None:
    config = replace(TINY, **{key: v for key, v in VARIANTS[name].config.items() if key != "num_epochs"})
    mask = torch.ones(2, 1, 32, 32)
    images = Cascade(config)(torch.randn(2, 2, 32, 32), mask)
    assert len(images) == 1 + len(config.order)
    assert all(image.shape == (2, 2, 32, 32) for image in images)


@pytest.mark.parametrize("fft", ["centered", "raw"])
@pytest.mark.parametrize("domains", ["IK", "KI", "II"])
def test_measured_samples_come_through_every_block_unchanged(domains: str, fft: str) -> None:
    config = replace(TINY, domains=domains, fft=fft)  # type: ignore[arg-type]
    image = torch.randn(1, 2, 16, 18)
    mask = torch.from_numpy(gaussian_mask((16, 18), 0.3, 0)).float()[None, None]
    laid = mask if fft == "centered" else torch.fft.ifftshift(mask, dim=(-2, -1))
    images = Cascade(config)(image, mask)
    truth = to_kspace(image, config.fft) * laid
    for step in images:
        assert_close(to_kspace(step, config.fft) * laid, truth, atol=1e-3, rtol=1e-3)
    assert (images[-1] - images[0]).abs().max() > 1e-4  # and the others changed


def test_without_data_consistency_they_do_not() -> None:
    mask = torch.from_numpy(gaussian_mask((16, 16), 0.3, 0)).float()[None, None]
    image = torch.randn(1, 2, 16, 16)
    free = Cascade(replace(TINY, data_consistency=False))(image, mask)[-1]
    last = Cascade(replace(TINY, final_dc=False))(image, mask)[-1]
    for made in (free, last):
        assert ((to_kspace(made) - to_kspace(image)) * mask).abs().max() > 1e-3


def test_nothing_but_measured_samples_is_seen() -> None:
    """Changing what was not measured changes nothing: no leak of the reference into its reconstruction."""
    mask = torch.from_numpy(gaussian_mask((16, 16), 0.3, 0)).float()[None, None]
    image = torch.randn(1, 2, 16, 16)
    other = image + to_image(to_kspace(torch.randn(1, 2, 16, 16)) * (1 - mask))
    cascade = Cascade(TINY)
    for one, two in zip(cascade(image, mask), cascade(other, mask), strict=True):
        assert_close(one, two, atol=1e-4, rtol=1e-3)
    assert_close(scale_of(image, mask), scale_of(other, mask), atol=1e-4, rtol=1e-3)


def test_all_measured_is_reconstructed_exactly() -> None:
    image = torch.randn(1, 2, 16, 16)
    assert_close(Cascade(TINY)(image, torch.ones(1, 1, 16, 16))[-1], image, atol=1e-4, rtol=1e-3)


def test_reconstruction_scales_with_the_signal(tmp_path: Path) -> None:
    trained = train(tmp_path)
    (case,) = cases(kind="kspace", n=1, slices=2, size=32)
    scan = RawReader().read(case)
    reconstruct = Reconstructor(TINY, trained.weights)
    first, second = (reconstruct(replace(scan, kspace=factor * scan.kspace)) for factor in (1.0, 100.0))
    np.testing.assert_allclose(100 * first.combined(), second.combined(), rtol=1e-3, atol=1e-1)
    np.testing.assert_allclose(scores_of(first)["psnr_db"], scores_of(second)["psnr_db"], rtol=1e-4)


def test_slices_are_scaled_by_their_zero_filled_peak() -> None:
    learner = HybridLearner(TINY, subjects(2))
    batch = learner.collate([0, 3], epoch=0)
    zero_filled = to_image(to_kspace(batch["image"]) * batch["mask"])
    assert_close(magnitude(zero_filled).flatten(1).amax(1), torch.ones(2))
    assert batch["mask"].mean().item() == pytest.approx(0.25, abs=1e-3)


def test_one_mask_or_a_pool_of_them() -> None:
    fixed, pool = (HybridLearner(replace(TINY, mask=mask), subjects(2)) for mask in ("fixed", "pool100"))  # type: ignore[arg-type]
    same = [fixed.collate([0], epoch)["mask"] for epoch in range(4)]
    assert all(torch.equal(same[0], mask) for mask in same)
    different = {pool.collate([0], epoch)["mask"].numpy().tobytes() for epoch in range(4)}
    assert len(different) > 1
    assert_close(pool.collate([0], 2), pool.collate([0], 2))


def test_augmentation_moves_the_object_and_keeps_its_size() -> None:
    image = torch.zeros(1, 2, 40, 48)
    image[0, 0, 10:20, 10:20] = 1.0
    image[0, 1, 10:20, 10:20] = 2.0
    moved = [augmented(image, torch.Generator().manual_seed(seed)) for seed in range(8)]
    for one in moved:
        assert one[0, 0].sum() == pytest.approx(100, rel=0.2)
        assert_close(one[0, 1], 2 * one[0, 0], atol=1e-5, rtol=1e-4)  # both channels alike
        assert (one - image).abs().max() > 0.5
    assert not torch.equal(moved[0], moved[1])


def test_two_halves_of_a_batch_give_the_gradient_of_the_whole() -> None:
    config = replace(TINY, adversary=0.1, cycle=0.5)
    gradients = []
    for parts in ([[0, 1, 2, 3]], [[0, 1], [2, 3]]):
        torch.manual_seed(1)
        learner = HybridLearner(config, subjects(3))
        step = _Kept(learner.configure_optimizers(), len(parts))
        for indices in parts:
            learner.training_step(learner.collate(indices, 0), step)
        gradients.append(step.cascade)
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-5)


class _Kept(Step):
    """Adds up the cascade's gradients over parts of a batch."""

    def __init__(self, optimizers: dict[str, torch.optim.Optimizer], parts: int) -> None:
        super().__init__(optimizers)
        self.parts = parts
        self.cascade: list[torch.Tensor] = []

    def mean(self, total: torch.Tensor, count: torch.Tensor | float) -> torch.Tensor:
        return total / (float(count) * self.parts)

    def update(self, name: str, *, max_norm: float | None = None) -> None:
        parameters = [p for group in self.optimizers[name].param_groups for p in group["params"]]
        if name == "cascade":
            found = [p.grad.clone() for p in parameters if p.grad is not None]
            self.cascade = [a + b for a, b in zip(self.cascade, found, strict=True)] if self.cascade else found
        self.optimizers[name].zero_grad()


def test_images_of_two_sizes_need_a_common_one() -> None:
    mixed = [*subjects(1), *cases(kind="kspace", n=1, slices=2, size=40, seed=1)]
    with pytest.raises(UserError, match=r"40 x 40 pixels.*32 x 32; give a common size, --config.shape 32 32"):
        HybridLearner(TINY, mixed)
    assert HybridLearner(replace(TINY, shape=(32, 32)), mixed).num_samples() == 4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"domains": "IXI"}, "IKIKII"),
        ({"sampling": 4.0}, "0.25"),
        ({"shape": (4,)}, "shape"),
        ({"filters": 0}, "filters"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(TINY, **changes)


def train(folder: Path, config: HybridConfig = TINY) -> Trained:
    work = InProcessWorkbench(folder, LoopOptions(), quiet=True, tensorboard=False)
    system = HybridCascade(config)
    return system.train(work, system.split(Source("x", subjects(), ""), seed=0))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("run"))


def bench(folder: Path) -> InProcessWorkbench:
    return InProcessWorkbench(folder, LoopOptions(), quiet=True, tensorboard=False)


def test_zero_filled_needs_no_training_and_scores_as_by_hand(tmp_path: Path) -> None:
    config = replace(TINY, num_epochs=0)
    system, (case, *_) = HybridCascade(config), subjects()
    evaluation = system.evaluate(bench(tmp_path), train(tmp_path, config), [case])
    kspace = case.load("kspace")
    mask = sampling_mask(config, (32, 32))
    pairs = [(np.abs(from_kspace(z * mask)), np.abs(from_kspace(z))) for z in kspace]
    expected = np.mean([image_quality(*pair)["nrmse_percent"] for pair in pairs])
    assert evaluation.rows[0]["nrmse_percent"] == pytest.approx(expected, rel=1e-4)
    assert evaluation.rows[0]["nrmse_percent"] == evaluation.rows[0]["initial_nrmse_percent"]


def test_slices_weigh_alike_in_the_summary(trained: Trained, tmp_path: Path) -> None:
    chosen = [*cases(kind="kspace", n=1, slices=1, size=32), *cases(kind="kspace", n=1, slices=3, size=32, seed=5)]
    evaluation = HybridCascade(TINY).evaluate(bench(tmp_path), trained, chosen)
    one, three = (float(row["psnr_db"]) for row in evaluation.rows)
    assert evaluation.summary["psnr_db"] == pytest.approx((one + 3 * three) / 4)
    assert {"block1_nrmse_percent", "block2_nrmse_percent", "initial_ssim"} <= set(evaluation.summary)
    assert len(evaluation.figures) == 2


def test_undersampled_and_broken_cases_are_set_aside(tmp_path: Path) -> None:
    kspace, mask = subjects(1)[0].load("kspace"), gaussian_mask((32, 32), 0.25, 0)
    found = []
    for name, arrays in {
        "good": {"kspace": kspace},
        "undersampled": {"kspace": kspace * mask, "mask": mask},
        "magnitude": {"kspace": np.abs(kspace)},
    }.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            for key, array in arrays.items():
                file[key] = array
        found.append(Case(name, name, {"image": FileRef(str(tmp_path / f"{name}.h5"))}))
    system = HybridCascade(TINY)
    bad = {one.case: one.reason for one in system.problems(system.arrange(found), {})}
    assert sorted(bad) == ["magnitude", "undersampled"]
    assert "phase cannot be had back" in bad["magnitude"]


def test_prediction_from_undersampled_k_space(trained: Trained, tmp_path: Path) -> None:
    kspace, mask = subjects(1)[0].load("kspace"), gaussian_mask((32, 32), 0.25, 7)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["kspace"], file["mask"] = kspace * mask, mask
    request = PredictRequest(inputs=[tmp_path / "scan.h5"], out=tmp_path / "out" / "image.nii.gz")
    done = HybridCascade(TINY).predict(trained, request)
    image, complex_image = read_volume(done.files["image"]), np.load(done.files["complex"])
    assert image.array.shape == (1, 32, 32, 2)
    assert complex_image.shape == (2, 32, 32)
    np.testing.assert_allclose(np.moveaxis(image.array[0], -1, 0), np.abs(complex_image), rtol=1e-4)
    again = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(complex_image, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    np.testing.assert_allclose(again[:, mask], kspace[:, mask], atol=1e-2 * np.abs(kspace).max())
    measured = json.loads(done.files["measurements"].read_text())
    assert measured["sampled_percent"] == pytest.approx(25.0, abs=0.1)
    assert "psnr_db" not in measured  # nothing is known of what was not measured


def test_the_mask_of_an_npy_is_given_beside_it(trained: Trained, tmp_path: Path) -> None:
    kspace, mask = subjects(1)[0].load("kspace"), gaussian_mask((32, 32), 0.25, 7)
    np.save(tmp_path / "scan.npy", kspace * mask)
    np.save(tmp_path / "mask.npy", mask)
    request = PredictRequest(inputs=[tmp_path / "scan.npy"], out=tmp_path / "image.npz")
    with pytest.raises(UserError, match="k-space without its mask"):
        HybridCascade(TINY).predict(trained, request)
    options = {"mask": str(tmp_path / "mask.npy")}
    done = HybridCascade(TINY).predict(trained, replace(request, options=options))
    assert read_volume(done.files["image"]).array.shape == (1, 2, 32, 32)
    with pytest.raises(UserError, match="mask=FILE"):
        HybridCascade(TINY).predict(trained, replace(request, options={"masks": "x"}))


def test_a_magnitude_volume_is_undersampled_and_comes_back_on_its_grid(tmp_path: Path) -> None:
    array = np.abs(from_kspace(subjects(1)[0].load("kspace"))).transpose(2, 1, 0)
    affine = np.array([[-2.0, 0, 0, 5], [0, 2.0, 0, 6], [0, 0, 3.0, 7], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "t1.nii.gz")
    request = PredictRequest(inputs=[tmp_path / "t1.nii.gz"], out=tmp_path / "image.nii.gz")
    config = replace(TINY, num_epochs=0)
    done = HybridCascade(config).predict(train(tmp_path, config), request)
    image = read_volume(done.files["image"])
    np.testing.assert_allclose(image.affine, affine)
    assert image.array.shape == (1, *array.shape)
    assert np.corrcoef(image.array.ravel(), array.ravel())[0, 1] > 0.8
    assert done.metrics["psnr_db"] > 10


def test_coils_are_reconstructed_one_by_one_and_combined_by_root_sum_of_squares(trained: Trained) -> None:
    scan = RawReader().read(subjects(1)[0])
    coils = replace(scan, kspace=np.concatenate([3 * scan.kspace, 4 * scan.kspace], axis=1))
    reconstruct = Reconstructor(TINY, trained.weights)
    np.testing.assert_allclose(reconstruct(coils).combined(), 5 * reconstruct(scan).combined(), rtol=1e-3, atol=1e-1)


def test_blocks_are_kept_on_request_and_the_last_is_the_result(trained: Trained) -> None:
    scan = RawReader().read(subjects(1)[0])
    reconstruct = Reconstructor(TINY, trained.weights)
    short, long = reconstruct(scan, [1]), reconstruct(scan, every_block=True)
    assert (len(short.steps), len(long.steps)) == (2, 3)
    np.testing.assert_allclose(short.combined()[0], long.combined()[1], rtol=1e-4, atol=1e-2)
    scores = scores_of(long)
    assert scores["block2_nrmse_percent"] == scores["nrmse_percent"]
    assert set(scores) - set(scores_of(short, blocks=False)) == {"block1_nrmse_percent", "block2_nrmse_percent"}


def test_the_claim_is_judged_on_pairs() -> None:
    rows: list[dict[str, object]] = []
    for seed in range(3):
        for number in range(2):
            key = {"seed": seed, "case": str(number)}
            rows.append(
                {"variant": "hybrid", **key, "block1_nrmse_percent": 2.5, "psnr_db": 30.0, "nrmse_percent": 2.0}
            )
            rows.append(
                {"variant": "kiki", **key, "block1_nrmse_percent": 4.0, "psnr_db": 30.2, "nrmse_percent": 2.1 + number}
            )
            for other in ("no_dc", "unet", "w_net"):
                rows.append({"variant": other, **key, "psnr_db": 29.0})
    first, final, *consistency = judge(rows)  # type: ignore[arg-type]
    assert (first.value, first.held) == (pytest.approx(1.5), True)
    assert (final.value, final.held) == (pytest.approx(-0.2), False)
    assert [check.held for check in consistency] == [True] * 3
    assert "p = 0.031, 6 cases" in wilcoxon_note(rows, "kiki")  # type: ignore[arg-type]


@pytest.mark.real_data
def test_k_space_simulated_from_real_slices_trains_and_is_scored(real_data: Path, tmp_path: Path) -> None:
    if not (real_data / "ms_brain_mni").is_dir():
        pytest.skip(f"{real_data} has no ms_brain_mni")
    config = replace(TINY, modality="t1", every=30, shape=(96, 112), test_fraction=0.5, validation_fraction=0.0)
    system = HybridCascade(config)
    source = open_source(str(real_data / "ms_brain_mni"))
    cases_of_t1 = tuple(system.arrange(source.cases))
    assert [case.id for case in cases_of_t1] == ["t1/patient07", "t1/patient26"]
    splits = system.split(replace(source, cases=cases_of_t1), seed=0)
    work = bench(tmp_path)
    trained = system.train(work, splits)
    assert trained.about["simulated"] is True
    evaluation = system.evaluate(work, trained, splits.test)
    assert len(evaluation.rows) == 1
    assert np.isfinite(list(evaluation.summary.values())).all()
    assert 10 < evaluation.summary["initial_psnr_db"] < 40
