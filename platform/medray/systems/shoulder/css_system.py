"""CSS-Net as a system: data, training, evaluation, prediction and the claim. Lee et al., ACCV 2022.

The networks are in `css_networks`, substitution learning in `css_substitution`, the loop in `css_learner`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import load_file, save_file

from medray.data.case import BadCase, Case, Source, Splits
from medray.data.combined_masks import combine_masks
from medray.data.label_values import unknown_values
from medray.data.pictures import gray
from medray.data.splits import folds_by_patient, split_by_patient
from medray.errors import UserError
from medray.system import (
    ClaimResult,
    Evaluation,
    Prediction,
    PredictRequest,
    Preset,
    System,
    Trained,
    Variant,
    Workbench,
)
from medray.systems.shoulder.css_config import VARIANTS, CssConfig
from medray.systems.shoulder.css_evaluation import score_case, summary_of
from medray.systems.shoulder.css_learner import CssLearner
from medray.systems.shoulder.css_prediction import other_plane, predict_file
from medray.systems.shoulder.css_presets import PRESETS
from medray.systems.shoulder.css_reading import drawn_on
from medray.systems.shoulder.css_substitution import TEAR, TENDON

NOTHING, WHOLE, TORN = "0 nothing", "1 tendon", "2 tear"
"""Strata of slices. A patient belongs to the last of his slices' in alphabetical order: torn if any of them is."""
_LEAST_PX = 32
"""Smaller slices hold a tendon of a few pixels only."""


class CssNet(System[CssConfig]):
    """Supraspinatus tendon and its tear in coronal MR slices."""

    slug = "css_net"
    config_class = CssConfig
    predict_inputs = ("image",)
    learning_signal = ("segmentation_loss", "min")
    empty_labels = True  # most slices show no tendon
    field_kinds: ClassVar[Mapping[str, Any]] = {"tear": "label", "tendon": "label"}
    presets: ClassVar[Mapping[str, Preset]] = PRESETS
    variants: ClassVar[Mapping[str, Variant]] = VARIANTS

    def arrange(self, cases: Sequence[Case]) -> Sequence[Case]:
        """Masks of tendon and tear become one label map, in which the tear wins; pictures lie on DICOM slices."""
        return drawn_on(combine_masks(cases, {"tendon": TENDON, "tear": TEAR}))

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        """A slice and its label map."""
        return ("image", "label")

    def expected_dims(self) -> int:
        """Slices."""
        return 2

    def problems(self, cases: Sequence[Case], known: Mapping[str, Any]) -> Sequence[BadCase]:
        """Unknown label values, color, other planes, and slices too small for a tendon."""
        unknown = {bad.case: bad for bad in unknown_values(cases, (TENDON, TEAR))}
        found = []
        for case in cases:
            if case.id in unknown:
                found.append(unknown[case.id])
            elif reason := _problem(case):
                found.append(BadCase(case.id, reason))
        return found

    def split(self, source: Source, seed: int) -> Splits:
        """By patient, each part with its share of torn, whole and empty slices; or the config's fold as the test set.

        Raises:
            UserError: nothing is labelled, no slice to train on shows a tear, or there are too few patients.
        """
        config, strata = self.config, {case.id: _kind(case) for case in source.cases}
        if source.cases and set(strata.values()) == {NOTHING}:
            raise UserError(f"none of the {len(source.cases)} label maps holds tendon (1) or tear (2)")
        if config.num_folds:
            splits = self._fold(source, seed, strata)
        else:
            splits = split_by_patient(
                source.cases, validation=config.validation_fraction, test=config.test_fraction, seed=seed, strata=strata
            )
        if not any(strata[case.id] == TORN for case in splits.train):
            raise UserError(
                f"none of the {len(splits.train)} slices to train on shows a tear (2); add some, or split another way"
            )
        return splits

    def _fold(self, source: Source, seed: int, strata: Mapping[str, str]) -> Splits:
        config = self.config
        test = folds_by_patient(source.cases, config.num_folds, seed=seed, strata=strata)[config.fold]
        if not any(strata[case.id] == TORN for case in test):
            raise UserError(f"fold {config.fold} of {config.num_folds} has no slice with a tear (2); use fewer folds")
        held = {case.patient for case in test}
        rest = {case.id: case for case in source.cases if case.patient not in held}
        # a split that the data comes with gives way to the folds
        bare = [
            replace(case, attributes={k: v for k, v in case.attributes.items() if k != "split"})
            for case in rest.values()
        ]
        inner = split_by_patient(bare, validation=config.validation_fraction, test=0.0, seed=seed, strata=strata)
        train, validation = (tuple(rest[case.id] for case in part) for part in (inner.train, inner.validation))
        return Splits(train, validation, test)

    def train(self, work: Workbench, splits: Splits) -> Trained:
        """One gradient loop. The weights that inference needs are a file of their own."""
        fit = work.fit(functools.partial(CssLearner, self.config, splits.train, splits.validation, work.cache))
        assert fit.weights is not None
        folder = work.stage("export", functools.partial(_export, fit.weights))
        files = {"helpers": folder / "helpers.safetensors"} if (folder / "helpers.safetensors").is_file() else {}
        return Trained(weights=folder / "segmenter.safetensors", metrics=fit.metrics, fits={"train": fit}, files=files)

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        """IoU and sensitivity of every slice on its own pixels; where the classifier looks."""
        score = functools.partial(score_case, self.config, trained, work.cache)
        return summary_of(work.map(score, cases, name="evaluate"), self.config.network)

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        """Label map, areas and the tear's length; see `css_prediction.predict_file`."""
        return predict_file(self.config, trained.weights, request)

    @classmethod
    def claim_setting(cls, preset: str) -> tuple[CssConfig, str]:
        """What all arms of the claim share."""
        from medray.systems.shoulder.css_claim import claim_size

        size = claim_size(preset)
        return size.settings(), size.data

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        """Classification and substitution each help segmentation, and both together most (table 6)."""
        from medray.systems.shoulder.css_claim import run_claim  # which needs this class

        return run_claim(work, preset)


def _kind(case: Case) -> str:
    """What a slice shows at most."""
    largest = int(case.volume("label").array.max())
    return NOTHING if not largest else TORN if largest == TEAR else WHOLE


def _problem(case: Case) -> str:
    image = case.volume("image")
    try:
        shape = gray(image).shape
    except UserError as error:
        return str(error)
    if min(shape) < _LEAST_PX:
        return f"its image of {shape[0]} x {shape[1]} px is smaller than the {_LEAST_PX} px that a tendon needs"
    return other_plane(image)


def _export(weights: Path, folder: Path) -> None:
    """M_seg alone, and beside it what evaluation shows of the others."""
    tensors = load_file(weights)
    parts = {
        "segmenter": ("segmenter.",),
        "helpers": ("classifier.", "substitution."),
    }
    for name, prefixes in parts.items():
        kept = {key: value for key, value in tensors.items() if key.startswith(prefixes)}
        if kept:
            save_file(kept, folder / f"{name}.safetensors")
