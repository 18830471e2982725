"""HMLC: a taxonomy of chest findings from one radiograph. Chen, Miao, Xu, Hager & Harrison, MIDL 2019.

A DenseNet-121 gives one logit y_m per node of the taxonomy, that of P(m | its parent). Multiplied down the tree (eq. 3)
they are probabilities of which no child's is above its parent's. Trained in two stages: first each node on the images
whose parent finding is there (HLCP, eq. 2), then the products on all images (HLUP, eqs. 4 to 7).

Departs from the paper: the taxonomy is the user's or the phantom's (the paper's is a lost figure); images have one gray
channel; learning rates and lengths are ours, since the paper searched for them and names none.
Shape letters: B images, M nodes.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from medray.data.cache import SampleCache
from medray.data.case import BadCase, Case, Source, Splits
from medray.data.fields import FileRef
from medray.data.phantoms.chest import TAXONOMY
from medray.data.resized import ResizedReader
from medray.data.splits import split_by_patient
from medray.data.writers import beside, write_bytes
from medray.errors import UserError
from medray.figures.classification import prediction_figure
from medray.figures.drawing import to_png
from medray.learner import Learner, Schedule, Step, SumCount
from medray.losses.hierarchical import Form, conditional_loss, log_probability, unconditional_loss
from medray.metrics.delong import delong_test
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
from medray.systems.claims import Arm, Scores, bound, difference, score_arms
from medray.systems.classification.densenet import Size, build_densenet, load_imagenet_weights
from medray.systems.classification.labels import class_names, unlabelled
from medray.systems.classification.taxonomy import (
    Taxonomy,
    flat_taxonomy,
    label_problems,
    labels_of,
    read_taxonomy,
    require_columns,
    taxonomy_of,
)
from medray.systems.classification.taxonomy_scores import case_rows, figures, summarize

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Objective = Literal["conditional", "unconditional", "independent"]
Stage = tuple[str, Objective, int, float]
Method = Literal["hlup_finetune", "hlup", "hlcp", "br_all", "br_leaf"]
_IMAGES_PER_TASK = 64


@dataclass(frozen=True, kw_only=True)
class HmlcConfig:
    """The taxonomy, the two stages and the network."""

    method: Method = "hlup_finetune"
    """What is trained: HLCP then HLUP (paper), HLUP alone, HLCP alone, or independent labels (all, leaves only)."""
    loss: Form = "powerset"
    """How the HLUP loss is computed: powerset (paper), log1mexp (the same in fewer terms), max (for deep trees), naive,
    rescale (table 2)."""
    taxonomy: str = ""
    """YAML or JSON file of lines `child: parent`; left out, the phantom's taxonomy, or for folders of classes their
    names without any tree."""
    normal: str = "normal"
    """With folders of classes and a taxonomy: the folder of images without any finding."""
    network: Size = "densenet121"
    """DenseNet-121 (paper), or a small one for small images."""
    weights: str = ""
    """File with torchvision's ImageNet weights of DenseNet-121 (.pth or .safetensors), as in the paper; random weights
    if left out."""
    image_size: int = 224
    """Rows and columns of the network's input, px."""
    epochs: int = 10
    """Passes of the first stage."""
    finetune_epochs: int = 5
    """Passes of the second stage; methods of one stage take both together."""
    batch_size: int = 32
    """Images per update."""
    lr: float = 1e-4
    """Adam's learning rate; the losses are summed over nodes."""
    finetune_lr: float = 3e-5
    """That of the second stage."""
    validation_fraction: float = 0.1
    """Share of the patients that progress is measured on (paper 0.1)."""
    test_fraction: float = 0.2
    """Share of the patients kept for testing (paper 0.2)."""

    def __post_init__(self) -> None:
        if min(self.epochs, self.finetune_epochs) < 0 or self.epochs + self.finetune_epochs < 1:
            raise ValueError("epochs and finetune_epochs are 0 or more and not both 0")
        if self.batch_size < 1 or self.lr <= 0 or self.finetune_lr <= 0:
            raise ValueError(f"batch_size and the learning rates must be positive, got {self.batch_size}, {self.lr:g}")
        if self.image_size < 32:
            raise ValueError(f"image_size is at least 32 pixels, got {self.image_size}")
        if self.weights and self.network != "densenet121":
            raise ValueError("weights are those of densenet121; leave them out or set network=densenet121")


# Network and learner (secs. 2.2, 2.3) --------------------------------------------------------------------------------


def probabilities(logits: Tensor, taxonomy: Taxonomy, method: Method) -> Tensor:
    """Unconditional probabilities, (B, M); of leaves alone, (B, leaves), for ``br_leaf``."""
    if method in ("br_all", "br_leaf"):
        return torch.sigmoid(logits)
    return log_probability(logits, torch.from_numpy(taxonomy.ancestors).to(logits.device)).exp()


def scored_nodes(taxonomy: Taxonomy, method: Method) -> BoolArray:
    """Which nodes the network has outputs for, (M,)."""
    return taxonomy.leaves if method == "br_leaf" else np.ones_like(taxonomy.leaves)


@dataclass(frozen=True)
class Batch:
    """Images (B, 1, H, W) and labels (B, M), float."""

    image: Tensor
    label: Tensor


class HmlcLearner(Learner):
    """One stage.

    Args:
        config: the method's settings.
        taxonomy: of the labels.
        objective: ``conditional`` (HLCP), ``unconditional`` (HLUP) or ``independent`` (BR).
        cases: training cases.
        labels: (N, M) of them, and of the validation cases.
        validation: cases the loss is watched on.
        start: weights to go on from; None starts from ImageNet's or random ones.
        num_epochs: passes.
        lr: Adam's.
        cache: keeps decoded images.
    """

    def __init__(
        self,
        config: HmlcConfig,
        taxonomy: Taxonomy,
        objective: Objective,
        cases: Sequence[Case],
        validation: Sequence[Case],
        labels: Mapping[str, BoolArray],
        *,
        start: Path | None,
        num_epochs: int,
        lr: float,
        cache: SampleCache | None = None,
    ) -> None:
        super().__init__()
        self.config, self.objective, self.lr = config, objective, lr
        self.cases, self.validation = list(cases), list(validation)
        self.labels = {name: torch.from_numpy(values).float() for name, values in labels.items()}
        self.parents, self.ancestors = torch.tensor(taxonomy.parents), torch.from_numpy(taxonomy.ancestors)
        self.reader = ResizedReader(config.image_size, normalize="percentile", cache=cache)
        network = build_densenet(config.network, self.labels["train"].shape[1])
        if start is not None:
            load_network(network, start, prefix="net.")
        elif config.weights:
            load_imagenet_weights(network, Path(config.weights))
        self.networks = nn.ModuleDict({"net": network})
        self.schedule = Schedule(num_epochs=num_epochs, batch_size=config.batch_size)

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Adam on everything."""
        return {"net": Adam(self.networks.parameters(), lr=self.lr)}

    def num_samples(self) -> int:
        """Training images."""
        return len(self.cases)

    def sample_name(self, index: int) -> str:
        """The case's id."""
        return self.cases[index].id

    def collate(self, indices: Sequence[int], epoch: int) -> Batch:
        """Images as they are; the paper augments nothing."""
        images = [torch.from_numpy(self.reader.read(self.cases[index]).image) for index in indices]
        return Batch(torch.stack(images), self.labels["train"][list(indices)])

    def training_step(self, batch: Batch, step: Step) -> Mapping[str, SumCount]:
        """One update; the loss is summed over nodes and averaged over images."""
        with step.autocast():
            logits = self.networks["net"](batch.image)
        logits = logits.float()
        total = self._loss(logits, batch.label).sum()
        step.backward(step.mean(total, len(batch.image)))
        step.update("net")
        return {
            "loss": SumCount(total.detach(), len(batch.image)),
            "log_loss": SumCount(self._log_loss(logits.detach(), batch.label).sum(), batch.label.numel()),
        }

    def num_validation_samples(self) -> int:
        """Validation images."""
        return len(self.validation)

    def validation_step(self, index: int) -> Mapping[str, SumCount]:
        """The same loss on an image held out."""
        image = torch.from_numpy(self.reader.read(self.validation[index]).image)[None]
        weight = next(self.networks.parameters())
        logits = self.networks["net"](image.to(weight.device))
        loss = self._loss(logits.float(), self.labels["validation"][index : index + 1].to(logits.device))
        entropy = self._log_loss(logits.float(), self.labels["validation"][index : index + 1].to(logits.device))
        return {"loss": SumCount(loss.sum(), 1), "log_loss": SumCount(entropy.sum(), entropy.numel())}

    def _log_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy of what is predicted in the end: comparable between stages, which the losses are not."""
        if self.objective == "independent":
            return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return unconditional_loss(logits, labels, self.ancestors.to(logits.device), "log1mexp")

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.objective == "conditional":
            return conditional_loss(logits, labels, self.parents.to(logits.device))
        if self.objective == "unconditional":
            return unconditional_loss(logits, labels, self.ancestors.to(logits.device), self.config.loss)
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")


# The system ----------------------------------------------------------------------------------------------------------

_SMALL: Mapping[str, Any] = {"network": "small", "image_size": 48, "lr": 1e-3, "finetune_lr": 3e-4}
PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        about="phantom of 500 radiographs of 32 x 32 pixels, a small network; half a minute",
        data="phantom:chest?n=500&size=32&seed=0&prevalence=0.6",
        config={**_SMALL, "image_size": 32, "batch_size": 16, "lr": 1e-3, "epochs": 14, "finetune_epochs": 4},
        compare=("br_all",),
        seeds=5,
    ),
    "demo": Preset(
        about="phantom of 3000 radiographs of 64 x 64 pixels, a small network; about ten minutes",
        data="phantom:chest?n=3000&size=64&seed=0",
        config={**_SMALL, "image_size": 64, "epochs": 10, "finetune_epochs": 5},
        compare=("hlcp", "br_all"),
        seeds=5,
    ),
    "paper": Preset(
        about="DenseNet-121 on images of 224 x 224 pixels; give --data and --config.weights",
        data="phantom:chest?n=6000&size=224&seed=0",
        compare=("hlcp", "hlup", "br_all", "br_leaf"),
        seeds=10,
    ),
    "chest": Preset(
        about="radiographs in a folder per class; give --data FOLDER, without a tree --variant br_all; some minutes",
        data="",
        config={**_SMALL, "image_size": 96, "epochs": 10, "finetune_epochs": 5, "batch_size": 16},
    ),
}
VARIANTS: Mapping[str, Variant] = {
    "hlup_finetune": Variant(about="conditional training, then unconditional (paper)"),
    "hlcp": Variant(about="conditional training alone", config={"method": "hlcp"}),
    "hlup": Variant(about="unconditional training alone", config={"method": "hlup"}),
    "br_all": Variant(about="19 independent labels", config={"method": "br_all"}),
    "br_leaf": Variant(about="14 independent leaves", config={"method": "br_leaf"}),
    "log1mexp": Variant(about="the same loss in fewer terms", config={"loss": "log1mexp"}),
    "max": Variant(about="maximum in place of log-sum-exp, for deep trees", config={"loss": "max"}),
    "naive": Variant(about="product of probabilities in the second stage (table 2)", config={"loss": "naive"}),
    "rescale": Variant(about="rescaled product in the second stage (table 2)", config={"loss": "rescale"}),
    "hlup_naive": Variant(about="product alone (table 2)", config={"method": "hlup", "loss": "naive"}),
    "hlup_rescale": Variant(about="rescaled product alone (table 2)", config={"method": "hlup", "loss": "rescale"}),
}


class HmlcCxr(System[HmlcConfig]):
    """Hierarchical multi-label classification."""

    slug = "hmlc_cxr"
    config_class = HmlcConfig
    predict_inputs = ("image",)
    predict_suffix = ".json"
    learning_signal = ("log_loss", "min")
    presets: ClassVar[Mapping[str, Preset]] = PRESETS
    variants: ClassVar[Mapping[str, Variant]] = VARIANTS

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        """The radiograph."""
        return ("image",)

    def expected_dims(self) -> int | None:
        """Radiographs."""
        return 2

    def problems(self, cases: Sequence[Case], known: Mapping[str, Any]) -> Sequence[BadCase]:
        """Labels that are missing, unreadable or contradict the taxonomy."""
        taxonomy = _known_taxonomy(known) if known else self.taxonomy(cases)
        if not _in_folders(cases, taxonomy):
            require_columns(cases, taxonomy)
            return label_problems(cases, taxonomy)
        allowed = (*taxonomy.names, self.config.normal)
        return unlabelled(cases, "class", allowed)

    def taxonomy(self, cases: Sequence[Case]) -> Taxonomy:
        """The file's, the phantom's where the cases have its columns, else the folders' names.

        Raises:
            UserError: none of them.
        """
        if self.config.taxonomy:
            return read_taxonomy(Path(self.config.taxonomy))
        default = taxonomy_of(TAXONOMY)
        if not any("class" in case.attributes for case in cases):
            require_columns(cases, default)
            return default
        return flat_taxonomy(class_names(cases, "class"))

    def split(self, source: Source, seed: int) -> Splits:
        """By patient; each role gets its share of every finding, a patient counting for the rarest it has."""
        taxonomy = self.taxonomy(source.cases)
        labels = self._labels(source.cases, taxonomy)
        order = np.argsort(labels.sum(axis=0), kind="stable")  # rarest first
        rank = [next((f"{99 - place:02d}" for place, m in enumerate(order) if row[m]), "") for row in labels]
        strata = {case.id: stratum for case, stratum in zip(source.cases, rank, strict=True)}
        return split_by_patient(
            source.cases,
            validation=self.config.validation_fraction,
            test=self.config.test_fraction,
            seed=seed,
            strata=strata,
        )

    def train(self, work: Workbench, splits: Splits) -> Trained:
        """One or two stages."""
        config = self.config
        taxonomy = self.taxonomy((*splits.train, *splits.validation, *splits.test))
        kept = scored_nodes(taxonomy, config.method)
        labels = {
            "train": self._labels(splits.train, taxonomy)[:, kept],
            "validation": self._labels(splits.validation, taxonomy)[:, kept],
        }
        absent = [taxonomy.names[node] for m, node in enumerate(np.nonzero(kept)[0]) if not labels["train"][:, m].any()]
        if absent:
            work.say(f"no training image shows {', '.join(absent)}; nothing can be learned of it")
        make = functools.partial(HmlcLearner, config, taxonomy, cache=work.cache)
        fits: dict[str, FitResult] = {}
        start: Path | None = None
        for name, objective, num_epochs, lr in stages(config):
            learner = functools.partial(
                make, objective, splits.train, splits.validation, labels, start=start, num_epochs=num_epochs, lr=lr
            )
            fits[name] = work.fit(learner, name=name)
            start = fits[name].weights
        about = {"taxonomy": taxonomy.to_mapping()}
        return Trained(weights=start, about=about, metrics=list(fits.values())[-1].metrics, fits=fits)

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        """Probabilities of all nodes on all cases, then what table 1 says of them."""
        taxonomy = _known_taxonomy(trained.about)
        labels = self._labels(cases, taxonomy)
        chunks = [cases[start : start + _IMAGES_PER_TASK] for start in range(0, len(cases), _IMAGES_PER_TASK)]
        infer = functools.partial(_infer, self.config, trained, work.cache)
        scores = np.concatenate(work.map(infer, chunks, name="evaluate"))
        return Evaluation(
            rows=case_rows(cases, taxonomy, labels, scores),
            summary=summarize(taxonomy, labels, scores),
            figures=figures(self._tag(), cases, taxonomy, labels, scores),
        )

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        """All nodes of one radiograph.

        Writes the probabilities with each node's parent as JSON, the same as CSV, and a picture: the radiograph beside
        its probabilities, indented by their depth.

        Raises:
            UserError: not a 2D image, or another suffix.
        """
        if request.out.suffix != ".json":
            raise UserError(f"--out {request.out}: name the result with the suffix .json")
        path, taxonomy = request.inputs[0], _known_taxonomy(trained.about)
        volume = FileRef(str(path)).load()
        reader = ResizedReader(self.config.image_size, normalize="percentile")
        network = _network(self.config, trained, taxonomy)
        started = time.perf_counter()
        scores = _score(self.config, network, taxonomy, torch.from_numpy(reader.on_grid(volume))[None])[0]
        seconds = time.perf_counter() - started
        told = {name: float(p) for name, p in zip(taxonomy.names, scores, strict=True) if np.isfinite(p)}
        above = taxonomy.to_mapping()
        findings = [{"name": name, "parent": above[name], "probability": p} for name, p in told.items()]
        table = "".join(f"{one['name']},{one['parent'] or ''},{one['probability']:.6g}\n" for one in findings)
        depth = dict(zip(taxonomy.names, taxonomy.ancestors.sum(axis=1), strict=True))
        names = ["   " * int(depth[name] - 1) + name.replace("_", " ") for name in told]
        picture = to_png(prediction_figure(volume.array, names, list(told.values()), title=path.name))
        result = json.dumps({"input": str(path), "findings": findings}, indent=1) + "\n"
        files = {
            "result": write_bytes(request.out, result.encode()),
            "table": write_bytes(beside(request.out, ".csv"), f"name,parent,probability\n{table}".encode()),
            "picture": write_bytes(beside(request.out, "_overview.png"), picture),
        }
        return Prediction(files=files, metrics={f"probability_{n}": p for n, p in told.items()}, seconds=seconds)

    @classmethod
    def claim_setting(cls, preset: str) -> tuple[HmlcConfig, str]:
        """What all arms of the claim share."""
        shared, data = claim_config(preset)
        return HmlcConfig(**shared), data

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        """See `run_claim`."""
        return run_claim(work, preset)

    def _tag(self) -> str:
        """What distinguishes this model's pictures from those it is compared with."""
        return self.config.method if self.config.loss == "powerset" else f"{self.config.method}_{self.config.loss}"

    def _labels(self, cases: Sequence[Case], taxonomy: Taxonomy) -> BoolArray:
        if not _in_folders(cases, taxonomy):
            return labels_of(cases, taxonomy)
        position = {name: node for node, name in enumerate(taxonomy.names)}
        table = np.zeros((len(cases), len(taxonomy.names)), dtype=bool)
        for row, case in zip(table, cases, strict=True):
            node = position.get(case.attributes["class"])
            if node is not None:  # the folder of normal images has no node in a taxonomy of findings
                row |= taxonomy.ancestors[node]
        return table


def stages(config: HmlcConfig) -> list[Stage]:
    """Name, objective, passes and learning rate of each gradient loop; all methods make the same number of passes."""
    both = config.epochs + config.finetune_epochs
    if config.method == "hlcp":
        return [("train", "conditional", both, config.lr)]
    if config.method == "hlup":
        return [("train", "unconditional", both, config.lr)]
    if config.method in ("br_all", "br_leaf"):
        return [("train", "independent", both, config.lr)]
    two: list[Stage] = [
        ("train", "conditional", config.epochs, config.lr),
        ("finetune", "unconditional", config.finetune_epochs, config.finetune_lr),
    ]
    return [stage for stage in two if stage[2]]


def _in_folders(cases: Sequence[Case], taxonomy: Taxonomy) -> bool:
    """Whether the labels are the folders' names rather than columns."""
    columns = {name for case in cases for name in case.attributes}
    return "class" in columns and not set(taxonomy.leaf_names) & columns


def _known_taxonomy(about: Mapping[str, Any]) -> Taxonomy:
    return taxonomy_of(about["taxonomy"])


def _network(config: HmlcConfig, trained: Trained, taxonomy: Taxonomy) -> nn.Module:
    network = build_densenet(config.network, int(scored_nodes(taxonomy, config.method).sum()))
    if trained.weights is not None:
        load_network(network, trained.weights, prefix="net.")
    return network.eval()


@torch.no_grad()
def _score(config: HmlcConfig, network: nn.Module, taxonomy: Taxonomy, images: Tensor) -> FloatArray:
    """(B, M), nan at nodes without an output."""
    found = probabilities(network(images).double(), taxonomy, config.method).numpy()
    scores = np.full((len(found), len(taxonomy.names)), np.nan)
    scores[:, scored_nodes(taxonomy, config.method)] = found
    return scores


def _infer(config: HmlcConfig, trained: Trained, cache: SampleCache, cases: Sequence[Case]) -> FloatArray:
    """Probabilities of some cases. Runs as a Ray task."""
    taxonomy = _known_taxonomy(trained.about)
    network = _network(config, trained, taxonomy)
    reader = ResizedReader(config.image_size, normalize="percentile", cache=cache)
    images = torch.stack([torch.from_numpy(reader.read(case).image) for case in cases])
    return np.concatenate([_score(config, network, taxonomy, part) for part in images.split(config.batch_size)])


# The claim -----------------------------------------------------------------------------------------------------------

_ARMS = ("hlup_finetune", "hlcp", "hlup", "br_all", "hlup_naive", "hlup_rescale")
_CLAIM_SIZES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "smoke": ("phantom:chest?n=1500&size=48&seed={seed}", {**_SMALL, "epochs": 8, "finetune_epochs": 4}),
    "demo": (
        "phantom:chest?n=4000&size=64&seed={seed}",
        {**_SMALL, "image_size": 64, "epochs": 12, "finetune_epochs": 6},
    ),
    "paper": ("phantom:chest?n=6000&size=224&seed={seed}", {}),
}


def claim_config(preset: str) -> tuple[dict[str, Any], str]:
    """Config fields that all arms share, and their data.

    Raises:
        UserError: the claim is not run at this preset.
    """
    if preset not in _CLAIM_SIZES:
        raise UserError(f"the claim runs on the phantom with --preset {', '.join(_CLAIM_SIZES)}, not {preset}")
    data, common = _CLAIM_SIZES[preset]
    return {**common, "validation_fraction": 0.0}, data


def run_claim(work: Workbench, preset: str) -> ClaimResult:
    """The two-stage training beats its parts and independent labels, and the stable loss its alternatives.

    Raises:
        UserError: the claim is not run at this preset.
    """
    base, data = claim_config(preset)
    arms = [Arm(name=name, config=HmlcConfig(**{**base, **VARIANTS[name].config}), data=data) for name in _ARMS]
    seeds = range(work.seed, work.seed + PRESETS[preset].seeds)
    scores = score_arms(work, HmlcCxr, arms, seeds=seeds)
    stability = [{"variant": form, "seed": work.seed, **large_logits(form)} for form in ("powerset", "naive")]
    checks = judge(scores, stability)
    return ClaimResult(checks, [*scores.summaries, *stability], compare_labels(scores.rows))


def large_logits(form: Form) -> dict[str, float]:
    """Largest error of loss and gradient at four logits of 60 and the label 0; inf where either is not finite.

    1 - p is 4 exp(-60) there, so the loss is 60 - log 4 and each logit's share of the gradient 1/4.
    """
    logits = torch.full((1, 4), 60.0, requires_grad=True)
    loss = unconditional_loss(logits, torch.zeros(1, 4), torch.ones(4, 4).tril().bool(), form)[0, 3]
    (gradient,) = torch.autograd.grad(loss, logits)
    errors = torch.cat([(loss - (60 - np.log(4)))[None], (gradient - 0.25)[0]]).abs().detach()
    return {"large_logit_error": float(errors.max()) if errors.isfinite().all() else 1e9}


def judge(scores: Scores, stability: Sequence[Row]) -> list[ClaimCheck]:
    """The inequalities of the card; for the areas their sign is asked, not their size."""
    told = scores.summaries

    def better(metric: str, first: str, second: str, statement: str) -> ClaimCheck:
        return difference(told, metric, first, second, statement=statement)

    at_least_naive = better("auc_leaf", "hlup", "hlup_naive", "from scratch the stable loss is no worse than the naive")
    return [
        better("auc_leaf", "hlup_finetune", "hlcp", "the second stage helps (paper +0.008)"),
        better("auc_leaf", "hlcp", "br_all", "conditional training beats independent labels (paper +0.012)"),
        better("auc_leaf", "hlup_finetune", "hlup", "two stages beat one (paper +0.015)"),
        better("auc_leaf_abnormal", "hlup_finetune", "br_all", "also among images with findings (paper +0.024)"),
        replace(at_least_naive, held=at_least_naive.value >= 0),
        better("auc_leaf", "hlup", "hlup_rescale", "rescaling is worse (paper +0.019)"),
        bound(
            stability,
            "large_logit_error",
            "powerset",
            at_most=1e-3,
            statement="the stable loss is right at logits of 60",
        ),
        bound(stability, "large_logit_error", "naive", at_least=1.0, statement="the naive loss is not"),
        bound(told, "violations_percent", "hlup_finetune", at_most=0.0, statement="no child above its parent"),
        bound(told, "violations_percent", "br_all", at_least=0.1, statement="independent labels break the tree"),
    ]


def compare_labels(rows: Sequence[Row]) -> list[str]:
    """DeLong's test of every label, two-stage training against independent labels, over the cases of all seeds."""
    by_arm = {arm: [row for row in rows if row["variant"] == arm] for arm in ("hlup_finetune", "br_all")}
    scores = {arm: [json.loads(str(row["probabilities"])) for row in own] for arm, own in by_arm.items()}
    taxonomy = taxonomy_of(TAXONOMY)
    told = [set(str(row["true"]).split()) for row in by_arm["br_all"]]
    leaves = np.array([[name in one for name in taxonomy.leaf_names] for one in told])
    labels = dict(zip(taxonomy.names, taxonomy.close(leaves).T, strict=True))
    notes = []
    for name in taxonomy.names:
        test = delong_test(labels[name], *([one[name] for one in scores[arm]] for arm in by_arm))
        notes.append(f"{name}: AUC {test.first:.3f} against {test.second:.3f}, DeLong p = {test.p_value:.3g}")
    return notes
