"""Both steps on every fold, side by side: first all U-Nets, then all classifiers on the crops of their masks."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medray.data.case import Case
from medray.learner import Learner
from medray.metrics.segmentation import confusion
from medray.system import FitResult, Row, Workbench
from medray.systems.shoulder.goutallier_config import GoutallierConfig
from medray.systems.shoulder.goutallier_folds import Fold
from medray.systems.shoulder.goutallier_grader import Graded, GraderLearner
from medray.systems.shoulder.goutallier_images import YViewReader, shared_cache
from medray.systems.shoulder.goutallier_labels import grade_of, is_risky
from medray.systems.shoulder.goutallier_networks import probabilities, trained_graders, trained_segmenters
from medray.systems.shoulder.goutallier_regions import Region, muscle_mask, region_of, whole_image
from medray.systems.shoulder.goutallier_segmenter import SegmenterLearner

Regions = Mapping[str, Region]
Records = list[dict[str, Any]]


@dataclass(frozen=True)
class FoldResult:
    """What one of the two steps left of one fold.

    Attributes:
        fit: how the training ended.
        records: its curves, as in metrics.jsonl; empty where the log is on another machine.
        rows: one for each held-out case.
        regions: of every case, of the first step.
    """

    fit: FitResult
    records: Records
    rows: list[Row]
    regions: Regions


def segment_folds(work: Workbench, config: GoutallierConfig, folds: Sequence[Fold]) -> list[FoldResult]:
    """Train a U-Net on every fold and find the muscle in all of its cases; nothing where crops need none."""
    if not config.segments:
        return []
    return work.map_runs(functools.partial(_segment, config), folds, name="segmentation")


def _segment(config: GoutallierConfig, work: Workbench, fold: Fold) -> FoldResult:
    reader = YViewReader(config.image_size, shared_cache(work.cache))
    reader.read_ahead(fold.cases)
    make = functools.partial(SegmenterLearner, config, fold.train, fold.selection, reader.cache)
    fit, records = _fit(work, make, "segmentation")
    (network,) = trained_segmenters(config, [_weights(fit)])
    found = probabilities(network, [reader.network_image(case) for case in fold.cases])
    masks = {
        case.id: muscle_mask(probability, reader.image(case).shape)
        for case, probability in zip(fold.cases, found, strict=True)
    }
    regions = {name: region_of(mask, config.margin) for name, mask in masks.items()}
    rows: list[Row] = []
    for case in fold.held_out:
        rates = confusion(masks[case.id], reader.mask(case)).rates()
        row: Row = {"case": case.id, "fold": fold.number, "dice": rates["dice"], "pixel_accuracy": rates["accuracy"]}
        rows.append(row | {"whole_image": float(regions[case.id].is_fallback)})
    return FoldResult(fit, records, rows, regions)


def classify_folds(
    work: Workbench,
    config: GoutallierConfig,
    folds: Sequence[Fold],
    segmented: Sequence[FoldResult],
    *,
    name: str = "grading",
) -> list[FoldResult]:
    """Train a classifier on every fold and score its held-out cases.

    Args:
        work: where to run.
        config: the method's settings.
        folds: the same as those of ``segmented``.
        segmented: the first step of every fold; not looked at where the crops need none.
        name: of the folder.
    """
    items = [(fold, _training_regions(config, fold, folds, segmented)) for fold in folds]
    return work.map_runs(functools.partial(_classify, config), items, name=name)


def _training_regions(
    config: GoutallierConfig, fold: Fold, folds: Sequence[Fold], segmented: Sequence[FoldResult]
) -> Regions | None:
    """Regions of the fold's cases; None where they do not come from a U-Net.

    Out of fold, a training case's mask is that of the U-Net which had it held out. That one has seen masks of this
    fold's held-out cases, though never a grade.
    """
    if not config.segments:
        return None
    regions = dict(segmented[fold.number].regions)
    if config.crops == "out_of_fold":
        train = {case.id for case in fold.train}
        for other, step in zip(folds, segmented, strict=True):
            regions |= {case.id: step.regions[case.id] for case in other.held_out if case.id in train}
    return regions


def _classify(config: GoutallierConfig, work: Workbench, item: tuple[Fold, Regions | None]) -> FoldResult:
    fold, regions = item
    reader = YViewReader(config.image_size, shared_cache(work.cache))
    reader.read_ahead(fold.cases)
    train, selection, held_out = (
        graded(config, cases, regions, reader) for cases in (fold.train, fold.selection, fold.held_out)
    )
    fit, records = _fit(work, functools.partial(GraderLearner, config, train, selection, reader.cache), "grading")
    (network,) = trained_graders(config, [_weights(fit)])
    background = config.mask_background
    crops = [reader.crop(one.case, one.region, mask_background=background) for one in held_out]
    rows: list[Row] = [
        {"case": one.case.id, "fold": fold.number, "grade": grade_of(one.case), "risky": int(one.risky),
         "probability_risky": float(value)}
        for one, value in zip(held_out, probabilities(network, crops), strict=True)
    ]  # fmt: skip
    return FoldResult(fit, records, rows, {})


def graded(
    config: GoutallierConfig, cases: Sequence[Case], regions: Regions | None, reader: YViewReader
) -> list[Graded]:
    """The cases that the classifier is about, with what it looks at."""
    found = []
    for case in cases:
        risky = is_risky(case, config.grade2)
        if risky is None:
            continue
        if regions is not None:
            region = regions[case.id]
        else:
            mask = reader.mask(case)
            region = region_of(mask, config.margin) if config.roi == "manual" else whole_image(mask)
        found.append(Graded(case, region, risky))
    return found


def _fit(work: Workbench, make: Callable[[], Learner], name: str) -> tuple[FitResult, Records]:
    """Train, and read what the loop logged where its log lies on this machine."""
    fit = work.fit(make, name=name)
    path = work.out / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return fit, [line for line in lines if line.get("loop") == name and line.get("name") in ("train", "validation")]


def _weights(fit: FitResult) -> Path:
    assert fit.weights is not None
    return fit.weights
