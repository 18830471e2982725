"""Where a setting is on an axis: numbers where they are, choices side by side in their own order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tuning.report.results import shown
from tuning.space import Choice, Dimension, Value


def place(dimension: Dimension, value: Value) -> float:
    """Position of a setting."""
    values = dimension.values
    if isinstance(values, Choice):
        return float([repr(one) for one in values.values].index(repr(value)))
    return float(value)


def is_log(dimension: Dimension) -> bool:
    """Whether the axis is logarithmic."""
    return not isinstance(dimension.values, Choice) and dimension.values.log


def extent(dimension: Dimension) -> tuple[float, float]:
    """The first and the last position."""
    values = dimension.values
    return (0.0, len(values.values) - 1.0) if isinstance(values, Choice) else (values.low, values.high)


def axis(dimension: Dimension) -> Mapping[str, Any]:
    """The axis for plotly."""
    low, high = extent(dimension)
    title = {"text": dimension.name}
    if isinstance(dimension.values, Choice):
        texts = [shown(value) for value in dimension.values.values]
        return {
            "title": title,
            "tickvals": list(range(len(texts))),
            "ticktext": texts,
            "range": [low - 0.4, high + 0.4],
        }
    kind: Mapping[str, Any] = {"type": "linear"}
    if is_log(dimension):
        low, high = math.log10(low), math.log10(high)
        kind = {"type": "log", "tickformat": "~g", **({"dtick": 1} if high - low >= 2 else {})}
    margin = 0.04 * (high - low)
    return {"title": title, **kind, "range": [low - margin, high + margin]}


def described(dimension: Dimension) -> str:
    """What was searched, for people."""
    values = dimension.values
    if isinstance(values, Choice):
        return ", ".join(shown(value).replace(" ", "\u00a0") for value in values.values)
    low, high = values.corners
    kinds = {"whole": values.whole, "logarithmic": values.log, f"in steps of {values.step:g}": values.step}
    return ", ".join([f"{shown(low)} to {shown(high)}", *(kind for kind, is_so in kinds.items() if is_so)])
