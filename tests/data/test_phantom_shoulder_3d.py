"""The shoulder volumes: classes by length in mm, tears inside the cuff, oblique-coronal slices of either side."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from medray.data.case import Case, Volume
from medray.data.check import check_cases
from medray.data.orientation import slice_plane
from medray.data.phantoms import shoulder_3d
from medray.data.phantoms.shoulder_3d import SLICE_MM, ScanField
from medray.data.sources import open_source
from medray.errors import UserError

Scans = list[tuple[Case, Volume, Volume]]


@pytest.fixture(scope="module")
def scans() -> Scans:
    """Cases with their image and their mask."""
    return [(case, case.volume("image"), case.volume("tear")) for case in shoulder_3d.cases(n=60)]


def _center(case: Case) -> NDArray[np.float64]:
    return np.array([float(value) for value in case.attributes["center_mm"].split()])


def _voxels(mask: Volume) -> NDArray[np.float64]:
    """World positions of a mask's voxels, (N, 3) mm."""
    index = np.argwhere(mask.array[0] > 0)
    return index @ mask.affine[:3, :3].T + mask.affine[:3, 3]


def test_classes_have_the_papers_mix() -> None:
    found = Counter(case.attributes["class"] for case in shoulder_3d.cases(n=962))
    assert found == pytest.approx({"none": 346, "partial": 127, "small": 102.5, "medium": 259, "large": 127.5}, abs=3)


def test_the_mask_is_as_long_as_the_tear(scans: Scans) -> None:
    for case, _, mask in scans:
        length = float(case.attributes["tear_mm"])
        slices = np.flatnonzero(mask.array[0].any(axis=(0, 1)))
        if case.attributes["class"] == "none":
            assert (length, len(slices)) == (0.0, 0)
            continue
        assert len(slices) > 0
        assert SLICE_MM * len(slices) == pytest.approx(length, abs=1.6 * SLICE_MM)
        assert (np.diff(slices) == 1).all()


def test_lengths_of_neighboring_classes_overlap_a_little() -> None:
    lengths: dict[str, list[float]] = {}
    for case in shoulder_3d.cases(n=1500):
        lengths.setdefault(case.attributes["class"], []).append(float(case.attributes["tear_mm"]))
    small, medium, large = (np.array(lengths[name]) for name in ("small", "medium", "large"))
    assert (small.mean(), medium.mean(), large.mean()) == pytest.approx((7, 20, 38), abs=1)
    for shorter, longer, border in ((small, medium, 10), (medium, large, 30)):
        assert 0.01 < (shorter > border).mean() < 0.2
        assert 0.01 < (longer < border).mean() < 0.2


def test_a_tear_lies_on_the_head_and_is_bright(scans: Scans) -> None:
    for case, image, mask in scans[:30]:
        field = case.fields["image"]
        assert isinstance(field, ScanField)
        if case.attributes["class"] == "none":
            continue
        whole = ScanField(replace(field.scan, tear_size="none"), "image").load().array[0]
        torn, inside = image.array[0], mask.array[0] > 0
        assert torn[inside].mean() > whole[inside].mean() + 200
        assert (np.abs(torn.astype(int) - whole)[~inside] > 400).mean() < 0.002
        offsets = _voxels(mask) - _center(case)
        assert (offsets[:, 2] > 0).all()  # above the head's center
        distance = np.linalg.norm(offsets, axis=1)
        assert 12 < distance.min() <= distance.max() < 48


def test_a_slice_of_4_mm_is_coronal_and_sides_are_mirrored(scans: Scans) -> None:
    for case, image, _ in scans[:20]:
        assert image.array.dtype == np.uint16
        assert image.array.shape == (1, 48, 48, 32)
        assert image.spacing == pytest.approx((160 / 48, 160 / 48, SLICE_MM))
        assert slice_plane(image) == "coronal"
        axes = image.affine[:3, :3]
        assert np.linalg.det(axes) > 0  # right-handed, as DICOM is
        side = 1.0 if case.attributes["side"] == "right" else -1.0
        center = _center(case)
        assert side * center[0] > 100
        index = np.linalg.solve(axes, center - image.affine[:3, 3])
        assert (np.abs(index - (np.array(image.shape) - 1) / 2) * image.spacing < 35).all()
        # the body lies medially: of the slice through the head, the half toward the body's middle holds more tissue
        middle = image.array[0][:, :, round(index[2])] > 300
        medial = middle[24:].mean() - middle[:24].mean()  # columns run to the patient's left
        assert side * medial > 0


def test_the_cube_around_the_head_lies_inside_the_scan(scans: Scans) -> None:
    """What a network crops is less than what there is, so that cropping takes something away."""
    for case, image, _ in scans[:30]:
        index = np.linalg.solve(image.affine[:3, :3], _center(case) - image.affine[:3, 3])
        beyond = np.minimum(index + 0.5, np.array(image.shape) - 0.5 - index) * image.spacing
        assert (beyond > 40).all()
    assert np.prod(np.array(image.shape) * image.spacing) > 1.8 * 110**3


def test_bright_voxels_do_not_tell_who_is_torn(scans: Scans) -> None:
    bright = np.array([float((image.array > 1700).sum()) for _, image, _ in scans])
    torn = np.array([case.attributes["class"] != "none" for case, _, _ in scans])
    wins = np.mean(bright[torn][:, None] > bright[~torn])
    assert 0.35 < wins < 0.7  # an AUROC


def test_a_scan_does_not_depend_on_how_many_there_are(scans: Scans) -> None:
    few = shoulder_3d.cases(n=2)
    for one, (other, image, _) in zip(few, scans, strict=False):
        assert one.attributes == other.attributes
        np.testing.assert_array_equal(one.volume("image").array, image.array)
    assert (shoulder_3d.cases(n=1, seed=1)[0].volume("image").array != few[0].volume("image").array).any()
    assert check_cases([case for case, _, _ in scans[:4]], required=("image",), spatial_dims=3)[1] == ()


@pytest.mark.parametrize(
    ("query", "sentence"),
    [("size=8", "at least 24"), ("n=0", "at least 1"), ("slices=4", "24 and 16"), ("bias=2", "bias")],
)
def test_parameters_out_of_range(query: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_source(f"phantom:shoulder_3d?{query}")
