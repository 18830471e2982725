"""What was prepared once is kept within bounds, per content and transform, and a damaged copy is never believed."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from medray.data.cache import Arrays, SampleCache

MB = 10**6


class Maker:
    def __init__(self, size_mb: float = 1.0) -> None:
        self.calls = 0
        self.size = int(size_mb * MB)

    def __call__(self) -> Arrays:
        self.calls += 1
        return {"image": np.full(self.size, self.calls, np.uint8), "mask": np.ones((2, 3), np.complex64)}


@pytest.fixture(params=["memory", "disk", "both"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> SampleCache:
    memory, disk = request.param in ("memory", "both"), request.param in ("disk", "both")
    return SampleCache(memory_gb=0.1 * memory, disk_gb=0.1 * disk, folder=tmp_path)


def test_a_sample_is_made_once_per_content_and_transform(cache: SampleCache) -> None:
    make = Maker()
    first = cache.get(("fingerprint", "zscore"), make)
    again = cache.get(("fingerprint", "zscore"), make)
    assert make.calls == 1
    for name, array in first.items():
        np.testing.assert_array_equal(again[name], array)
        assert again[name].dtype == array.dtype
    cache.get(("fingerprint", "percentile"), make)
    cache.get(("other fingerprint", "zscore"), make)
    assert make.calls == 3
    assert (cache.hits, cache.misses) == (1, 3)


def test_memory_keeps_its_bound_and_what_was_used_last() -> None:
    cache = SampleCache(memory_gb=0.0035)  # three of 1 MB
    make = Maker()
    for key in "abc":
        cache.get(key, make)
    cache.get("a", make)
    cache.get("d", make)  # b goes
    assert make.calls == 4
    cache.get("a", make)
    cache.get("d", make)
    assert make.calls == 4
    cache.get("b", make)
    assert make.calls == 5
    assert sum(sum(v.nbytes for v in arrays.values()) for arrays in cache._memory.values()) <= 3.5 * MB


def test_disk_keeps_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medray.data.cache._LOOK_EVERY", 1)
    cache = SampleCache(disk_gb=0.005, folder=tmp_path)
    make = Maker()
    for key in range(12):
        cache.get(key, make)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.npz")) <= 5 * MB
    cache.get(11, make)
    assert make.calls == 12


def test_the_disk_outlives_the_process_and_the_memory_does_not(tmp_path: Path) -> None:
    make = Maker()
    cache = SampleCache(memory_gb=1, disk_gb=1, folder=tmp_path)
    cache.get("a", make)
    copy = pickle.loads(pickle.dumps(cache))
    assert not copy._memory
    copy.get("a", make)
    assert make.calls == 1
    assert copy.hits == 1


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_copy_is_made_anew(tmp_path: Path, damage: str) -> None:
    make = Maker()
    cache = SampleCache(disk_gb=1, folder=tmp_path)
    cache.get("a", make)
    (path,) = tmp_path.rglob("*.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"cut": content[: len(content) // 2], "flip": content, "empty": b""}[damage])
    assert cache.get("a", make)["image"][0] == 2
    assert cache.get("a", make)["image"][0] == 2
    assert make.calls == 2


def test_a_full_or_forbidden_disk_costs_the_cache_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    cache = SampleCache(memory_gb=1, disk_gb=1, folder=tmp_path)
    make = Maker()
    cache.get("a", make)
    cache.get("b", make)
    assert caplog.text.count("takes no more") == 1
    assert not list(tmp_path.rglob("*.part"))


def _use(folder: Path, seed: int) -> None:
    cache = SampleCache(disk_gb=0.003, folder=folder)
    for step in range(40):
        number = (step * 7 + seed) % 9
        got = cache.get(number, lambda n=number: {"x": np.full(200_000, n, np.int32)})  # type: ignore[misc]
        assert (got["x"] == number).all()


def test_processes_share_it_without_seeing_half_a_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_use, args=(tmp_path, seed)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]


def test_nothing_is_kept_unless_asked(tmp_path: Path) -> None:
    cache, make = SampleCache(folder=tmp_path), Maker()
    cache.get("a", make)
    cache.get("a", make)
    assert make.calls == 2
    assert not list(tmp_path.iterdir())
