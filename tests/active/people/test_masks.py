"""Masks that annotators put back, played through files: on the image's own grid, or one sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from annotating import AXIAL, Annotator, Campaign, films, slices, square
from PIL import Image

from medray.active.oracle import Returned
from medray.active.people.human import HumanOracle
from medray.active.people.masks import read_mask
from medray.active.people.rules import LabelRules
from medray.data.case import Case, Volume
from medray.data.fields import FileRef
from medray.data.writers import write_volume
from medray.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, about damage
MASKS = LabelRules("mask", ("lesion",))


@pytest.fixture
def masks(tmp_path: Path) -> Campaign:
    return Campaign(tmp_path, MASKS)


def kept(campaign: Campaign, case: str = "a") -> np.ndarray:
    """The mask as training will read it, (H, W)."""
    (answer,) = [one for one in campaign.collect().answers if one.case == case]
    return Case(case, "p", {"label": FileRef(answer.file, "label")}).volume("label").array[0]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".npy"])
@pytest.mark.parametrize("value", [1, 255])
def test_a_mask_drawn_on_the_picture_is_taken(masks: Campaign, suffix: str, value: int) -> None:
    if suffix == ".npy":
        np.save(masks.annotator.round / "labels/a.npy", square())
    else:
        masks.annotator.draw("a", square(value=value), suffix=suffix)
    assert np.array_equal(kept(masks), square())
    assert masks.collect().problems == ()


def test_a_mask_is_found_by_the_case_with_slashes_and_by_its_path(masks: Campaign) -> None:
    masks.annotator.draw("site 1/c", square())
    masks.annotator.draw("", square(at=5), name="Meier, second try")
    masks.annotator.fill({"a": {"label": "labels\\Meier, second try.png", "note": "unsure"}, "b": {"label": "none"}})
    assert np.array_equal(kept(masks), square(at=5))
    assert np.array_equal(kept(masks, "site 1/c"), square())
    assert not kept(masks, "b").any()
    assert [answer.note for answer in masks.collect().answers] == ["unsure", "", ""]
    assert masks.collect().problems == ()


def test_a_note_beside_a_mask_is_kept(masks: Campaign) -> None:
    masks.annotator.draw("a", square())
    masks.annotator.fill({"a": {"note": "border unclear", "status": "done"}})
    masks.annotator.fill({}, name="an empty one.csv")
    assert [answer.note for answer in masks.collect().answers] == ["border unclear"]


def test_the_same_mask_in_two_formats_counts_once_and_another_one_is_told(masks: Campaign) -> None:
    masks.annotator.draw("a", square(), suffix=".png")
    masks.annotator.draw("a", square(value=255), suffix=".tif")
    assert len(masks.collect().answers) == 1
    assert masks.collect().problems == ()
    masks.take()
    masks.annotator.draw("a", square(at=4), suffix=".bmp")
    assert masks.problem() == ("round-000/labels/a.bmp: it does not agree with round-000/labels/a.png, which stands")


def lossy(annotator: Annotator) -> None:
    annotator.draw("a", square(value=255), suffix=".jpg")


def in_pages(annotator: Annotator) -> None:
    pages = [Image.fromarray(square()), Image.fromarray(square(at=4))]
    pages[0].save(annotator.round / "labels/a.tif", save_all=True, append_images=pages[1:])


def truncated(annotator: Annotator) -> None:
    path = annotator.draw("a", np.random.default_rng(0).integers(0, 2, (12, 16)))
    path.write_bytes(path.read_bytes()[:-30])


def in_color(annotator: Annotator) -> None:
    annotator.draw("a", np.stack([square(), square(at=4), square()], -1))


def elsewhere(annotator: Annotator) -> None:
    annotator.draw("a", square()).rename(annotator.round / "a.png")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda one: one.draw("a", square().T), "it has 12 x 16 px (width x height) where the picture has 16 x 12 px"),
        (lambda one: one.draw("a", square((6, 8))), "it has 8 x 6 px (width x height) where the picture has 16 x 12"),
        (lambda one: one.draw("a", square(value=3)), "it holds the value 3; expected 0 background, 1 (or 255) lesion"),
        (
            lambda one: one.draw("a", np.arange(192).reshape(12, 16)),
            "it holds the values 2, 3, 4, 5, 6 and 185 more; expected 0 background, 1 (or 255) lesion",
        ),
        (
            lambda one: one.draw("a", 0 * square()),
            'it is empty; if nothing is there, write "none" into the column label as well',
        ),
        (lambda one: one.draw("", square(), name="z9"), "no case that was asked for is called 'z9'"),
        (lambda one: one.draw("never asked", square()), "case 'never asked' was not asked for"),
        (lambda one: one.save("labels/a.png", b""), "it is empty (0 bytes)"),
        (lambda one: one.save("labels/a.png", b"GIF89a"), "it is not an image, or damaged at its start"),
        (lambda one: one.save("labels/a.nii.gz", b"\x1f\x8b123"), "it is truncated or damaged"),
        (lambda one: one.save("labels/a.psd", b"8BPS"), "it is no mask that can be read; expected one of .png"),
        (
            lambda one: one.save_volume("a", square().T, np.diag([-1.0, -1, 1, 1])),  # as ITK turns a PNG into NIfTI
            "it does not lie on the image: the image has no position in the patient; save its mask as PNG",
        ),
        (in_pages, "it has 2 pages where one picture is expected"),
        (lossy, "it is no mask that can be read; expected one of .png"),
        (truncated, "it is truncated or damaged"),
        (in_color, "it is a color image where a label map is expected"),
        (elsewhere, "it lies where no label is looked for; masks belong into labels"),
        (lambda one: one.fill({"a": {"label": "labels/a.png"}}), "'labels/a.png' is no file in this round's folder"),
        (lambda one: one.fill({"a": {"label": "../../data/a.png"}}), "'../../data/a.png' is no file in this round's"),
    ],
)
def test_masks_that_cannot_be_used_are_told(
    masks: Campaign, spoil: Callable[[Annotator], object], sentence: str
) -> None:
    spoil(masks.annotator)
    assert masks.problem().split(": ", 1)[1].startswith(sentence)
    assert masks.collect().answers == ()


def test_swapped_rows_and_columns_are_recognized(masks: Campaign) -> None:
    masks.annotator.draw("a", square().T)
    assert masks.problem().endswith("; rows and columns are swapped")


def test_white_says_nothing_where_there_are_several_labels(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, LabelRules("mask", ("core", "edema"), (1, 2)))
    campaign.annotator.draw("a", square(value=255))
    assert campaign.problem().endswith("it holds the value 255; expected 0 background, 1 core, 2 edema")
    campaign.annotator.draw("a", square(value=2))
    assert np.array_equal(kept(campaign), square(value=2))


def test_an_empty_mask_counts_once_the_table_says_so(masks: Campaign) -> None:
    masks.annotator.draw("a", 0 * square())
    assert masks.collect().answers == ()
    masks.annotator.fill({"a": {"label": "none"}})
    assert masks.collect().problems == ()
    assert not kept(masks).any()


def test_empty_masks_can_be_allowed(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, LabelRules("mask", empty_masks=True))
    campaign.annotator.draw("a", 0 * square())
    assert len(campaign.collect().answers) == 1


def test_a_file_still_being_copied_is_fine_once_it_is_whole(masks: Campaign) -> None:
    path = masks.annotator.draw("a", np.random.default_rng(0).integers(0, 2, (12, 16)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert masks.collect().answers == ()
    assert len(masks.collect().problems) == 1
    path.write_bytes(whole)
    assert masks.collect().problems == ()
    assert [answer.case for answer in masks.collect().answers] == ["a"]


MANY_SUFFIXES = [".png", ".tif", ".bmp", ".nii", ".nii.gz", ".npy", ".npz", ".nrrd", ".mha"]
CHECKSUMS = (".png", ".nii.gz", ".npz")


@pytest.mark.parametrize("suffix", MANY_SUFFIXES)
def test_half_a_file_is_never_half_a_mask(tmp_path: Path, suffix: str) -> None:
    drawn = np.random.default_rng(0).integers(0, 2, (12, 16)).astype(np.uint8)
    pictured = suffix in (".png", ".tif", ".bmp")
    image = (films(tmp_path, ["a"]) if pictured else slices(["a"]))["a"].volume("image")
    volume = Volume(drawn[None, ..., None] if suffix in (".mha", ".nrrd") else drawn[None], image.affine)
    whole = write_volume(volume, tmp_path / f"mask{suffix}").read_bytes()
    expected = read_mask(whole, f"a{suffix}", image, MASKS).digest
    for length in range(0, len(whole), 11):
        zeros = bytes(len(whole) - length)  # some programs make room first
        for part in (whole[:length], whole[:length] + zeros)[: 2 if suffix in CHECKSUMS else 1]:
            with suppress(UserError):
                assert read_mask(part, f"a{suffix}", image, MASKS).digest == expected


@pytest.mark.parametrize("suffix", MANY_SUFFIXES)
def test_any_damage_is_a_sentence(tmp_path: Path, suffix: str) -> None:
    (image,) = (case.volume("image") for case in films(tmp_path, ["a"]).values())
    mask = square()[None, ..., None] if suffix in (".mha", ".nrrd") else square()[None]
    whole = write_volume(Volume(mask, np.eye(4)), tmp_path / f"mask{suffix}").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(whole)
        for place in random.integers(0, min(len(whole), 400), 3):
            damaged[place] = random.integers(0, 256)
        with suppress(UserError):
            read_mask(bytes(damaged), f"a{suffix}", image, MASKS)


def test_a_file_that_changes_right_now_is_left_for_the_next_call(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, MASKS)
    oracle = HumanOracle(str(tmp_path / "x"), campaign.cases, MASKS, settle_s=60)
    drawn = [campaign.annotator.draw(case, square()) for case in ("a", "b")]
    drawn[1].write_bytes(b"not yet")
    table = campaign.annotator.fill({"site 1/c": {"label": "labels/b.png"}})
    assert oracle.collect(campaign.asked, {}) == Returned()
    for path in (drawn[0], table):
        os.utime(path, (0, 0))
    returned = oracle.collect(campaign.asked, {})
    assert [answer.case for answer in returned.answers] == ["a"]
    assert returned.problems == ()


def test_what_systems_leave_behind_is_no_label(masks: Campaign) -> None:
    junk = ("Thumbs.db", ".DS_Store", "~$worklist.csv", ".~lock.worklist.csv#", "a.png.part", "desktop.ini", "._a.png")
    for name in junk:
        masks.annotator.save(f"labels/{name}", b"junk")
        masks.annotator.save(name, b"junk")
    masks.annotator.save("labels/__MACOSX/a.png", b"junk")
    assert masks.collect() == Returned()


def test_a_label_for_an_earlier_round_is_fine_in_any_folder(masks: Campaign) -> None:
    masks.ask(["never asked"])
    later = Annotator(masks.annotator.folder, 1)
    later.draw("a", square())
    masks.annotator.draw("never asked", square())
    assert {answer.case for answer in masks.collect().answers} == {"a", "never asked"}
    assert masks.collect().problems == ()


def test_files_are_read_once(masks: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    masks.annotator.draw("a", square())
    masks.annotator.draw("b", square(value=9))
    masks.annotator.fill({"site 1/c": {"label": "none"}})
    before = masks.oracle.collect(masks.asked, {})
    monkeypatch.setattr("medray.active.exchange.LocalExchange.read", lambda *_: pytest.fail("read again"))
    assert masks.oracle.collect(masks.asked, {}) == before


def test_an_image_that_cannot_be_read_now_is_no_verdict_on_its_mask(masks: Campaign) -> None:
    film = Path(masks.cases["a"].fields["image"].path)  # type: ignore[attr-defined]
    masks.annotator.draw("a", square())
    film.rename(film.with_suffix(".away"))
    assert "does not exist" in masks.problem()
    film.with_suffix(".away").rename(film)
    assert len(masks.collect().answers) == 1


# masks of slices with a position in the patient


@pytest.fixture
def brain(tmp_path: Path) -> Campaign:
    return Campaign(tmp_path, MASKS, slices(["a", "b"]))


DRAWN = square((12, 16), at=1)
"""On the image's grid."""
HERE = slices(["a"])["a"].volume("image").affine


def test_a_mask_drawn_on_the_turned_picture_lands_on_the_images_grid(brain: Campaign) -> None:
    with Image.open(brain.annotator.round / "images/a.png") as shown:
        bright = (np.asarray(shown) > 140).astype(np.uint8)
    brain.annotator.draw("a", bright)
    image = brain.cases["a"].volume("image").array[0]
    assert bright.shape == (16, 12)
    assert np.array_equal(kept(brain), (image >= 150).astype(np.uint8))


def volume_of(plane: np.ndarray, index: int = 2, depth: int = 5) -> np.ndarray:
    """A volume with this plane, and something else in the others."""
    volume = np.ones((*plane.shape, depth), np.uint8)
    volume[..., index] = plane
    return volume


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd", ".npz"])
def test_a_slice_on_the_images_own_grid_is_taken(brain: Campaign, suffix: str) -> None:
    brain.annotator.save_volume("a", DRAWN[..., None] if suffix in (".mha", ".nrrd") else DRAWN, HERE, suffix)
    assert np.array_equal(kept(brain), DRAWN)


def test_the_slice_is_taken_out_of_a_volume_in_any_order_of_axes(brain: Campaign) -> None:
    brain.annotator.save_volume("a", volume_of(DRAWN), AXIAL)
    other = volume_of(DRAWN)[::-1].transpose(2, 0, 1)  # the same voxels at the same places in the patient
    flipped = AXIAL @ np.array([[-1, 0, 0, 11], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    brain.annotator.save_volume("b", other, flipped[:, [2, 0, 1, 3]])
    assert np.array_equal(kept(brain, "a"), DRAWN)
    assert np.array_equal(kept(brain, "b"), DRAWN)


def turned(**changes: float) -> np.ndarray:
    """The image's affine with entries changed, ``x0="..."`` by row and column."""
    affine = HERE.copy()
    for place, value in changes.items():
        affine[int(place[1]), int(place[2])] = value
    return affine


@pytest.mark.parametrize(
    ("mask", "affine", "reason"),
    [
        (DRAWN, turned(_00=2.0), "it is mirrored"),
        (DRAWN, np.eye(4), "its header gives no position in the patient"),
        (DRAWN.T, HERE, "it is a grid of 16 x 12 where the image has 12 x 16"),
        (DRAWN, turned(_00=1.0, _11=-0.75), "its position or pixel size is another one"),
        (DRAWN, turned(_00=0.0, _10=-1.5, _11=0.0, _01=-2.0), "its axes are swapped"),
        (DRAWN, turned(_03=40.5), "its position or pixel size is another one"),
        (volume_of(DRAWN, depth=2, index=0), AXIAL, "its position or pixel size is another one"),
        (
            np.ones((24, 32), np.uint8),
            turned(_00=-1.0, _11=-0.75),
            "it is a grid of 24 x 32 where the image has 12 x 16",
        ),
        (np.ones((20, 20, 5), np.uint8), AXIAL, "its position or pixel size is another one"),
    ],
    ids=["mirrored", "no_position", "transposed", "pixel_size", "swapped", "shifted", "few_slices", "finer", "larger"],
)
def test_masks_that_do_not_lie_on_the_image_are_told(
    brain: Campaign, mask: np.ndarray, affine: np.ndarray, reason: str
) -> None:
    brain.annotator.save_volume("a", mask, affine)
    assert f"it does not lie on the image: {reason}; draw it on the image itself" in brain.problem()
    assert brain.collect().answers == ()


def test_a_header_rounded_to_decimals_does_no_harm(brain: Campaign) -> None:
    brain.annotator.save_volume("a", DRAWN, HERE + 1e-4)
    assert np.array_equal(kept(brain), DRAWN)


def test_several_masks_in_one_file_are_refused(brain: Campaign) -> None:
    path = brain.annotator.round / "labels/a.npz"
    np.savez(path, array=np.stack([DRAWN, DRAWN]), affine=HERE)
    assert brain.problem().endswith("it holds 2 masks on top of each other where one label map is expected")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_told(masks: Campaign) -> None:
    masks.annotator.draw("a", square()).chmod(0)
    assert "cannot be read: Permission denied" in masks.problem()
