"""Data in object storage is found and read as the same data on a disk, and fetched into a bounded cache."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from numpy.testing import assert_array_equal
from object_store import Network, Store, environment

from medray.data.case import Source, Volume
from medray.data.check import check_cases
from medray.data.fetched import _locked, cache_folder, fetched
from medray.data.fields import FileRef
from medray.data.readers import read_array, read_volume
from medray.data.sources import open_source
from medray.errors import UserError
from medray.storage import Folder, StorageError

Save = Callable[..., Path]
IMAGE = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
LABEL = (IMAGE > 5).astype(np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with environment(MEDRAY_CACHE=str(folder), MEDRAY_CACHE_GB=None):
        yield folder


def upload(folder: Path, url: str) -> Folder:
    """Copy a local folder into a bucket."""
    target = Folder(url)
    for path in folder.rglob("*"):
        if path.is_file():
            target.upload(path, path.relative_to(folder).as_posix())
    return target


def copies(cache: Path) -> list[Path]:
    """What the cache holds, whole copies only."""
    return [path for path in cache.rglob("*-*") if path.is_dir() and path.suffix != ".part" and len(path.name) > 32]


def _flat(value: Any) -> Any:
    if isinstance(value, Volume):
        return value.array.tolist(), value.array.dtype, value.affine.tolist(), dict(value.header)
    return value.tolist() if isinstance(value, np.ndarray) else value


def told(source: Source, root: str) -> Any:
    """All there is to know of a source, without where it is."""
    cases = [
        (case.id, case.patient, dict(case.attributes), {name: _flat(case.load(name)) for name in case.fields})
        for case in source.cases
    ]
    return cases, [(bad.case, bad.reason.replace(root, "."), bad.file.replace(root, ".")) for bad in source.bad]


LAYOUTS: dict[str, dict[str, Any]] = {
    "modality folders": {"mr_images/a.nii.gz": IMAGE, "mr_labels/a.nii.gz": LABEL, "mr_labels/orphan.nii.gz": LABEL},
    "images and labels inside": {"mr/images/a.nii.gz": IMAGE, "mr/labels/a.nii.gz": LABEL, "us/images/a.nii": IMAGE},
    "images and masks": {"images/sub-01_a.nii.gz": IMAGE, "masks/sub-01_a.nii.gz": LABEL},
    "labels beside": {"a.nii.gz": IMAGE, "a_seg.nii.gz": LABEL, "b.nii.gz": IMAGE},
    "patient folders": {"p1/t1.nii.gz": IMAGE, "p1/p1_flair.nii.gz": IMAGE + 1, "p1/label.nii.gz": LABEL},
    "pairs": {"p1/moving.nii.gz": IMAGE, "p1/fixed.nii.gz": IMAGE + 1, "p1/fixed_label.nii.gz": LABEL},
    "classes": {"covid/a.nii": IMAGE, "normal/b.nii": IMAGE + 1},
    "splits": {"train/images/a.nii": IMAGE, "val/images/b.nii": IMAGE + 1, "test/images/c.nii": IMAGE + 2},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_found_as_on_a_disk(tmp_path: Path, save_nifti: Save, bucket: str, layout: str) -> None:
    for name, array in LAYOUTS[layout].items():
        save_nifti(tmp_path / "data" / name, array)
    upload(tmp_path / "data", f"{bucket}/data")
    local, remote = open_source(str(tmp_path / "data")), open_source(f"{bucket}/data")
    assert len(local.cases) >= 1
    assert told(remote, f"{bucket}/data") == told(local, str(tmp_path / "data"))


def test_opening_downloads_nothing_and_loading_only_what_is_asked(
    tmp_path: Path, save_nifti: Save, bucket: str, cache: Path
) -> None:
    for name in ("a", "b", "c"):
        save_nifti(tmp_path / f"{name}.nii.gz", IMAGE)
    upload(tmp_path, bucket)
    source = open_source(bucket)
    assert copies(cache) == []
    volume = source.cases[1].volume("image")
    assert volume.source == f"{bucket}/b.nii.gz"
    assert len(copies(cache)) == 1


def test_fingerprint_follows_the_objects(tmp_path: Path, save_nifti: Save, bucket: str) -> None:
    save_nifti(tmp_path / "a.nii.gz", IMAGE)
    upload(tmp_path, f"{bucket}/one")
    upload(tmp_path, f"{bucket}/two")
    first = open_source(f"{bucket}/one").fingerprint
    assert first == open_source(f"{bucket}/two").fingerprint  # a copy is the same data
    save_nifti(tmp_path / "a.nii.gz", IMAGE + 1)
    upload(tmp_path, f"{bucket}/two")
    assert first != open_source(f"{bucket}/two").fingerprint


def test_dicom_series(tmp_path: Path, save_series: Save, bucket: str) -> None:
    save_series(tmp_path / "study" / "one", [4.0, 0.0, 2.0])
    save_series(tmp_path / "study" / "two", [0.0, 2.0], uid="1.2.7")
    save_series(tmp_path / "study" / "two", [10.0, 12.0, 14.0], uid="1.2.8")
    save_series(tmp_path / "bare", [1.0, 2.0], uid="1.2.9", suffix="")  # known by its preamble
    upload(tmp_path, f"{bucket}/d")
    local, remote = open_source(str(tmp_path)), open_source(f"{bucket}/d")
    assert [case.id for case in remote.cases] == ["bare", "study/one", "study/two/0", "study/two/1"]
    assert told(remote, f"{bucket}/d") == told(local, str(tmp_path))
    with pytest.raises(UserError, match=f"{bucket}/d/study/two holds 2 DICOM series where one is expected"):
        read_volume(f"{bucket}/d/study/two")


def test_dicom_headers_longer_than_the_first_look(
    tmp_path: Path, save_series: Save, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medray.data.formats import dicom

    save_series(tmp_path / "s", [0.0, 2.0, 4.0])
    upload(tmp_path, bucket)
    monkeypatch.setattr(dicom, "_HEADER_BYTES", 300)  # ends inside the tags
    assert [case.id for case in open_source(bucket).cases] == ["s"]
    assert open_source(bucket).cases[0].patient == open_source(str(tmp_path)).cases[0].patient


def test_other_formats(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "a.mhd").write_text(
        "ObjectType = Image\nNDims = 2\nDimSize = 3 2\nElementType = MET_UCHAR\nElementDataFile = a.raw\n"
    )
    (tmp_path / "a.raw").write_bytes(bytes(range(6)))
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["group/kspace"] = np.ones((2, 3), np.complex64)
        file["other"] = np.zeros(1)
    upload(tmp_path, bucket)
    assert (
        read_volume(f"{bucket}/a.mhd").array.ravel().tolist() == read_volume(tmp_path / "a.mhd").array.ravel().tolist()
    )
    assert read_array(f"{bucket}/k.h5#group/kspace").dtype == np.complex64
    with pytest.raises(UserError, match=f"^{bucket}/k.h5 has no array named 'none'"):
        read_array(f"{bucket}/k.h5#none")
    Folder(bucket).delete("a.raw")
    Folder(bucket).write("a.mhd", Folder(bucket).read("a.mhd") + b"\n")
    with pytest.raises(UserError, match=f"{bucket}/a.raw does not exist; {bucket}/a.mhd names it"):
        read_volume(f"{bucket}/a.mhd")


@pytest.mark.parametrize("where", ["stored", "local", "parquet"])
def test_manifests(tmp_path: Path, save_nifti: Save, save_series: Save, bucket: str, where: str) -> None:
    save_nifti(tmp_path / "m" / "img" / "a.nii.gz", IMAGE)
    save_nifti(tmp_path / "elsewhere" / "b.nii.gz", LABEL)
    save_series(tmp_path / "m" / "dicom" / "one", [0.0, 2.0])
    np.savez(tmp_path / "m" / "k.npz", kspace=np.ones((2, 3)), mask=np.ones((3, 3)))
    upload(tmp_path, f"{bucket}/x")
    beside = f"{bucket}/x/m/" if where == "local" else ""
    rows = [
        ("a", "1", f"{beside}img/a.nii.gz", f"{bucket}/x/elsewhere/b.nii.gz", f"{beside}k.npz#kspace", "6/7"),
        ("c", "3", f"{beside}dicom/one", "../elsewhere/b.nii.gz" if where != "local" else "", "", ""),
    ]
    names = ("case", "patient", "image", "label", "kspace", "grade")
    text = "\n".join([",".join(names), *(",".join(row) for row in rows)])
    if where == "local":
        (tmp_path / "index.csv").write_text(text)
        spec = str(tmp_path / "index.csv")
    elif where == "stored":
        Folder(f"{bucket}/x/m").write("index.csv", text.encode())
        spec = f"{bucket}/x/m/index.csv"
    else:
        table = pyarrow.table({name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})
        pyarrow.parquet.write_table(table, tmp_path / "index.parquet")
        Folder(f"{bucket}/x/m").upload(tmp_path / "index.parquet", "index.parquet")
        spec = f"{bucket}/x/m/index.parquet"
    first, second = open_source(spec).cases
    assert_array_equal(first.volume("image").array, IMAGE[None])
    assert_array_equal(first.volume("label").array, LABEL[None])
    assert first.load("kspace").shape == (2, 3)
    assert dict(first.attributes) == {"grade": "6/7"}
    assert second.volume("image").shape == (4, 3, 2)


def test_sub_folders_named_as_fields(tmp_path: Path, save_nifti: Save, bucket: str) -> None:
    save_nifti(tmp_path / "mri" / "1.nii", IMAGE)
    save_nifti(tmp_path / "tear" / "1.nii", LABEL)
    upload(tmp_path, f"{bucket}/x")
    assert set(open_source(f"{bucket}/x?image=mri&label=tear").cases[0].fields) == {"image", "label"}
    with pytest.raises(UserError, match=f"{bucket}/x/mra does not exist; image=mra names a sub-folder"):
        open_source(f"{bucket}/x?image=mra")


def test_an_outage_is_no_bad_case(
    tmp_path: Path, save_nifti: Save, save_series: Save, bucket: str, network: Network
) -> None:
    save_nifti(tmp_path / "n" / "a.nii.gz", IMAGE)
    save_series(tmp_path / "d" / "one", [0.0, 2.0])
    upload(tmp_path, bucket)
    source = open_source(f"{bucket}/n")
    network.answer(403, "AccessDenied")
    with pytest.raises(StorageError, match="access denied"):
        check_cases(source.cases, required=("image",), policy="quarantine")
    with pytest.raises(StorageError, match="access denied; these credentials may not list there"):
        open_source(f"{bucket}/d")


def test_deformed_pairs_of_stored_images(tmp_path: Path, save_nifti: Save, bucket: str) -> None:
    rng = np.random.default_rng(0)
    for name in ("t1", "flair"):
        save_nifti(tmp_path / "p1" / f"{name}.nii.gz", rng.random((24, 24, 8), np.float32) + 1)
    upload(tmp_path, bucket)
    remote = open_source(f"deformed:{bucket}?moving=t1&fixed=flair")
    local = open_source(f"deformed:{tmp_path}?moving=t1&fixed=flair")
    assert [case.id for case in remote.cases] == [case.id for case in local.cases]


def test_sentences_name_the_url(tmp_path: Path, save_nifti: Save, bucket: str) -> None:
    path = save_nifti(tmp_path / "img" / "a.nii.gz", IMAGE)
    folder = Folder(f"{bucket}/x")
    folder.write("a.nii.gz", path.read_bytes()[:50])
    folder.write("b.nii.gz", b"")
    cases = {case.id: case for case in open_source(f"{bucket}/x").cases}
    with pytest.raises(UserError, match=rf"^{bucket}/x/a\.nii\.gz is truncated or damaged"):
        cases["a"].load("image")
    with pytest.raises(UserError, match=rf"^{bucket}/x/b\.nii\.gz is empty \(0 bytes\)"):
        cases["b"].load("image")
    with pytest.raises(UserError, match=rf"^{bucket}/x/none\.nii\.gz does not exist$"):
        read_volume(f"{bucket}/x/none.nii.gz")
    with pytest.raises(UserError, match=f"^{bucket}/none does not exist; a data source is a folder, a manifest"):
        open_source(f"{bucket}/none")
    with pytest.raises(UserError, match=r"s3://no-bucket-here.*: there is no such bucket"):
        open_source("s3://no-bucket-here/a")
    with pytest.raises(UserError, match=r"a\.nii\.gz is a single file"):
        open_source(f"{bucket}/x/a.nii.gz")
    (tmp_path / "i.csv").write_text(f"case,patient,image\na,1,{bucket}/x/none.nii\n")
    with pytest.raises(UserError, match=rf"row 1, column image: {bucket}/x/none\.nii does not exist"):
        open_source(str(tmp_path / "i.csv"))


def test_an_object_that_was_replaced_is_told(tmp_path: Path, save_nifti: Save, bucket: str) -> None:
    save_nifti(tmp_path / "a.nii.gz", IMAGE)
    upload(tmp_path, bucket)
    source = open_source(bucket)
    save_nifti(tmp_path / "a.nii.gz", IMAGE + 1)
    upload(tmp_path, bucket)
    with pytest.raises(UserError, match=f"{bucket}/a.nii.gz was replaced after the data source had been opened"):
        source.cases[0].load("image")
    assert_array_equal(open_source(bucket).cases[0].volume("image").array, IMAGE[None] + 1)


def test_references_travel_and_hold_no_secrets(tmp_path: Path, save_nifti: Save, bucket: str) -> None:
    save_nifti(tmp_path / "a.nii.gz", IMAGE)
    upload(tmp_path, bucket)
    raw = pickle.dumps(open_source(bucket))
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in raw
    assert_array_equal(pickle.loads(raw).cases[0].volume("image").array, IMAGE[None])


def test_an_outage_in_the_middle_of_a_read(bucket: str, network: Network) -> None:
    data = np.random.default_rng(0).integers(0, 255, (128, 128, 128)).astype(np.uint8)
    import io

    raw = io.BytesIO()
    np.save(raw, data)
    Folder(bucket).write("a.npy", raw.getvalue())
    source = open_source(bucket)
    network.slow(4 << 20)
    timers = [threading.Timer(0.2, network.refuse), threading.Timer(2.5, network.heal)]
    for timer in timers:
        timer.start()
    assert_array_equal(source.cases[0].volume("image").array[0], data)
    for timer in timers:
        timer.join()


def _put(bucket: str, names: list[str], size: int = 300_000) -> None:
    for number, name in enumerate(names):
        Folder(bucket).write(name, bytes([number]) * size)


def test_the_cache_keeps_to_its_bound_and_drops_what_was_used_longest_ago(bucket: str, cache: Path) -> None:
    _put(bucket, ["a", "b", "c", "d"])

    def use(name: str) -> None:
        with fetched(f"{bucket}/{name}") as path:
            assert path.stat().st_size == 300_000
        time.sleep(0.02)  # file times are no finer than some milliseconds

    with environment(MEDRAY_CACHE_GB="0.001"):  # room for three
        for name in ("a", "b", "c", "a", "d"):
            use(name)
    held = {next(path.iterdir()).name for path in copies(cache)}
    assert held == {"a", "c", "d"}


def test_a_copy_in_use_stays(bucket: str, cache: Path) -> None:
    _put(bucket, ["a", "b"])
    with environment(MEDRAY_CACHE_GB="0.0004"), fetched(f"{bucket}/a") as first, fetched(f"{bucket}/b") as second:
        assert second.read_bytes()[:1] == b"\x01"
        assert first.read_bytes()[:1] == b"\x00"


def test_a_file_larger_than_the_cache_and_wrong_bounds(bucket: str) -> None:
    _put(bucket, ["a"])
    sentence = rf"{bucket}/a \(0.00 GB\) is larger than the whole cache of 0.0001 GB; raise MEDRAY_CACHE_GB"
    with environment(MEDRAY_CACHE_GB="0.0001"), pytest.raises(UserError, match=sentence), fetched(f"{bucket}/a"):
        pass
    for wrong in ("0", "-1", "much", "nan"):
        with environment(MEDRAY_CACHE_GB=wrong), pytest.raises(UserError, match="MEDRAY_CACHE_GB is a number"):
            read_volume(f"{bucket}/a")


def test_no_half_copy_is_ever_seen_and_a_dead_ones_rest_is_cleared(bucket: str, cache: Path) -> None:
    _put(bucket, ["a", "b"])
    with fetched(f"{bucket}/a") as path:
        copy = path.parent
    rest = copy.with_name(copy.name + ".part")  # as a process leaves that was killed in the middle
    copy.rename(rest)
    (rest / "a").write_bytes(b"half")
    with fetched(f"{bucket}/a") as path:
        assert path.stat().st_size == 300_000
    assert not rest.exists()
    copy.rename(rest)
    with environment(MEDRAY_CACHE_GB="0.0004"), fetched(f"{bucket}/b"):
        assert not rest.exists()  # it counted, nobody was fetching it, and room was needed


def _use_all(job: tuple[str, int]) -> int:
    bucket, seed = job
    wrong = 0
    for number in np.random.default_rng(seed).permutation(12).tolist():
        with fetched(f"{bucket}/{number}") as path:
            wrong += path.read_bytes() != bytes([number]) * 300_000
    return wrong


def test_processes_and_threads_share_the_cache(bucket: str, cache: Path) -> None:
    _put(bucket, [str(number) for number in range(12)])
    with environment(MEDRAY_CACHE_GB="0.0016"):  # room for five of twelve, so that they take each other's away
        with multiprocessing.get_context("fork").Pool(3) as pool:
            assert pool.map(_use_all, [(bucket, seed) for seed in range(6)]) == [0] * 6
            pool.close()  # terminated, a child may hang: it inherited what pytest's process does on SIGTERM
            pool.join()
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(_use_all, [(bucket, seed) for seed in range(4)])) == [0] * 4
    sizes = [int(path.name.partition("-")[2]) for path in copies(cache)]
    assert sum(sizes) <= 1_600_000
    assert not list(cache.rglob("*.part"))


def test_one_of_many_processes_fetches(store: Store, bucket: str, network: Network) -> None:
    _put(bucket, ["a"])
    before = network.bytes_answered
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(_size, [f"{bucket}/a"] * 8)) == [300_000] * 8
    assert network.bytes_answered - before < 2 * 300_000


def _size(url: str) -> int:
    with fetched(url) as path:
        return path.stat().st_size


def test_a_full_disk_is_one_sentence(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _put(bucket, ["a"])

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device", "/x")

    monkeypatch.setattr(Folder, "download", full)
    with pytest.raises(UserError, match=f"no space left in the cache {cache_folder()} to fetch {bucket}/a; free some"):
        FileRef(f"{bucket}/a").load()


def test_a_lock_that_was_removed_while_waited_for_counts_for_nothing() -> None:
    inside, leave = threading.Event(), threading.Event()

    def wait() -> None:
        with _locked("0" * 32, fcntl.LOCK_EX):
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=wait)
    with _locked("0" * 32, fcntl.LOCK_EX):
        thread.start()
        time.sleep(0.2)  # it waits now; if it does not yet, the test passes for another reason
        (cache_folder() / "00" / ("0" * 32 + ".lock")).unlink()
    assert inside.wait(30)
    with pytest.raises(BlockingIOError), _locked("0" * 32, fcntl.LOCK_EX | fcntl.LOCK_NB):
        pass
    leave.set()
    thread.join()


def test_an_object_replaced_between_look_and_download_is_told(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _put(bucket, ["a"])
    download = Folder.download

    def too_late(folder: Folder, name: str, path: Path) -> str:
        folder.write(name, b"new")
        return download(folder, name, path)

    monkeypatch.setattr(Folder, "download", too_late)
    with pytest.raises(UserError, match=f"{bucket}/a was replaced while it was read"), fetched(f"{bucket}/a"):
        pass
