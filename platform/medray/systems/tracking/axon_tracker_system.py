"""The axon tracker as a system: which data it takes, how it is trained and judged, what a user gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from medray.data.case import BadCase, Case, Source, Splits
from medray.data.splits import folds_by_patient, split_by_patient
from medray.data.traces import centrelines_problem, picture_of
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
from medray.systems.tracking.axon_claim import claim, claim_size
from medray.systems.tracking.axon_presets import PRESETS, VARIANTS
from medray.systems.tracking.axon_tracker import AxonTrackerConfig
from medray.systems.tracking.evaluation import evaluate
from medray.systems.tracking.prediction import predict
from medray.systems.tracking.training import train, train_with_folds

_ALL = -1


class AxonTracker(System[AxonTrackerConfig]):
    """Axons, vessels and other thin structures as ordered subpixel polylines."""

    slug = "axon_tracker"
    config_class = AxonTrackerConfig
    predict_inputs = ("image",)
    optional_inputs = ("starts",)
    predict_suffix = ".swc"
    learning_signal = ("return_mean", "max")
    presets: ClassVar[Mapping[str, Preset]] = PRESETS
    variants: ClassVar[Mapping[str, Variant]] = VARIANTS

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        """An image and the lines in it."""
        return ("image", "centrelines")

    def problems(self, cases: Sequence[Case], known: Mapping[str, Any]) -> Sequence[BadCase]:
        """Images that cannot be tracked in, centrelines that leave them, and cases without any."""
        found = []
        for case in cases:
            try:
                rows, columns = picture_of(case.volume("image")).shape
                reason = centrelines_problem(case, (rows, columns))
            except UserError as error:
                reason = str(error)
            if reason:
                found.append(BadCase(case.id, reason))
        return found

    def split(self, source: Source, seed: int) -> Splits:
        """By patient: fractions, or folds."""
        config = self.config
        if not config.folds:
            validation, test = config.validation_fraction, config.test_fraction
            return split_by_patient(source.cases, validation=validation, test=test, seed=seed)
        folds = folds_by_patient(source.cases, config.folds, seed=seed)
        if config.fold == _ALL:
            return Splits(source.cases, (), source.cases)
        rest = tuple(case for number, fold in enumerate(folds) if number != config.fold for case in fold)
        return Splits(rest, (), folds[config.fold])

    def train(self, work: Workbench, splits: Splits) -> Trained:
        """Learn the policy; peers learn nothing."""
        config = self.config
        if config.method != "policy":
            return Trained(weights=None)
        return (train_with_folds if config.folds and config.fold == _ALL else train)(config, work, splits)

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        """See `evaluation.evaluate`."""
        return evaluate(self.config, work, trained, cases)

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        """Trace the structures of an image from given or found start points."""
        return predict(self.config, trained, request)

    @classmethod
    def claim_setting(cls, preset: str) -> tuple[AxonTrackerConfig, str]:
        """The tracker and the standard images of the claim."""
        size = claim_size(preset)
        return size.config, size.data

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        """Synthetic images teach tracking, a few real ones help on, and doubt shows off the track."""
        return claim(work, preset)
