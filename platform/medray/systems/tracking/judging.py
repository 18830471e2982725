"""How the paper judges traces: coverage, error, loss of track and entropy, of each image and of all together."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medray.data.writers import write_bytes
from medray.metrics.statistics import ratio
from medray.metrics.tracing import TraceScore
from medray.metrics.track_entropy import EntropyTable, entropy_table
from medray.system import Row
from medray.systems.tracking.traced_cases import FloatArray, TracedCase


@dataclass(frozen=True)
class Judged:
    """A row per case, all together, and the table of entropies."""

    rows: list[Row]
    summary: dict[str, float]
    entropy: EntropyTable
    errors: FloatArray = field(repr=False)


def judge(traced: Sequence[TracedCase]) -> Judged:
    """Scores of traced cases; sums and counts are added before they are divided."""
    table = entropy_table({one.case: one.entropy() for one in traced})
    rows: list[Row] = []
    for one, entropy in zip(traced, table.rows, strict=True):
        told = {**_scores([one]), "entropy_on": entropy.on_mean, "entropy_off": entropy.off_mean}
        rows.append({"case": one.case, **_finite(told)})
    summary = {
        **_scores(traced),
        "entropy_difference": table.difference,
        "entropy_p": table.p_images,
        "entropy_num_images": float(table.num_images),
        "entropy_point_difference": table.point_difference,
    }
    errors = np.concatenate([one.entropy()[1] for one in traced])
    return Judged(rows, _finite(summary), table, errors)


def _scores(traced: Sequence[TracedCase]) -> dict[str, float]:
    own = sum((score for one in traced for score in one.scores(one.traces)), TraceScore())
    ruled = sum((score for one in traced for score in one.scores(one.ruled)), TraceScore()).metrics()
    unions = [one.union() for one in traced]
    traces = [trace for one in traced for trace in one.traces]
    count = len(traces)
    return {
        **own.metrics(),
        "union_coverage_pct": 100 * ratio(sum(part for part, _ in unions), sum(whole for _, whole in unions)),
        "reached_pct": 100 * ratio(sum(trace.stopped == "end reached" for trace in traces), count),
        "ruled_coverage_pct": ruled["coverage_pct"],
        "ruled_error_px": ruled["error_px"],
        "num_branches": float(count),
        "num_steps": ratio(sum(len(trace.points) - 1 for trace in traces), count),
        "branch_ms": 1000 * ratio(sum(one.seconds * len(one.traces) for one in traced), count),
    }


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}


def write_branches(path: Path, traced: Sequence[TracedCase]) -> Path:
    """A CSV with a line per branch: coverage, errors, length and why its trace stopped."""
    buffer = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for one in traced:
        for number, (score, trace) in enumerate(zip(one.scores(one.traces), one.traces, strict=True)):
            row = {"case": one.case, "branch": number, "stopped": trace.stopped, "trace_length_px": trace.length_px}
            row |= {name: round(value, 4) for name, value in score.metrics().items()}
            if writer is None:
                writer = csv.DictWriter(buffer, list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
    return write_bytes(path, buffer.getvalue().encode())
