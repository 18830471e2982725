"""From cases to pairs on one grid: who meets whom, where labels, landmarks and the truth end up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from medray.data.case import Case, Volume
from medray.data.sources import open_source
from medray.errors import UserError
from medray.systems.registration.pair_reader import PairReader, WorkGrid, slice_pair
from medray.systems.registration.pairs import form_pairs, modalities, organs, stray_labels


@dataclass(frozen=True)
class Held:
    value: Volume

    def load(self) -> Volume:
        return self.value

    def fingerprint(self) -> str:
        return str(id(self.value))


def volume(array: Any, affine: Any = None) -> Volume:
    return Volume(
        np.asarray(array)[None] if np.ndim(array) < 4 else np.asarray(array), np.eye(4) if affine is None else affine
    )


def image_case(name: str, patient: str, modality: str, label: Any = None, array: Any = None) -> Case:
    fields = {"image": Held(volume(np.zeros((8, 8)) if array is None else array))}
    if label is not None:
        fields["label"] = Held(volume(label))
    return Case(name, patient, fields, {"modality": modality})


def test_unpaired_modalities_are_paired_all_with_all() -> None:
    cases = [image_case(f"{m}{i}", f"{m}{i}", m) for m in ("ct", "mr") for i in range(3)]
    pairs = form_pairs(cases)
    assert len(pairs) == 9
    assert all(p.moving.attributes["modality"] == "ct" and p.fixed.attributes["modality"] == "mr" for p in pairs)


def test_images_of_one_patient_are_paired_with_each_other_unless_asked() -> None:
    cases = [image_case(f"{m}/{i}", str(i), m) for m in ("mr", "us") for i in range(3)]
    assert [(p.moving.id, p.fixed.id) for p in form_pairs(cases)] == [(f"mr/{i}", f"us/{i}") for i in range(3)]
    assert len(form_pairs(cases, pairing="all")) == 9
    assert form_pairs(cases, moving="us", fixed="mr")[0].moving.id == "us/0"


def test_three_modalities_need_a_choice() -> None:
    cases = [image_case(m, "1", m) for m in ("t1", "t2", "flair")]
    with pytest.raises(UserError, match=r"3 modalities .*--config.moving"):
        form_pairs(cases)
    with pytest.raises(UserError, match="no such modality"):
        modalities(cases, moving="pet")
    assert len(form_pairs(cases, moving="t1", fixed="flair")) == 1


def test_a_label_value_that_occurs_once_is_told_and_allowed_when_named() -> None:
    plain = np.zeros((8, 8), dtype=np.int64)
    plain[2:4] = 1
    odd = plain.copy()
    odd[6] = 9
    cases = [image_case(str(i), str(i), "ct", odd if i == 3 else plain) for i in range(4)]
    (bad,) = stray_labels(cases, known=())
    assert bad.case == "3"
    assert "label value 9" in bad.reason
    assert not stray_labels(cases, known=(1, 9))


def test_channels_of_masks_become_one_label_map() -> None:
    masks = np.zeros((3, 4, 4))
    masks[0, :2] = 1
    masks[1, 1:3] = 1
    masks[2, 3] = 1
    assert organs(masks).tolist() == np.array([[1] * 4, [1] * 4, [0] * 4, [0] * 4]).tolist()
    assert organs(masks, 2)[1].tolist() == [2] * 4


def grid(dims: int, align: Any = "world", **more: Any) -> WorkGrid:
    settings: dict[str, Any] = {
        "spacing_mm": None,
        "shape": None,
        "num_slices": 3,
        "normalize": ("none", "none"),
        **more,
    }
    return WorkGrid(spatial_dims=dims, align=align, **settings)


def test_phantom_truth_carries_one_subjects_tissue_to_the_other() -> None:
    """Labels warped by the true field must meet; they do so only if the composition of maps is the right way round."""
    import torch

    from medray.metrics.registration import dice_per_label, warp_labels

    source = open_source("phantom:abdomen?n=2&size=96&seed=5")
    (pair,) = PairReader(grid(2, "center")).load(form_pairs(source.cases)[0])
    assert pair.truth is not None
    moving, fixed = (torch.from_numpy(label)[None] for label in (pair.moving_label, pair.fixed_label))
    truth = torch.from_numpy(pair.truth)[None]
    before = dice_per_label(moving, fixed, range(1, 7)).mean()
    after = dice_per_label(warp_labels(moving, truth), fixed, range(1, 7)).mean()
    assert before < 0.75
    assert after > 0.93


def test_landmarks_and_labels_follow_the_image_onto_a_coarser_flipped_grid() -> None:
    array = np.zeros((10, 12, 6))
    array[7, 3, 2] = 1.0
    masks = np.stack([array > 0, array > 0]).astype(np.int64)
    affine = np.diag([-1.0, 2.0, 3.0, 1.0])
    case = Case(
        "p",
        "p",
        {
            "moving": Held(volume(array, affine)),
            "fixed": Held(volume(array, affine)),
            "moving_label": Held(Volume(masks, affine)),
            "fixed_label": Held(Volume(masks, affine)),
        },
    )
    reader = PairReader(grid(3, spacing_mm=(1.0, 1.0, 1.0)))
    (ref,) = form_pairs([case])
    (pair,) = reader.load(ref)
    world = affine @ np.array([7, 3, 2, 1.0])
    for points in (pair.moving_landmarks, pair.fixed_landmarks):
        assert points.shape == (1, 3)
        np.testing.assert_allclose((pair.affine @ np.append(points[0], 1.0))[:3], world[:3], atol=1e-9)
    assert pair.fixed_label is not None
    found = np.argwhere(pair.fixed_label == 1).mean(axis=0)
    np.testing.assert_allclose((pair.affine @ np.append(found, 1.0))[:3], world[:3], atol=0.51)


def test_centers_are_laid_over_each_other() -> None:
    spot = np.zeros((9, 9))
    spot[4, 4] = 1.0
    far = np.eye(4)
    far[:2, 3] = (100.0, -50.0)
    case = Case("p", "p", {"moving": Held(volume(spot)), "fixed": Held(volume(spot, far))})
    (pair,) = PairReader(grid(2, "center")).load(form_pairs([case])[0])
    assert pair.moving[4, 4] == pair.fixed[4, 4] == 1.0
    with pytest.raises(UserError, match="do not overlap"):
        PairReader(grid(2, "world")).load(form_pairs([case])[0])


def test_volumes_are_cut_into_slices_through_both_labels() -> None:
    array = np.random.default_rng(0).normal(size=(8, 8, 20)).astype(np.float32)
    labels = [np.zeros((8, 8, 20), dtype=np.int64) for _ in range(2)]
    labels[0][2:5, 2:5, 4:16] = 1
    labels[1][2:5, 2:5, 7:19] = 1
    fields = {"moving": array, "fixed": array, "moving_label": labels[0], "fixed_label": labels[1]}
    case = Case("p", "p", {name: Held(volume(value)) for name, value in fields.items()})
    pairs = PairReader(grid(2)).load(form_pairs([case])[0])
    assert [pair.id for pair in pairs] == ["p/z=10", "p/z=11", "p/z=13"]
    np.testing.assert_array_equal(pairs[0].fixed, array[:, :, 10])
    assert (pairs[0].affine @ np.array([0, 0, 0, 1.0]))[2] == 10
    assert slice_pair(PairReader(grid(3)).load(form_pairs([case])[0])[0], 3).fixed_label is not None


def test_slices_can_be_matched_by_the_organs_own_extent() -> None:
    array = np.random.default_rng(0).normal(size=(8, 8, 20)).astype(np.float32)
    labels = [np.zeros((8, 8, 20), dtype=np.int64) for _ in range(2)]
    labels[0][2:5, 2:5, 0:8] = 1
    labels[1][2:5, 2:5, 10:18] = 1
    fields = {"moving": array, "fixed": array, "moving_label": labels[0], "fixed_label": labels[1]}
    case = Case("p", "p", {name: Held(volume(value)) for name, value in fields.items()})
    (pair,) = PairReader(grid(2, num_slices=1, match_slices="organ")).load(form_pairs([case])[0])
    assert pair.id == "p/z=14,4"
    np.testing.assert_array_equal(pair.moving, array[:, :, 4])
    np.testing.assert_array_equal(pair.fixed, array[:, :, 14])
    with pytest.raises(UserError, match="no slice has labels in both"):
        PairReader(grid(2)).load(form_pairs([case])[0])


def test_mixed_dimensions_are_told() -> None:
    case = Case("p", "p", {"moving": Held(volume(np.zeros((4, 4)))), "fixed": Held(volume(np.zeros((4, 4, 4))))})
    with pytest.raises(UserError, match=r"is 2D and .* is 3D"):
        PairReader(grid(2)).load(form_pairs([case])[0])
