"""The space of the Goutallier grader's learning rate."""

import math
from dataclasses import replace

import pytest

from medray.systems.shoulder.goutallier_config import GoutallierConfig
from medray.systems.shoulder.goutallier_scores import with_intervals
from tuning.spaces import NAMES, load_space


def test_the_papers_rate_is_in_the_middle_and_both_ends_are_settings() -> None:
    assert "goutallier_lr" in NAMES
    (dimension,) = load_space("goutallier_lr").dimensions
    low, high = dimension.values.corners
    assert math.sqrt(low * high) == pytest.approx(GoutallierConfig().lr)
    assert [replace(GoutallierConfig(), lr=rate).lr for rate in (low, high)] == [low, high]


def test_it_is_judged_by_a_metric_that_training_gives() -> None:
    given = with_intervals([{"num_risky": 3.0, "average_precision": 0.5}])
    assert set(load_space("goutallier_lr").objectives) <= set(given)
