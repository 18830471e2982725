"""Goutallier's grade of a case, and the question that the classifier answers: risky (3, 4) or not (0, 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from medray.data.case import BadCase, Case
from medray.systems.shoulder.goutallier_config import GRADES

NAMES = ("not risky (0-1)", "risky (3-4)")


def grade_of(case: Case) -> str:
    """The attribute ``grade`` without decimals that spreadsheets add; empty where there is none."""
    given = case.attributes.get("grade", "").strip()
    return given.removesuffix(".0")


def is_risky(case: Case, grade2: Literal["drop", "risky", "not_risky"]) -> bool | None:
    """Whether a case is risky; None where it is left out of the question (grade 2)."""
    grade = grade_of(case)
    if grade == "2":
        return None if grade2 == "drop" else grade2 == "risky"
    return grade in ("3", "4")


def grade_strata(cases: Sequence[Case]) -> Mapping[str, str]:
    """Case id to grade, for splits that give each part its share of every grade."""
    return {case.id: grade_of(case) for case in cases}


def grade_problems(cases: Sequence[Case]) -> list[BadCase]:
    """Cases without a grade, or with one that Goutallier does not have."""
    bad = []
    for case in cases:
        grade = grade_of(case)
        if not grade:
            bad.append(BadCase(case.id, "it has no grade; give one of 0 to 4 in the column grade of the table"))
        elif grade not in GRADES:
            bad.append(BadCase(case.id, f"its grade {grade!r} is none of Goutallier's, which are 0 to 4"))
    return bad
