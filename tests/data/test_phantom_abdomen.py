"""The abdomen phantom: the card's numbers, the sense of its maps, and that it looks to its users like files."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medray.data.case import Case, FieldRef, Volume
from medray.data.geometry import canonical
from medray.data.phantoms.abdomen import ORGANS, cases
from medray.data.sources import open_source
from medray.errors import UserError


def jacobian(displacement: NDArray[np.float64]) -> NDArray[np.float64]:
    dims = displacement.shape[0]
    columns = np.stack([np.stack(np.gradient(component)) for component in displacement])
    return np.asarray(np.linalg.det(np.moveaxis(columns, (0, 1), (-2, -1)) + np.eye(dims)))


def sample(values: NDArray[np.float64], positions: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    return np.asarray(ndimage.map_coordinates(values, positions, order=order, mode="nearest"))


def organ_values(case: Case) -> list[float]:
    """Median intensity well inside each organ."""
    image, label = case.volume("image").array[0], case.volume("label").array[0]
    return [float(np.median(image[ndimage.binary_erosion(label == value, iterations=2)])) for value in range(1, 7)]


@pytest.mark.parametrize("dims", [2, 3])
def test_it_hands_out_what_readers_hand_out(dims: int) -> None:
    found = cases(n=2, size=32, dims=dims)  # type: ignore[arg-type]
    assert [case.attributes["modality"] for case in found] == ["ct", "ct", "mr", "mr"]
    assert len({case.id for case in found}) == len({case.patient for case in found}) == 4  # unpaired
    for case in found:
        image, label, to_atlas = (case.volume(name) for name in ("image", "label", "to_atlas"))
        assert image.array.shape == (1, *(32,) * dims)
        assert image.array.dtype == np.float32
        assert label.array.shape == (1, *(32,) * dims)
        assert label.array.dtype == np.int16
        assert to_atlas.array.shape == (dims, *(32,) * dims)
        assert to_atlas.array.dtype == np.float32
        assert set(np.unique(label.array)) == set(range(7))
        assert image.spacing == pytest.approx((12.0,) * dims)
        np.testing.assert_allclose(image.affine @ np.array([15.5] * dims + [0] * (3 - dims) + [1.0]), [0, 0, 0, 1])
        assert np.linalg.det(image.affine) > 0


@pytest.mark.parametrize("dims", [2, 3])
def test_organs_lie_where_the_affine_says(dims: int) -> None:
    case = cases(n=1, size=48, dims=dims)[0]  # type: ignore[arg-type]
    label = case.volume("label")
    turned: Volume = canonical(label)
    np.testing.assert_array_equal(turned.array, label.array)  # axes already run Right, (Anterior,) Superior

    def world(organ: str) -> NDArray[np.float64]:
        index = np.zeros(4)
        index[:dims] = np.argwhere(label.array[0] == ORGANS.index(organ) + 1).mean(0)
        index[3] = 1.0
        return np.asarray((label.affine @ index)[:3])

    assert world("liver")[0] > 20 > -20 > world("spleen")[0]  # the liver is on the patient's right
    assert world("liver")[2] > world("right_kidney")[2] + 50
    for organ in ("kidney", "psoas"):
        assert world(f"right_{organ}")[0] > world(f"left_{organ}")[0] + 40


@pytest.mark.parametrize(("dims", "size", "overlap"), [(2, 96, 0.93), (3, 48, 0.85)])
def test_the_maps_to_the_atlas_carry_one_subject_onto_another(dims: int, size: int, overlap: float) -> None:
    moving, _, fixed, _ = cases(n=2, size=size, dims=dims, seed=3)  # type: ignore[arg-type]
    a, b = (case.volume("to_atlas").array.astype(float) for case in (moving, fixed))
    target = np.indices(b.shape[1:]) + b  # where the fixed tissue lies in the atlas
    positions = target.copy()
    for _ in range(60):  # a(p) = target, by fixed point
        positions = target - np.stack([sample(component, positions, 1) for component in a])
    first, second = (case.volume("label").array[0] for case in (moving, fixed))
    warped = sample(first.astype(float), positions, 0)
    dice = [
        2 * np.sum((warped == k) & (second == k)) / (np.sum(warped == k) + np.sum(second == k)) for k in range(1, 7)
    ]
    before = [
        2 * np.sum((first == k) & (second == k)) / (np.sum(first == k) + np.sum(second == k)) for k in range(1, 7)
    ]
    assert np.mean(before) < 0.7
    assert np.mean(dice) > overlap


def test_contrasts_are_those_of_the_card() -> None:
    ct, mr = cases(n=1, hard=False)
    np.testing.assert_allclose(organ_values(ct), 300 * np.array([0.75, 0.70, 0.90, 0.90, 0.60, 0.60]) - 160, atol=8)
    np.testing.assert_allclose(organ_values(mr), 1000 * np.array([0.35, 0.15, 0.25, 0.30, 0.55, 0.50]), atol=25)
    for case, air, body in ((ct, -160, 300 * 0.45 - 160), (mr, 0, 700)):
        image, label = case.volume("image").array[0], case.volume("label").array[0]
        assert image[0, 0] == pytest.approx(air, abs=1)
        assert np.median(image[(label == 0) & (image > (air + body) / 2)]) == pytest.approx(body, rel=0.1)


def test_the_hard_setting_adds_noise_to_both_and_bias_and_blobs_to_mr_only() -> None:
    def images(**parameters: float) -> list[NDArray[np.float64]]:
        settings = {"noise": 0.0, "bias": 0.0, "blobs": 0.0} | parameters
        return [case.volume("image").array[0].astype(float) for case in cases(n=1, **settings)]  # type: ignore[arg-type]

    plain_ct, plain_mr = images()
    noisy_ct, noisy_mr = images(noise=0.12)
    assert np.std(noisy_ct - plain_ct) == pytest.approx(0.12 * 300, rel=0.05)
    assert np.std(noisy_mr - plain_mr) == pytest.approx(0.12 * 1000, rel=0.05)
    blobbed_ct, blobbed_mr = images(blobs=0.3)
    np.testing.assert_array_equal(blobbed_ct, plain_ct)
    change = (blobbed_mr - plain_mr)[plain_mr > 100]
    assert np.abs(change).max() == pytest.approx(300, rel=0.05)
    assert 0.15 < np.mean(np.abs(change) > 150) < 0.5
    biased_ct, biased_mr = images(bias=0.5)
    np.testing.assert_array_equal(biased_ct, plain_ct)
    gain = (biased_mr / plain_mr)[plain_mr > 100]
    assert 0.2 < np.abs(gain - 1).max() <= 0.5 + 1e-6  # the peak of 0.5 may lie outside the body
    assert np.abs(np.diff(gain)).mean() < 0.05  # smooth
    whole = [case.volume("image").array[0].astype(float) for case in cases(n=1)]
    explicit = images(noise=0.12, bias=0.5, blobs=0.3)
    np.testing.assert_array_equal(whole, explicit)


def test_deformations_have_the_size_of_the_card_and_do_not_fold() -> None:
    maps = [case.volume("to_atlas").array.astype(float) for case in cases(n=20, seed=5)]
    assert min(jacobian(one).min() for one in maps) > 0
    # a plane fitted to a map holds its shift and scale; what is left is the smooth field with its 8 px peak
    index = np.indices((96, 96)).reshape(2, -1)
    design = np.vstack([index - 47.5, np.ones(96 * 96)]).T
    fits = [np.linalg.lstsq(design, one.reshape(2, -1).T, rcond=None)[0] for one in maps]
    rest = [
        np.linalg.norm(one.reshape(2, -1) - (design @ fit).T, axis=0).max() for one, fit in zip(maps, fits, strict=True)
    ]
    assert 5.0 < np.mean(rest) < 9.0
    assert 0.03 < np.std([np.trace(fit[:2]) / 2 for fit in fits]) < 0.10
    assert 1.5 < np.std([fit[2] for fit in fits]) < 4.5


def test_lengths_scale_with_the_image() -> None:
    small, large = (
        np.mean([np.abs(case.volume("to_atlas").array).mean() for case in cases(n=10, size=size)]) for size in (48, 96)
    )
    assert small / large == pytest.approx(0.5, rel=0.25)


def test_labels_follow_the_subject_and_not_the_imaging() -> None:
    hard, clean = cases(n=1), cases(n=1, hard=False)
    for one, other in zip(hard, clean, strict=True):
        np.testing.assert_array_equal(one.volume("label").array, other.volume("label").array)
        assert not np.array_equal(one.volume("image").array, other.volume("image").array)


def test_a_subject_depends_on_the_seed_and_its_number_only() -> None:
    few, many, other = cases(n=1), cases(n=3), cases(n=1, seed=1)
    np.testing.assert_array_equal(few[1].volume("image").array, many[3].volume("image").array)
    assert few[1].id == many[3].id
    assert not np.array_equal(few[0].volume("label").array, other[0].volume("label").array)
    labels = [case.volume("label").array for case in many]
    assert not any(np.array_equal(one, two) for one, two in itertools.combinations(labels, 2))


def test_fields_are_pickled_and_told_apart_by_their_fingerprint() -> None:
    case = cases(n=1, size=32)[1]
    again = pickle.loads(pickle.dumps(case))
    np.testing.assert_array_equal(again.volume("image").array, case.volume("image").array)
    assert all(isinstance(ref, FieldRef) for ref in case.fields.values())
    variants = [
        cases(n=1, size=32),
        cases(n=1, size=32, seed=1),
        cases(n=1, size=33),
        cases(n=1, size=32, dims=3),
        cases(n=1, size=32, noise=0.1),
        cases(n=1, size=32, blobs=0.1),
        cases(n=1, size=32, bias=0.1),
        cases(n=1, size=32, monomodal=True),
    ]
    assert len({variant[1].fields["image"].fingerprint() for variant in variants}) == len(variants)
    assert len({ref.fingerprint() for ref in case.fields.values()}) == 3
    assert cases(n=2, size=32)[2].fields["image"].fingerprint() == case.fields["image"].fingerprint()


def test_monomodal_shows_both_groups_in_one_contrast() -> None:
    first, second = cases(n=1, monomodal=True, hard=False)
    assert (first.attributes["modality"], second.attributes["modality"]) == ("ct", "ct2")
    np.testing.assert_allclose(organ_values(first), organ_values(second), atol=12)
    assert not np.array_equal(first.volume("label").array, second.volume("label").array)


def test_it_opens_from_its_data_string() -> None:
    source = open_source("phantom:abdomen?n=2&dims=3&size=32&hard=false&seed=4")
    assert [case.id for case in source.cases] == ["ct/subject000", "ct/subject001", "mr/subject000", "mr/subject001"]
    assert source.cases[0].volume("image").shape == (32, 32, 32)
    assert source.fingerprint == open_source("phantom:abdomen?seed=4&n=2&dims=3&size=32&hard=0").fingerprint
    assert source.fingerprint != open_source("phantom:abdomen?seed=5&n=2&dims=3&size=32&hard=0").fingerprint
    with pytest.raises(UserError, match="dims=4 is not one of 2, 3"):
        open_source("phantom:abdomen?dims=4")
    with pytest.raises(UserError, match="size must be at least 32"):
        open_source("phantom:abdomen?size=8")


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("n", 0), ("dims", 4), ("size", 16), ("seed", -1), ("noise", -0.1), ("bias", 1.0), ("blobs", float("nan"))],
)
def test_parameters_out_of_range_are_named(parameter: str, value: float) -> None:
    with pytest.raises(ValueError, match=parameter):
        cases(**{parameter: value})  # type: ignore[arg-type]
