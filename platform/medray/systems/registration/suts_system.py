"""SUTS as a system: data, presets, variants, training, evaluation, prediction. The method itself is in `suts`."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from medray.classical.elastix import load_elastix, register_elastix, require_elastix
from medray.data.cache import SampleCache
from medray.data.case import BadCase, Case, Source, Splits
from medray.data.geometry import Align, canonical
from medray.data.intensity import Mode
from medray.data.splits import split_by_patient
from medray.errors import UserError
from medray.learner import Learner, seed_of
from medray.nn.weights import load_network
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
from medray.systems.registration.augmentation import augmented
from medray.systems.registration.pair_reader import ImagePair, MatchSlices, PairReader, WorkGrid
from medray.systems.registration.pairs import (
    Pairing,
    PairRef,
    default_normalization,
    form_pairs,
    label_values,
    modalities,
    stray_labels,
)
from medray.systems.registration.pictures import overview_figure
from medray.systems.registration.scoring import ScoredPair, score_pair, summarize
from medray.systems.registration.suts import FeaturePair, SutsConfig, register, signed_distance_maps
from medray.systems.registration.suts_learner import SutsLearner
from medray.systems.registration.suts_presets import PRESETS, VARIANTS

_EXAMPLES = 3
_PAIRS_PER_TASK = 6


@dataclass(frozen=True, kw_only=True)
class SutsSettings(SutsConfig):
    """The method's settings and how images become pairs."""

    aligner: Literal["descent", "elastix"] = "descent"
    """What aligns the pairs: the paper's B-spline descent, or elastix (mutual information) as its classical peer."""
    moving: str = ""
    """Modality of the moving images; with two modalities the first in alphabetical order (paper: CT)."""
    fixed: str = ""
    """Modality of the fixed images; the other one (paper: MR)."""
    pairing: Pairing = "auto"
    """Which images are paired to train on: those of one patient, or all with all (paper); auto: the former where
    patients have both. Tests pair the images of one patient where patients have both."""
    align: Align | Literal["auto"] = "auto"
    """How images are laid over each other before: in scanner coordinates, by their centers, or stretched to one extent;
    auto: scanner coordinates for images of one patient, centers otherwise."""
    spacing_mm: tuple[float, ...] = ()
    """Pixel size all images are resampled to, one value per axis (paper 1.5 1.5); the fixed images' own if left out."""
    shape: tuple[int, ...] = ()
    """Pixels per axis that training images are cropped or padded to (paper 320 312); the largest fixed image's if left
    out."""
    slices_per_volume: int = 3
    """With spatial_dims 2 and volumes as data: axial slices taken from each pair; 0 takes all with labels."""
    match_slices: MatchSlices = "position"
    """Which slices of two volumes make a pair: those at one position, or those at one fraction of each image's own
    organ (for volumes that are not aligned across slices)."""
    augmented_copies: int = 0
    """Randomly deformed and re-toned copies of each training pair that train beside it (paper 0); for few patients."""
    labels: tuple[int, ...] = ()
    """Organ values to learn from and to score; all that occur if left out."""
    label_names: tuple[str, ...] = ()
    """Names of these organs in tables (paper: liver spleen left_kidney right_kidney left_psoas right_psoas)."""
    label_channels: int = 1
    """In label files with several masks, how many are organs; the others are landmarks (their centers count)."""
    normalize_moving: Mode | Literal["auto"] = "auto"
    """Intensities of moving images: ct (-160 to 240 HU), percentile (1 to 99), zscore or none; auto: ct for CT, else
    percentile."""
    normalize_fixed: Mode | Literal["auto"] = "auto"
    """Intensities of fixed images, likewise."""
    test_fraction: float = 0.3
    """Share of the patients kept for testing (paper 3 of 10)."""
    validation_fraction: float = 0.1
    """Share of the patients registered after each scale, to see progress (paper none)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("spacing_mm", "shape"):
            value = getattr(self, name)
            if value and (len(value) != self.spatial_dims or min(value) <= 0):
                raise ValueError(f"{name} takes {self.spatial_dims} positive values, got {value}")
        if self.label_names and len(self.label_names) != len(self.labels):
            raise ValueError(f"label_names names {len(self.label_names)} organs but labels has {len(self.labels)}")


class Suts(System[SutsSettings]):
    """Supervised iterative descent: two CNNs learn features in which a classical optimizer aligns two modalities."""

    slug = "suts"
    config_class = SutsSettings
    predict_inputs = ("moving", "fixed")
    learning_signal = ("dice", "max")  # the loss compares steps, and the better the alignment the fewer are easy
    presets: ClassVar[Mapping[str, Preset]] = PRESETS
    variants: ClassVar[Mapping[str, Variant]] = VARIANTS

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        """Images always; labels where features are learned from them."""
        images = ("moving", "fixed") if any("moving" in case.fields for case in cases) else ("image",)
        if not (training and self.config.features in ("cnn", "sdm")):
            return images
        return (*images, *(("moving_label", "fixed_label") if len(images) == 2 else ("label",)))

    def expected_dims(self) -> int | None:
        """Slices are cut from volumes, but volumes are not made from slices."""
        return 3 if self.config.spatial_dims == 3 else None

    def problems(self, cases: Sequence[Case], known: Mapping[str, Any]) -> Sequence[BadCase]:
        """Label values that the model does not know or that occur once only."""
        return stray_labels(cases, known.get("labels") or self.config.labels, self.config.label_channels)

    def split(self, source: Source, seed: int) -> Splits:
        """By patient; where the modalities come from different people, within each modality."""
        cases = source.cases
        if not cases:
            raise UserError(f"{source.spec} holds no case that can be used")
        groups = [cases]
        if not any("moving" in case.fields for case in cases):
            names = modalities(cases, self.config.moving, self.config.fixed)
            sides = [tuple(c for c in cases if c.attributes.get("modality") == name) for name in names]
            shared = {c.patient for c in sides[0]} & {c.patient for c in sides[1]}
            groups = [(*sides[0], *sides[1])] if shared else list(sides)
        parts = [
            split_by_patient(
                group, validation=self.config.validation_fraction, test=self.config.test_fraction, seed=seed
            )
            for group in groups
        ]
        return Splits(
            *(tuple(c for part in parts for c in getattr(part, role)) for role in ("train", "validation", "test"))
        )

    def train(self, work: Workbench, splits: Splits) -> Trained:
        """Fix the grid and the organs, then learn the features if there are any."""
        config = self.config
        if config.aligner == "elastix":
            require_elastix()
        refs = self._pairs(splits.train, self.config.pairing)
        grid = self._work_grid(refs)
        values = config.labels or tuple(
            sorted(frozenset().union(*label_values(splits.train, config.label_channels).values()))
        )
        names = config.label_names or organ_names(splits.train, values)
        about = {"grid": asdict(grid), "labels": list(values), "label_names": list(names)}
        if config.features != "cnn":
            return Trained(weights=None, about=about)
        if not values:
            raise UserError(
                "learning features needs label maps, and none of the training images has an organ in its own"
            )
        validation = self._pairs(splits.validation, "auto") if splits.validation else []
        work.say(f"{len(refs)} training pairs on a grid of {' x '.join(map(str, grid.shape or ()))} pixels")
        fit = work.fit(functools.partial(make_learner, config, refs, validation, grid, values, work.cache))
        return Trained(weights=fit.weights, about=about, metrics=fit.metrics, fits={"train": fit})

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        """Register every pair among the cases and score it against labels, landmarks and truth."""
        refs = self._pairs(cases, "auto")
        numbered = list(enumerate(refs))
        chunks = [numbered[i : i + _PAIRS_PER_TASK] for i in range(0, len(numbered), _PAIRS_PER_TASK)]
        scored = work.map(functools.partial(_score, self.config, trained), chunks, name="evaluate")
        return summarize([pair for chunk in scored for pair in chunk])

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        """Align two scans; see `prediction.predict_pair` for what is written."""
        from medray.systems.registration.prediction import predict_pair

        align = functools.partial(align_pair, self.config, _features(self.config, trained))
        return predict_pair(align, work_grid(trained), request)

    @classmethod
    def claim_setting(cls, preset: str) -> tuple[SutsSettings, str]:
        """What all variants of the claim share."""
        from medray.systems.registration.suts_claim import claim_size

        size = claim_size(preset)
        return size.settings(), size.phantom

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        """See `suts_claim`."""
        from medray.systems.registration.suts_claim import run_claim

        return run_claim(work, preset)

    def _pairs(self, cases: Sequence[Case], pairing: Pairing) -> list[PairRef]:
        return form_pairs(cases, moving=self.config.moving, fixed=self.config.fixed, pairing=pairing)

    def _work_grid(self, refs: Sequence[PairRef]) -> WorkGrid:
        """One grid for all training pairs: given, or the spacing and extent of the fixed images."""
        config, dims = self.config, self.config.spatial_dims
        same_patient = all(ref.moving.patient == ref.fixed.patient for ref in refs)
        align = ("world" if same_patient else "center") if config.align == "auto" else config.align
        fixed = [
            canonical(case.volume(refs[0].field_names[1])) for case in {r.fixed.id: r.fixed for r in refs}.values()
        ]
        spacing = config.spacing_mm or tuple(float(np.median([v.spacing[a] for v in fixed])) for a in range(dims))
        extents = [[np.ceil(v.shape[a] * v.spacing[a] / spacing[a] - 1e-4) for a in range(dims)] for v in fixed]
        sides = (config.normalize_moving, config.normalize_fixed)
        cases = (refs[0].moving, refs[0].fixed)
        automatic = [
            default_normalization(case.attributes.get("modality" if not refs[0].ready_made else name, ""))
            for case, name in zip(cases, refs[0].field_names, strict=True)
        ]
        return WorkGrid(
            spatial_dims=dims,
            spacing_mm=spacing,
            shape=config.shape or tuple(int(n) for n in np.max(extents, axis=0)),
            align=align,
            num_slices=config.slices_per_volume,
            match_slices=config.match_slices,
            normalize=tuple(a if s == "auto" else s for s, a in zip(sides, automatic, strict=True)),  # type: ignore[arg-type]
        )


def organ_names(cases: Sequence[Case], values: Sequence[int]) -> tuple[str, ...]:
    """What the data calls its organs (attribute ``labels``: "1=liver 2=spleen"), else label_1, label_2, ..."""
    told = dict(item.split("=", 1) for item in cases[0].attributes.get("labels", "").split() if "=" in item)
    return tuple(told.get(str(value), f"label_{value}") for value in values)


def work_grid(trained: Trained) -> WorkGrid:
    """The grid a model was trained on, with the shape left to each new image."""
    kept = trained.about["grid"]
    return WorkGrid(
        spatial_dims=kept["spatial_dims"],
        spacing_mm=tuple(kept["spacing_mm"]),
        shape=None,
        align=kept["align"],
        num_slices=kept["num_slices"],
        match_slices=kept["match_slices"],
        normalize=tuple(kept["normalize"]),
    )


def make_learner(
    config: SutsSettings,
    refs: Sequence[PairRef],
    validation: Sequence[PairRef],
    grid: WorkGrid,
    labels: Sequence[int],
    cache: SampleCache | None = None,
) -> Learner:
    """Built on every worker: load the pairs and set the networks up."""
    reader = PairReader(grid, label_channels=config.label_channels, cache=cache)
    free = PairReader(replace(grid, shape=None), label_channels=config.label_channels, cache=cache)
    pairs = [pair for ref in refs for pair in reader.load(ref)]
    for copy in range(config.augmented_copies):
        pairs += [
            augmented(pair, torch.Generator().manual_seed(seed_of("copy", copy, pair.id)))
            for pair in pairs[: len(pairs) // (copy + 1)]
        ]
    held_out = [pair for ref in validation for pair in free.load(ref)]
    return SutsLearner(config, pairs, held_out, labels)


def _features(config: SutsSettings, trained: Trained) -> FeaturePair:
    features = FeaturePair(config)
    if trained.weights is not None:
        load_network(features, trained.weights, prefix="features.")
    return features.eval()


@torch.no_grad()
def align_pair(
    config: SutsSettings, features: FeaturePair, pair: ImagePair, labels: Sequence[int] = ()
) -> NDArray[np.float32]:
    """Displacement of one pair in pixels, (D, *shape), by whatever the settings say."""
    if config.aligner == "elastix":
        # The paper's 4 levels, fewer where halving 3 times would leave less than 12 pixels.
        levels = max(1, min(4, 1 + int(math.log2(max(1.0, min(pair.fixed.shape) / 12)))))
        return register_elastix(pair.moving, pair.fixed, spacing=pair.spacing_mm, num_levels=levels)
    moving, fixed = (torch.from_numpy(image)[None, None] for image in (pair.moving, pair.fixed))
    maps: list[torch.Tensor | None] = [None, None]
    if config.features == "sdm":
        if pair.moving_label is None or pair.fixed_label is None:
            raise UserError("the variant sdm is an oracle: it needs the label maps of both images; use a trained model")
        both = (pair.moving_label, pair.fixed_label)
        maps = [signed_distance_maps(torch.from_numpy(m)[None], (0, *labels), config.sdm_alpha) for m in both]
    moving_features, fixed_features = features(moving, fixed, *maps)
    displacement: NDArray[np.float32] = register(moving_features, fixed_features, config)[0].numpy()
    return displacement


def _align_or_stay(
    config: SutsSettings, features: FeaturePair, pair: ImagePair, labels: Sequence[int]
) -> tuple[NDArray[np.float32], str]:
    """The displacement; where the classical peer gives up, none at all, and its reason for the table."""
    try:
        return align_pair(config, features, pair, labels), ""
    except UserError as error:
        if config.aligner != "elastix":
            raise
        return np.zeros((pair.fixed.ndim, *pair.fixed.shape), dtype=np.float32), str(error)


def _score(config: SutsSettings, trained: Trained, refs: Sequence[tuple[int, PairRef]]) -> list[ScoredPair]:
    """Register and score some pairs; the first few of all get a picture. Runs as a Ray task."""
    features = _features(config, trained)
    if config.aligner == "elastix":
        load_elastix()  # takes seconds, which are not the registration's
    reader = PairReader(work_grid(trained), label_channels=config.label_channels)
    labels = trained.about["labels"]
    names = dict(zip(labels, trained.about["label_names"], strict=True))
    scored = []
    for index, ref in refs:
        for number, pair in enumerate(reader.load(ref)):
            started = time.process_time()
            displacement, failure = _align_or_stay(config, features, pair, labels)
            result = score_pair(pair, displacement, names, time.process_time() - started)
            if failure:
                result.row["failed"] = failure
            if index < _EXAMPLES and number == 0:
                method = "elastix" if config.aligner == "elastix" else config.features
                caption = f"{pair.id}, aligned by {method}"
                if "dice_mean" in result.row:
                    caption += f": Dice {result.row['initial_dice_mean']:.2f} to {result.row['dice_mean']:.2f}"
                figure = overview_figure(
                    pair, displacement, name=f"example_{index}", caption=caption, label_names=names
                )
                result = replace(result, figure=figure)
            scored.append(result)
    return scored
