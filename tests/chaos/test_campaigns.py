"""A campaign that loses its actors, its driver and a node ends with the same labels, asked for in the same order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.campaigns import MEMBERS, undisturbed, with_actors_killed, with_drivers_killed

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"))


def test_each_actor_killed_twice_and_a_node(tmp_path: Path, reference: dict[str, Any]) -> None:
    found, killed = with_actors_killed(tmp_path / "run", seed=0)
    assert Counter(killed) == {**dict.fromkeys(MEMBERS, 2), "node": 1}
    assert found == reference


def test_the_driver_killed_three_times(tmp_path: Path, reference: dict[str, Any]) -> None:
    assert with_drivers_killed(tmp_path / "run", seed=0, kills=3) == reference
