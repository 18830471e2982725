import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from medray.data.case import Case, Source, Volume
from medray.data.readers import read_volume
from medray.data.sources import open_source
from medray.data.writers import write_volume
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.metrics.localisation import peak
from medray.system import PredictRequest, Trained
from medray.systems.shoulder.vrn_claim import ARMS, SIZES, judge
from medray.systems.shoulder.vrn_config import VrnConfig
from medray.systems.shoulder.vrn_evaluation import cam_scores, repeats_of, summarize
from medray.systems.shoulder.vrn_inference import Finding, look_at, trained_network
from medray.systems.shoulder.vrn_labels import classes_of
from medray.systems.shoulder.vrn_learner import VrnLearner, network_of
from medray.systems.shoulder.vrn_system import VrnRct
from medray.systems.shoulder.vrn_volumes import Cube, CubeReader, center_of

SMALL = VrnConfig(size=16, edge_mm=64.0, width=4, repeats=4, num_epochs=1, test_fraction=0.3)


class Given:
    """A field that is already there."""

    def __init__(self, volume):
        self.volume = volume

    def load(self):
        return self.volume

    def fingerprint(self):
        return str(hash(self.volume.array.tobytes()))


def series(axes="coronal", shape=(40, 40, 20), **attributes):
    """A case with slices 4 mm apart in this plane, columns and rows of 2 mm."""
    through = {"sagittal": 0, "coronal": 1, "axial": 2}[axes]
    affine = np.zeros((4, 4))
    for axis, (world, step) in enumerate([*((w, 2.0) for w in range(3) if w != through), (through, 4.0)]):
        affine[world, axis] = step
    affine[:3, 3], affine[3, 3] = -40, 1
    array = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    return Case("s1", "s1", {"image": Given(Volume(array, affine, "s1.nii.gz"))}, {"class": "small", **attributes})


@pytest.mark.parametrize(
    ("case", "config", "sentence"),
    [
        (series(), SMALL, ""),
        (series("axial"), SMALL, "slices are axial where coronal ones are expected"),
        (series("axial"), replace(SMALL, plane="any"), ""),
        (series(center_mm="1 2"), SMALL, "three numbers"),
        (series(center_mm="500 0 0"), SMALL, "outside the scan"),
        (series(shape=(40, 40, 8)), SMALL, "holds only 32 mm of the cube of 64 mm"),
        (replace(series(), attributes={"class": "enormous"}), SMALL, "'enormous'"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_sentence(case, config, sentence):
    found = VrnRct(config).problems([case], {})
    assert len(found) == bool(sentence)
    assert all(sentence in bad.reason for bad in found)


def test_a_class_that_nobody_has_in_training_is_told(tmp_path):
    system, cases = VrnRct(SMALL), open_source("phantom:shoulder_3d?n=12&size=24&slices=16&seed=0").cases
    known = tuple(case for case in cases if case.attributes["class"] != "medium")
    splits = system.split(Source("", known, ""), 0)
    with pytest.raises(UserError, match=r"no training case is of the class .*medium"):
        system.train(InProcessWorkbench(tmp_path, quiet=True), splits)


def test_the_learning_rate_becomes_a_tenth_after_the_twelfth_epoch():
    learner = VrnLearner(replace(SMALL, lr_drop_epoch=12), [series()], [])
    optimizers = learner.configure_optimizers()
    scheduler = learner.configure_schedulers(optimizers)["net"]
    rates = []
    for _ in range(14):
        rates.append(optimizers["net"].param_groups[0]["lr"])
        optimizers["net"].step()
        scheduler.step()
    np.testing.assert_allclose(rates, [0.002] * 12 + [0.0002] * 2)


def test_only_weights_decay():
    optimizer = VrnLearner(SMALL, [series()], []).configure_optimizers()["net"]
    decays = {group["weight_decay"]: {p.dim() for p in group["params"]} for group in optimizer.param_groups}
    assert decays == {1e-3: {2, 5}, 0.0: {1}}
    assert optimizer.defaults["nesterov"]


def cube_with_tear():
    tear = np.zeros((16, 16, 16), dtype=bool)
    tear[2, 3, 4] = True
    return Cube(np.random.default_rng(0).integers(0, 255, (16, 16, 16), dtype=np.uint8), tear, np.diag([2.0, 2, 2, 1]))


def test_repetitions_belong_to_the_case_and_dropout_is_off_again():
    network, cube = trained_network(SMALL, None), cube_with_tear()
    first, again = (look_at(network, cube, repeats=30, key="a") for _ in range(2))
    other = look_at(network, cube, repeats=30, key="b")
    np.testing.assert_array_equal(first.repeats, again.repeats)
    np.testing.assert_array_equal(first.probability, other.probability)
    assert first.p_tear == pytest.approx(1 - first.probability[0])


def test_heat_at_the_tear_is_a_hit_and_four_voxels_away_still_is():
    cube = cube_with_tear()
    for offset, expected in ((0, 1.0), (4, 1.0), (5, 0.0)):
        heat = np.zeros((16, 16, 16), dtype=np.float32)
        heat[2 + offset, 3, 4] = 1.0
        finding = Finding(np.array([0.1, 0.6, 0.1, 0.1, 0.1]), heat, heat, np.zeros(0, dtype=np.int64))
        found = cam_scores(SMALL, cube, cube.tear, finding)
        assert found["cam_hit"] == expected
        assert found["cam_peak_distance_mm"] == pytest.approx(2.0 * offset)
    assert 0 < found["cam_hit_by_chance"] < 0.1


def test_the_summary_counts_over_cases():
    truths, said = ["none", "small", "large", "none"], ["none", "medium", "small", "partial"]
    others = [
        {"repeats": "01"},
        {"repeats": "23", "cam_hit": 1.0},
        {"repeats": "44", "cam_hit": 0.0},
        {"repeats": "00"},
    ]
    rows = [
        {"case": str(n), "true": truth, "predicted": found, "p_tear": float(found != "none"), **more}
        for n, (truth, found, more) in enumerate(zip(truths, said, others, strict=True))
    ]
    assert repeats_of(rows).tolist() == [[0, 2, 4, 0], [1, 3, 4, 0]]
    found = summarize(rows, ["p", "p", "q", "q"])
    assert (found["top1"], found["top1_within_1"], found["binary_accuracy"]) == (0.25, 0.75, 0.75)
    assert found["median_top1"] == pytest.approx(0.75)  # 4 of 4 and 2 of 4
    assert found["cam_hit_rate"] == 0.5


def test_a_prediction_lies_on_the_scans_own_grid(tmp_path):
    volume = series().volume("image")
    write_volume(volume, tmp_path / "scan.nii.gz")
    out = tmp_path / "found.json"
    request = PredictRequest(inputs=[tmp_path / "scan.nii.gz"], out=out, options={"center": "0,0,0"})
    told = VrnRct(SMALL).predict(Trained(weights=None), request)
    result, heat = json.loads(out.read_text()), read_volume(tmp_path / "found_cam.nii.gz")
    assert heat.shape == volume.shape
    np.testing.assert_allclose(heat.affine, volume.affine, atol=1e-4)
    assert sum(result["probabilities"].values()) == pytest.approx(1.0)
    assert result["probability_tear"] == pytest.approx(1 - result["probabilities"]["none"])
    assert result["cube_center_mm"] == [0, 0, 0]
    if (place := peak(heat.array[0])) is not None:
        world = (heat.affine @ np.array([*place, 1.0]))[:3]
        assert np.linalg.norm(world - result["heat_map_peak_mm"]) < 8  # a voxel of each grid
    assert set(told.files) == {"result", "table", "heat_map", "picture", "rendering"}


@pytest.mark.parametrize(
    ("out", "options", "sentence"),
    [("a.nii.gz", {}, "suffix .json"), ("a.json", {"middle": "1"}, "no option 'middle'"),
     ("a.json", {"center": "1,2"}, "three numbers")],
)  # fmt: skip
def test_predict_refuses_in_a_sentence(tmp_path, out, options, sentence):
    write_volume(series().volume("image"), tmp_path / "scan.nii.gz")
    request = PredictRequest(inputs=[tmp_path / "scan.nii.gz"], out=tmp_path / out, options=options)
    with pytest.raises(UserError, match=sentence):
        VrnRct(SMALL).predict(Trained(weights=None), request)


def test_predict_refuses_slices_of_another_plane(tmp_path):
    write_volume(series("axial").volume("image"), tmp_path / "scan.nii.gz")
    request = PredictRequest(inputs=[tmp_path / "scan.nii.gz"], out=tmp_path / "a.json")
    with pytest.raises(UserError, match=r"scan.nii.gz: its slices are axial where coronal ones are expected"):
        VrnRct(SMALL).predict(Trained(weights=None), request)
    assert VrnRct(replace(SMALL, plane="any")).predict(Trained(weights=None), request).files["result"].exists()


def test_a_readers_table_that_cannot_be_read_is_told_before_training(tmp_path):
    system = VrnRct(replace(SMALL, readers=str(tmp_path / "none.csv")))
    cases = open_source("phantom:shoulder_3d?n=12&size=24&slices=16&seed=0").cases
    splits = system.split(Source("", cases, ""), 0)
    with pytest.raises(UserError, match=r"readers' table .*none.csv cannot be read"):
        system.train(InProcessWorkbench(tmp_path, quiet=True), splits)


def test_the_claim_is_judged_on_pairs():
    rows = []
    for seed in range(2):
        for case in range(4):
            good = {"binary_accuracy": 1.0, "top1_within_1": float(case != 0), "top1": float(case < 2), "cam_hit": 1.0,
                    "cam_hit_by_chance": 0.1, "cam_peak_distance_mm": 1.0}  # fmt: skip
            bad = {**good, "top1": 0.0, "cam_hit": 0.0, "cam_peak_distance_mm": 9.0}
            for arm, scores in (("vrn", good), ("vrn4", bad), ("resnet2d", bad)):
                rows.append({"variant": arm, "seed": seed, "case": str(case), **scores})
    checks = {check.name: check for check in judge(rows)}
    assert all(check.held for check in checks.values())
    assert checks["binary_accuracy_minus_top1_within_1"].value == pytest.approx(0.25)
    assert checks["cam_hit_minus_cam_hit_by_chance"].value == pytest.approx(0.9)
    assert checks["cam_peak_distance_mm_vrn4_minus_vrn"].value == pytest.approx(8.0)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_every_arm_of_the_claim_is_a_config_and_four_blocks_leave_the_map_that_its_note_tells_of(size):
    configs = {arm: replace(size.settings(), **VrnRct.variants[arm].config) for arm in ARMS}
    features = network_of(configs["vrn4"]).eval().trunk(torch.zeros(1, 1, *[size.settings().size] * 3))
    assert features.shape[2:] == (2, 2, 2)


@pytest.mark.parametrize(
    "change",
    [{"size": 8}, {"edge_mm": 0.0}, {"blocks": 7}, {"blocks": 4, "size": 16}, {"width": 6}, {"lr": 0.0},
     {"dropout": 1.0}, {"batch_size": 1}, {"test_fraction": 1.0}, {"max_padding": 1.0}],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        VrnConfig(**change)


def test_a_folder_of_scans_with_a_table_of_classes_and_centers(tmp_path):
    volume = series().volume("image")
    for name, shift in (("a", 0.0), ("b", 1.0)):
        write_volume(Volume(volume.array + shift * volume.array**2, volume.affine), tmp_path / f"{name}.nii.gz")
    (tmp_path / "labels.csv").write_text("id,patient,class,center_mm\na,p1,Large-to-massive,0 1 2\nb,p2,normal,\n")
    cases = open_source(str(tmp_path)).cases
    assert VrnRct(SMALL).problems(cases, {}) == []
    assert classes_of(cases).tolist() == [4, 0]
    assert [center_of(case) for case in cases] == [(0.0, 1.0, 2.0), None]
    reader = CubeReader(SMALL.cropper)
    np.testing.assert_allclose(reader.read(cases[0]).grid.center, (0, 1, 2))
