"""FedProx attention U-Net as a system: presets, variants, sites and splits, evaluation, prediction, claim.

The method is in `fedprox_attunet`, the server's side of it in `federation`.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from medray.data.cache import SampleCache
from medray.data.case import Case, Source, Splits, Volume
from medray.data.readers import read_volume
from medray.data.resized import ResizedReader, back_to
from medray.data.splits import split_by_patient
from medray.data.writers import beside, write_bytes, write_json, write_volume
from medray.errors import UserError
from medray.figures.drawing import curves, to_png
from medray.figures.segmentation import Example, outlines
from medray.learner import seed_of
from medray.metrics.segmentation import Confusion, pooled
from medray.nn.weights import load_network
from medray.system import (
    ClaimResult,
    Evaluation,
    Figure,
    Prediction,
    PredictRequest,
    Preset,
    Row,
    System,
    Trained,
    Variant,
    Workbench,
)
from medray.systems.claims import bound, difference, score_arms, variant_arms
from medray.systems.segmentation.federation import WEIGHTS, Federation, RoundRecord, run_rounds
from medray.systems.segmentation.fedprox_attunet import (
    NETWORK,
    FedProxConfig,
    SegmentationLearner,
    Site,
    SiteData,
    build_networks,
    segment,
    site_of,
)

_EXAMPLES = 8
_CASES_PER_TASK = 32

_SMALL = {"channels": (8, 16, 32, 64), "size": 64, "lr": 2e-3, "batch_size": 8}

PRESETS = {
    "smoke": Preset(
        about="three hospitals of the ultrasound phantom, 64 x 64, 3 rounds of 2 epochs, about 20 s",
        data="phantom:ultrasound?n=40&size=64",
        config={**_SMALL, "rounds": 3, "local_epochs": 2},
        compare=("fedavg",),
    ),
    "demo": Preset(
        about="150 images per hospital, 96 x 96, 6 rounds of 5 epochs, about ten minutes",
        data="phantom:ultrasound?n=150&size=96",
        config={"channels": (16, 32, 64, 128, 256), "size": 96, "lr": 1e-3, "local_epochs": 5},
        compare=("fedavg", "local", "centralized"),
    ),
    "paper": Preset(
        about="your own images, 6 rounds of 10 epochs at 256 x 256; needs a GPU",
        data="",
        seeds=5,
    ),
}

VARIANTS = {
    "fedprox": Variant(about="the paper's: attention U-Net, proximal term"),
    "fedavg": Variant(about="no proximal term", config={"mu": 0.0}),
    "mu_small": Variant(about="mu 0.01, the other proximal parameter listed in sec. 3.3", config={"mu": 0.01}),
    "local": Variant(
        about="every site trains alone for as long; the best of them is scored", config={"training": "local", "mu": 0.0}
    ),
    "centralized": Variant(about="all images pooled", config={"training": "centralized", "mu": 0.0}),
    "unet": Variant(about="no attention gates", config={"attention": False}),
    "fedbn": Variant(about="sites keep their own normalization layers", config={"keep_norm": True}),
    "batch_norm": Variant(about="batch instead of instance normalization", config={"norm": "batch"}),
    "uniform": Variant(about="sites count alike, whatever their number of images", config={"aggregation": "uniform"}),
    "own_anchor": Variant(
        about="proximal term to the site's own last weights, eq. 1 as printed", config={"anchor": "own"}
    ),
    "listed_settings": Variant(
        about="learning rate 0.01 and regularization 0.001, as listed in sec. 3.3",
        config={"lr": 0.01, "weight_decay": 1e-3},
    ),
}


class FedProxAttUNet(System[FedProxConfig]):
    """Federated segmentation of breast tumors."""

    slug = "fedprox_attunet"
    config_class = FedProxConfig
    predict_inputs = ("image",)
    predict_suffix = ".png"
    empty_labels = True  # normal tissue
    presets: ClassVar[Mapping[str, Preset]] = PRESETS
    variants: ClassVar[Mapping[str, Variant]] = VARIANTS

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        """An image and its lesions; a label map of zeros where there are none."""
        return ("image", "label")

    def expected_dims(self) -> int | None:
        """Ultrasound images are 2D."""
        return 2

    def split(self, source: Source, seed: int) -> Splits:
        """By patient within each site and diagnosis: the server's test, the sites' held-out images, the rest."""
        sites = self._sites(source)
        cases = [case for case in source.cases if site_of(case) in sites]
        parts = []
        for site in sites:
            here = [case for case in cases if site_of(case) == site]
            strata = {case.id: case.attributes.get("diagnosis", "") for case in here}
            parts.append(
                split_by_patient(
                    here,
                    validation=self.config.validation_fraction * (1 - self.config.test_fraction),
                    test=self.config.test_fraction,
                    seed=seed,
                    strata=strata,
                    require_train=False,
                )
            )
            if not parts[-1].train:
                raise UserError(
                    f"site {site} has no cases to train on: of its {len(here)}, {len(parts[-1].test)} are for the test "
                    f"and {len(parts[-1].validation)} held out; add patients or leave it out with --config.sites"
                )
        return Splits(*(tuple(c for p in parts for c in getattr(p, role)) for role in ("train", "validation", "test")))

    def train(self, work: Workbench, splits: Splits) -> Trained:
        """Rounds over the sites; or every site alone; or all images together."""
        if self.config.training == "centralized":
            fit = work.fit(self._learner(splits.train, work.cache))
            return Trained(weights=fit.weights, about={"rounds": []}, metrics=fit.metrics, fits={"train": fit})
        data = {site: self._site(splits, site) for site in sorted({site_of(case) for case in splits.train})}
        if self.config.training == "local":
            found = work.map_runs(_train_alone, list(data.values()), name="sites")
            best = max(range(len(found)), key=lambda index: found[index][1])
            files = {f"site{index}": path for index, (path, _) in enumerate(found)}
            about = {"rounds": [], "sites": list(data)}
            return Trained(weights=files[f"site{best}"], files=files, about=about)
        settings = Federation(
            rounds=self.config.rounds,
            participation=self.config.participation,
            min_sites=self.config.min_sites,
            aggregation=self.config.aggregation,
            keep_own=self.config.keep_norm or self.config.anchor == "own",
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(work.seed, "start"))
            start = build_networks(self.config).state_dict()
        folder, rounds = run_rounds(work, Site, data, start, settings)
        told: dict[str, Any] = {"rounds": [asdict(record) for record in rounds], "sites": list(data)}
        return Trained(weights=folder / WEIGHTS, about=told, metrics=_over_rounds(rounds))

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        """Pixels of all test images together, as in table 1, and each image by itself.

        Of sites that trained alone the one that does best on these cases is reported, to the peer's advantage.
        """
        models = {"": trained.weights}
        if trained.files:
            sites = trained.about["sites"]
            models = {site: trained.files[f"site{index}"] for index, site in enumerate(sites)}
        scored = {name: self._scored(work, path, cases) for name, path in models.items()}
        best = max(scored, key=lambda name: _pooled_dice(scored[name]))
        alone = {f"dice_trained_at_{name}": _pooled_dice(found) for name, found in scored.items() if name}
        rows = [_row(case, counts) for case, (counts, _) in zip(cases, scored[best], strict=True)]
        summary = {**pooled([counts for counts, _ in scored[best]]), **alone, **trained.metrics}
        summary["dice_per_image"] = float(np.mean([float(row["dice"]) for row in rows]))
        for name in sorted({site_of(case) for case in cases}):
            here = [counts for case, (counts, _) in zip(cases, scored[best], strict=True) if site_of(case) == name]
            summary[f"dice_{name}"] = pooled(here)["dice"]
        finite = {name: value for name, value in summary.items() if math.isfinite(value)}
        return Evaluation(rows, finite, self._figures(trained, cases, [p for _, p in scored[best]]))

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        """The lesions of one image on its own pixels: mask, probability, measurements, picture."""
        image = read_volume(request.inputs[0], channels=True)
        network = self._network(trained.weights)
        read = ResizedReader(self.config.size).on_grid(image)
        started = time.perf_counter()
        with torch.inference_mode():
            probability = back_to(torch.sigmoid(network(torch.from_numpy(read)[None]))[0, 0].numpy(), image)
        seconds = time.perf_counter() - started
        mask = probability > 0.5
        measured = _measure(mask, probability, image)
        raster = image.header.get("format") == "raster"
        picture = outlines([Example(image.array.mean(0), mask, title=Path(image.source).name)], spacing=image.spacing)
        files = {
            "mask": write_volume(
                replace(image, array=(mask * (255 if raster else 1)).astype(np.uint8)[None]), request.out
            ),
            "probability": write_volume(
                replace(image, array=probability[None]), beside(request.out, "_probability.npz")
            ),
            "measurements": write_json(beside(request.out, "_measurements.json"), measured),
            "picture": write_bytes(beside(request.out, "_overview.png"), to_png(picture)),
        }
        return Prediction(files, {k: v for k, v in measured.items() if math.isfinite(v)}, seconds)

    @classmethod
    def claim_setting(cls, preset: str) -> tuple[FedProxConfig, str]:
        """The preset's; at smoke size with more rounds, since after three nothing has settled yet.

        Raises:
            UserError: the preset has no data of its own.
        """
        config, data = super().claim_setting(preset)
        if not data:
            raise UserError(f"the claim runs on the phantom with --preset smoke or demo, not {preset}")
        return (replace(config, rounds=6, local_epochs=5) if preset == "smoke" else config), data

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        """1. The global model climbs over the rounds and ends above the best site alone. 2. The proximal term keeps
        sites near the server, costs at most 0.01 Dice against FedAvg, and calms the rounds.
        """
        config, data = cls.claim_setting(preset)
        names = ("fedprox", "fedavg", "mu_small", "local", "centralized", "unet")
        arms = variant_arms(cls, names, config, f"{data}&seed={{seed}}")
        scores = score_arms(work, cls, arms, seeds=range(work.seed, work.seed + PRESETS[preset].seeds))
        means = scores.summaries
        checks = [
            bound(means, "climb", "fedprox", at_least=0.1, statement="Dice climbs from the first to the last round"),
            difference(means, "dice", "fedprox", "local", statement="the federated model beats the best site alone"),
            difference(
                means,
                "drift",
                "fedprox",
                "fedavg",
                lower_is_better=True,
                statement="the proximal term keeps sites nearer to the server's weights",
            ),
            difference(
                means,
                "dice",
                "fedprox",
                "fedavg",
                at_least=-0.01,
                statement="the proximal term costs at most 0.01 Dice",
            ),
            difference(
                means,
                "round_jitter",
                "fedprox",
                "fedavg",
                lower_is_better=True,
                statement="rounds vary less with the proximal term",
            ),
        ]
        notes = ["mu_small, centralized and unet are reported beside: the paper measured none of them"]
        return ClaimResult(checks, [*scores.rows, *({**row, "case": "all"} for row in means)], notes)

    def _learner(self, cases: Sequence[Case], cache: SampleCache) -> functools.partial[SegmentationLearner]:
        epochs = self.config.rounds * self.config.local_epochs
        return functools.partial(SegmentationLearner, self.config, cases, epochs, cache)

    def _sites(self, source: Source) -> tuple[str, ...]:
        """Those asked for, or all.

        Raises:
            UserError: a site without cases, or no sites at all.
        """
        known = sorted({site_of(case) for case in source.cases} - {""})
        if not known:
            raise UserError(f"{source.spec} names no sites; give a manifest with a column site, or a folder per site")
        for site in self.config.sites:
            if site not in known:
                raise UserError(f"site {site} has no cases in {source.spec}; its sites are {', '.join(known)}")
        return self.config.sites or tuple(known)

    def _site(self, splits: Splits, name: str) -> SiteData:
        train, held_out = ([c for c in part if site_of(c) == name] for part in (splits.train, splits.validation))
        return SiteData(name, self.config, tuple(train), tuple(held_out))

    def _network(self, weights: Path | None) -> nn.Module:
        network = build_networks(self.config)["unet"]
        if weights is not None:
            load_network(network, weights, prefix=NETWORK)
        return network.eval()

    def _scored(self, work: Workbench, weights: Path | None, cases: Sequence[Case]) -> list[Scored]:
        chunks = [cases[i : i + _CASES_PER_TASK] for i in range(0, len(cases), _CASES_PER_TASK)]
        score = functools.partial(_score_chunk, self, weights, work.cache)
        return [found for chunk in work.map(score, chunks, name="evaluate") for found in chunk]

    def _figures(
        self, trained: Trained, cases: Sequence[Case], probabilities: Sequence[NDArray[np.float32]]
    ) -> list[Figure]:
        reader, examples = ResizedReader(self.config.size), []
        for index in _spread(cases, _EXAMPLES):
            read = reader.read(cases[index])
            title = f"{cases[index].id} {cases[index].attributes.get('diagnosis', '')}"
            examples.append(Example(read.image[0], probabilities[index] > 0.5, read.mask, title))
        name = f"examples of {len(examples)} test images" if len(examples) > 1 else "a test image"
        figures = [Figure("examples", f"Lesions found and true, {name}.", to_png(outlines(examples)))]
        if trained.about.get("rounds"):
            caption = "Dice on held-out images after each round: all together and by site (the paper's fig. 4)."
            figures.append(
                Figure("rounds", caption, to_png(curves(_records(trained.about["rounds"]), ["dice", "drift"])))
            )
        return figures


Scored = tuple[Confusion, NDArray[np.float32]]


def _train_alone(work: Workbench, data: SiteData) -> tuple[Path, float]:
    """Weights of a site that never hears of the others, and its Dice on its own held-out images."""
    epochs = data.config.rounds * data.config.local_epochs
    fit = work.fit(functools.partial(SegmentationLearner, data.config, data.train, epochs, work.cache))
    assert fit.weights is not None
    dice = Site(work, data).score(load_file(fit.weights)).rates()["dice"]
    return fit.weights, dice if math.isfinite(dice) else 0.0


def _score_chunk(
    system: FedProxAttUNet, weights: Path | None, cache: SampleCache, cases: Sequence[Case]
) -> list[Scored]:
    return segment(system._network(weights), system.config, cases, cache)


def _pooled_dice(found: Sequence[Scored]) -> float:
    return pooled([counts for counts, _ in found])["dice"]


def _row(case: Case, counts: Confusion) -> Row:
    """An image without lesion in which none was found counts 1, as the paper's averages imply."""
    rates = counts.rates()
    dice = rates["dice"] if math.isfinite(rates["dice"]) else 1.0
    return {
        "case": case.id,
        "site": site_of(case),
        "diagnosis": case.attributes.get("diagnosis", ""),
        "dice": dice,
        "lesion_px": counts.tp + counts.fn,
        "missed_px": counts.fn,
        "false_px": counts.fp,
    }


def _over_rounds(rounds: Sequence[RoundRecord]) -> dict[str, float]:
    """Climb, drift and unrest of the rounds; ``round_jitter`` is the mean step between the rounds of the later half."""
    dice = [record.scores["all"]["dice"] for record in rounds]
    drift = [value for record in rounds for value in record.drift.values()]
    late = dice[len(dice) // 2 - (len(dice) > 1) :]
    told = {"drift": float(np.mean(drift)), "climb": dice[-1] - dice[0]}
    if len(late) > 1:
        told["round_jitter"] = float(np.mean(np.abs(np.diff(late))))
    return {name: value for name, value in told.items() if math.isfinite(value)}


def _records(rounds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rounds as the drawing of curves takes them: one line per site, and one for all."""
    return [
        {"step": record["number"] + 1, "name": site, "dice": rates["dice"], **_drift_of(record, site)}
        for record in rounds
        for site, rates in record["scores"].items()
    ]


def _drift_of(record: Mapping[str, Any], site: str) -> dict[str, float]:
    return {"drift": record["drift"][site]} if site in record["drift"] else {}


def _spread(cases: Sequence[Case], count: int) -> list[int]:
    """Indices of up to ``count`` cases, in turn from each site and diagnosis."""
    groups: dict[str, list[int]] = {}
    for index, case in enumerate(cases):
        groups.setdefault(f"{site_of(case)}/{case.attributes.get('diagnosis', '')}", []).append(index)
    turns = max(map(len, groups.values()), default=0)
    order = [group[turn] for turn in range(turns) for group in groups.values() if turn < len(group)]
    return order[:count]


def _measure(mask: NDArray[np.bool_], probability: NDArray[np.float32], image: Volume) -> dict[str, float]:
    """Lesions and their size; in mm where the file knows its pixel size."""
    from skimage.measure import label, regionprops

    regions = regionprops(label(mask))
    told = {
        "num_lesions": float(len(regions)),
        "area_px": float(mask.sum()),
        "largest_diameter_px": float(max((r.feret_diameter_max for r in regions), default=0.0)),
        "mean_probability": float(probability[mask].mean()) if mask.any() else float(probability.max()),
    }
    if image.header.get("format") != "raster":
        told["area_mm2"] = told["area_px"] * float(np.prod(image.spacing))
    return told
