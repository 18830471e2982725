"""What holds for all tests; set before torch and ray are imported."""

import os
import secrets
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from chromium import BROWSER, Chromium
from object_store import Network, Store, object_store

_BUCKETS = count(1)

# One thread per process: the tests run on few cores, and tiny networks gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A token of their own for the clusters that tests start; without it Ray would leave one in the home directory.
if "RAY_AUTH_MODE" not in os.environ:
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side (``-n 2 --dist loadgroup``), a file stays on one worker; contract tests stay with their system's
    others instead, whatever file they are in, since they look at one smoke run."""
    for item in items:
        system = getattr(item, "callspec", None) and item.callspec.params.get("slug")  # type: ignore[attr-defined]
        item.add_marker(pytest.mark.xdist_group(system or item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """An emulated object store in a process of its own; from its first use on, AWS_* point at it."""
    with object_store() as running:
        yield running


@pytest.fixture
def bucket(store: Store) -> str:
    """Url of an empty bucket."""
    return store.bucket(f"bucket{next(_BUCKETS)}")


@pytest.fixture
def network(store: Store) -> Iterator[Network]:
    """A network between this test and the store that can misbehave."""
    with store.bad_network() as proxy:
        yield proxy


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A headless Chromium; the test is skipped where there is none."""
    if BROWSER is None:
        pytest.skip("no Chromium or Chrome in PATH")
    browser = Chromium(tmp_path_factory.mktemp("chromium") / "profile")
    yield browser
    browser.close()


@pytest.fixture
def real_data() -> Path:
    """Folder of small real datasets; the test is skipped where there is none."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("MEDRAY_REAL_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MEDRAY_REAL_DATA")
    return folder
