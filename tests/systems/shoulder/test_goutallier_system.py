"""The grader on files: what it refuses, what it writes, and on which grid."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medray.data.case import Source, Volume
from medray.data.phantoms import shoulder_y
from medray.data.readers import read_volume
from medray.data.sources import open_source
from medray.data.writers import write_volume
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.system import PredictRequest
from medray.systems.shoulder.goutallier_config import VARIANTS, GoutallierConfig
from medray.systems.shoulder.goutallier_evaluation import chosen_examples, summarize
from medray.systems.shoulder.goutallier_folds import make_folds
from medray.systems.shoulder.goutallier_system import Goutallier
from medray.systems.shoulder.goutallier_training import FoldResult, _training_regions

CONFIG = GoutallierConfig(
    backbone="small", image_size=48, channels=(4, 8), seg_epochs=1, epochs=1, seg_lr=1e-2, folds=2, test_fraction=0.2
)
# Columns run to the back and rows down: a sagittal slice as scanners save it.
SAGITTAL = np.array([[0.0, 0.0, 4.0, 10.0], [-2.0, 0.0, 0.0, 90.0], [0.0, -3.0, 0.0, 70.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.fixture(scope="module")
def cases():
    return shoulder_y.cases(n=20, size=48, even=True)


@pytest.fixture(scope="module")
def trained(cases, tmp_path_factory):
    work = InProcessWorkbench(tmp_path_factory.mktemp("run"), quiet=True, tensorboard=False)
    system = Goutallier(CONFIG)
    splits = system.split(Source("phantom", cases, ""), 0)
    return system, system.train(work, splits), splits, work


class Held:
    """A field that is an array."""

    def __init__(self, volume):
        self.volume = volume

    def load(self):
        return self.volume

    def fingerprint(self):
        return str(self.volume.array.sum())


def changed(case, field, **changes):
    return replace(case, fields={**case.fields, field: Held(replace(case.volume(field), **changes))})


def problems(case):
    return [bad.reason for bad in Goutallier(CONFIG).problems([case], {})]


def test_bad_cases_are_a_sentence_each(cases):
    image = cases[0].volume("image")
    color = np.concatenate([image.array, image.array, 255 - image.array])
    assert problems(cases[0]) == []
    assert problems(changed(cases[0], "image", array=np.repeat(image.array, 3, axis=0))) == []
    assert problems(replace(cases[0], attributes={})) == [
        "it has no grade; give one of 0 to 4 in the column grade of the table"
    ]
    assert problems(replace(cases[0], attributes={"grade": "7"}))[0].startswith("its grade '7' is none")
    assert "is in color where a gray image is expected" in problems(changed(cases[0], "image", array=color))[0]
    fossa = cases[0].volume("label").array * 2
    assert "holds the label value 2; known are 0, 1" in problems(changed(cases[0], "label", array=fossa))[0]


@pytest.mark.parametrize(("affine", "plane"), [(np.diag([2.0, 2.0, 4.0, 1.0]), "axial"), (SAGITTAL, "")])
def test_a_dicom_slice_of_another_plane_is_refused(cases, affine, plane):
    given = changed(cases[0], "image", affine=affine, header={"format": "dicom"})
    told = problems(given)
    assert bool(told) == bool(plane)
    assert all(f"is of the {plane} plane where the sagittal Y-view is expected" in one for one in told)


def test_folds_without_a_class_are_told_before_anything_runs(cases):
    healthy = tuple(case for case in cases if case.attributes["grade"] in "012")
    with pytest.raises(UserError, match="no case that is risky"):
        Goutallier(CONFIG).split(Source("phantom", healthy, ""), 0)


def test_training_scores_every_held_out_case_once(trained):
    _, made, splits, _ = trained
    assert sorted(made.files) == ["grader_0", "grader_1", "segmenter_0", "segmenter_1"]
    held_out = [case for fold in made.about["folds"] for case in fold["held_out"]]
    assert sorted(held_out) == sorted(case.id for case in splits.train)
    assert {"cv_dice", "cv_auroc", "cv_sensitivity", "cv_specificity", "cv_accuracy"} <= set(made.metrics)
    assert {figure.name for figure in made.figures} == {"folds", "curves_segmentation", "curves_grading"}


def test_without_test_cases_the_folds_are_all_there_is(trained):
    system, made, _, work = trained
    source = Source("phantom", shoulder_y.cases(20, 48, even=True), "")
    assert not Goutallier(replace(CONFIG, test_fraction=0.0)).split(source, 0).test
    assert system.evaluate(work, made, []).rows == []


def test_evaluation_has_measures_with_units_and_leaves_grade_two_out_of_the_question(trained):
    system, made, splits, work = trained
    found = system.evaluate(work, made, splits.test)
    by_grade = {row["grade"]: row for row in found.rows}
    assert "risky" not in by_grade["2"]
    assert by_grade["4"]["risky"] == 1
    assert all("dice" in row for row in found.rows)
    assert found.summary["num_cases"] == sum("risky" in row for row in found.rows)


def test_masks_out_of_fold_come_from_the_network_that_had_not_seen_the_case(cases):
    folds = make_folds(replace(CONFIG, folds=3), cases, 0)
    steps = [FoldResult(None, [], [], {case.id: fold.number for case in fold.cases}) for fold in folds]
    owner = {case.id: fold.number for fold in folds for case in fold.held_out}
    inside = _training_regions(replace(CONFIG, folds=3), folds[0], folds, steps)
    outside = _training_regions(replace(CONFIG, folds=3, crops="out_of_fold"), folds[0], folds, steps)
    assert set(inside.values()) == {0}
    assert outside == owner
    assert _training_regions(replace(CONFIG, roi="manual"), folds[0], folds, []) is None


def saved(case, path, affine=None):
    volume = case.volume("image")
    if affine is not None:  # columns first, as scanners save it
        volume = Volume(volume.array.transpose(0, 2, 1), affine)
    return write_volume(volume, path)


def test_a_picture_and_a_scan_of_the_same_muscle_give_the_same_answer_each_on_its_grid(trained, cases, tmp_path):
    system, made, _, _ = trained
    png, nifti = saved(cases[0], tmp_path / "a.png"), saved(cases[0], tmp_path / "a.nii.gz", SAGITTAL)
    first = system.predict(made, PredictRequest(inputs=[png], out=tmp_path / "m.png"))
    second = system.predict(made, PredictRequest(inputs=[nifti], out=tmp_path / "m.nii.gz"))
    assert first.metrics["probability_risky"] == pytest.approx(second.metrics["probability_risky"], abs=1e-5)
    mask, other = read_volume(tmp_path / "m.png"), read_volume(tmp_path / "m.nii.gz")
    assert mask.array.any()
    np.testing.assert_array_equal(mask.array, other.array.transpose(0, 2, 1))
    np.testing.assert_allclose(other.affine, read_volume(nifti).affine)
    # 2 x 3 mm to a pixel; a picture has no millimeters
    assert second.metrics["muscle_area_mm2"] == pytest.approx(6 * first.metrics["muscle_area_px"])


def test_a_prediction_says_the_decision_with_its_probability(trained, cases, tmp_path):
    system, made, _, _ = trained
    path = saved(cases[0], tmp_path / "shoulder, left.png")
    told = system.predict(made, PredictRequest(inputs=[path], out=tmp_path / "m.png"))
    listed = json.loads(told.files["measurements"].read_text())
    assert listed["decision"] in ("not risky (0-1)", "risky (3-4)")
    assert listed["probability_of_decision"] >= 0.5
    assert (
        listed["lowest_fold_probability_risky"]
        <= listed["probability_risky"]
        <= listed["highest_fold_probability_risky"]
    )
    (line,) = csv.DictReader(told.files["table"].open())
    assert (line["input"], line["decision"]) == ("shoulder, left.png", listed["decision"])
    assert float(line["probability_risky"]) == listed["probability_risky"]


def test_one_slice_of_a_series_is_graded_and_the_mask_is_empty_elsewhere(trained, cases, tmp_path):
    system, made, _, _ = trained
    image = cases[0].volume("image").array.transpose(0, 2, 1)
    path = write_volume(Volume(np.stack([image * 0, image], axis=-1), SAGITTAL), tmp_path / "series.nii.gz")
    with pytest.raises(UserError, match="has 2 slices; say which is the Y-view with --option slice=0 to 1"):
        system.predict(made, PredictRequest(inputs=[path], out=tmp_path / "m.nii.gz"))
    request = PredictRequest(inputs=[path], out=tmp_path / "m.nii.gz", options={"slice": "1"})
    system.predict(made, request)
    mask = read_volume(tmp_path / "m.nii.gz")
    assert mask.shape == (48, 48, 2)
    assert not mask.array[..., 0].any()
    assert mask.array[..., 1].any()


def test_a_series_has_its_slices_across_whichever_axis(trained, cases, tmp_path):
    """Last as scanners save them, first as tools that sort the axes do, and as the pages of a TIFF."""
    system, made, _, _ = trained
    image = cases[0].volume("image").array
    last = np.stack([image.transpose(0, 2, 1) * 0, image.transpose(0, 2, 1)], axis=-1)
    paths = [write_volume(Volume(last, SAGITTAL), tmp_path / "last.nii.gz")]
    first = Volume(np.moveaxis(last, 3, 1), SAGITTAL[:, [2, 0, 1, 3]])
    paths.append(write_volume(first, tmp_path / "first.nii.gz"))
    pages = [Image.fromarray(page) for page in (image[0] * 0, image[0])]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    found = []
    for number, path in enumerate((*paths, tmp_path / "pages.tif")):
        out = tmp_path / f"{number}.nii.gz"
        request = PredictRequest(inputs=[path], out=out, options={"slice": "1"})
        found.append((system.predict(made, request).metrics["probability_risky"], read_volume(out).array[0]))
    assert [one[0] for one in found] == pytest.approx([found[0][0]] * 3, abs=1e-5)
    assert found[0][1].any()
    np.testing.assert_array_equal(np.moveaxis(found[0][1], 2, 0), found[1][1])
    np.testing.assert_array_equal(found[1][1].transpose(0, 2, 1), found[2][1])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"slice": "0"}, "is a single slice"), ({"tile": "4"}, "--option tile is unknown; there is slice=NUMBER")],
)
def test_options_that_do_not_fit_are_refused(trained, cases, tmp_path, options, sentence):
    system, made, _, _ = trained
    path = saved(cases[0], tmp_path / "a.png")
    with pytest.raises(UserError, match=sentence):
        system.predict(made, PredictRequest(inputs=[path], out=tmp_path / "m.png", options=options))


def test_a_folder_with_a_table_of_grades_is_the_papers_data(cases, tmp_path):
    lines = ["id,patient,grade,sex,age"]
    for case in cases:
        for name, folder in (("image", "images"), ("label", "masks")):
            (tmp_path / folder).mkdir(exist_ok=True)
            scale = 255 if name == "label" else 1
            Image.fromarray(case.volume(name).array[0] * np.uint8(scale)).save(tmp_path / folder / f"{case.id}.png")
        lines.append(f"{case.id},{case.patient},{case.attributes['grade']},F,60")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    source = open_source(str(tmp_path))
    assert not Goutallier(CONFIG).problems(source.cases, {})
    assert [case.attributes for case in source.cases] == [
        {"grade": case.attributes["grade"], "sex": "F", "age": "60"} for case in cases
    ]
    Goutallier(CONFIG).split(source, 0)


def test_a_manual_model_asks_for_the_mask(cases):
    manual = Goutallier(replace(CONFIG, **VARIANTS["manual_roi"].config))
    assert manual.input_names({}) == ("image", "label")
    assert Goutallier(CONFIG).input_names({}) == ("image",)


def test_mistakes_are_shown_first():
    answers = (("a", 1, True, 0.9), ("b", 0, True, 0.1), ("c", 1, False, 0.2))
    rows = [
        {"case": name, "risky": risky, "correct": float(right), "probability_risky": score}
        for name, risky, right, score in answers
    ]
    assert chosen_examples([*rows, {"case": "d"}]) == ["c", "a", "b"]


def test_a_summary_without_risky_cases_leaves_out_what_is_undefined():
    found = summarize([{"case": "a", "risky": 0, "probability_risky": 0.2, "dice": 0.8, "whole_image": 1.0}])
    assert found == {"num_cases": 1, "num_risky": 0, "accuracy": 1.0, "specificity": 1.0, "dice": 0.8,
                     "num_whole_image": 1.0}  # fmt: skip


def test_a_dicom_slice_is_graded_as_its_picture(trained, cases, tmp_path):
    system, made, _, _ = trained
    pixels = cases[0].volume("image").array[0]
    scan = sitk.GetImageFromArray(pixels[None].astype(np.uint16))
    scan.SetSpacing((2.0, 3.0, 4.0))
    scan.SetDirection((0, 0, -1, 1, 0, 0, 0, -1, 0))  # columns to the back, rows down
    scan.SetMetaData("0008|0016", "1.2.840.10008.5.1.4.1.1.4")  # an MR image: other kinds have no orientation
    scan.SetMetaData("0008|0060", "MR")
    sitk.WriteImage(scan, str(tmp_path / "a.dcm"))
    first, second = (
        system.predict(made, PredictRequest(inputs=[path], out=tmp_path / f"{path.suffix[1:]}.nii.gz"))
        for path in (saved(cases[0], tmp_path / "a.png"), tmp_path / "a.dcm")
    )
    assert first.metrics["probability_risky"] == pytest.approx(second.metrics["probability_risky"], abs=1e-5)
    assert second.metrics["muscle_area_mm2"] == pytest.approx(6 * first.metrics["muscle_area_px"])
