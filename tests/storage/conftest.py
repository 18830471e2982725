"""One emulated object store for all tests here, with a fresh bucket each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from object_store import Store, object_store

_NUMBERS = count(1)


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    with object_store() as running:
        yield running


@pytest.fixture
def bucket(store: Store) -> str:
    """Url of an empty bucket."""
    return store.bucket(f"bucket{next(_NUMBERS)}")
