"""Scans in, scores out: what every detector of anomalies does around its model.

A scan is brought to [0, 1] by its own minimum and maximum, its histogram may be matched to a healthy reference, and it
is cut into slices. Pixels at exactly 0 are background (skull-stripped scans); only the others are ever counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.exposure import match_histograms
from torch import Tensor

from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.data.geometry import Grid
from medray.data.slices import SliceGrid, SliceReader
from medray.errors import UserError
from medray.figures.drawing import to_png
from medray.figures.panels import Panel, panel_rows
from medray.metrics.anomaly import ScoreCounts
from medray.system import Evaluation, Figure, Row

LIMITS = (1, 5, 10)
"""False positive rates on healthy scans that thresholds are set for, percent."""
_QUANTILES = 512
_EXAMPLES = 4


@dataclass(frozen=True)
class Scan:
    """One scan on the model's grid.

    Attributes:
        case: its id.
        image: (Z, H, W) float32 in [0, 1].
        lesion: where the lesions are, (Z, H, W); None for a scan without label map.
        listed: slices with enough brain in them.
        grid: of the stack, for the way back.
    """

    case: str
    image: NDArray[np.float32]
    lesion: NDArray[np.bool_] | None
    listed: Sequence[int]
    grid: Grid

    @property
    def brain(self) -> NDArray[np.bool_]:
        """Everything but background, (Z, H, W)."""
        return self.image > 0


@dataclass(frozen=True)
class Detected:
    """What a detector says about a scan.

    Attributes:
        scan: the scan it looked at.
        healthy: the scan as it would look without lesions, (Z, H, W); the scan itself in slices not listed.
        residual: absolute difference of the two, 0 outside the brain.
    """

    scan: Scan
    healthy: NDArray[np.float32]
    residual: NDArray[np.float32]


class ScanReader:
    """Reads cases as scans.

    Args:
        grid: how slices are cut.
        reference: what `reference_of` says of a healthy scan; empty matches nothing.
        cache: keeps what was decoded.
    """

    def __init__(self, grid: SliceGrid, reference: Sequence[float] = (), cache: SampleCache | None = None) -> None:
        self.slices = SliceReader(grid, cache=cache)
        self.reference = np.asarray(reference, dtype=np.float32)

    def read(self, case: Case, *, match: bool = False) -> Scan:
        """The scan of a case.

        Args:
            case: with the field ``image``, maybe ``label``.
            match: match the brain's histogram to the reference, as the paper does for scans of another scanner. With a
                lesion in the scan this biases the intensities; that is part of the method.

        Raises:
            UserError: the case cannot be read.
        """
        stack = self.slices.stack(case)
        image = stack.image[:, 0]
        if match and len(self.reference):
            image = matched(image, self.reference)
        lesion = stack.labels["label"] > 0 if "label" in stack.labels else None
        return Scan(case.id, image, lesion, [ref.index for ref in self.slices.refs(case)], stack.grid)


class HealthySlices:
    """The slices a model of healthy brains learns from.

    Args:
        grid: how slices are cut.
        cases: healthy subjects.
        every: takes each n-th slice with brain in it.
        cache: keeps what was decoded.

    Raises:
        UserError: there is no slice with enough brain in it.
    """

    def __init__(
        self, grid: SliceGrid, cases: Sequence[Case], every: int = 1, cache: SampleCache | None = None
    ) -> None:
        self.reader = ScanReader(grid, cache=cache)
        scans = [(case, self.reader.read(case).listed[::every]) for case in cases]
        self.refs = [(case, index) for case, listed in scans for index in listed]
        if not self.refs:
            raise UserError(
                f"none of the {len(cases)} healthy scans has a slice with {100 * grid.occupied:g} % of its pixels "
                "above the background; scans are expected to be skull-stripped and to fill the grid"
            )

    def __len__(self) -> int:
        return len(self.refs)

    def name(self, index: int) -> str:
        """Case and slice."""
        case, z = self.refs[index]
        return f"{case.id}/z={z}"

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Slices by number, (B, 1, H, W) in [0, 1]."""
        refs = [self.refs[index] for index in indices]
        return torch.from_numpy(np.stack([self.reader.slices.stack(case).image[z, :1] for case, z in refs]))


def reference_of(scan: Scan) -> list[float]:
    """Quantiles of a scan's brain: all that histogram matching needs to know of it."""
    return [float(q) for q in np.quantile(scan.image[scan.brain], np.linspace(0, 1, _QUANTILES))]


def matched(image: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float32]:
    """The image with its brain's histogram made that of the reference; background stays 0."""
    brain = image > 0
    result = image.copy()
    if brain.any():
        result[brain] = match_histograms(image[brain], reference)
    return result


def score(found: Detected, thresholds: Mapping[int, float]) -> tuple[Row, ScoreCounts]:
    """The row of one scan, and the counts that pooled scores are made of.

    Args:
        found: of a scan; without a label map it counts as healthy.
        thresholds: residual by false positive rate in percent.

    Returns:
        Row with auc and dice_fpr<limit> where there are lesions, and fpr<limit>_percent, over listed slices.
    """
    scan, listed = found.scan, list(found.scan.listed)
    brain = scan.brain[listed]
    residual = found.residual[listed]
    lesion = np.zeros_like(brain) if scan.lesion is None else scan.lesion[listed] & brain
    counts = ScoreCounts.of(residual, lesion, brain)
    row: Row = {"case": scan.case, "lesion_px": int(lesion.sum())}
    if lesion.any():
        row["auc"] = counts.auc()
    for limit, threshold in thresholds.items():
        called = (residual > threshold) & brain
        if lesion.any():
            row[f"dice_fpr{limit}"] = 2 * float((called & lesion).sum()) / float(called.sum() + lesion.sum())
        row[f"fpr{limit}_percent"] = 100 * float((called & ~lesion).sum()) / max(1, int((brain & ~lesion).sum()))
    return row, counts


def summarize(
    scored: Sequence[tuple[Row, ScoreCounts]], thresholds: Mapping[int, float], figures: Sequence[Figure]
) -> Evaluation:
    """AUC and Youden point over the pixels of all scans together, Dice over scans with lesions (as in table 1)."""
    rows = [dict(row) for row, _ in scored]
    if not rows:
        return Evaluation(rows=[], summary={}, figures=figures)
    pooled = scored[0][1]
    for _, counts in scored[1:]:
        pooled = pooled + counts
    summary: dict[str, float] = {}
    if pooled.counts[1].any():
        best, fpr, fnr = pooled.youden()
        summary = {"auc": pooled.auc(), "youden_fpr": fpr, "youden_fnr": fnr, "youden_threshold": best}
        for row, (_, counts) in zip(rows, scored, strict=True):
            if row["lesion_px"]:
                row["dice_youden"] = counts.dice(best)
    names = ["dice_youden", *(f"dice_fpr{limit}" for limit in thresholds)]
    for name in names:
        values = [float(row[name]) for row in rows if name in row]
        if values:
            summary[name] = sum(values) / len(values)
    healthy = [int(counts.counts[0].sum()) for _, counts in scored]
    for limit in thresholds:
        name = f"fpr{limit}_percent"
        false = sum(float(row[name]) * pixels for row, pixels in zip(rows, healthy, strict=True))
        summary[name] = false / max(1, sum(healthy))
    return Evaluation(rows=rows, summary=summary, figures=figures)


def picture(found: Sequence[Detected], threshold: float, *, name: str, caption: str) -> Figure:
    """Scan, healthy version, residual and detection of the slice with the largest lesion (or residual) of each scan."""
    rows = []
    for one in found[:_EXAMPLES]:
        scan = one.scan
        amount = one.residual if scan.lesion is None or not scan.lesion.any() else scan.lesion
        z = max(scan.listed or range(len(scan.image)), key=lambda index: float(amount[index].sum()))
        lesion = None if scan.lesion is None else scan.lesion[z]
        image, called = scan.image[z], one.residual[z] > threshold
        end = max(1.5 * threshold, float(np.percentile(one.residual[z], 99.5)), 1e-6)
        rows.append(
            [
                Panel(image, f"scan\n{scan.case}, slice {z}", (0.0, float(image.max()) or 1.0)),
                Panel(one.healthy[z], "as if healthy", (0.0, float(image.max()) or 1.0)),
                Panel(one.residual[z], f"residual, 0 to {end:.2f}", (0.0, end), "inferno"),
                Panel(image, "detected solid, true dashed", (0.0, float(image.max()) or 1.0), "gray", called, lesion),
            ]
        )
    return Figure(name=name, caption=caption, png=to_png(panel_rows(rows, title=caption)))
