"""ToFi-ML: features, what is selected and balanced where, what is kept on disk, and what a user gets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medray.data.case import Case, Volume
from medray.data.phantoms import fundus
from medray.data.sources import open_source
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.system import PredictRequest, Trained
from medray.systems.classification.screens import ScreenConfig, fit_screen, load_screen, save_screen
from medray.systems.classification.tofi_ml import (
    VARIANTS,
    TofiConfig,
    TofiMl,
    extract,
    fingerprint,
    gray_images,
    near_duplicates,
)

pytest.importorskip("xgboost")
FAST = TofiConfig(num_thresholds=20, num_trees=10, folds=2)


def _volume(array: np.ndarray) -> Volume:
    return Volume(array, np.eye(4))


def test_800_features_in_the_papers_blocks() -> None:
    image = fundus.cases(n=1)[0].volume("image")
    curves = fingerprint(image, TofiConfig())
    assert list(curves) == [f"{c}_beta{k}" for c in ("red", "green", "blue", "gray") for k in (0, 1)]
    assert sum(len(curve) for curve in curves.values()) == 800
    sizes = {"all": 800, "rgb": 600, "gray": 200, "beta1_gray": 100, "histogram": 4 * 256}
    for name, size in sizes.items():
        assert sum(map(len, fingerprint(image, TofiConfig(**VARIANTS[name].config)).values())) == size


def test_gray_is_the_mean_or_luma_and_a_gray_image_has_but_one_channel() -> None:
    color = _volume(np.array([30, 60, 120], dtype=np.uint8).reshape(3, 1, 1) * np.ones((3, 2, 2), np.uint8))
    assert (gray_images(color, TofiConfig())["gray"] == 70).all()
    assert (gray_images(color, TofiConfig(gray="luma"))["gray"] == 58).all()  # 8.97 + 35.22 + 13.68 = 57.87
    assert list(gray_images(_volume(np.ones((3, 4, 4), np.uint8)), TofiConfig())) == ["gray"]
    deep = _volume(np.array([[[0, 4095]]], dtype=np.uint16))
    np.testing.assert_array_equal(gray_images(deep, TofiConfig())["gray"], [[0, 255]])


def test_per_megapixel_counts_do_not_depend_on_the_size() -> None:
    tile = np.random.default_rng(0).integers(0, 255, (1, 32, 32)).astype(np.uint8)
    spaced = np.pad(tile, ((0, 0), (1, 1), (1, 1)), constant_values=255)
    config = TofiConfig(per_megapixel=True, channels="gray", dimensions=(0,))
    one, four = (fingerprint(_volume(np.tile(spaced, (1, n, n))), config)["gray_beta0"] for n in (1, 2))
    np.testing.assert_allclose(one[:-1], four[:-1], rtol=1e-6)
    assert gray_images(_volume(tile), TofiConfig(resize=16))["gray"].shape == (16, 16)


def test_silhouettes_and_own_grids_are_finite_and_the_last_entry_is_zero() -> None:
    image = fundus.cases(n=1)[0].volume("image")
    own = fingerprint(image, TofiConfig(grid="per_image"))
    assert all(curve[-1] == 0 and curve.max() > 1 for curve in own.values())
    brighter = replace(image, array=np.clip(image.array.astype(int) // 2 + 30, 0, 255).astype(np.uint8) * 2)
    assert (own["red_beta0"] != fingerprint(brighter, TofiConfig())["red_beta0"]).any()
    assert np.isfinite(fingerprint(image, TofiConfig(vector="silhouette"))["gray_beta0"]).all()


def test_near_duplicates_are_turned_and_noisy_copies_but_no_other_eye() -> None:
    cases = fundus.cases(n=6)
    features = np.stack([values for _, values in extract(FAST, _cache(), cases)])
    turned = [replace(c.volume("image"), array=np.rot90(c.volume("image").array, axes=(1, 2))) for c in cases]
    copies = np.stack([np.concatenate(list(fingerprint(one, FAST).values())) for one in turned])
    np.testing.assert_array_equal(near_duplicates(features, copies, 0.01), np.eye(6, dtype=bool))


def _cache() -> object:
    return InProcessWorkbench(Path("."), quiet=True).cache


def _table(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    classes = np.arange(count) % 3
    features = generator.normal(size=(count, 12)).astype(np.float32)
    features[:, 4] += 6 * (classes == 1)
    features[:, 7] += 6 * (classes == 2)
    return features, classes


@pytest.mark.parametrize("classifier", ["xgboost", "forest", "knn"])
def test_a_classifier_survives_its_file(classifier: str, tmp_path: Path) -> None:
    features, classes = _table()
    screen = fit_screen(ScreenConfig(classifier=classifier, num_trees=20), features, classes, 3, seed=1)  # type: ignore[arg-type]
    path = save_screen(screen, tmp_path)
    neighbors = screen.model.n_neighbors if screen.memory else 0
    again = load_screen(path, screen.columns.tolist(), 3, num_neighbors=neighbors)
    expected = screen.probabilities(features)
    np.testing.assert_array_equal(again.probabilities(features), expected)
    np.testing.assert_allclose(expected.sum(axis=1), 1, rtol=1e-5)
    assert (expected.argmax(axis=1) == classes).mean() > 0.9
    if classifier != "knn":
        assert {4, 7} <= set(screen.columns.tolist())
        assert len(screen.columns) < 12
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot read the classifier"):
        load_screen(path, screen.columns.tolist(), 3, num_neighbors=neighbors)


def test_balancing_changes_the_training_cases_alone() -> None:
    features, classes = _table()
    kept = np.concatenate([np.nonzero(classes != 2)[0], np.nonzero(classes == 2)[0][:4]])
    sizes = {}
    for balance in ("none", "smote", "downsample"):
        config = ScreenConfig(classifier="knn", balance=balance)  # type: ignore[arg-type]
        sizes[balance] = np.bincount(fit_screen(config, features[kept], classes[kept], 3, 0).memory["classes"]).tolist()
    assert sizes == {"none": [20, 20, 4], "smote": [20, 20, 20], "downsample": [4, 4, 4]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TofiMl, Trained, InProcessWorkbench, tuple[Case, ...]]:
    system, work = TofiMl(FAST), InProcessWorkbench(tmp_path_factory.mktemp("run"), quiet=True)
    splits = system.split(open_source("phantom:fundus?n=60&noise=2"), seed=0)
    return system, system.train(work, splits), work, splits.test


def test_a_copy_of_a_training_case_is_told(
    trained: tuple[TofiMl, Trained, InProcessWorkbench, tuple[Case, ...]],
) -> None:
    system, model, work, test = trained
    splits = system.split(open_source("phantom:fundus?n=60&noise=2"), seed=0)
    evaluation = system.evaluate(work, model, (*test, splits.train[0]))
    assert evaluation.summary["num_seen_in_training"] == 1
    assert "note" in evaluation.rows[-1]
    assert evaluation.summary["auc"] > 0.8
    assert len(evaluation.figures) == 3


def test_predict_writes_the_class_the_curves_and_pictures(
    trained: tuple[TofiMl, Trained, InProcessWorkbench, tuple[Case, ...]], tmp_path: Path
) -> None:
    system, model, _, test = trained
    path = tmp_path / "eye.png"
    Image.fromarray(np.moveaxis(test[0].volume("image").array, 0, -1)).save(path)
    prediction = system.predict(model, PredictRequest(inputs=[path], out=tmp_path / "eye.json"))
    result = json.loads((tmp_path / "eye.json").read_text())
    assert result["class"] in ("normal", "dr")
    assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert len((tmp_path / "eye_curves.csv").read_text().splitlines()) == 21
    assert all(file.is_file() for file in prediction.files.values())
    gray = tmp_path / "gray.png"
    Image.fromarray(test[0].volume("image").array[0]).save(gray)
    with pytest.raises(UserError, match=r"gray.png is gray, while .* in color"):
        system.predict(model, PredictRequest(inputs=[gray], out=tmp_path / "eye.json"))
    with pytest.raises(UserError, match=r"suffix \.json"):
        system.predict(model, PredictRequest(inputs=[path], out=tmp_path / "eye.nii.gz"))


def _case(name: str, **attributes: str) -> Case:
    return Case(name, name, {"image": fundus.cases(n=1)[0].fields["image"]}, attributes)


def test_cases_without_a_class_or_of_a_new_one_are_set_aside() -> None:
    cases = [_case("a", grade="0"), _case("b", grade="1"), _case("c", grade="5"), _case("d", site="x")]
    assert [bad.case for bad in TofiMl(FAST).problems(cases, {})] == ["d"]
    bad = TofiMl(FAST).problems(cases, {"column": "grade", "classes": ["0", "1"]})
    assert [one.case for one in bad] == ["c", "d"]
    assert "none of the model's: 0, 1" in bad[0].reason


@pytest.mark.parametrize(
    ("attributes", "label", "sentence"),
    [
        ([{}, {}], "", "no case says its class: expected one folder per class"),
        ([{"class": "a"}, {"class": "b"}], "stage", "the column 'stage' in the manifest, which has class"),
        ([{"class": "a"}, {"class": "a"}], "", "all cases are of the class 'a'"),
    ],
)
def test_sources_without_classes(attributes: list[dict[str, str]], label: str, sentence: str) -> None:
    cases = tuple(_case(str(index), **given) for index, given in enumerate(attributes))
    with pytest.raises(UserError, match=sentence):
        TofiMl(replace(FAST, label=label)).split(replace(open_source("phantom:fundus?n=1"), cases=cases), 0)


def test_too_few_cases_of_a_class_for_the_folds(tmp_path: Path) -> None:
    system = TofiMl(TofiConfig(num_thresholds=5, folds=5))
    splits = system.split(open_source("phantom:fundus?n=20&positive=0.1"), seed=0)
    with pytest.raises(UserError, match="too few for 5 folds"):
        system.train(InProcessWorkbench(tmp_path, quiet=True), splits)


@pytest.mark.real_data
def test_chest_radiographs(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "chest_xray"
    if not folder.is_dir():
        pytest.skip(f"{real_data} has no chest_xray")
    system = TofiMl(TofiConfig(resize=64, num_thresholds=30, num_trees=40, folds=0))
    source = open_source(str(folder))
    cases = tuple(case for index, case in enumerate(source.cases) if index % 3 == 0)
    work = InProcessWorkbench(tmp_path, quiet=True)
    splits = system.split(replace(source, cases=cases), seed=0)
    model = system.train(work, splits)
    assert model.about["classes"] == ["normal", "covid", "pneumonia"]
    summary = system.evaluate(work, model, splits.test).summary
    assert summary["auc"] > 0.75  # 0.5 by chance
