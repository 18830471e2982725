"""Numbers of a campaign, by hand."""

from __future__ import annotations

import math

import pytest

from medray.active.records import RoundRecord
from medray.systems.active_learning.campaign_summary import area_under_curve, campaign_numbers, enrichment

RECORDS = [
    RoundRecord(0, 10, {"dice": 0.2}, picks=("b1", "a2")),
    RoundRecord(1, 20, {"dice": 0.4}, picks=("b2", "b3")),
    RoundRecord(2, 40, {"dice": 0.5}, num_rejected=1),
]
GROUPS = {"a1": "A", "a2": "A", "a3": "A", "a4": "A", "b1": "B", "b2": "B", "b3": "C", "x": ""}


def test_the_area_is_the_mean_height_over_labels() -> None:
    assert area_under_curve(RECORDS, "dice") == pytest.approx((10 * 0.3 + 20 * 0.45) / 30)
    assert area_under_curve(RECORDS[:1], "dice") == 0.2


def test_enrichment_compares_shares_of_what_is_not_the_largest_group() -> None:
    assert enrichment(["b1", "a1"], GROUPS, list(GROUPS)) == pytest.approx(0.5 / (3 / 7))
    assert enrichment(["a1"], GROUPS, list(GROUPS)) == 0.0
    assert math.isnan(enrichment(["x"], GROUPS, list(GROUPS)))
    assert math.isnan(enrichment(["a1"], {"a1": "A", "a2": "A"}, ["a1", "a2"]))


def test_a_campaign_is_told_in_numbers() -> None:
    told = campaign_numbers(RECORDS, "dice", GROUPS, {"a1", "a3"})
    assert told == pytest.approx({"area_dice": 0.4, "enrichment": 0.75 / (3 / 5), "labels": 40, "rejected": 1})
