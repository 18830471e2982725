"""VRN: how large a rotator cuff tear is and where, from one shoulder MRI. Shim et al., Scientific Reports 2020.

A Voxception-ResNet of two blocks sees a cube around the humeral head and names one of five ordered classes. Since it
ends in a global average and one linear layer, the same weights give a map of where it saw the tear, which no label told
it. Networks are in `vrn_networks`, cubes in `vrn_volumes`, the loop in `vrn_learner`, scores in `vrn_evaluation`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from medray.data.case import BadCase, Case, Source, Splits
from medray.data.fields import Kind
from medray.data.splits import split_by_patient
from medray.errors import UserError
from medray.figures.drawing import to_png
from medray.system import (
    ClaimResult,
    Evaluation,
    Figure,
    Prediction,
    PredictRequest,
    Preset,
    System,
    Trained,
    Variant,
    Workbench,
)
from medray.systems.shoulder.vrn_config import VARIANTS, VrnConfig
from medray.systems.shoulder.vrn_evaluation import Scored, score_cases, summarize
from medray.systems.shoulder.vrn_labels import CLASSES, class_problems, classes_of
from medray.systems.shoulder.vrn_learner import VrnLearner
from medray.systems.shoulder.vrn_pictures import cam_figures, groups_figure, score_figures, tag_of
from medray.systems.shoulder.vrn_prediction import other_plane, predict_scan
from medray.systems.shoulder.vrn_presets import PRESETS
from medray.systems.shoulder.vrn_readers import NETWORK, Reader, compare_groups, group_scores, read_readers
from medray.systems.shoulder.vrn_volumes import center_of, center_text

_CASES_PER_TASK = 16
_SHOWN = ("large", "medium", "small", "partial", "none")


class VrnRct(System[VrnConfig]):
    """None, partial, small, medium or large, and a heat map on the scan's own grid."""

    slug = "vrn_rct"
    config_class = VrnConfig
    predict_inputs = ("image",)
    predict_suffix = ".json"
    field_kinds: ClassVar[Mapping[str, Kind]] = {"tear": "label"}
    empty_labels = True  # no tear
    presets: ClassVar[Mapping[str, Preset]] = PRESETS
    variants: ClassVar[Mapping[str, Variant]] = VARIANTS

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        """The scan; a mask of the tear only scores the heat map."""
        return ("image",)

    def expected_dims(self) -> int:
        """Volumes."""
        return 3

    def problems(self, cases: Sequence[Case], known: Mapping[str, Any]) -> Sequence[BadCase]:
        """Unknown classes, slices in another plane, unreadable centers, scans that hold too little of the cube."""
        bad = class_problems(cases)
        unusable = {one.case for one in bad}
        for case in cases:
            reason = "" if case.id in unusable else self._problem(case)
            if reason:
                bad.append(BadCase(case.id, reason))
        return bad

    def _problem(self, case: Case) -> str:
        try:
            volume = case.volume("image")
            self.config.cropper.grid(volume, center_of(case))
        except UserError as error:
            return str(error)
        reason = other_plane(volume, self.config.plane)
        return f"{reason}, or --config.plane any" if reason else ""

    def split(self, source: Source, seed: int) -> Splits:
        """By patient; each part gets its share of every class (the paper drew at random)."""
        strata = {case.id: str(c) for case, c in zip(source.cases, classes_of(source.cases), strict=True)}
        validation, test = self.config.validation_fraction, self.config.test_fraction
        return split_by_patient(source.cases, validation=validation, test=test, seed=seed, strata=strata)

    def train(self, work: Workbench, splits: Splits) -> Trained:
        """One gradient loop.

        Raises:
            UserError: a class that no training case has, or a readers' table that `evaluate` could not use.
        """
        self._readers()
        absent = [name for c, name in enumerate(CLASSES) if c not in classes_of(splits.train)]
        if absent:
            raise UserError(
                f"no training case is of the class {' or '.join(absent)}, which the network could never learn; add "
                "cases, or a smaller test part with --config.test-fraction"
            )
        unplaced = sum(not center_text(case) for case in splits.train)
        if unplaced:
            work.say(f"{unplaced} of {len(splits.train)} training scans have no center_mm; theirs is the scan's middle")
        fit = work.fit(functools.partial(VrnLearner, self.config, splits.train, splits.validation, work.cache))
        return Trained(weights=fit.weights, about={"classes": list(CLASSES)}, metrics=fit.metrics, fits={"train": fit})

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        """Tables 2 and 3, readers beside it where a table of them is given, and where the heat map points."""
        readers = self._readers()
        chunks = [cases[start : start + _CASES_PER_TASK] for start in range(0, len(cases), _CASES_PER_TASK)]
        score = functools.partial(score_cases, self.config, trained, work.cache)
        scored = [one for chunk in work.map(score, chunks, name="evaluate") for one in chunk]
        rows = [one.row for one in scored]
        groups, tag = group_scores(rows, readers), tag_of(self.config)
        summary = summarize(rows, [case.patient for case in cases]) | (compare_groups(groups) if readers else {})
        figures = [
            *score_figures(tag, rows, groups),
            *cam_figures(self.config, tag, _examples(scored, self.config.examples)),
        ]
        return Evaluation(rows=rows, summary=summary, figures=figures)

    def _readers(self) -> list[Reader]:
        return read_readers(Path(self.config.readers)) if self.config.readers else []

    def overview(self, found: Mapping[str, tuple[Trained, Evaluation]]) -> Sequence[Figure]:
        """Repetitions of all compared variants side by side."""
        scores = {name: group_scores(evaluation.rows) for name, (_, evaluation) in found.items()}
        groups = {name: own[NETWORK] for name, own in scores.items() if own}
        if len(groups) < 2:
            return []
        p = compare_groups(groups)["kruskal_p_top1"]
        caption = f"Repetitions with dropout left on, median and quartiles; Kruskal-Wallis of top-1: p = {p:.2g}"
        return [Figure("variants", caption, to_png(groups_figure(groups)))]

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        """See `vrn_prediction.predict_scan`."""
        return predict_scan(self.config, trained, request)

    @classmethod
    def claim_setting(cls, preset: str) -> tuple[VrnConfig, str]:
        """What all arms of the claim share."""
        from medray.systems.shoulder.vrn_claim import claim_size

        size = claim_size(preset)
        return size.settings(), size.data

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        """Telling tears is easier than sizing them, volumes beat slices, and the heat map points at the tear."""
        from medray.systems.shoulder.vrn_claim import run_claim  # which needs this class

        return run_claim(work, preset)


def _examples(scored: Sequence[Scored], count: int) -> list[Scored]:
    """The first test case of each of some classes."""
    found = [next((one for one in scored if one.row["true"] == name), None) for name in _SHOWN[:count]]
    return [one for one in found if one is not None]
