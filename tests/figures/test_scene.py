"""Volumes for the report: turned to the patient, small, and the same after a round trip through JSON."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest

from medray.figures.scene import MAX_SIDE, Scene, make_scene, read_scene, scene_record


def scene(**changes: Any) -> Scene:
    rng = np.random.default_rng(0)
    image, heat = rng.random((4, 6, 5)), rng.random((4, 6, 5))
    return make_scene(image, heat, (3.0, 1.0, 2.0), **{"mask": heat > 0.5, **changes})


def affine_of(axes: tuple[int, ...], signs: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray[Any, Any]:
    """Array axis k runs along world axis axes[k], forward or backward."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign, size) in enumerate(zip(axes, signs, spacing, strict=True)):
        affine[world, axis] = sign * size
    return affine


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
def test_any_order_of_axes_becomes_superior_anterior_right_first(axes: tuple[int, ...], signs: tuple[int, ...]) -> None:
    spacing = (3.0, 1.0, 2.0)
    image, heat = np.zeros((4, 6, 5)), np.zeros((4, 6, 5))
    corner = tuple(0 if sign < 0 else length - 1 for sign, length in zip(signs, image.shape, strict=True))
    heat[corner] = 1.0  # most right, most anterior and most superior: the high end of every world axis
    found = make_scene(image, heat, spacing, affine=affine_of(axes, signs, spacing))
    assert found.heat[0, 0, 0] == 255
    assert found.heat.sum() == 255
    assert found.letters == (("S", "I"), ("A", "P"), ("R", "L"))
    sizes = dict(zip(axes, zip(spacing, image.shape, strict=True), strict=True))
    assert found.spacing == tuple(sizes[world][0] for world in (2, 1, 0))
    assert found.image.shape == tuple(sizes[world][1] for world in (2, 1, 0))


def test_without_position_the_axes_stay_and_have_no_letters() -> None:
    image = np.random.default_rng(1).random((4, 6, 5))
    found = make_scene(image, np.clip(image, 0, 1), (3.0, 1.0, 2.0))
    np.testing.assert_array_equal(found.heat, np.rint(255 * image))
    assert (found.spacing, found.letters, found.mask) == ((3.0, 1.0, 2.0), (), None)


def test_gray_runs_from_the_first_to_the_last_percentile() -> None:
    image = np.linspace(-500, 1500, 1000).reshape(10, 10, 10)
    found = make_scene(image, np.zeros_like(image), (1, 1, 1))
    assert found.image.min() == 0
    assert found.image.max() == 255
    assert np.abs(found.image[5, 0, 0] - 127.5) < 1.5


def test_large_volumes_shrink_and_keep_their_field_of_view_and_their_peak() -> None:
    places = np.indices((150, 80, 20)) * np.array([1.0, 2.0, 4.0]).reshape(3, 1, 1, 1)
    center = np.array([101.0, 40.0, 30.0])
    heat = np.exp(-((places - center.reshape(3, 1, 1, 1)) ** 2).sum(0) / 200)
    found = make_scene(heat, heat, (1.0, 2.0, 4.0), mask=heat > 0.5)
    assert found.heat.shape == (MAX_SIDE, MAX_SIDE, 20)
    np.testing.assert_allclose(np.multiply(found.spacing, found.heat.shape), (150, 160, 80))
    peak = np.argwhere(found.heat == found.heat.max()).mean(0)
    # Pixel centers: index i of n lies (i + 1/2) spacings into the field of view, which starts half a pixel before 0.
    position = (peak + 0.5) * found.spacing - np.array([0.5, 1.0, 2.0])
    assert np.all(np.abs(position - center) <= np.array(found.spacing) / 2 + 1e-9)
    assert found.mask is not None
    assert found.mask.sum() * np.prod(found.spacing) == pytest.approx((heat > 0.5).sum() * 8, rel=0.1)


def test_round_trip_through_json() -> None:
    original = scene(affine=affine_of((1, 0, 2), (1, -1, 1), (3.0, 1.0, 2.0)))
    text = json.dumps(scene_record(original))
    assert text == json.dumps(scene_record(original))
    found = read_scene(json.loads(text))
    for name in ("image", "heat", "mask"):
        np.testing.assert_array_equal(getattr(found, name), getattr(original, name))
    assert (found.spacing, found.letters) == (original.spacing, original.letters)
    assert read_scene(scene_record(scene(mask=None))).mask is None


def test_the_largest_noisiest_volume_fits_into_half_a_megabyte() -> None:
    rng = np.random.default_rng(2)
    heat = np.exp(-((np.indices((64, 64, 64)) - 30.3) ** 2).sum(0) / 400)
    record = scene_record(make_scene(rng.random((64, 64, 64)), heat, (1, 1, 1), mask=heat > 0.5))
    assert len(json.dumps(record)) < 500_000


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [4, 6, 6]},
        {"shape": [120]},
        {"shape": [60, 2, 1]},
        {"shape": None},
        {"spacing": [1, 1]},
        {"spacing": [1, 1, float("nan")]},
        {"letters": [["R", "L"]]},
        {"image": "????"},
        {"heat": "aGVsbG8="},
        {"mask": 3},
    ],
    ids=str,
)
def test_records_that_are_no_scene_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a scene"):
        read_scene({**scene_record(scene()), **changes})
    with pytest.raises(ValueError, match="not a scene"):
        read_scene({key: value for key, value in scene_record(scene()).items() if key not in changes})


@pytest.mark.parametrize(("image", "heat"), [((4, 4), (4, 4)), ((4, 4, 4), (4, 4, 5)), ((4, 1, 4), (4, 1, 4))])
def test_what_is_no_volume_is_refused(image: tuple[int, ...], heat: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"a scene needs volumes of one shape"):
        make_scene(np.zeros(image), np.zeros(heat), [1.0] * len(image))
