"""The coronal shoulder phantom: shares of the paper, tears inside the tendon, fluid elsewhere as bright as a tear."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from medray.data.case import Case
from medray.data.check import check_cases
from medray.data.phantoms import shoulder_coronal
from medray.data.phantoms.shoulder_coronal import FIELD_OF_VIEW_MM, CoronalField
from medray.data.phantoms.shoulder_scanner import mask_of
from medray.data.sources import open_source
from medray.errors import UserError

SIZE = 64


@pytest.fixture(scope="module")
def cases() -> tuple[Case, ...]:
    return shoulder_coronal.cases(patients=160, size=SIZE)


def _label(case: Case) -> NDArray[np.uint8]:
    return np.asarray(case.volume("label").array[0])


def _slice(case: Case) -> shoulder_coronal.Slice:
    field = case.fields["image"]
    assert isinstance(field, CoronalField)
    return field.slice


def test_kinds_of_images_and_shares_of_pixels_are_those_of_the_paper(cases: tuple[Case, ...]) -> None:
    kinds = Counter(case.attributes["kind"] for case in cases)
    shares = {kind: count / len(cases) for kind, count in kinds.items()}
    assert shares == pytest.approx({"nothing": 0.69, "tendon": 0.14, "tear": 0.17}, abs=0.01)
    labels = np.stack([_label(case) for case in cases])
    assert (labels == 1).mean() == pytest.approx(0.0076, rel=0.15)
    assert (labels == 2).mean() == pytest.approx(0.0004, rel=0.25)
    for case, label in zip(cases, labels, strict=True):
        assert set(np.unique(label)) == {"nothing": {0}, "tendon": {0, 1}, "tear": {0, 1, 2}}[case.attributes["kind"]]


def test_the_shares_hold_for_other_parameters() -> None:
    found = Counter(c.attributes["kind"] for c in shoulder_coronal.cases(patients=40, slices=10, nothing=0, tendon=0.5))
    assert found == pytest.approx({"tendon": 200, "tear": 200}, abs=12)
    torn = shoulder_coronal.cases(patients=20, slices=3, nothing=0.0, tendon=0.0)
    assert {case.attributes["kind"] for case in torn} == {"tear"}


def test_a_tear_lies_where_the_whole_tendon_was_and_is_brighter(cases: tuple[Case, ...]) -> None:
    torn = [case for case in cases if case.attributes["kind"] == "tear"]
    assert {case.attributes["class"] for case in torn} == {"partial", "small", "medium", "large"}
    for case in torn[:60]:
        whole = CoronalField(replace(_slice(case), torn=False), "label").load().array[0]
        label, image = _label(case), case.volume("image").array[0]
        assert_array_equal(label > 0, whole > 0)  # the label of a tear replaces that of the tendon
        without = CoronalField(replace(_slice(case), torn=False), "image").load().array[0]
        tear = label == 2
        assert image[tear].mean() > without[tear].mean() + 300
        far = np.abs(image.astype(int) - without)[whole == 0]
        assert (far > 300).mean() < 0.01  # nothing but a soft border outside


def test_the_gap_is_as_long_as_its_attribute_says() -> None:
    pixel = FIELD_OF_VIEW_MM / 256
    for case in shoulder_coronal.cases(patients=24, size=256):
        if case.attributes.get("class") != "medium":
            continue
        rows, columns = np.nonzero(_label(case) == 2)
        points = np.stack([rows, columns], axis=1) * pixel
        longest = pdist(points).max()
        gap = float(case.attributes["gap_mm"])
        thickness = 8.0  # at most, where the gap begins; the longest chord runs across the gap
        assert 0.75 * gap < longest < np.hypot(gap, thickness) + 2.5


def _best_dice(image: NDArray[np.uint16], mask: NDArray[np.bool_]) -> float:
    """Of all thresholds on the intensity, chosen with the truth in hand."""
    hits = np.cumsum(mask.ravel()[np.argsort(-image.ravel().astype(float), kind="stable")])
    return float((2 * hits / (np.arange(1, mask.size + 1) + mask.sum())).max())


def test_a_threshold_does_not_find_the_tear(cases: tuple[Case, ...]) -> None:
    torn = [case for case in cases if case.attributes["kind"] == "tear"]
    found = [_best_dice(case.volume("image").array[0], _label(case) == 2) for case in torn]
    assert np.median(found) < 0.35
    brightest = []
    for case in torn[:30]:
        clean = replace(_slice(case), noise=0.0, bias=0.0)
        tear = CoronalField(clean, "label").load().array[0] == 2
        level = np.median(CoronalField(clean, "image").load().array[0][tear])
        elsewhere = CoronalField(replace(clean, torn=False), "image").load().array[0]
        brightest.append((elsewhere > 0.97 * level).any())
    assert np.mean(brightest) > 0.85  # as bright as the tear, without a tear


def test_slices_of_a_patient_are_related(cases: tuple[Case, ...]) -> None:
    def outline(case: Case) -> NDArray[np.float64]:
        return np.asarray(case.volume("image").array[0] > 300, dtype=np.float64).ravel()

    related = [np.corrcoef(outline(cases[5 * p + 2]), outline(cases[5 * p + 3]))[0, 1] for p in range(20)]
    strangers = [np.corrcoef(outline(cases[5 * p + 2]), outline(cases[5 * p + 8]))[0, 1] for p in range(20)]
    assert np.mean(related) > np.mean(strangers) + 0.15
    assert [case.id for case in cases[:6]] == ["p000/s0", "p000/s1", "p000/s2", "p000/s3", "p000/s4", "p001/s0"]
    assert cases[5].patient == "p001"


def test_a_slice_does_not_depend_on_how_many_there_are(cases: tuple[Case, ...]) -> None:
    few = shoulder_coronal.cases(patients=3, size=SIZE)
    for one, other in zip(few, cases, strict=False):
        assert one.attributes == other.attributes
        assert one.fields["label"].fingerprint() == other.fields["label"].fingerprint()
        assert_array_equal(one.volume("image").array, other.volume("image").array)
    (other, *_) = shoulder_coronal.cases(patients=1, size=SIZE, seed=1)
    assert (other.volume("image").array != few[0].volume("image").array).any()


def test_a_mask_is_never_all_or_lost() -> None:
    assert_array_equal(mask_of(np.array([0.1, 0.5, 0.9], np.float32)), [False, True, True])
    assert_array_equal(mask_of(np.array([0.1, 0.3, 0.0], np.float32)), [False, True, False])
    assert not mask_of(np.zeros(3, np.float32)).any()


def test_files_of_16_bits_on_a_grid_of_mm(cases: tuple[Case, ...]) -> None:
    image = cases[0].volume("image")
    assert image.array.dtype == np.uint16
    assert image.array.shape == (1, SIZE, SIZE)
    assert image.spacing == pytest.approx((FIELD_OF_VIEW_MM / SIZE,) * 2)
    assert check_cases(cases[:10], required=("image", "label"), spatial_dims=2, empty_labels=True)[1] == ()


@pytest.mark.parametrize(
    ("query", "sentence"),
    [("size=8", "at least 32"), ("nothing=0.7&tendon=0.4", "sum to 1"), ("bias=1", "bias"), ("slices=0", "at least 1")],
)
def test_parameters_out_of_range(query: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_source(f"phantom:shoulder_coronal?{query}")
