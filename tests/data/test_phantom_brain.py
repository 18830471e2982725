"""The brain phantom: what its cards ask of it, and that it looks to its users like files."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy import ndimage

from medray.data.case import Case
from medray.data.check import check_cases
from medray.data.geometry import canonical
from medray.data.phantoms.brain import cases
from medray.data.sources import open_source
from medray.errors import UserError


def arrays(case: Case, *names: str) -> list[np.ndarray]:
    return [case.volume(name).array[0] for name in names]


def test_healthy_subjects_have_no_label_and_patients_one() -> None:
    found = cases(n=2, patients=3, size=48, slices=2)
    assert [case.attributes["class"] for case in found] == ["healthy"] * 2 + ["patient"] * 3
    assert len({case.patient for case in found}) == 5
    assert [tuple(case.fields) for case in found] == [("image",)] * 2 + [("image", "label")] * 3
    check_cases(found, required=("image",), spatial_dims=3)
    image = found[0].volume("image")
    assert image.array.shape == (1, 48, 48, 2)
    np.testing.assert_array_equal(canonical(image).array, image.array)
    assert image.spacing == pytest.approx((220 / 48, 220 / 48, 5.0))


def test_tumors_fill_3_to_15_percent_of_the_brain_and_stand_out_from_it() -> None:
    shares, gaps = [], []
    for case in cases(n=0, patients=12):
        image, label = arrays(case, "image", "label")
        brain = image > 0
        assert not (label[~brain]).any()
        shares.append(label.sum() / brain.sum())
        core = ndimage.binary_erosion(label > 0, np.ones((3, 3, 1)))
        gaps.append(abs(np.median(image[core]) - np.median(image[brain & (label == 0)])))
    assert min(shares) > 0.02
    assert max(shares) < 0.17
    assert min(gaps) > 100  # of about 500; noise and texture together are 60


def test_a_shifted_patient_has_the_same_anatomy_in_other_intensities() -> None:
    plain, shifted = (cases(n=0, patients=1, shift=shift)[0] for shift in (False, True))
    np.testing.assert_array_equal(*(case.volume("label").array for case in (plain, shifted)))
    first, second = (case.volume("image").array.ravel() for case in (plain, shifted))
    order = np.argsort(first)
    assert (np.diff(second[order]) >= -1e-3).all()  # a monotone map of intensities
    assert abs(second.max() / first.max() - 1) > 0.2


def test_small_lesions_are_rare_and_many_slices_have_none() -> None:
    found = cases(kind="lesions", n=12, slices=8, size=64)
    flair = [case for case in found if case.attributes["modality"] == "flair"]
    t1 = [case for case in found if case.attributes["modality"] == "t1"]
    assert [case.patient for case in flair] == [case.patient for case in t1]
    labels = np.concatenate([arrays(case, "label")[0] for case in flair], axis=-1)
    np.testing.assert_array_equal(labels[..., :8], arrays(t1[0], "label")[0])
    empty = (labels.sum((0, 1)) == 0).mean()
    assert 0.3 <= empty <= 0.5
    assert 0.001 < labels.mean() < 0.005
    counts = [ndimage.label(labels[..., z])[1] for z in range(labels.shape[-1])]
    assert max(counts) <= 6
    check_cases(found, required=("image", "label"))


def test_small_lesions_are_bright_in_flair_and_nearly_lost_in_t1() -> None:
    contrast = {}
    for case in cases(kind="lesions", n=4, slices=8, size=64, noise=0.0, texture=0.0, bias=0.0):
        image, label = arrays(case, "image", "label")
        ring = ndimage.binary_dilation(label > 0, np.ones((7, 7, 1)), iterations=1) & (label == 0) & (image > 300)
        contrast.setdefault(case.attributes["modality"], []).append(
            (np.median(image[label > 0]) - np.median(image[ring])) / 1000
        )
    assert np.mean(contrast["flair"]) > 0.15
    assert abs(np.mean(contrast["t1"])) < 0.15


def test_look_alikes_lie_far_from_lesions() -> None:
    (case, _) = cases(kind="lesions", n=1, slices=8, size=64, noise=0.0, texture=0.0, bias=0.0)
    image, label = arrays(case, "image", "label")
    bright = (image > np.median(image[label > 0])) & (label == 0)
    distance = ndimage.distance_transform_edt(label == 0)
    assert bright.sum() > 20
    assert np.quantile(distance[bright], 0.5) > 5


def test_kspace_is_the_transform_of_a_complex_image() -> None:
    (case,) = cases(kind="kspace", n=1, slices=3, size=64, noise=0.0)
    kspace = case.load("kspace")
    assert kspace.shape == (3, 64, 64)
    assert kspace.dtype == np.complex64
    power = np.abs(kspace[1])
    assert np.unravel_index(power.argmax(), power.shape)[0] in range(29, 36)  # the low frequencies are in the middle
    image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace[1]), norm="ortho"))
    assert np.linalg.norm(image) == pytest.approx(np.linalg.norm(kspace[1]), rel=1e-5)
    inside = np.abs(image) > 0.3 * np.abs(image).max()
    assert np.abs(image.imag[inside]).mean() > 0.1 * np.abs(image[inside]).mean()  # its phase is not trivial


@pytest.mark.parametrize("kind", ["tumors", "lesions", "kspace"])
def test_the_same_parameters_give_the_same_data(kind: str) -> None:
    spec = f"phantom:brain?kind={kind}&n=2&patients=1&size=48&slices=2"
    first, again = open_source(spec), pickle.loads(pickle.dumps(open_source(spec)))
    assert first.fingerprint == again.fingerprint
    for a, b in zip(first.cases, again.cases, strict=True):
        for name in a.fields:
            one, other = (getattr(case.load(name), "array", case.load(name)) for case in (a, b))
            np.testing.assert_array_equal(one, other)
    more = open_source(spec.replace("n=2", "n=4"))
    assert {case.fields[name].fingerprint() for case in first.cases for name in case.fields} <= {
        case.fields[name].fingerprint() for case in more.cases for name in case.fields
    }
    assert open_source(spec + "&seed=1").fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("query", "sentence"),
    [("size=8", "size"), ("modalities=pd", "pd"), ("noise=2", "noise"), ("n=0", "subject"), ("kind=x", "kind")],
)
def test_bad_parameters(query: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_source(f"phantom:brain?{query}")
