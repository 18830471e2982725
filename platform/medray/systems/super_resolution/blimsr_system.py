"""BliMSR as a system: data, training, evaluation, prediction and the claim.

The networks are in `blimsr_networks`, the losses in `blimsr_losses`, the loop in `blimsr_learner` and the blind
degradation in `degradation`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from medray.data.case import BadCase, Case, Source, Splits
from medray.data.pictures import gray
from medray.data.splits import split_by_patient
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
from medray.systems.super_resolution.blimsr_config import MIN_CROP_PX, VARIANTS, BlimsrConfig
from medray.systems.super_resolution.blimsr_evaluation import (
    fit_niqe,
    niqe_file,
    reader_of,
    score_case,
    summarize,
    trained_generator,
)
from medray.systems.super_resolution.blimsr_learner import BlimsrLearner
from medray.systems.super_resolution.blimsr_presets import PRESETS
from medray.systems.super_resolution.degradation import SCALE
from medray.systems.super_resolution.high_res import as_slices
from medray.systems.super_resolution.perceptual import open_features
from medray.systems.super_resolution.prediction import predict_file


class Blimsr(System[BlimsrConfig]):
    """Slices with four times the pixels along both axes, from degradations that need not be known."""

    slug = "blimsr"
    config_class = BlimsrConfig
    predict_inputs = ("image",)
    magnification = SCALE
    learning_signal = ("content_loss", "min")
    presets: ClassVar[Mapping[str, Preset]] = PRESETS
    variants: ClassVar[Mapping[str, Variant]] = VARIANTS

    def arrange(self, cases: Sequence[Case]) -> Sequence[Case]:
        """Volumes become their axial slices, each a case of its own."""
        return as_slices(cases)

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        """Images of high resolution, to train on and to be scored; their low resolution is made."""
        return ("image",)

    def expected_dims(self) -> int:
        """Slices and pictures."""
        return 2

    def problems(self, cases: Sequence[Case], known: Mapping[str, Any]) -> Sequence[BadCase]:
        """Images in color, smaller than a training crop, or of another modality where all are to be CT."""
        reasons = ((case, self._problem(case, training=not known)) for case in cases)
        return [BadCase(case.id, reason) for case, reason in reasons if reason]

    def _problem(self, case: Case, *, training: bool) -> str:
        modality = case.attributes.get("modality", "ct").upper()
        if self.config.scaling == "hu" and modality != "CT":
            return f"its modality is {modality} where --config.scaling hu takes CT; use --config.scaling auto"
        try:
            rows, columns = gray(case.volume("image")).shape
        except UserError as error:
            return str(error)
        least = self.config.crop_px if training else MIN_CROP_PX
        if min(rows, columns) // SCALE * SCALE >= least:
            return ""
        remedy = f"lower --config.crop-px to {MIN_CROP_PX} at least" if training else "it cannot be scored"
        return f"its image of {rows} x {columns} px is smaller than the {least} px that are needed; {remedy}"

    def split(self, source: Source, seed: int) -> Splits:
        """By patient."""
        validation, test = self.config.validation_fraction, self.config.test_fraction
        return split_by_patient(source.cases, validation=validation, test=test, seed=seed)

    def train(self, work: Workbench, splits: Splits) -> Trained:
        """Train the generator; bicubic interpolation learns nothing."""
        features = open_features(self.config)
        about = {"features": features.name if features else "none"}
        niqe = niqe_file(work.stage("niqe", functools.partial(fit_niqe, reader_of(self.config), splits.train)))
        files = {"niqe": niqe} if niqe.is_file() else {}
        if not self.config.learns:
            return Trained(weights=None, about=about, files=files)
        fit = work.fit(functools.partial(BlimsrLearner, self.config, splits.train, splits.validation, work.cache))
        return Trained(weights=fit.weights, about=about, metrics=fit.metrics, fits={"train": fit}, files=files)

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        """Scores of every image from blindly degraded and from clean low resolution, beside bicubic interpolation."""
        score = functools.partial(score_case, self.config, trained, work.cache)
        return summarize(work.map(score, list(enumerate(cases)), name="evaluate"))

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        """Enlarge a picture, a volume or a DICOM series; see `prediction.predict_file`."""
        generator = trained_generator(self.config, trained.weights)
        window, scaling = self.config.hu_window, self.config.scaling
        return predict_file(generator, request, window=window, scaling=scaling, name=self.config.generator)

    @classmethod
    def claim_setting(cls, preset: str) -> tuple[BlimsrConfig, str]:
        """What all arms of the claim share."""
        from medray.systems.super_resolution.blimsr_claim import claim_size

        size = claim_size(preset)
        return size.settings(), size.data

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        """Training on blind degradations, and the full loss, beat their counterparts on blindly degraded images."""
        from medray.systems.super_resolution.blimsr_claim import run_claim  # which needs this class

        return run_claim(work, preset)
