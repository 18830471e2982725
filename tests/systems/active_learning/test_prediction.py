"""Prediction on a user's own scans: grids, units, slices, pictures, and inputs that cannot be used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from squares import CLASSES, square_cases

from medray.data.readers import read_volume
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.system import PredictRequest
from medray.systems.active_learning.prediction import predict
from medray.systems.active_learning.task_settings import TaskSettings
from medray.systems.active_learning.tasks import make_task

SETTINGS = TaskSettings(
    task_size=32, unet_channels=(4, 8, 8, 16, 16), task_network="small", task_batch_size=6, task_epochs=8, task_lr=2e-3
)  # fmt: skip


def _trained(name: Any, classes: tuple[str, ...], folder: Path) -> Any:
    task = make_task(name, SETTINGS, classes)
    work = InProcessWorkbench(folder, quiet=True, tensorboard=False)
    return task, task.train(work, square_cases(36), square_cases(9, seed=1), name="task").weights


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return _trained("segmentation", ("lesion",), tmp_path_factory.mktemp("segmenter"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return _trained("multi_class", CLASSES, tmp_path_factory.mktemp("classifier"))


def _picture(path: Path, *, color: bool = False) -> NDArray[Any]:
    """A bright square on rows 20 to 39 and columns 40 to 59 of an image of 80 x 100, and where it is."""
    gray = np.random.default_rng(0).normal(77, 12, (80, 100))
    truth = np.zeros((80, 100), dtype=bool)
    truth[20:40, 40:60] = True
    gray = np.clip(gray + 150 * truth, 0, 255).astype(np.uint8)
    Image.fromarray(np.stack([gray] * 3, axis=-1) if color else gray).save(path)
    return truth


def _volume() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Six axial slices (x, y, z) of 32 x 32 and a box of 8 x 8 voxels in slices 2 and 3; slice 0 is empty."""
    array = np.random.default_rng(0).normal(0.3, 0.05, (32, 32, 6)).astype(np.float32)
    truth = np.zeros(array.shape, dtype=bool)
    truth[6:14, 18:26, 2:4] = True
    array[truth] += 0.6
    array[..., 0] = 0
    return array * 1000, truth


def _dice(found: NDArray[Any], truth: NDArray[np.bool_]) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


@pytest.mark.parametrize("color", [False, True])
def test_a_mask_of_a_picture_lies_on_its_own_pixels(segmenter: Any, tmp_path: Path, color: bool) -> None:
    truth = _picture(tmp_path / "a.png", color=color)
    done = predict(*segmenter, PredictRequest([tmp_path / "a.png"], tmp_path / "out" / "a_mask.png"))
    mask = np.asarray(Image.open(done.files["mask"]))
    assert mask.shape == (80, 100)
    assert set(np.unique(mask)) == {0, 255}
    assert _dice(mask > 0, truth) > 0.8
    measured = json.loads(done.files["measurements"].read_text())
    assert measured["size_px"] == (mask > 0).sum()
    assert "area_mm2" not in measured  # a picture knows no spacing
    assert done.metrics == measured
    assert read_volume(done.files["probability"]).shape == (80, 100)
    assert Image.open(done.files["picture"]).size > (100, 100)


def test_a_mask_of_a_volume_lies_on_its_own_grid_however_it_is_stored(segmenter: Any, tmp_path: Path) -> None:
    array, truth = _volume()
    affine = np.diag([0.5, 0.5, 4.0, 1.0])
    affine[:3, 3] = (-8, 12, 30)
    masks = {}
    for name, order, flip in (("ras", (0, 1, 2), ()), ("sla", (2, 0, 1), (1, 2))):
        stored, own = np.transpose(array, order), affine[:, [*order, 3]]
        for axis in flip:
            own = own.copy()
            own[:3, 3] += own[:3, axis] * (stored.shape[axis] - 1)
            own[:3, axis] *= -1
            stored = np.flip(stored, axis)
        path = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(stored, own), path)
        done = predict(*segmenter, PredictRequest([path], tmp_path / f"{name}_mask.nii.gz"))
        found: Any = nib.load(done.files["mask"])
        assert found.shape == stored.shape
        np.testing.assert_allclose(found.affine, own)
        turned = np.asarray(found.dataobj) > 0
        for axis in flip:
            turned = np.flip(turned, axis)
        masks[name] = np.transpose(turned, np.argsort(order))
        assert done.metrics["volume_ml"] == pytest.approx(turned.sum() * 0.5 * 0.5 * 4 / 1000)
        assert done.files["probability"].name == f"{name}_mask_probability.nii.gz"
        assert done.files["picture"].stat().st_size > 1000
    assert _dice(masks["ras"], truth) > 0.8
    assert not masks["ras"][..., 0].any()  # there is nothing to see
    np.testing.assert_array_equal(masks["ras"], masks["sla"])


def test_a_single_slice_with_a_spacing_is_measured_in_square_mm(segmenter: Any, tmp_path: Path) -> None:
    array, _ = _volume()
    nib.save(nib.Nifti1Image(array[:, :, 2:3], np.diag([0.5, 0.8, 4.0, 1.0])), tmp_path / "a.nii.gz")
    done = predict(*segmenter, PredictRequest([tmp_path / "a.nii.gz"], tmp_path / "mask.nii.gz"))
    assert done.metrics["area_mm2"] == pytest.approx(done.metrics["size_px"] * 0.4)
    assert done.metrics["num_lesions"] >= 1


def test_classes_of_a_picture(classifier: Any, tmp_path: Path) -> None:
    case = square_cases(3, seed=5)[2]
    Image.fromarray((case.volume("image").array[0] * 200).clip(0, 255).astype(np.uint8)).save(tmp_path / "a.png")
    done = predict(*classifier, PredictRequest([tmp_path / "a.png"], tmp_path / "a.json"))
    told = json.loads(done.files["result"].read_text())
    assert set(told) == {"input", "probabilities"}
    assert sum(told["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert max(told["probabilities"], key=told["probabilities"].__getitem__) == "bright"
    assert done.metrics == {f"probability_{name}": p for name, p in told["probabilities"].items()}
    assert done.files["picture"].name == "a_overview.png"


def test_classes_of_a_volume_are_told_by_slice_and_together(classifier: Any, tmp_path: Path) -> None:
    task, weights = classifier
    nib.save(nib.Nifti1Image(_volume()[0], np.diag([1.0, 1.0, 4.0, 1.0])), tmp_path / "a.nii.gz")
    request = PredictRequest([tmp_path / "a.nii.gz"], tmp_path / "a.json")
    told = json.loads(predict(task, weights, request).files["result"].read_text())
    assert [one["z"] for one in told["slices"]] == [1, 2, 3, 4, 5]  # slice 0 is empty
    each = np.array([list(one["probabilities"].values()) for one in told["slices"]])
    np.testing.assert_allclose(list(told["probabilities"].values()), each.mean(axis=0), rtol=1e-5)
    several = make_task("multi_label", SETTINGS, CLASSES)
    told = json.loads(predict(several, weights, request).files["result"].read_text())
    each = np.array([list(one["probabilities"].values()) for one in told["slices"]])
    np.testing.assert_allclose(list(told["probabilities"].values()), each.max(axis=0), rtol=1e-5)


def test_what_cannot_be_used_is_told_in_a_sentence(segmenter: Any, classifier: Any, tmp_path: Path) -> None:
    _picture(tmp_path / "a.png")
    for pair, given, out, sentence in (
        (classifier, "a.png", "a.csv", r"name the result with the suffix \.json"),
        (segmenter, "none.png", "m.png", r"none\.png"),
        (segmenter, "a.png", "m.txt", "has no suffix that can be written"),
        ((segmenter[0], classifier[1]), "a.png", "m.png", "do not fit TaskNetwork"),
        ((segmenter[0], tmp_path / "w.safetensors"), "a.png", "m.png", "there are no weights at"),
    ):
        with pytest.raises(UserError, match=sentence):
            predict(*pair, PredictRequest([tmp_path / given], tmp_path / out))
    own_size = make_task("segmentation", replace(SETTINGS, task_size=None), ("lesion",))
    Image.fromarray(np.zeros((20, 50), dtype=np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(UserError, match=r"without a task_size takes images from 32 px on, got the image 20 x 50$"):
        predict(own_size, segmenter[1], PredictRequest([tmp_path / "small.png"], tmp_path / "m.png"))
