"""The Goutallier grader as a system: U-Net, crop, classifier, five-fold cross-validation.

`train` is the paper's cross-validation over the training cases; its scores with intervals are metrics ``cv_``. What it
leaves is the ensemble of the folds' networks, which `evaluate` scores on patients whom no fold has seen, and which
`predict` uses.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from medray.data.case import BadCase, Case, Source, Splits
from medray.data.label_values import unknown_values
from medray.data.splits import split_by_patient
from medray.errors import UserError
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
from medray.systems.shoulder import goutallier_evaluation as evaluation
from medray.systems.shoulder import goutallier_pictures as pictures
from medray.systems.shoulder.goutallier_config import VARIANTS, GoutallierConfig
from medray.systems.shoulder.goutallier_folds import make_folds
from medray.systems.shoulder.goutallier_images import one_slice
from medray.systems.shoulder.goutallier_inference import GRADER, SEGMENTER
from medray.systems.shoulder.goutallier_labels import grade_problems, grade_strata
from medray.systems.shoulder.goutallier_measures import knows_mm
from medray.systems.shoulder.goutallier_prediction import predict_file
from medray.systems.shoulder.goutallier_presets import PRESETS
from medray.systems.shoulder.goutallier_scores import fold_scores, joined, with_intervals
from medray.systems.shoulder.goutallier_training import FoldResult, classify_folds, segment_folds


class Goutallier(System[GoutallierConfig]):
    """Whether the fat in a supraspinatus makes surgery risky, from one Y-view slice."""

    slug = "goutallier"
    config_class = GoutallierConfig
    predict_inputs = ("image",)
    learning_signal = ("segmentation_loss", "min")
    field_kinds: ClassVar[Mapping[str, Any]] = {"fat": "label"}
    presets: ClassVar[Mapping[str, Preset]] = PRESETS
    variants: ClassVar[Mapping[str, Variant]] = VARIANTS

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        """The image and the muscle, to train on and to be scored."""
        return ("image", "label")

    def expected_dims(self) -> int:
        """One slice."""
        return 2

    def input_names(self, known: Mapping[str, Any]) -> tuple[str, ...]:
        """The mask too, where a person's crop is what the model knows."""
        return ("image", "label") if self.config.roi == "manual" else ("image",)

    def problems(self, cases: Sequence[Case], known: Mapping[str, Any]) -> Sequence[BadCase]:
        """Grades that are missing or none of Goutallier's, masks with other values, color, slices of other planes."""
        bad = [*grade_problems(cases), *unknown_values(cases, (1,))]
        for case in cases:
            try:
                one_slice(case.volume("image"))
            except UserError as error:
                bad.append(BadCase(case.id, str(error)))
        return list({one.case: one for one in reversed(bad)}.values())[::-1]

    def split(self, source: Source, seed: int) -> Splits:
        """By patient, with their share of every grade; the folds are cut once here, to say at once what they lack."""
        strata = grade_strata(source.cases)
        fraction = self.config.test_fraction
        splits = split_by_patient(source.cases, validation=0.0, test=fraction, seed=seed, strata=strata)
        make_folds(self.config, (*splits.train, *splits.validation), seed)
        return splits

    def train(self, work: Workbench, splits: Splits) -> Trained:
        """Both steps on every fold; what is scored was held out of the fold."""
        folds = make_folds(self.config, (*splits.train, *splits.validation), work.seed)
        segmented = segment_folds(work, self.config, folds)
        graded = classify_folds(work, self.config, folds, segmented)
        rows = joined(*(step.rows for step in (*segmented, *graded)))
        scores = fold_scores(rows)
        for fold in scores:
            work.log(fold, name="fold")
        _log_curves(work, "segmentation", segmented)
        _log_curves(work, "grading", graded)
        fits = {f"{SEGMENTER}_{number}": step.fit for number, step in enumerate(segmented)}
        fits |= {f"{GRADER}_{number}": step.fit for number, step in enumerate(graded)}
        files = {name: fit.weights for name, fit in fits.items() if fit.weights is not None}
        about = {"folds": [{"held_out": [case.id for case in fold.held_out]} for fold in folds]}
        counts = ", ".join(f"{fold['num_risky']:.0f} of {fold['num_cases']:.0f}" for fold in scores)
        caption = f"ROC curves on the held-out cases of the folds, of which are risky: {counts}"
        figures = [Figure("folds", caption, pictures.folds_png(rows))]
        figures += _curve_figures(segmented, graded)
        return Trained(
            weights=None, about=about, metrics=with_intervals(scores), fits=fits, files=files, figures=figures
        )

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        """Scores of the folds' networks together, on patients whom none has seen; nothing where all are in folds."""
        if not cases:
            return Evaluation([], {})
        size = evaluation.CASES_PER_TASK
        parts = [cases[start : start + size] for start in range(0, len(cases), size)]
        found = work.map(functools.partial(evaluation.score_cases, self.config, trained), parts, name="evaluate")
        rows = [row for part in found for row in part]
        chosen = set(evaluation.chosen_examples(rows))
        examples = [case for case in cases if case.id in chosen]
        shown = evaluation.shown_examples(self.config, trained, examples)
        figures = []
        if shown:
            in_mm = knows_mm(examples[0].volume("image"))
            caption = "Test cases: image, Grad-CAM and guided Grad-CAM of the answer given, contour found and drawn"
            figures.append(Figure("attention", caption, pictures.attention_png(shown, in_mm=in_mm)))
        if any("fat_fraction_percent" in row for row in rows):
            figures.append(Figure("fat", "Fat inside the contour of the test cases", pictures.fat_png(rows)))
        return Evaluation(rows, evaluation.summarize(rows), figures)

    def overview(self, found: Mapping[str, tuple[Trained, Evaluation]]) -> Sequence[Figure]:
        """ROC curves of what was compared, with DeLong's test."""
        own = next(iter(found.values()))[1].summary
        if len(found) < 2 or "auroc" not in own:
            return ()
        png = pictures.compared_png({name: scored.rows for name, (_, scored) in found.items()})
        return [Figure("compared", "ROC curves on the test cases", png)]

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        """Grade a picture, a NIfTI or a DICOM slice; see `goutallier_prediction.predict_file`."""
        return predict_file(self.config, trained, request)

    @classmethod
    def claim_setting(cls, preset: str) -> tuple[GoutallierConfig, str]:
        """What all arms of the claim share."""
        from medray.systems.shoulder.goutallier_claim import claim_size

        size = claim_size(preset)
        return size.settings(), size.data

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        """The automatic crop costs little, cropping helps, and so does balancing."""
        from medray.systems.shoulder.goutallier_claim import run_claim

        return run_claim(work, preset)


def _log_curves(work: Workbench, part: str, steps: Sequence[FoldResult]) -> None:
    """Training losses of the first fold, whose log stays in the fold's folder, into the run's."""
    for step in steps[:1]:
        for record in step.records:
            if record["name"] == "train" and "loss" in record:
                work.log({f"{part}_loss": record["loss"], "step": record["step"], "epoch": record["epoch"]}, name=part)


def _curve_figures(segmented: Sequence[FoldResult], graded: Sequence[FoldResult]) -> list[Figure]:
    told = (
        ("segmentation", segmented, {"loss": "Dice loss", "dice": "Dice", "pixel_accuracy": "accuracy of pixels"}),
        ("grading", graded, {"loss": "cross entropy", "accuracy": "accuracy"}),
    )
    return [
        Figure(f"curves_{name}", f"Validation of the {name}, mean over folds and its 95 % interval",
               pictures.curves_png([step.records for step in steps], keys))
        for name, steps, keys in told if steps and all(step.records for step in steps)
    ]  # fmt: skip
