"""Names of metrics and numbers, as people read them."""

from __future__ import annotations

import math

import pytest

from medray.report.measures import duration, families, number, parse


@pytest.mark.parametrize(
    ("key", "label", "unit", "better"),
    [
        ("dice_left_kidney", "Dice left kidney", "", "higher"),
        ("hd95_liver_mm", "HD95 liver", "mm", "lower"),
        ("hd95_mm_liver", "HD95 liver", "mm", "lower"),
        ("epe_px", "EPE", "px", "lower"),
        ("folded_percent", "Folded", "%", "lower"),
        ("dice_loss", "Dice loss", "", "lower"),
        ("seconds", "Seconds", "s", "lower"),
        ("cpu_s", "CPU", "s", "lower"),
        ("num_lesions", "Num lesions", "", ""),
        ("samples_per_second", "Samples per second", "", "higher"),
    ],
)
def test_a_name_says_label_unit_and_direction(key: str, label: str, unit: str, better: str) -> None:
    measure = parse(key)
    assert (measure.label, measure.unit, measure.better) == (label, unit, better)


def test_families_share_first_words_and_unit() -> None:
    found = families(["dice_liver", "epe_px", "dice", "surface_dice_liver", "surface_dice_spleen", "dice_left_kidney"])
    assert [(family.label, [label for label, _ in family.members]) for family in found] == [
        ("Dice", ["overall", "liver", "left kidney"]),
        ("EPE", ["EPE"]),
        ("Surface Dice", ["liver", "spleen"]),
    ]


@pytest.mark.parametrize(
    ("keys", "whole"),
    [
        (["dice_liver", "dice_mean", "dice_spleen"], "dice_mean"),
        (["dice_liver", "dice"], "dice"),
        (["dice_liver", "dice_spleen"], None),
        (["epe_px"], "epe_px"),
    ],
)
def test_what_stands_for_a_family_comes_first(keys: list[str], whole: str | None) -> None:
    (family,) = families(keys)
    assert (family.whole.key if family.whole else None) == whole
    if whole:
        assert family.members[0][1].key == whole


def test_words_that_say_how_a_number_was_made_join_nothing() -> None:
    keys = ["num_cases", "num_steps", "validation_dice", "validation_loss", "hd95_mm", "hd95_px"]
    assert [len(family.members) for family in families(keys)] == [1] * 6


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (math.nan, None, "–"),
        (math.inf, None, "∞"),
        (-math.inf, 3, "−∞"),
        (0.83456, None, "0.835"),
        (12.345, None, "12.3"),
        (-1234.5, None, "−1234"),
        (0.0, None, "0.00"),
        (-0.0001, 2, "0.00"),
        (0.000012, 4, "1.2e−5"),
    ],
)
def test_numbers_are_short_and_never_hide_a_value(value: float, digits: int | None, text: str) -> None:
    assert number(value, digits) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.23, "8.2 s"), (59.97, "1 min 0 s"), (192.4, "3 min 12 s"), (7505.0, "2 h 5 min"), (math.nan, "–")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
