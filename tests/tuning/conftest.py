"""A browser for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chromium import BROWSER, Chromium


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A headless Chromium; the test is skipped where there is none."""
    if BROWSER is None:
        pytest.skip("no Chromium or Chrome in PATH")
    browser = Chromium(tmp_path_factory.mktemp("chromium") / "profile")
    yield browser
    browser.close()
