"""Raw data from files: which arrays are k-space, what is wrong with others, and sampling masks."""

from __future__ import annotations

from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from medray.data.case import Case
from medray.data.fields import FileRef
from medray.data.kspace import RawReader, as_raw, fitted, from_image, from_kspace, gaussian_mask
from medray.data.phantoms.brain import cases
from medray.data.sources import open_source
from medray.errors import UserError


@pytest.fixture(scope="module")
def kspace() -> np.ndarray:
    (case,) = cases(kind="kspace", n=1, slices=2, size=32)
    return np.asarray(case.load("kspace"))


def hdf5(path: Path, **arrays: np.ndarray) -> Case:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return as_raw(Case(path.stem, path.stem, {"image": FileRef(str(path))}))


def test_a_folder_of_hdf5_files_is_raw_data(tmp_path: Path, kspace: np.ndarray) -> None:
    mask = gaussian_mask((32, 32), 0.3, 0)
    hdf5(tmp_path / "a.h5", kspace=kspace * mask, mask=mask.astype(np.uint8), reconstruction_rss=np.abs(kspace))
    hdf5(tmp_path / "b.h5", kspace=kspace)
    first, second = (as_raw(case) for case in open_source(str(tmp_path)).cases)
    assert (sorted(first.fields), sorted(second.fields)) == (["kspace", "mask"], ["kspace"])
    scan = RawReader().read(first)
    assert scan.kspace.shape == (2, 1, 32, 32)
    np.testing.assert_array_equal(scan.mask, mask)
    assert RawReader().read(second).mask is None


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_real_and_imaginary_parts_are_put_together(tmp_path: Path, kspace: np.ndarray, suffix: str) -> None:
    pairs = np.stack([kspace.real, kspace.imag], axis=-1)
    path = tmp_path / f"a.{suffix}"
    np.save(path, pairs) if suffix == "npy" else np.savez(path, kspace=pairs)
    case = as_raw(Case("a", "a", {"image": FileRef(str(path))}))
    np.testing.assert_array_equal(RawReader().read(case).kspace[:, 0], kspace)


def test_coils_are_the_second_axis_and_a_mask_of_one_axis_names_columns(tmp_path: Path, kspace: np.ndarray) -> None:
    lines = np.zeros(32, dtype=np.uint8)
    lines[10:22] = 1
    scan = RawReader().read(hdf5(tmp_path / "a.h5", kspace=np.stack([kspace] * 3, axis=1) * lines, mask=lines))
    assert scan.kspace.shape == (2, 3, 32, 32)
    assert scan.mask is not None
    np.testing.assert_array_equal(scan.mask, np.broadcast_to(lines > 0, (32, 32)))


def test_other_files_stay_images(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 5, 6)))
    case = Case("a", "a", {"image": FileRef(str(tmp_path / "a.npy"))})
    assert as_raw(case) is case


def wrong(kspace: np.ndarray) -> dict[str, tuple[dict[str, np.ndarray], str]]:
    mask = gaussian_mask((32, 32), 0.25, 0)
    broken = kspace.copy()
    broken[0, 3, 3] = np.nan
    return {
        "no_mask": ({"kspace": kspace * mask}, "k-space without its mask: 75 % of its samples are 0"),
        "magnitude": ({"kspace": np.abs(kspace)}, "holds magnitudes .float32, 2 x 32 x 32. where complex k-space"),
        "disguised": ({"kspace": np.abs(kspace).astype(np.complex64)}, "holds magnitudes .complex64"),
        "corner": ({"kspace": np.fft.fftshift(kspace, axes=(1, 2))}, "little signal in the middle"),
        "nan": ({"kspace": broken}, "NaN"),
        "empty": ({"kspace": np.zeros_like(kspace)}, "nothing but zeros"),
        "axes": ({"kspace": kspace[None, None, None]}, "1 x 1 x 1 x 2 x 32 x 32"),
        "other_mask": ({"kspace": kspace * mask, "mask": mask[:30]}, "30 x 32, its k-space 32 x 32"),
        "weights": ({"kspace": kspace * mask, "mask": mask * 0.5}, "0 and 1 alone"),
    }


@pytest.mark.parametrize("name", list(wrong(np.ones((2, 32, 32), dtype=np.complex64))))
def test_what_is_no_k_space_is_said_in_one_sentence(tmp_path: Path, kspace: np.ndarray, name: str) -> None:
    arrays, sentence = wrong(kspace)[name]
    case = hdf5(tmp_path / "scan.h5", **arrays)
    with pytest.raises(UserError, match=sentence) as caught:
        RawReader().read(case)
    assert "scan.h5" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_k_space_of_a_magnitude_volume_has_no_phase(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((12, 14, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "t1.nii.gz")
    case = Case("t1", "t1", {"image": FileRef(str(tmp_path / "t1.nii.gz"))})
    scan = RawReader((10, 16)).read(case)
    assert scan.kspace.shape == (3, 1, 10, 16)
    image = from_kspace(scan.kspace)[:, 0]
    np.testing.assert_allclose(image[1, :, 1:-1].real, array[1:-1, :, 1], atol=1e-5)
    np.testing.assert_allclose(image.imag, 0.0, atol=1e-5)


def test_cropping_keeps_the_middle_of_the_image(tmp_path: Path, kspace: np.ndarray) -> None:
    scan = RawReader((20, 40)).read(hdf5(tmp_path / "a.h5", kspace=kspace))
    whole, part = from_kspace(kspace), from_kspace(scan.kspace)[:, 0]
    np.testing.assert_allclose(part[:, :, 4:36], whole[:, 6:26], atol=1e-2)
    np.testing.assert_allclose(fitted(fitted(whole, (20, 40)), (32, 32))[:, 6:26], whole[:, 6:26])


def test_odd_sides_are_cropped_around_their_center() -> None:
    line = np.arange(7)[None].repeat(7, axis=0)  # the center of 7 is 3, of 5 is 2, of 4 is 2
    assert fitted(line, (7, 5))[0].tolist() == [1, 2, 3, 4, 5]
    assert fitted(line, (7, 4))[0].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("shape", [(64, 64), (33, 50)])
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_gaussian_masks_are_dense_in_the_middle_and_exact_in_number(shape: tuple[int, int], fraction: float) -> None:
    mask = gaussian_mask(shape, fraction, 3)
    assert mask.sum() == int(shape[0] * shape[1] * fraction)
    np.testing.assert_array_equal(mask, gaussian_mask(shape, fraction, 3))
    assert (mask != gaussian_mask(shape, fraction, 4)).any()
    middle = mask[shape[0] * 3 // 8 : shape[0] * 5 // 8, shape[1] * 3 // 8 : shape[1] * 5 // 8]
    border = np.concatenate([mask[:4].ravel(), mask[-4:].ravel()])
    assert middle.mean() > 1.5 * mask.mean()
    assert border.mean() < 0.6 * mask.mean()


def test_a_mask_needs_a_share() -> None:
    with pytest.raises(ValueError, match="fraction"):
        gaussian_mask((8, 8), 1.0, 0)


def test_from_image_and_back() -> None:
    image = np.random.default_rng(0).normal(size=(2, 5, 6)) + 0j
    np.testing.assert_allclose(from_kspace(from_image(image)), image, atol=1e-5)
