"""Scores of a tear classifier on test cases: tables 2 and 3 of the paper, and where its heat map points.

The heat map is scored on true tears whose mask is known, as on the phantom. A peak counts as a hit up to one voxel of
the two-block map beyond the tear, the same distance for every network, so that a coarser map gains nothing by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.data.fields import case_fingerprint
from medray.metrics.classification import mean_defined
from medray.metrics.localisation import hit, hit_by_chance, mass_inside, peak_distance_mm
from medray.metrics.ordered import flat, median_quartiles, ordered_intervals, repeated_scores
from medray.system import Row, Trained
from medray.systems.shoulder.vrn_config import VrnConfig
from medray.systems.shoulder.vrn_inference import Finding, look_at, trained_network
from medray.systems.shoulder.vrn_labels import CLASSES, classes_of
from medray.systems.shoulder.vrn_volumes import Cube, CubeReader

REPEATED = ("top1", "top1_within_1", "sensitivity", "specificity")
"""Scores that table 3 has as medians over repetitions."""
CAM_SCORES = ("cam_hit", "cam_hit_of_class", "cam_hit_by_chance", "cam_mass_in_tear", "cam_peak_distance_mm")
_CAM_NAMES = {"cam_hit": "cam_hit_rate", "cam_hit_of_class": "cam_hit_rate_of_class",
              "cam_hit_by_chance": "cam_hit_chance"}  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """A test case's row, and what pictures are drawn from."""

    row: Row
    cube: Cube
    finding: Finding


def score_cases(config: VrnConfig, trained: Trained, cache: SampleCache, cases: Sequence[Case]) -> list[Scored]:
    """Look at some test cases. Runs as a Ray task."""
    network, reader = trained_network(config, trained.weights), CubeReader(config.cropper, cache)
    scored = []
    for case, truth in zip(cases, classes_of(cases), strict=True):
        cube = reader.read(case, with_tear=True)
        key = case_fingerprint(case, ["image"])
        finding = look_at(network, cube, repeats=config.repeats, key=key)
        scored.append(Scored(_row(config, case.id, int(truth), cube, finding), cube, finding))
    return scored


def _row(config: VrnConfig, name: str, truth: int, cube: Cube, finding: Finding) -> Row:
    away = abs(finding.predicted - truth)
    row: Row = {"case": name, "true": CLASSES[truth], "predicted": CLASSES[finding.predicted]}
    row |= {f"p_{kind}": float(p) for kind, p in zip(CLASSES, finding.probability, strict=True)}
    row |= {"p_tear": finding.p_tear, "top1": float(away == 0), "top1_within_1": float(away <= 1)}
    row["binary_accuracy"] = float((finding.p_tear > 0.5) == (truth > 0))
    if config.repeats:
        row["repeats"] = "".join(str(number) for number in finding.repeats)
    if cube.tear is not None and truth > 0:
        row |= cam_scores(config, cube, cube.tear, finding)
    return row


def cam_scores(config: VrnConfig, cube: Cube, tear: NDArray[np.bool_], finding: Finding) -> dict[str, float]:
    """`CAM_SCORES` of one tear; distances in mm from the peak to the nearest voxel of the tear."""
    heat, reach = finding.shown(config), config.tolerance_px
    return {
        "cam_hit": hit(heat, tear, reach),
        "cam_hit_of_class": hit(finding.heat_of_class, tear, reach),
        "cam_hit_by_chance": hit_by_chance(tear, reach),
        "cam_mass_in_tear": mass_inside(heat, tear),
        "cam_peak_distance_mm": peak_distance_mm(heat, tear, cube.grid.spacing),
    }


def truth_of(rows: Sequence[Row]) -> NDArray[np.int64]:
    """True classes of rows, (N,)."""
    return np.array([CLASSES.index(str(row["true"])) for row in rows], dtype=np.int64)


def repeats_of(rows: Sequence[Row]) -> NDArray[np.int64]:
    """Classes of all repetitions, (R, N); R is 0 where nothing was repeated."""
    return np.array([[int(digit) for digit in str(row.get("repeats", ""))] for row in rows], dtype=np.int64).T


def summarize(rows: Sequence[Row], patients: Sequence[str]) -> dict[str, float]:
    """Scores with bootstrap intervals (``_low``, ``_high``), medians of the repetitions with quartiles, and the heat
    map's scores over true tears.

    Args:
        rows: of the test cases.
        patients: of each row; the bootstrap draws them whole, since someone's two shoulders are not independent.
    """
    truth = truth_of(rows)
    predicted = np.array([CLASSES.index(str(row["predicted"])) for row in rows])
    tear = np.array([float(row["p_tear"]) > 0.5 for row in rows])
    summary = flat(ordered_intervals(truth, predicted, diseased=tear, groups=patients), ("low", "high"))
    repeated = repeated_scores(truth, repeats_of(rows)) if "repeats" in rows[0] else {}
    for name in REPEATED if repeated else ():
        medians = {f"median_{name}": median_quartiles(repeated[name])}
        summary |= flat(medians, ("q1", "q3"))
    for name in CAM_SCORES:
        values = [float(row[name]) for row in rows if name in row]
        if values:
            summary[_CAM_NAMES.get(name, name)] = mean_defined(values)
    return summary
