"""GMVAE(TV) as a system: presets, variants, lambda and thresholds, evaluation, prediction, claim.

The method itself is in `gmvae_tv`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from medray.data.cache import SampleCache
from medray.data.case import Case, Source, Splits
from medray.data.channels import of_modality
from medray.data.fields import FileRef
from medray.data.readers import stem_of
from medray.data.slices import put_back
from medray.data.sources import open_source
from medray.data.splits import split_by_patient
from medray.data.writers import beside, write_bytes, write_json, write_volume
from medray.errors import UserError
from medray.learner import Learner
from medray.metrics.anomaly import threshold_at_fpr
from medray.nn.weights import load_network
from medray.system import (
    ClaimCheck,
    ClaimResult,
    Evaluation,
    FitResult,
    Prediction,
    PredictRequest,
    Preset,
    Row,
    System,
    Trained,
    Variant,
    Workbench,
)
from medray.systems.anomaly.gmvae_tv import GmvaeConfig, Prior, PriorLearner, restore
from medray.systems.anomaly.scans import (
    LIMITS,
    Detected,
    Scan,
    ScanReader,
    picture,
    reference_of,
    score,
    summarize,
)
from medray.systems.claims import bound, difference

_SLICES_AT_ONCE = 32
_CASES_PER_TASK = 4
_EXAMPLES_DRAWN = 4
MIN_GAIN = 0.05
"""By how much restoration must beat reconstruction in AUC at the claim's size (paper: .83 and .80 against .65-.70)."""

_AUTHORS: Mapping[str, Any] = {"alpha": (5e-3, 2e-3), "clip": 100.0, "masked": True}
_PHANTOM: Mapping[str, Any] = {
    "shape": (62, 62),
    "width": 16,
    "num_clusters": 3,
    "lr": 1e-3,
    "num_steps": 300,
    "restore_steps": 100,
    **_AUTHORS,
}

_CLAIM: Mapping[str, Any] = {
    "num_steps": 1500,
    "restore_steps": 100,
    "lambdas": (0.6, 1.2, 1.8, 2.4),
    "validation_fraction": 0.08,
}
_CLAIM_DATA = "phantom:brain?kind=tumors&n=110&patients=10&size=62&slices=4&seed=0&shift=true"

PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        about="phantom of 62 x 62 pixels, 300 updates; half a minute on 2 cores",
        data="phantom:brain?kind=tumors&n=45&patients=6&size=62&slices=2&seed=0&shift=true",
        config={**_PHANTOM, "batch_size": 8, "restore_steps": 50, "lambdas": (0.6, 1.8), "validation_fraction": 0.04},
        compare=("vae_reconstruction",),
    ),
    "demo": Preset(
        about="phantom of 94 x 94 pixels, 9 clusters; about ten minutes on 2 cores",
        data="phantom:brain?kind=tumors&n=100&patients=10&size=94&slices=4&seed=0&shift=true",
        config={
            **_PHANTOM,
            "shape": (94, 94),
            "width": 24,
            "num_clusters": 9,
            "num_steps": 800,
            "restore_steps": 150,
            "lambdas": (0.6, 1.8),
            "validation_fraction": 0.05,
        },
        compare=("vae_reconstruction",),
    ),
    "paper": Preset(
        about="the paper's sizes; give --data with skull-stripped T2 of healthy subjects, and of patients with label",
        data="phantom:brain?kind=tumors&n=100&patients=20&size=200&slices=20&seed=0&shift=true",
        compare=("vae_tv", "vae_256", "vae_128", "aae_128", "anogan"),
    ),
}

_RECONSTRUCTION: Mapping[str, Any] = {"detection": "reconstruction"}
VARIANTS: Mapping[str, Variant] = {
    "gmvae_tv": Variant(about="restoration under a Gaussian-mixture VAE, the paper's method"),
    "vae_tv": Variant(about="restoration under a plain VAE", config={"prior": "vae"}),
    "gmvae_reconstruction": Variant(about="residual of the GMVAE's output", config=_RECONSTRUCTION),
    "vae_reconstruction": Variant(about="residual of the VAE's output", config={"prior": "vae", **_RECONSTRUCTION}),
    "vae_256": Variant(
        about="VAE with a code of 256 numbers, its residual",
        config={"prior": "vae", "code_length": 256, **_RECONSTRUCTION},
    ),
    "vae_128": Variant(
        about="VAE with a code of 128 numbers, its residual",
        config={"prior": "vae", "code_length": 128, **_RECONSTRUCTION},
    ),
    "aae_128": Variant(
        about="adversarial autoencoder, its residual", config={"prior": "aae", "code_length": 128, **_RECONSTRUCTION}
    ),
    "anogan": Variant(
        about="GAN, residual to the closest image it makes",
        config={"prior": "gan", "code_length": 128, "detection": "search"},
    ),
    "k3": Variant(about="3 clusters (table 2)", config={"num_clusters": 3}),
    "k6": Variant(about="6 clusters (table 2, and the authors' code)", config={"num_clusters": 6}),
    "k12": Variant(about="12 clusters (table 2)", config={"num_clusters": 12}),
    "text_steps": Variant(
        about="restoration steps as in the text, unclipped and everywhere",
        config={"alpha": (1e-3,), "clip": 0.0, "masked": False},
    ),
    "authors_steps": Variant(about="restoration steps as in the authors' code", config=_AUTHORS),
    "sampled_z": Variant(about="z drawn anew at each restoration step (authors' code)", config={"latent": "sample"}),
    "free_nats": Variant(about="0.5 nats of KL(c) for free (authors' code)", config={"c_free_nats": 0.5}),
    "resp_authors": Variant(about="responsibilities as in the authors' code", config={"resp": "authors"}),
    "authors": Variant(
        about="all of the authors' code's departures together",
        config={**_AUTHORS, "num_clusters": 6, "latent": "sample", "c_free_nats": 0.5, "resp": "authors"},
    ),
    "unmatched": Variant(about="without histogram matching", config={"match_histogram": False}),
}


def make_learner(config: GmvaeConfig, cases: Sequence[Case], cache: SampleCache | None = None) -> Learner:
    """The learner of the config's prior, built on every worker."""
    if config.prior in ("gmvae", "vae"):
        return PriorLearner(config, cases, cache)
    from medray.systems.anomaly.adversarial import AaeLearner, GanLearner

    return (AaeLearner if config.prior == "aae" else GanLearner)(config, cases, cache)


def load_healer(config: GmvaeConfig, weights: Path, tv_weight: float) -> Callable[[Tensor], Tensor]:
    """A function from slices (B, 1, H, W) to what they would look like without lesions."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.prior == "gan":
        from medray.systems.anomaly.adversarial import load_searcher

        return load_searcher(config, weights, device)
    prior = Prior(config)
    load_network(prior, weights, prefix="prior.")
    prior.to(device).eval().requires_grad_(False)
    if config.detection == "restoration":
        return lambda y: restore(prior, y.to(device), tv_weight).cpu()
    return lambda y: prior.reconstruct(y.to(device)).cpu()


def detect(healer: Callable[[Tensor], Tensor], scan: Scan, every: int = 1) -> Detected:
    """The healthy version and the residual of every n-th listed slice of a scan; other slices stay as they are."""
    healthy = scan.image.copy()
    chosen = list(scan.listed[::every])
    for first in range(0, len(chosen), _SLICES_AT_ONCE):
        part = chosen[first : first + _SLICES_AT_ONCE]
        healthy[part] = healer(torch.from_numpy(scan.image[part][:, None]))[:, 0].numpy()
    residual = np.abs(scan.image - healthy) * scan.brain  # D = |Y - X| (sec. 2.2)
    return Detected(scan, healthy, residual.astype(np.float32))


@dataclass(frozen=True)
class Calibration:
    """What one TV weight does to held-out healthy scans.

    Attributes:
        tv_weight: lambda.
        change: mean over subjects of the summed absolute residual, epsilon(lambda) (sec. 2.3).
        thresholds: smallest residual that keeps the false positive rate at or below each of `LIMITS` (sec. 2.4).
    """

    tv_weight: float
    change: float
    thresholds: Mapping[int, float]


def calibrate(
    config: GmvaeConfig, weights: Path, cases: Sequence[Case], cache: SampleCache, tv_weight: float
) -> Calibration:
    """Sections 2.3 and 2.4: nothing but healthy scans is looked at."""
    healer, reader = load_healer(config, weights, tv_weight), ScanReader(config.grid, cache=cache)
    change, residuals = 0.0, []
    for case in cases:
        found = detect(healer, reader.read(case), config.every)
        chosen = list(found.scan.listed[:: config.every])
        change += float(found.residual[chosen].sum())
        residuals.append(found.residual[chosen][found.scan.brain[chosen]])
    pooled = np.concatenate(residuals)
    if not len(pooled):
        raise UserError(
            f"none of the {len(cases)} healthy scans held out for thresholds has a slice with enough brain in it"
        )
    return Calibration(
        tv_weight, change / len(cases), {limit: threshold_at_fpr(pooled, limit / 100) for limit in LIMITS}
    )


@dataclass(frozen=True)
class Detector:
    """A trained model with its lambda, thresholds and reference histogram."""

    config: GmvaeConfig
    trained: Trained

    @property
    def thresholds(self) -> dict[int, float]:
        """Residual by false positive rate in percent."""
        return {int(limit): float(value) for limit, value in self.trained.about["thresholds"].items()}

    def __call__(self, cases: Sequence[Case], cache: SampleCache | None = None) -> list[Detected]:
        """Scans of another scanner are matched to the reference first."""
        about = self.trained.about
        assert self.trained.weights is not None
        reader = ScanReader(self.config.grid, about["reference"], cache)
        healer = load_healer(self.config, self.trained.weights, about["tv_weight"])
        return [detect(healer, reader.read(case, match=self.config.match_histogram)) for case in cases]


def _score_cases(detector: Detector, cache: SampleCache, numbered: Sequence[tuple[int, Case]]) -> list[Any]:
    """Row, counts and, for the first few, what to draw."""
    found = detector([case for _, case in numbered], cache)
    return [
        (*score(one, detector.thresholds), one if number < _EXAMPLES_DRAWN else None)
        for (number, _), one in zip(numbered, found, strict=True)
    ]


class GmvaeTv(System[GmvaeConfig]):
    """Unsupervised lesion detection by restoration under a prior of healthy brains."""

    slug = "gmvae_tv"
    config_class = GmvaeConfig
    predict_inputs = ("image",)
    empty_labels = True  # healthy controls among the scans to be judged
    presets: ClassVar[Mapping[str, Preset]] = PRESETS
    variants: ClassVar[Mapping[str, Variant]] = VARIANTS

    def arrange(self, cases: Sequence[Case]) -> Sequence[Case]:
        """Images of one modality."""
        return of_modality(cases, self.config.modality)

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        """Images; label maps tell patients from healthy subjects and are never trained on."""
        return ("image",)

    def split(self, source: Source, seed: int) -> Splits:
        """Healthy subjects train and set thresholds, those with a label map test; a given split decides where there
        is one.
        """
        if any("split" in case.attributes for case in source.cases):
            given = split_by_patient(source.cases, seed=seed)
            for case in (*given.train, *given.validation):
                if "label" in case.fields:
                    raise UserError(
                        f"case {case.id} has a label map and is not in the split test; only healthy subjects, who have "
                        "none, are learned from"
                    )
            return given
        ill = {case.patient for case in source.cases if "label" in case.fields}
        healthy = [case for case in source.cases if case.patient not in ill]
        patients = tuple(case for case in source.cases if case.patient in ill)
        needed = 2 if patients else 3
        if len({case.patient for case in healthy}) < needed:
            raise UserError(
                f"{source.spec} has {len(healthy)} healthy subjects (cases without a label map); at least {needed} are "
                "needed, to learn from, to set thresholds on and, without patients, to test on"
            )
        fraction, test = self.config.validation_fraction, 0.0 if patients else 0.2
        parts = split_by_patient(healthy, validation=fraction, test=test, seed=seed)
        if not parts.validation:  # too few subjects for the fraction: one is held out all the same
            held_out = parts.train[-1].patient
            parts = Splits(
                tuple(case for case in parts.train if case.patient != held_out),
                tuple(case for case in parts.train if case.patient == held_out),
                parts.test,
            )
        return Splits(parts.train, parts.validation, (*parts.test, *patients))

    def train(self, work: Workbench, splits: Splits) -> Trained:
        """Learn healthy slices, then set lambda and thresholds on held-out healthy subjects."""
        config = self.config
        if not splits.validation:
            raise UserError("no healthy subject is held out to set lambda and thresholds on; give one the split val")
        fit = work.fit(functools.partial(make_learner, config, splits.train, work.cache))
        return self.calibrated(work, fit, splits)

    def calibrated(self, work: Workbench, fit: FitResult, splits: Splits) -> Trained:
        """Lambda, thresholds and reference histogram for networks that were trained already."""
        assert fit.weights is not None
        lambdas = self.config.lambdas if self.config.detection == "restoration" else (0.0,)
        work.say(f"setting lambda ({len(lambdas)} values) and thresholds on {len(splits.validation)} healthy subjects")
        judge = functools.partial(calibrate, self.config, fit.weights, splits.validation, work.cache)
        tries = work.map(judge, lambdas, name="calibrate")
        best = min(tries, key=lambda one: one.change)
        about = {
            "reference": reference_of(ScanReader(self.config.grid, cache=work.cache).read(splits.train[0])),
            "tv_weight": best.tv_weight,
            "thresholds": {str(limit): value for limit, value in best.thresholds.items()},
            "changes": [[one.tv_weight, one.change] for one in tries],
        }
        metrics = {**fit.metrics, "tv_weight": best.tv_weight}
        return Trained(weights=fit.weights, about=about, metrics=metrics, fits={"train": fit})

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        """Judge every scan; scans without label map count as healthy."""
        detector = Detector(self.config, trained)
        numbered = [(number, case) for number, case in enumerate(sorted(cases, key=lambda c: "label" not in c.fields))]
        chunks = [numbered[i : i + _CASES_PER_TASK] for i in range(0, len(numbered), _CASES_PER_TASK)]
        scored = [
            one
            for part in work.map(functools.partial(_score_cases, detector, work.cache), chunks, name="evaluate")
            for one in part
        ]
        drawn = [found for _, _, found in scored if found is not None]
        figures = []
        if drawn:
            caption = f"{self.config.prior}, {self.config.detection}: threshold at 5 % of healthy pixels"
            figures = [picture(drawn, detector.thresholds[5], name="lesions", caption=caption)]
        return summarize([(row, counts) for row, counts, _ in scored], detector.thresholds, figures)

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        """Write the lesion map of a scan, with residual, restored scan, measurements and a picture beside it."""
        detector = Detector(self.config, trained)
        limit = _limit(request.options)
        case = Case(stem_of(request.inputs[0]), "prediction", {"image": FileRef(str(request.inputs[0]))})
        started = time.perf_counter()
        (found,) = detector([case])
        seconds = time.perf_counter() - started
        original, grid, threshold = case.volume("image"), found.scan.grid, detector.thresholds[limit]
        lesion = put_back((found.residual > threshold).astype(np.uint8), grid, original, order=0)
        measured = {
            "lesion_ml": float(lesion.array.sum() * np.prod(original.spacing) / 1000),
            "mean_residual": float(found.residual[found.scan.brain].mean()) if found.scan.brain.any() else 0.0,
            "threshold": threshold,
            "healthy_fpr_percent": float(limit),
            "tv_weight": float(trained.about["tv_weight"]),
        }
        caption = f"{case.id}, threshold {threshold:.3f} ({limit} % of healthy pixels)"
        files = {
            "lesions": write_volume(lesion, request.out),
            "residual": write_volume(put_back(found.residual, grid, original), beside(request.out, "_residual.nii.gz")),
            "restored": write_volume(put_back(found.healthy, grid, original), beside(request.out, "_restored.nii.gz")),
            "measurements": write_json(beside(request.out, "_measurements.json"), measured),
            "picture": write_bytes(
                beside(request.out, "_overview.png"),
                picture([found], threshold, name="prediction", caption=caption).png,
            ),
        }
        return Prediction(files=files, metrics=measured, seconds=seconds)

    @classmethod
    def claim_setting(cls, preset: str) -> tuple[GmvaeConfig, str]:
        """The preset with enough slices and updates for a fair comparison; see the card's smallest set-up."""
        chosen = cls.presets[preset]
        if preset != "smoke":
            return GmvaeConfig(**chosen.config), chosen.data
        return GmvaeConfig(**{**chosen.config, **_CLAIM}), _CLAIM_DATA

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        """Restoration beats reconstruction by the same models; the threshold from healthy scans is usable."""
        config, data = cls.claim_setting(preset)
        seeds = range(work.seed, work.seed + cls.presets[preset].seeds)
        work.say(f"claim over seeds {list(seeds)}: GMVAE and VAE, each with restoration and with reconstruction")
        rows = [
            row
            for part in work.map_runs(functools.partial(_one_seed, config, data), seeds, name="seed")
            for row in part
        ]
        return ClaimResult(checks=judge(rows), rows=rows)


def _one_seed(config: GmvaeConfig, data: str, work: Workbench, seed: int) -> list[Row]:
    """Both priors on one seed's subjects; each is trained once and used with and without restoration."""
    work.seed = seed
    rows: list[Row] = []
    for prior in ("gmvae", "vae"):
        system = GmvaeTv(replace(config, prior=prior, detection="restoration"))
        splits = system.split(open_source(data.replace("seed=0", f"seed={seed}")), seed)
        fit = work.fit(functools.partial(make_learner, system.config, splits.train, work.cache), name=prior)
        for detection in ("restoration", "reconstruction"):
            other = GmvaeTv(replace(system.config, detection=detection))
            found = other.evaluate(work, other.calibrated(work, fit, splits), splits.test)
            told: Row = {"variant": f"{prior}_{detection}", "seed": seed}
            rows.append({**told, **found.summary})
            rows += [{**told, **row} for row in found.rows]
    return rows


def judge(rows: Sequence[Row]) -> list[ClaimCheck]:
    """Both parts of the claim on the records of `_one_seed`.

    AUC and Dice at the Youden point are pooled over a seed's patients; each seed gives one difference of AUC.
    """
    pooled = [row for row in rows if "case" not in row]
    patients = [
        {**row, "dice_fpr5_minus_youden": float(row["dice_fpr5"]) - float(row["dice_youden"])}
        for row in rows
        if "case" in row and "dice_youden" in row
    ]
    beats = "restoration under the {} beats the residual of its reconstruction by 0.05 AUC"
    usable = "Dice at the threshold of 5 % of healthy pixels is no worse than at the label-informed Youden point"
    checks = [
        difference(
            pooled,
            "auc",
            f"{prior}_restoration",
            f"{prior}_reconstruction",
            at_least=MIN_GAIN,
            statement=beats.format(prior.upper()),
        )
        for prior in ("vae", "gmvae")
    ]
    return [
        *checks,
        bound(patients, "dice_fpr5_minus_youden", "gmvae_restoration", at_least=0.0, statement=usable),
    ]


def _limit(options: Mapping[str, str]) -> int:
    """The false positive rate asked for, in percent."""
    unknown = sorted(set(options) - {"fpr"})
    if unknown:
        raise UserError(f"--option {unknown[0]} is unknown; gmvae_tv has fpr=1, fpr=5 or fpr=10")
    limit = options.get("fpr", "5")
    if limit not in {str(known) for known in LIMITS}:
        raise UserError(f"--option fpr={limit}: thresholds were set for {', '.join(map(str, LIMITS))} percent")
    return int(limit)
