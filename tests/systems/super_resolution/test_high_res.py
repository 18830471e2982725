"""Reading images of high resolution: which intensities become 0 and 1, and which slices there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medray.data.case import Case, Volume
from medray.data.pictures import gray
from medray.errors import UserError
from medray.systems.super_resolution.blimsr_config import BlimsrConfig
from medray.systems.super_resolution.blimsr_system import Blimsr
from medray.systems.super_resolution.high_res import HighResReader, IntensityRange, as_slices, range_of

WINDOW = (-1000.0, 1000.0)


@dataclass(frozen=True)
class Held:
    """A field in memory."""

    array: NDArray[Any]
    name: str = "held"

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return self is other

    def load(self) -> Volume:
        return Volume(self.array, np.eye(4), self.name)

    def fingerprint(self) -> str:
        return f"{self.name} {self.array.sum()}"


def _case(array: NDArray[Any], **attributes: str) -> Case:
    return Case("one", "one", {"image": Held(array)}, attributes)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[-1024, 500]], np.int16), IntensityRange(*WINDOW)),
        (np.array([[0, 7]], np.uint8), IntensityRange(0.0, 255.0)),
        (np.linspace(0, 1000, 1001, dtype=np.float32)[None], IntensityRange(1.0, 999.0)),
        (np.full((1, 4), 3, np.int16), IntensityRange(3.0, 4.0)),
    ],
)
def test_what_becomes_0_and_1_is_told_from_the_values(array: NDArray[Any], expected: IntensityRange) -> None:
    found = range_of(Volume(array[None], np.eye(4)), "auto", WINDOW)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_scaling_that_is_asked_for_decides() -> None:
    bright = Volume(np.array([[[0, 400]]], np.int16), np.eye(4))
    assert range_of(bright, "hu", WINDOW) == IntensityRange(*WINDOW)
    assert range_of(bright, "uint8", WINDOW) == IntensityRange(0.0, 255.0)


def test_values_come_back_and_those_beyond_the_range_are_cut_off() -> None:
    scale = IntensityRange(-1000.0, 1000.0)
    unit = scale.to_unit(np.array([-3000, -1000, 0, 500, 2000], np.int16))
    np.testing.assert_allclose(unit, [0.0, 0.0, 0.5, 0.75, 1.0], atol=1e-6)
    np.testing.assert_allclose(scale.from_unit(unit), [-1000, -1000, 0, 500, 1000], atol=1e-3)


def test_equal_color_channels_are_gray_and_others_are_refused() -> None:
    one = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
    assert gray(Volume(np.repeat(one, 3, axis=0), np.eye(4))).array.shape == (1, 2, 2)
    with pytest.raises(UserError, match="in color where a gray image"):
        gray(Volume(np.concatenate([one, one + 1, one]), np.eye(4)))
    with pytest.raises(UserError, match="2 channels"):
        gray(Volume(np.concatenate([one, one]), np.eye(4)))


def test_images_are_cut_to_multiples_of_four() -> None:
    array = np.arange(9 * 14, dtype=np.uint8).reshape(1, 9, 14)
    image = HighResReader(WINDOW).image(_case(array))
    assert image.dtype == torch.float32
    np.testing.assert_allclose(image.numpy(), array[:, :8, :12] / np.float32(255), atol=1e-6)


def test_slices_of_a_volume_share_the_scale_of_the_whole() -> None:
    ramp = np.linspace(0, 100, 8 * 8 * 4, dtype=np.float32).reshape(8, 8, 4)
    ramp[..., 2] /= 10  # alone it would be as bright as the others
    cases = as_slices([_case(ramp[None])])
    assert {case.patient for case in cases} == {"one"}
    images = {case.attributes["slice"]: HighResReader(WINDOW).image(case) for case in cases}
    assert images["003"].max() > 0.9
    for image in images.values():
        assert image.shape == (1, 8, 8)
    dark = HighResReader(WINDOW)
    field = next(iter(cases)).fields["image"]
    assert dark._range(cases[0], field.load()) == range_of(field.whole(), "auto", WINDOW)  # type: ignore[attr-defined]


def test_a_volume_of_one_slice_is_a_2d_image(tmp_path: Any) -> None:
    from medray.data.sources import open_source
    from medray.data.writers import write_volume

    rng = np.random.default_rng(0)
    write_volume(Volume(rng.integers(0, 99, (1, 24, 24, 1)).astype(np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    (case,) = as_slices(open_source(str(tmp_path)).cases)
    assert HighResReader(WINDOW).image(case).shape == (1, 24, 24)


@pytest.mark.parametrize(
    ("case", "scaling", "sentence"),
    [
        (_case(np.zeros((1, 40, 90), np.uint8)), "auto", "40 x 90 px is smaller than the 64 px"),
        (_case(np.stack([np.full((70, 70), i, np.uint8) for i in range(3)])), "auto", "in color"),
        (_case(np.zeros((1, 70, 70), np.int16), modality="mr"), "hu", "modality is MR where --config.scaling hu"),
    ],
)
def test_cases_that_cannot_be_used_have_their_sentence(case: Case, scaling: Any, sentence: str) -> None:
    made = Blimsr(BlimsrConfig(crop_px=64, scaling=scaling))
    (bad,) = made.problems([case], {})
    assert sentence in bad.reason


def test_a_small_image_can_be_scored_where_it_could_not_be_trained_on() -> None:
    made, case = Blimsr(BlimsrConfig(crop_px=64)), _case(np.zeros((1, 40, 90), np.uint8))
    assert not made.problems([case], {"features": "phantom"})
