"""Breast tumors in ultrasound, segmented by one network that several hospitals train without pooling their images.

Gad et al., "A Novel Approach to Breast Cancer Segmentation Using U-Net Model with Attention Mechanisms and FedProx",
MIUA 2023. Every round the hospitals ("sites") start from the server's weights, train on their own images with a
proximal term that keeps them near, and send weights back; the server averages them.

Departs from the paper: the proximal term is anchored at the weights a site was sent, as in Li et al. (FedProx), not at
the site's own of the round before (eq. 1; variant ``own_anchor``); the learning rate is that of section 3.4 (1e-4), not
of 3.3 (variant ``listed_settings``); instance instead of unstated normalization; test images are cut off first, so that
no site has seen them (the paper's counts overlap). No differential privacy or secure aggregation is involved: weights
can reveal something about the images they were trained on.

Shape letters: B images, H rows, W columns. Networks see one gray channel of ``size`` x ``size`` pixels.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from monai.losses.dice import DiceLoss
from monai.networks.nets.basic_unet import TwoConv
from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import RandAdjustContrastd, RandShiftIntensityd
from monai.transforms.spatial.dictionary import RandAffined, RandFlipd
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from medray.data.cache import SampleCache
from medray.data.case import Case, Source, Splits, Volume
from medray.data.readers import read_volume, stem_of
from medray.data.resized import ResizedReader, back_to
from medray.data.splits import split_by_patient
from medray.data.writers import write_bytes, write_volume
from medray.errors import UserError
from medray.figures.drawing import curves, to_png
from medray.figures.segmentation import Example, outlines
from medray.learner import Learner, Schedule, Step, SumCount, seed_of
from medray.metrics.segmentation import Confusion, confusion, pooled
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
from medray.systems.claims import Arm, bound, difference, score_arms
from medray.systems.segmentation.federation import WEIGHTS, Federation, RoundRecord, Update, Weights, run_rounds

_PREFIX = "unet."
_EXAMPLES = 8
_CASES_PER_TASK = 32


@dataclass(frozen=True, kw_only=True)
class FedProxConfig:
    """Federation, network and training; the defaults are the paper's where it says them."""

    training: Literal["federated", "local", "centralized"] = "federated"
    """Weights go around (paper); every site trains alone; or all images are pooled, which federation is to avoid."""
    mu: float = 0.1
    """Weight of the proximal term, mu/2 |w - w_global|^2 (eq. 1, paper 0.1); 0 is FedAvg."""
    rounds: int = 6
    """Communication rounds (paper 6)."""
    local_epochs: int = 10
    """Epochs of each site in a round (paper 10)."""
    aggregation: Literal["samples", "uniform"] = "samples"
    """Sites count by their images (Li et al.), or all alike."""
    participation: float = 1.0
    """Share of the sites that train in a round, drawn by the seed (paper 1)."""
    min_sites: int = 1
    """A round waits until as many sites have answered; others that are away are left out of it."""
    anchor: Literal["global", "own"] = "global"
    """What the proximal term holds on to: the weights sent by the server, or the site's own of the round before
    (eq. 1 as printed)."""
    keep_norm: bool = False
    """FedBN: a site goes on with its own normalization layers, only the others are averaged into what it is sent."""
    attention: bool = True
    """Attention gates on the skips (fig. 3); off is a plain U-Net."""
    channels: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Feature maps per level."""
    norm: Literal["instance", "batch"] = "instance"
    """Normalization; the paper does not say. Batch statistics differ between sites and are averaged with the rest."""
    size: int = 256
    """Rows and columns images are stretched to, px (the 32 x 32 gates of fig. 3 suggest 256)."""
    lr: float = 1e-4
    """Learning rate of Adam, started anew each round (paper 1e-4 in sec. 3.4)."""
    weight_decay: float = 0.0
    """Weight decay (the regularization parameter of sec. 3.3 would be 1e-3)."""
    batch_size: int = 16
    """Images per step (paper 16)."""
    augment: bool = True
    """Flips, rotations, translations, scaling, contrast and brightness (sec. 3.2; strengths are ours)."""
    sites: tuple[str, ...] = ()
    """Sites that take part, by the attribute ``site`` or else the folder; all that occur if left out."""
    test_fraction: float = 0.2
    """Share of each site's patients kept for the server's test, before anything is trained."""
    validation_fraction: float = 0.2
    """Share of each site's patients the site holds out to score the global model every round (paper 0.2)."""

    def __post_init__(self) -> None:
        smallest = 2 ** (len(self.channels) - 1)
        if self.size % smallest or self.size < 2 * smallest:
            raise ValueError(
                f"size must be a multiple of {smallest} and at least {2 * smallest} with "
                f"{len(self.channels)} levels, got {self.size}"
            )
        if not 0 < self.participation <= 1:
            raise ValueError(f"participation is a share above 0 and at most 1, got {self.participation}")
        if min(self.rounds, self.local_epochs, self.batch_size, self.min_sites) < 1 or self.mu < 0:
            raise ValueError("rounds, local_epochs, batch_size and min_sites start at 1 and mu at 0")


class AttentionGate(nn.Module):
    """Fig. 3: where in a skip connection to look, told by the level below.

    Args:
        skip: channels of x.
        gating: channels of g, which has half the rows and columns of x.
    """

    def __init__(self, skip: int, gating: int) -> None:
        super().__init__()
        inner = max(1, skip // 2)
        self.skip = nn.Conv2d(skip, inner, kernel_size=2, stride=2)
        self.gating = nn.Conv2d(gating, inner, kernel_size=1)
        self.score = nn.Conv2d(inner, 1, kernel_size=1)

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        """X (B, C, H, W) scaled by coefficients in (0, 1)."""
        coefficients = torch.sigmoid(self.score(functional.relu(self.skip(x) + self.gating(g))))
        return x * functional.interpolate(coefficients, size=x.shape[2:], mode="bilinear", align_corners=False)


class AttentionUNet(nn.Module):
    """Sec. 3.4: a U-Net whose skips pass through attention gates.

    Args:
        channels: feature maps per level, from the image down.
        norm: instance or batch.
        attention: off leaves the gates out.
    """

    def __init__(self, channels: Sequence[int], norm: str, *, attention: bool) -> None:
        super().__init__()
        block = functools.partial(TwoConv, 2, act="relu", norm=(norm, {"affine": True}), bias=False)
        pairs = list(itertools.pairwise(channels))
        self.down = nn.ModuleList(block(a, b) for a, b in [(1, channels[0]), *pairs])
        self.up = nn.ModuleList(nn.Conv2d(b, a, kernel_size=1) for a, b in pairs)
        self.gates = nn.ModuleList(AttentionGate(a, b) for a, b in pairs) if attention else None
        self.merge = nn.ModuleList(block(2 * a, a) for a, _ in pairs)
        self.head = nn.Conv2d(channels[0], 1, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, H, W) to logits of the same shape."""
        levels = [self.down[0](image)]
        for down in self.down[1:]:
            levels.append(down(functional.max_pool2d(levels[-1], 2)))
        x = levels.pop()
        for level in reversed(range(len(levels))):
            skip = levels[level] if self.gates is None else self.gates[level](levels[level], x)
            x = self.up[level](functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
            x = self.merge[level](torch.cat([skip, x], dim=1))
        return self.head(x)


def proximal_term(network: nn.Module, anchor: Mapping[str, Tensor]) -> Tensor:
    """|w - w_anchor|^2 / 2 over the parameters (eq. 1), without mu."""
    terms = [(p - anchor[name].to(p)).square().sum() for name, p in network.named_parameters()]
    return torch.stack(terms).sum() / 2


class SegmentationLearner(Learner):
    """Local training of one site, or of all together: Dice loss, and the proximal term where there is an anchor.

    Args:
        config: of the system.
        cases: with image and label.
        num_epochs: passes over them.
        cache: keeps decoded images.
        start: weights to begin with; fresh ones if None.
        anchor: weights the proximal term holds on to; None for none.
    """

    def __init__(
        self,
        config: FedProxConfig,
        cases: Sequence[Case],
        num_epochs: int,
        cache: SampleCache,
        start: Weights | None = None,
        anchor: Weights | None = None,
    ) -> None:
        super().__init__()
        self.config, self.cases, self.anchor = config, tuple(cases), anchor
        self.reader = ResizedReader(config.size, cache=cache)
        self.networks = build_networks(config)
        if start is not None:
            self.networks.load_state_dict(start)
        self.schedule = Schedule(num_epochs=num_epochs, batch_size=config.batch_size, validate_every_epochs=0)
        self.loss = DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0, reduction="none")
        self.augment = _augmentation() if config.augment else None

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Adam."""
        parameters = self.networks.parameters()
        return {"adam": Adam(parameters, lr=self.config.lr, weight_decay=self.config.weight_decay)}

    def num_samples(self) -> int:
        """One per case."""
        return len(self.cases)

    def sample_name(self, index: int) -> str:
        """The case."""
        return self.cases[index].id

    def collate(self, indices: Sequence[int], epoch: int) -> dict[str, Tensor]:
        """Images and masks, (B, 1, H, W) each."""
        pairs = [self._sample(index, epoch) for index in indices]
        return {name: torch.stack([pair[name] for pair in pairs]) for name in ("image", "label")}

    def training_step(self, batch: dict[str, Tensor], step: Step) -> Mapping[str, SumCount]:
        """Dice loss per image, so that an image without lesion counts like any other, plus mu times `proximal_term`."""
        with step.autocast():
            logits = self.networks["unet"](batch["image"])
        losses = self.loss(logits.float(), batch["label"]).flatten(1).mean(1)
        count = len(losses)
        objective = step.mean(losses.sum(), count)
        logged = {"loss": SumCount(losses.detach().sum(), count)}
        if self.anchor is not None and self.config.mu > 0:
            distance = proximal_term(self.networks, self.anchor)
            objective = objective + self.config.mu * step.mean(distance * count, count)  # once over all workers
            logged["proximal"] = SumCount(distance.detach() * count, count)
        step.backward(objective)
        step.update("adam")
        return logged

    def _sample(self, index: int, epoch: int) -> dict[str, Tensor]:
        read = self.reader.read(self.cases[index])
        mask = read.mask if read.mask is not None else np.zeros(read.image.shape[1:], np.uint8)
        sample = {"image": torch.from_numpy(read.image), "label": torch.from_numpy(mask[None].astype(np.float32))}
        if self.augment is not None:
            drawn = torch.randint(2**31, (1,), generator=self.sample_generator(index, epoch))
            sample = self.augment.set_random_state(seed=int(drawn))(sample)
        return {name: torch.as_tensor(value).float().contiguous() for name, value in sample.items()}


def _augmentation() -> Compose:
    """Left and right are alike in ultrasound, up and down (depth) are not."""
    keys = ("image", "label")
    return Compose(
        [
            RandFlipd(keys, prob=0.5, spatial_axis=1),
            RandAffined(
                keys,
                prob=0.8,
                rotate_range=0.25,
                translate_range=(6, 6),
                scale_range=0.15,
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            RandAdjustContrastd(["image"], prob=0.5, gamma=(0.7, 1.5)),
            RandShiftIntensityd(["image"], prob=0.5, offsets=0.1),
        ]
    )


def build_networks(config: FedProxConfig) -> nn.ModuleDict:
    """The network all sites share, under the name it has in checkpoints."""
    return nn.ModuleDict({"unet": AttentionUNet(config.channels, config.norm, attention=config.attention)})


@dataclass(frozen=True)
class SiteData:
    """What a site is made from. Cases are references: images are read where the site runs."""

    name: str
    config: FedProxConfig
    train: tuple[Case, ...]
    held_out: tuple[Case, ...]


class Site:
    """A hospital. Its images stay with it; weights and counts of pixels leave it.

    It remembers nothing that matters between calls: a site that was lost and comes back is as good as before.
    """

    def __init__(self, work: Workbench, data: SiteData) -> None:
        self.work, self.data = work, data
        self.cache = work.cache
        self.seed = work.seed

    def train(self, number: int, weights: Weights, own: Weights | None) -> Update:
        """Local training of one round.

        Args:
            number: of the round, from 0.
            weights: the server's.
            own: this site's of its last round, where the settings ask for them.
        """
        config, name = self.data.config, f"round-{number:03d}"
        start = {**weights, **{k: v for k, v in (own or {}).items() if config.keep_norm and k in _norm_keys(config)}}
        anchor = own if config.anchor == "own" and own is not None else weights
        self.work.seed = seed_of(self.seed, self.data.name, number) % 2**31  # another order every round
        fit = self.work.fit(
            functools.partial(
                SegmentationLearner, config, self.data.train, config.local_epochs, self.cache, start, anchor
            ),
            name=name,
        )
        self.work.forget(f"round-{number - 1:03d}")
        assert fit.weights is not None
        found = load_file(fit.weights)
        drift = math.sqrt(sum(float((found[k] - weights[k]).square().sum()) for k in _parameter_keys(config)))
        return Update(found, len(self.data.train), drift, float(fit.metrics.get("loss", float("nan"))))

    def score(self, weights: Weights) -> Confusion:
        """Pixels of the held-out images, sorted by the global model."""
        networks = build_networks(self.data.config)
        networks.load_state_dict(weights)
        found = segment(networks["unet"], self.data.config, self.data.held_out, self.cache)
        return sum((counts for counts, _ in found), Confusion())


@functools.cache
def _norm_keys(config: FedProxConfig) -> frozenset[str]:
    networks, kinds = build_networks(config), (nn.InstanceNorm2d, nn.BatchNorm2d)
    norms = {name for name, module in networks.named_modules() if isinstance(module, kinds)}
    return frozenset(key for key in networks.state_dict() if key.rpartition(".")[0] in norms)


@functools.cache
def _parameter_keys(config: FedProxConfig) -> tuple[str, ...]:
    return tuple(name for name, _ in build_networks(config).named_parameters())


@torch.inference_mode()
def segment(
    network: nn.Module, config: FedProxConfig, cases: Sequence[Case], cache: SampleCache
) -> list[tuple[Confusion, NDArray[np.float32]]]:
    """Probabilities (size, size) of each case, and its pixels counted at threshold 0.5."""
    reader, found = ResizedReader(config.size, cache=cache), []
    network.eval()
    for case in cases:
        read = reader.read(case)
        probability = torch.sigmoid(network(torch.from_numpy(read.image)[None]))[0, 0].numpy()
        truth = read.mask if read.mask is not None else np.zeros_like(probability)
        found.append((confusion(probability > 0.5, truth), probability))
    return found


def site_of(case: Case) -> str:
    """The attribute ``site``, else the folder the case lies in."""
    return case.attributes.get("site") or case.attributes.get("folder") or ""


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
        stem = request.out.with_name(stem_of(request.out))
        raster = image.header.get("format") == "raster"
        picture = outlines([Example(image.array.mean(0), mask, title=Path(image.source).name)], spacing=image.spacing)
        files = {
            "mask": write_volume(
                replace(image, array=(mask * (255 if raster else 1)).astype(np.uint8)[None]), request.out
            ),
            "probability": write_volume(
                replace(image, array=probability[None]), stem.with_name(f"{stem.name}_probability.npz")
            ),
            "measurements": write_bytes(stem.with_name(f"{stem.name}.json"), json.dumps(measured, indent=1).encode()),
            "picture": write_bytes(stem.with_name(f"{stem.name}_overview.png"), to_png(picture)),
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
        arms = [
            Arm(name=name, config=replace(config, **VARIANTS[name].config), data=f"{data}&seed={{seed}}")
            for name in ("fedprox", "fedavg", "mu_small", "local", "centralized", "unet")
        ]
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
            load_network(network, weights, prefix=_PREFIX)
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
