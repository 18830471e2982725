"""Scores of detected points over images, as table 2 of Xie et al. (MIDL 2019) has them. Shared by detection systems."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medray.metrics.detection import assign, best_f1, in_close_pairs, precision_recall_f1, quartiles
from medray.system import Row

CLOSE_PX = 12.0
"""Points nearer to another one than this count as packed."""
_MAX_PAIRS = 25_000_000  # an assignment without a limit holds a distance for each


@dataclass(frozen=True, kw_only=True)
class ScoredImage:
    """One image's detections beside its annotation. Points are (N, 2), rows and columns, px.

    Attributes:
        case: id.
        detected: all peaks, also those below any threshold.
        scores: one per peak.
        reference: annotated points.
        hits: `metrics.detection.hits_in_order` of them.
        positive_pixels: pixels above 0 of the map that the peaks are from.
        num_pixels: all its pixels.
        nms_s: CPU time from the map to the peaks.
        pixel_sums: sum and count of further scores; ``foreground_recall`` and ``background_recall`` give the balanced
            ``pixel_accuracy``, others their mean.
    """

    case: str
    detected: NDArray[np.float64]
    scores: NDArray[np.float64]
    reference: NDArray[np.float64]
    hits: NDArray[np.bool_]
    positive_pixels: int
    num_pixels: int
    nms_s: float
    pixel_sums: Mapping[str, tuple[float, float]]

    def sums(self, threshold: float, hit_px: float) -> dict[str, Any]:
        """Counts and distances at a threshold."""
        points = self.detected[self.scores >= threshold]
        hits = assign(points, self.reference, limit=hit_px)
        every = assign(points, self.reference) if len(points) * len(self.reference) <= _MAX_PAIRS else hits
        close = in_close_pairs(self.reference, CLOSE_PX)
        return {
            "hits": len(hits.distance),
            "detected": len(points),
            "annotated": len(self.reference),
            "close_hits": int(close[hits.reference].sum()),
            "close_annotated": int(close.sum()),
            "positive_pixels": self.positive_pixels,
            "num_pixels": self.num_pixels,
            "nms_s": self.nms_s,
            "images": 1,
            "assigned_px": every.distance,
            "hit_px": hits.distance,
        }


@dataclass(frozen=True)
class Summary:
    """Scores at one threshold: a row per image, and all images together."""

    threshold: float
    rows: list[Row]
    summary: dict[str, float]


def summarize(images: Sequence[ScoredImage], hit_px: float, threshold: float | None = None) -> Summary:
    """Scores of all images at a threshold; at the one of best F1 over them if none is given."""
    if threshold is None:
        scores = np.concatenate([image.scores for image in images])
        hits = np.concatenate([image.hits for image in images])
        threshold = best_f1(scores, hits, sum(len(image.reference) for image in images)).threshold
    parts = [image.sums(threshold, hit_px) for image in images]
    rows: list[Row] = [
        {"case": image.case, **_scores(part, image.pixel_sums)} for image, part in zip(images, parts, strict=True)
    ]
    total = {
        name: np.concatenate([p[name] for p in parts]) if name.endswith("_px") else sum(p[name] for p in parts)
        for name in parts[0]
    }
    pixels: dict[str, tuple[float, float]] = {}
    for image in images:
        for name, (amount, count) in image.pixel_sums.items():
            before = pixels.get(name, (0.0, 0.0))
            pixels[name] = (before[0] + amount, before[1] + count)
    summary = _scores(total, pixels)
    for name in ("detected", "annotated"):  # means over images, beside their rows, and sums
        summary[f"{name}_in_all"], summary[name] = summary[name], summary[name] / len(images)
    return Summary(threshold, rows, summary)


def _scores(sums: Mapping[str, Any], pixels: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Scores from counts and distances, of one image or of all together; a share of nothing is left out.

    ``distance_`` is of all assigned pairs however far apart, as the paper has it; ``hit_distance_`` of the hits.
    """
    precision, recall, f1 = precision_recall_f1(sums["hits"], sums["detected"], sums["annotated"])
    found = {"f1": f1, "precision": precision, "recall": recall}
    found["close_recall"] = precision_recall_f1(sums["close_hits"], 0, sums["close_annotated"])[1]
    for name, distances in (("distance", sums["assigned_px"]), ("hit_distance", sums["hit_px"])):
        found.update(zip((f"{name}_q1_px", f"{name}_median_px", f"{name}_q3_px"), quartiles(distances), strict=True))
    found["detected"], found["annotated"] = sums["detected"], sums["annotated"]
    found["positive_percent"] = 100 * sums["positive_pixels"] / sums["num_pixels"]
    found["nms_s"] = sums["nms_s"] / sums["images"]
    shares = {name: total / count for name, (total, count) in pixels.items() if count}
    if {"foreground_recall", "background_recall"} <= set(shares):
        found["pixel_accuracy"] = (shares.pop("foreground_recall") + shares.pop("background_recall")) / 2
    return {name: value for name, value in {**found, **shares}.items() if math.isfinite(value)}
