"""Fields of 2D cases as networks take them: intensities, sizes, and what the cache tells apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medray.data.cache import SampleCache
from medray.data.case import Case, Volume
from medray.data.modalities import ModalReader
from medray.data.sliced import slices_as_cases
from medray.errors import UserError


@dataclass(frozen=True, eq=False)
class _Made:
    """An array (C, H, W) with a name."""

    name: str
    array: NDArray[Any]

    def load(self) -> Volume:
        return Volume(self.array, np.eye(4), self.name)

    def fingerprint(self) -> str:
        return self.name


def _case(**arrays: NDArray[Any]) -> Case:
    return Case("a", "a", {name: _Made(name, array) for name, array in arrays.items()})


def test_both_tails_are_clipped_and_the_largest_value_becomes_one() -> None:
    image = np.arange(1.0, 102.0, dtype=np.float32).reshape(1, 1, 101)  # 1 to 101: the quantiles are 2 and 100
    found = ModalReader(None).image(_case(image=image))
    np.testing.assert_allclose(found[0, 0], np.clip(image[0, 0], 2, 100) / 100, rtol=1e-6)
    assert found.dtype == np.float32


def test_values_below_zero_are_lifted_to_zero() -> None:
    found = ModalReader(None).image(_case(image=np.linspace(-1000, 1000, 101).reshape(1, 1, 101)))
    assert (found.min(), found.max()) == (0.0, 1.0)
    assert found[0, 0, 50] == pytest.approx(0.5)


@pytest.mark.parametrize("high", [1, 255])
def test_a_mask_is_zero_and_one_however_small_it_is(high: int) -> None:
    mask = np.zeros((1, 20, 20), dtype=np.uint8)
    mask[0, 3, 4] = high  # a four-hundredth of it
    found = ModalReader(None).image(_case(auxiliary=mask), "auxiliary")
    np.testing.assert_array_equal(found, mask / high)
    assert not ModalReader(None).image(_case(image=np.zeros((1, 4, 4)))).any()


def test_little_that_is_bright_is_not_clipped_away() -> None:
    """As of a mask with soft borders: more than two values, and fewer than one percent of the pixels."""
    soft = np.zeros((1, 40, 40), dtype=np.uint8)
    soft[0, 8:10, 8:10] = ((128, 128), (255, 128))
    assert ModalReader(None).image(_case(auxiliary=soft), "auxiliary")[0, 9, 8] == pytest.approx(1.0)


def test_colors_are_averaged() -> None:
    colors = np.random.default_rng(0).integers(0, 255, (3, 9, 7))
    gray = colors.mean(axis=0, keepdims=True)
    np.testing.assert_allclose(
        ModalReader(None).image(_case(image=colors)), ModalReader(None).image(_case(image=gray)), atol=1e-6
    )


def test_the_middle_is_cut_out_and_smaller_images_are_taken_whole() -> None:
    label = np.arange(48, dtype=np.uint8).reshape(1, 8, 6)
    found = ModalReader(None, crop=4).label(_case(label=label))
    np.testing.assert_array_equal(found, label[:, 2:6, 1:5])
    assert ModalReader(None, crop=7).label(_case(label=label)).shape == (1, 7, 6)
    assert ModalReader(4, crop=7).label(_case(label=label)).shape == (1, 4, 4)


def test_label_values_are_kept_in_another_size() -> None:
    label = np.zeros((1, 12, 12), dtype=np.uint8)
    label[0, :6], label[0, 6:] = 1, 4
    found = ModalReader(8).label(_case(label=label))
    assert set(np.unique(found)) == {1, 4}
    assert (found[0, :4] == 1).all()


def test_the_cache_tells_sizes_crops_fields_and_labels_apart() -> None:
    cache, image = SampleCache(memory_gb=0.1), np.random.default_rng(0).random((1, 16, 16))
    case = _case(image=image, auxiliary=1 - image, label=(image > 0.5).astype(np.uint8))
    for size, crop in ((None, None), (8, None), (None, 8), (8, 12), (8, 10)):
        for field in ("image", "auxiliary", "label"):
            kept, plain = (ModalReader(size, crop=crop, cache=one) for one in (cache, None))
            for _ in range(2):
                np.testing.assert_array_equal(kept.image(case, field), plain.image(case, field))
                np.testing.assert_array_equal(kept.label(case), plain.label(case))
    assert (cache.misses, cache.hits) == (20, 40)


def test_what_is_kept_holds_no_larger_array() -> None:
    case = _case(image=np.random.default_rng(0).random((1, 64, 64)).astype(np.float32))
    found = ModalReader(None, crop=8).image(case)
    root: Any = found
    while root.base is not None:
        root = root.base
    assert root.nbytes == found.nbytes


def test_a_3d_image_is_named() -> None:
    with pytest.raises(UserError, match=r"image is 3D \(4 x 5 x 6\) where a 2D image is expected"):
        ModalReader(8).image(_case(image=np.zeros((1, 4, 5, 6))))


def test_volumes_are_decoded_once_ahead_of_slices_in_random_order(monkeypatch: pytest.MonkeyPatch) -> None:
    volume, loads = np.random.default_rng(0).random((1, 6, 6, 4)), list[str]()
    volumes = [_case(image=volume, auxiliary=volume, label=(volume > 0.5).astype(np.uint8)) for _ in range(9)]
    made = [
        replace(case, id=str(number), fields={name: replace(ref, name=f"{name}{number}") for name, ref in own.items()})
        for number, case in enumerate(volumes)
        if (own := case.fields)
    ]
    cases = slices_as_cases(made, min_label_px=1)
    mixed = [cases[index] for index in np.random.default_rng(1).permutation(len(cases))]
    load = _Made.load
    monkeypatch.setattr(_Made, "load", lambda self: loads.append(self.name) or load(self))
    reader = ModalReader(4, cache=SampleCache(memory_gb=0.1))
    unreadable = replace(mixed[0], fields={})
    reader.read_ahead([*mixed, unreadable, _case(image=volume[..., 0])], ("image", "label"))
    assert len(loads) <= 18  # of nine volumes two fields; the last few may be there still
    loads.clear()
    for case in mixed:
        reader.image(case), reader.label(case)
    assert loads == []
    reader.image(mixed[0], "auxiliary")
    assert len(loads) == 1
