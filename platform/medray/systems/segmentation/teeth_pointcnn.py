"""Teeth in intra-oral scans: PointCNN on foveated samples, with an adversarial loss on the layout of the labels.

Ghazvinian Zanjani et al., "Deep learning approach to semantic segmentation in 3D point cloud intra-oral scans of
teeth", MIDL 2019. Readings of the text, and where it cannot be as printed, are told in docs/systems/teeth_pointcnn.md.

Shape letters: N points of a scan, M points of a sample, B samples, L = 17 classes.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from medray.data.cache import SampleCache
from medray.data.case import BadCase, Case, Mesh, Source, Splits
from medray.data.fields import FileRef, Kind
from medray.data.formats.mesh import per_vertex
from medray.data.splits import split_by_patient
from medray.errors import UserError
from medray.learner import Learner, Schedule, Step, SumCount, seed_of
from medray.metrics.points import class_scores, misnumbered, near_border, order_violations
from medray.nn.weights import load_network
from medray.system import (
    ClaimCheck,
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
from medray.systems.claims import difference, score_arms, variant_arms
from medray.systems.segmentation.dental_scans import (
    NUM_CLASSES,
    DentalScan,
    LowerJaw,
    fdi_numbers,
    jaw_of_labels,
    jaw_to_write,
    normalized,
    picture,
    read_scan,
    scan_problems,
    to_classes,
    write_result,
)
from medray.systems.segmentation.point_networks import PointCNN, PointGrid, PointNet, PointNetwork, TNet

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
_SCANS_PER_TASK = 2
_COVERED = 0.99


@dataclass(frozen=True, kw_only=True)
class TeethConfig:
    """Settings of the method; the defaults are the paper's, or PointCNN's where it is silent."""

    network: Literal["pointcnn", "pointnet", "pointgrid"] = "pointcnn"
    """What segments the points (table 1)."""
    sampling: Literal["foveated", "uniform"] = "foveated"
    """How a scan is resampled: densely around a fovea (sec. 3.2), or uniformly."""
    adversarial: bool = True
    """Train a discriminator on the layout of the labels and the segmenter against it (eq. 5)."""
    num_points: int = 30_000
    """M, points of a sample (paper 30000)."""
    sigma: float = 0.4
    """Width of the fovea's kernel, in standard deviations of the scan's points (eq. 1; paper 0.4)."""
    weighted: bool = True
    """Weigh each point's loss by the fovea's kernel (eq. 2)."""
    channels: tuple[int, ...] = (48, 96, 192, 384)
    """Features of PointCNN's X-Conv layers; the decoder mirrors them."""
    neighbors: tuple[int, ...] = (8, 12, 16, 16)
    """K of each X-Conv layer."""
    dilations: tuple[int, ...] = (1, 2, 2, 2)
    """Every how many nearest neighbors each layer takes one."""
    level_points: tuple[int, ...] = (4096, 1024, 256)
    """Points of PointCNN's second and further layers; the first has all M."""
    pointnet_channels: tuple[int, int, int] = (64, 128, 1024)
    """PointNet's local, middle and global features."""
    grid_cells: int = 32
    """PointGrid's cells along each axis."""
    points_per_cell: int = 4
    """PointGrid's points in a cell."""
    grid_channels: tuple[int, ...] = (32, 64, 128, 256)
    """Features of PointGrid's U-Net."""
    tnet: Literal["tooth", "vector"] = "tooth"
    """The discriminator's T-Net turns each tooth's 6 numbers by one 6 x 6 matrix, or the 96 numbers by one 96 x 96."""
    min_points: float = 15.0
    """n0: a tooth's statistics are divided by its points or by this, whichever is more, so that absent teeth give 0."""
    learning_rate: float = 5e-3
    """Adam's initial rate (paper 5e-3)."""
    decay: float = 0.9
    """Factor on the rate every ``decay_steps`` steps (paper 0.9)."""
    decay_steps: int = 20_000
    """Steps between two factors (paper 20000)."""
    discriminator_rate: float = 5e-4
    """Adam's rate for the discriminator."""
    batch_size: int = 1
    """Samples per step (paper 1)."""
    num_epochs: int = 1000
    """Passes over the scans, each with a new fovea (paper 1000)."""
    rotation_degrees: float = 180.0
    """Largest angle scans are turned by about a random axis, degrees; 180 is any rotation (paper)."""
    jitter: float = 0.005
    """Standard deviation of the noise on positions, in standard deviations of the scan's points."""
    drop_tooth: float = 0.5
    """Chance that all points of one tooth are removed from a training sample (instance dropout)."""
    lower_jaw: LowerJaw = "patient_side"
    """Classes of lower jaws run from the patient's right to the left, or mirrored: as an upper jaw's seen crowns up."""
    border_mm: float = 1.0
    """Points with another label this near count to the border IoU, mm."""
    folds: int = 5
    """Share of the patients held out to test is one in this many (paper: five-fold cross-validation)."""
    fold: int = 0
    """Which of the folds is held out, from 0."""

    def __post_init__(self) -> None:
        layers = {len(self.channels), len(self.neighbors), len(self.dilations), len(self.level_points) + 1}
        if len(layers) != 1:
            raise ValueError(
                "channels, neighbors and dilations have one value per X-Conv layer and level_points one less, got "
                f"{len(self.channels)}, {len(self.neighbors)}, {len(self.dilations)} and {len(self.level_points)}"
            )
        if self.num_points < 16 or self.sigma <= 0 or self.min_points <= 0:
            raise ValueError("num_points must be at least 16, sigma and min_points above 0")
        if not 0 <= self.rotation_degrees <= 180 or not 0 <= self.drop_tooth <= 1:
            raise ValueError("rotation_degrees lies in 0 to 180 and drop_tooth in 0 to 1")
        if self.folds < 2 or not 0 <= self.fold < self.folds:
            raise ValueError(f"fold counts from 0 to folds - 1, got fold {self.fold} of {self.folds}")
        if self.grid_cells % 2 ** (len(self.grid_channels) - 1) or self.grid_cells < 2 ** len(self.grid_channels):
            raise ValueError(
                f"grid_cells must be a multiple of {2 ** (len(self.grid_channels) - 1)}, at least twice it"
            )


# --- Sec. 3.2: non-uniform resampling -------------------------------------------------------------------------------


def kernel(points: FloatArray, fovea: FloatArray, sigma: float) -> FloatArray:
    """Equation 1: exp(-|x - x_fovea|^2 / (2 sigma^2)) for points (N, 3): (N,)."""
    return np.asarray(np.exp(-((points - fovea) ** 2).sum(axis=1) / (2 * sigma**2)), dtype=np.float32)


def foveated(points: FloatArray, fovea: int, count: int, sigma: float, random: np.random.Generator) -> IntArray:
    """Algorithm 1: ``count`` points, the fovea and others with probability by the kernel, in random order.

    Drawing with rejection until enough different points are accepted is drawing without replacement with weights K; so
    are the largest of log K plus Gumbel noise, in one pass over the points.

    Args:
        points: (N, 3), normalized.
        fovea: index of the point to look at.
        count: M. Where there are fewer points all are taken, and some again.
        sigma: width of the kernel.
        random: source of the draws.
    """
    keys = random.gumbel(size=len(points)) - ((points - points[fovea]) ** 2).sum(axis=1) / (2 * sigma**2)
    keys[fovea] = np.inf
    return _largest(keys, count, random)


def uniform(num: int, count: int, random: np.random.Generator) -> IntArray:
    """``count`` of ``num`` points in random order, with repetitions only where there are fewer."""
    return _largest(random.random(num), count, random)


def _largest(keys: NDArray[np.float64], count: int, random: np.random.Generator) -> IntArray:
    if count >= len(keys):
        return np.concatenate([random.permutation(len(keys)), random.integers(0, len(keys), count - len(keys))])
    return np.asarray(random.permutation(np.argpartition(-keys, count - 1)[:count]))


def augment(points: FloatArray, classes: IntArray, config: TeethConfig, random: np.random.Generator) -> tuple[
    FloatArray, IntArray
]:  # fmt: skip
    """Sec. 3.1: maybe a tooth less, another pose, noise; the order is shuffled by the resampling."""
    teeth = np.unique(classes[classes > 0])
    if len(teeth) > 1 and random.random() < config.drop_tooth:
        kept = classes != random.choice(teeth)
        points, classes = points[kept], classes[kept]
    axis = random.normal(size=3)
    angle = np.radians(random.uniform(0, config.rotation_degrees))
    turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis))
    if config.rotation_degrees == 180:
        turn = Rotation.random(rng=random)
    turned = turn.apply(points) + config.jitter * random.normal(size=points.shape)
    return turned.astype(np.float32), classes


# --- Sec. 3.3: networks and losses ----------------------------------------------------------------------------------


def make_segmenter(config: TeethConfig) -> PointNetwork:
    """The network S of table 1's rows."""
    if config.network == "pointnet":
        return PointNet(NUM_CLASSES, config.pointnet_channels)
    if config.network == "pointgrid":
        return PointGrid(NUM_CLASSES, config.grid_cells, config.points_per_cell, config.grid_channels)
    return PointCNN(NUM_CLASSES, config.channels, config.neighbors, config.dilations, config.level_points)


def layout_statistics(probabilities: Tensor, points: Tensor, min_points: float) -> Tensor:
    """Equations 3 and 4: soft mean and variance of the coordinates of each tooth class; gingiva is left out.

    As printed the sums are not divided. Here they are, by max(sum_i p_ij, n0): they are then a mean and a variance, and
    go to the zero rows of absent teeth as their points vanish.

    Args:
        probabilities: (B, M, L), soft or one-hot.
        points: (B, M, 3).
        min_points: n0.

    Returns:
        (B, L - 1, 6): mean and variance along x, y and z.
    """
    share = probabilities[..., 1:].transpose(1, 2)
    weight = share.sum(dim=2, keepdim=True)
    count = weight.clamp_min(min_points)
    mean = share @ points / count
    # sum p (x - mean)^2, expanded; the mean is the divided one
    square = share @ points.square() - 2 * mean * (share @ points) + mean.square() * weight
    return torch.cat([mean, square / count], dim=2)


class Discriminator(nn.Module):
    """D: a T-Net's transform of the statistics, then a 3-layer perceptron; the logit of "these are true labels"."""

    def __init__(self, tnet: Literal["tooth", "vector"]) -> None:
        super().__init__()
        size = 6 * (NUM_CLASSES - 1)
        self.whole = tnet == "vector"
        self.turn = TNet(size if self.whole else 6, (64, 128) if self.whole else (32, 64, 128), norm=False)
        self.judge = nn.Sequential(
            nn.Linear(size, 64), nn.LeakyReLU(0.2), nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1)
        )

    def forward(self, statistics: Tensor) -> Tensor:
        """(B, L - 1, 6) to (B,)."""
        turned = self.turn(statistics.flatten(1)[:, None] if self.whole else statistics)
        return self.judge(turned.flatten(1))[:, 0]


class LossWeights(nn.Module):
    """lambda_1^2 and lambda_2^2 of equation 6, kept above 0 as exponentials; both start at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.log_square = nn.Parameter(torch.zeros(2))

    def forward(self, point_loss: Tensor, layout_loss: Tensor, share: Tensor) -> Tensor:
        """Equation 6: L_p / l1^2 + L_adv / l2^2 + l1^2 l2^2; ``share`` is this worker's part of the batch, 1 alone."""
        first, second = self.log_square.exp()
        return point_loss / first + layout_loss / second + share * first * second


# --- Training -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Samples: points (B, M, 3), classes (B, M), weights of the points (B, M), the network's layouts."""

    points: Tensor
    classes: Tensor
    weights: Tensor
    layout: dict[str, Tensor]


class TeethLearner(Learner):
    """Segmenter, discriminator and loss weights on resampled scans.

    Args:
        config: the method's settings.
        cases: labelled scans.
        cache: keeps the decoded scans.
    """

    def __init__(self, config: TeethConfig, cases: Sequence[Case], cache: SampleCache) -> None:
        super().__init__()
        self.config, self.cases, self.cache = config, list(cases), cache
        self.segmenter = make_segmenter(config)
        self.networks = nn.ModuleDict({"segmenter": self.segmenter})
        if config.adversarial:
            self.networks["discriminator"] = Discriminator(config.tnet)
            self.networks["loss_weights"] = LossWeights()
        self.schedule = Schedule(num_epochs=config.num_epochs, batch_size=config.batch_size, validate_every_epochs=0)

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Adam for the segmenter and the loss weights, another for the discriminator."""
        own = [p for name, net in self.networks.items() if name != "discriminator" for p in net.parameters()]
        optimizers: dict[str, Optimizer] = {"segmenter": Adam(own, lr=self.config.learning_rate)}
        if self.config.adversarial:
            rate = self.config.discriminator_rate
            optimizers["discriminator"] = Adam(self.networks["discriminator"].parameters(), lr=rate)
        return optimizers

    def num_samples(self) -> int:
        """Scans."""
        return len(self.cases)

    def sample_name(self, index: int) -> str:
        """The case's id."""
        return self.cases[index].id

    def collate(self, indices: Sequence[int], epoch: int) -> Batch:
        """Augment and resample each scan around a new fovea."""
        samples = [self._sample(index, epoch) for index in indices]
        points, classes, weights = (torch.from_numpy(np.stack(part)) for part in list(zip(*samples, strict=True))[:3])
        layouts = [sample[3] for sample in samples]
        layout = {name: torch.from_numpy(np.stack([one[name] for one in layouts])) for name in layouts[0]}
        return Batch(points, classes, weights, layout)

    def _sample(self, index: int, epoch: int) -> tuple[FloatArray, IntArray, FloatArray, dict[str, IntArray]]:
        config = self.config
        random = np.random.default_rng(self.sample_generator(index, epoch).initial_seed())
        scan = read_scan(self.cases[index], config.lower_jaw, self.cache)
        assert scan.classes is not None  # required to train
        points, classes = augment(scan.points, scan.classes, config, random)
        if config.sampling == "uniform":
            chosen = uniform(len(points), config.num_points, random)
            weights = np.ones(config.num_points, dtype=np.float32)
        else:
            fovea = int(random.integers(len(points)))
            chosen = foveated(points, fovea, config.num_points, config.sigma, random)
            weights = kernel(points[chosen], points[fovea], config.sigma)
            weights = weights if config.weighted else np.ones_like(weights)
        return points[chosen], classes[chosen], weights, self.segmenter.layout(points[chosen], random)

    def training_step(self, batch: Batch, step: Step) -> Mapping[str, SumCount]:
        """Equation 2, and with a discriminator one update of it and equation 6 for the segmenter."""
        self._set_rate(step)
        config = self.config
        with step.autocast():
            scores = self.segmenter(batch.points, batch.layout)
        log_p = functional.log_softmax(scores.float(), dim=2)
        error = functional.nll_loss(log_p.flatten(0, 1), batch.classes.flatten(), reduction="none")
        weights = batch.weights.flatten()
        total = (weights * error).sum()
        samples = len(batch.points)
        point_loss = step.mean(total, samples)  # L_p, a sum over the points of a sample
        found = {
            "loss": SumCount(total.detach(), weights.sum()),
            "accuracy": SumCount((scores.argmax(2) == batch.classes).float().sum(), batch.classes.numel()),
        }
        if not config.adversarial:
            step.backward(point_loss)
            step.update("segmenter")
            return found
        one_hot = functional.one_hot(batch.classes, NUM_CLASSES).float()
        real = layout_statistics(one_hot, batch.points, config.min_points)
        fake = layout_statistics(log_p.exp(), batch.points, config.min_points)
        found |= self._update_discriminator(real, fake.detach(), step)
        discriminator = self.networks["discriminator"]
        discriminator.requires_grad_(False)
        layout = functional.softplus(-discriminator(fake)).sum()  # -log D(u_hat): eq. 5 with the sign that trains
        share = step.mean(fake.new_tensor(float(samples)), samples)
        step.backward(self.networks["loss_weights"](point_loss, step.mean(layout, samples), share))
        discriminator.requires_grad_(True)
        step.update("segmenter")
        return {**found, "layout_loss": SumCount(layout.detach(), samples)}

    def _update_discriminator(self, real: Tensor, fake: Tensor, step: Step) -> dict[str, SumCount]:
        """Equation 5, first line: log D(u) + log(1 - D(u_hat)), maximized."""
        scores = self.networks["discriminator"](torch.cat([real, fake]))
        on_real, on_fake = scores.chunk(2)
        loss = functional.softplus(-on_real).sum() + functional.softplus(on_fake).sum()
        step.backward(step.mean(loss, len(real)))
        step.update("discriminator")
        return {"discriminator_loss": SumCount(loss.detach(), len(real))}

    def _set_rate(self, step: Step) -> None:
        """The rate falls with the steps alone, so resuming is exact (sec. 4.2)."""
        for group in step.optimizers["segmenter"].param_groups:
            group["lr"] = self.config.learning_rate * self.config.decay ** (step.index // self.config.decay_steps)


# --- Algorithm 2: inference on the whole cloud ----------------------------------------------------------------------


@torch.no_grad()
def label_cloud(
    segmenter: PointNetwork, config: TeethConfig, points: FloatArray, random: np.random.Generator
) -> tuple[FloatArray, int]:
    """Class probabilities of every point of a scan.

    Uniformly resampled: one pass, and the other points take the mean of their 3 nearest. Foveated: passes around points
    not labelled yet, of which the dense region counts. As printed, K < sigma, that would be the far points; the text
    means the near ones, |x - x_f| < sigma. The last hundredth of the points is filled from the 3 nearest.

    Args:
        segmenter: S, trained, on the CPU.
        config: its settings.
        points: (N, 3), normalized.
        random: source of foveas and draws.

    Returns:
        (N, L), and the number of passes.
    """
    total = np.zeros((len(points), NUM_CLASSES), dtype=np.float32)
    done = np.zeros(len(points), dtype=bool)
    passes, enough = 0, _COVERED if config.sampling == "foveated" else 0.0
    while passes == 0 or done.mean() < enough:  # each pass labels its fovea at least
        if config.sampling == "uniform":
            chosen = uniform(len(points), config.num_points, random)
            dense = np.ones(len(chosen), dtype=bool)
        else:
            fovea = int(random.choice(np.flatnonzero(~done)))
            chosen = foveated(points, fovea, config.num_points, config.sigma, random)
            dense = np.linalg.norm(points[chosen] - points[fovea], axis=1) < config.sigma
        layout = segmenter.layout(points[chosen], random)
        scores = segmenter(
            torch.from_numpy(points[chosen])[None],
            {name: torch.from_numpy(index)[None] for name, index in layout.items()},
        )[0]
        np.add.at(total, chosen[dense], scores.float().softmax(dim=1).numpy()[dense])
        done[chosen[dense]] = True
        passes += 1
    total[done] /= total[done].sum(axis=1, keepdims=True)
    if not done.all():
        _, near = cKDTree(points[done]).query(points[~done], k=min(3, int(done.sum())))
        total[~done] = total[done][near.reshape(int((~done).sum()), -1)].mean(axis=1)
    return total, passes


# --- The system -----------------------------------------------------------------------------------------------------

_SMALL: Mapping[str, Any] = {
    "num_points": 512,
    "sigma": 0.6,
    "channels": (16, 32, 64),
    "neighbors": (8, 8, 8),
    "dilations": (1, 2, 1),
    "level_points": (128, 32),
    "pointnet_channels": (32, 64, 128),
    "grid_cells": 16,
    "grid_channels": (8, 16, 32),
    "rotation_degrees": 15.0,
    "batch_size": 4,
    "decay_steps": 40,
}
"""Sizes for a CPU. Samples are 60 times smaller than the paper's, so that with its sigma hardly a point would fall
outside of the dense region; 0.6 keeps about as many there."""


class TeethPointCNN(System[TeethConfig]):
    """Labels every vertex of an intra-oral scan with its tooth's FDI number or as gingiva."""

    slug = "teeth_pointcnn"
    config_class = TeethConfig
    predict_inputs = ("mesh",)
    predict_suffix = ".ply"
    field_kinds: ClassVar[Mapping[str, Kind]] = {"mesh": "mesh", "label": "vertex_label"}
    presets: ClassVar[Mapping[str, Preset]] = {
        "smoke": Preset(
            about="phantom of 10 scans of 3,000 points, samples of 512; half a minute on 2 cores",
            data="phantom:dental?n=10&spacing=1.4&pose=15&seed=0",
            config={**_SMALL, "num_epochs": 30, "decay_steps": 10},
            compare=("uniform",),
        ),
        "demo": Preset(
            about="phantom of 40 scans of 9,000 points, samples of 1,024; about ten minutes on 2 cores",
            data="phantom:dental?n=40&spacing=0.8&pose=15&seed=0",
            config={**_SMALL, "num_points": 1024, "level_points": (256, 64), "num_epochs": 60},
            compare=("uniform",),
        ),
        "paper": Preset(
            about="the paper's sizes and schedule, any pose; on your own scans with --data, wants a GPU",
            data="phantom:dental?n=60&spacing=0.18&jaw=both&seed=0",
            compare=("pointnet", "pointgrid", "uniform", "nonuniform", "adversarial"),
        ),
    }
    variants: ClassVar[Mapping[str, Variant]] = {
        "both": Variant(about="proposed (III): foveated resampling and the adversarial layout loss"),
        "adversarial": Variant(about="proposed (II): uniform resampling, adversarial", config={"sampling": "uniform"}),
        "nonuniform": Variant(about="proposed (I): foveated resampling alone", config={"adversarial": False}),
        "uniform": Variant(
            about="PointCNN on uniform samples, the baseline", config={"sampling": "uniform", "adversarial": False}
        ),
        "pointnet": Variant(
            about="PointNet on uniform samples",
            config={"network": "pointnet", "sampling": "uniform", "adversarial": False},
        ),
        "pointgrid": Variant(
            about="PointGrid on uniform samples",
            config={"network": "pointgrid", "sampling": "uniform", "adversarial": False},
        ),
        "unweighted": Variant(about="every point's loss weighs the same (figure 2)", config={"weighted": False}),
        "patch": Variant(about="sigma much below 1: patches without the rest of the arch", config={"sigma": 0.1}),
        "vector_tnet": Variant(about="the T-Net turns all 96 numbers by one matrix", config={"tnet": "vector"}),
    }  # fmt: skip

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        """A scan and its labels: nothing is learned from, or scored on, scans without."""
        return ("mesh", "label")

    def problems(self, cases: Sequence[Case], known: Mapping[str, Any]) -> Sequence[BadCase]:
        """Labels that are no FDI numbers of one jaw, scans without extent."""
        return scan_problems(cases)

    def split(self, source: Source, seed: int) -> Splits:
        """One of `folds` parts of the patients tests; both jaws of a patient stay together."""
        cases = source.cases
        if any("split" in case.attributes for case in cases):
            return split_by_patient(cases, seed=seed)
        patients = sorted({case.patient for case in cases}, key=lambda patient: seed_of(seed, patient))
        if len(patients) < 2:
            raise UserError(
                f"{source.spec} has {len(patients)} patient, too few to train and to test on different ones"
            )
        held_out = set(patients[self.config.fold % len(patients) :: self.config.folds])
        return Splits(
            train=tuple(case for case in cases if case.patient not in held_out),
            validation=(),
            test=tuple(case for case in cases if case.patient in held_out),
        )

    def train(self, work: Workbench, splits: Splits) -> Trained:
        """One loop."""
        jaws = sorted({jaw_of_labels(case.load("label"), case.id) for case in splits.train})
        fit = work.fit(functools.partial(TeethLearner, self.config, splits.train, work.cache))
        return Trained(weights=fit.weights, about={"jaws": jaws}, metrics=fit.metrics, fits={"train": fit})

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        """Label every point of every scan and score it."""
        parts = [list(cases[i : i + _SCANS_PER_TASK]) for i in range(0, len(cases), _SCANS_PER_TASK)]
        score = functools.partial(_score_scans, self.config, trained, work.cache)
        scored = [one for part in work.map(score, parts, name="evaluate") for one in part]
        return Evaluation([one.row for one in scored], _summary(scored), _figures(self.config, scored, cases))

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        """Label a scan; see `dental_scans.write_result` for the files. With labels given, it is scored too.

        Option ``jaw``: upper or lower, where the file's name does not say it.
        """
        unknown = sorted(set(request.options) - {"jaw"})
        if unknown:
            raise UserError(f"there is no option {unknown[0]}; teeth_pointcnn knows jaw=upper and jaw=lower")
        path = request.inputs[0]
        jaw = jaw_to_write(request.options.get("jaw", ""), path, trained.about["jaws"])
        mesh: Mesh = FileRef(str(path), "mesh").load()
        segmenter = _segmenter(self.config, trained)
        started = time.perf_counter()
        points, _ = normalized(mesh.vertices, path.name)
        probabilities, passes = label_cloud(segmenter, self.config, points, _inference_random(path.name))
        seconds = time.perf_counter() - started
        classes = probabilities.argmax(axis=1)
        metrics = {"teeth": float(len(np.unique(classes[classes > 0]))), "passes": float(passes)}
        if request.labels:
            labels = per_vertex(mesh, FileRef(str(request.labels[0]), "vertex_label").load())
            metrics |= class_scores(_confusion(to_classes(labels, self.config.lower_jaw, path.name), classes))
        files = write_result(mesh, fdi_numbers(jaw, self.config.lower_jaw)[classes], probabilities, request.out)
        return Prediction(files=files, metrics=metrics, seconds=seconds)

    @classmethod
    def claim_setting(cls, preset: str) -> tuple[TeethConfig, str]:
        """What the claim's four arms share."""
        if preset not in CLAIMS:
            raise UserError(f"the claim runs on the phantom with --preset {', '.join(CLAIMS)}, not {preset}")
        config, data = CLAIMS[preset]
        return TeethConfig(**config), data

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        """Table 1's order of the four arms, and where each part of the method gains."""
        config, data = cls.claim_setting(preset)
        names = ("uniform", "nonuniform", "adversarial", "both")
        scores = score_arms(
            work,
            cls,
            variant_arms(cls, names, config, data),
            seeds=range(work.seed, work.seed + cls.presets[preset].seeds),
        )
        return ClaimResult(checks=judge(scores.rows), rows=scores.rows, notes=_NOTES)


_NOTES = (
    "iou, border_iou and order_violations are paired by seed and scan; the paper's gains over the uniform baseline are "
    "+0.03 IoU for each part and +0.06 for both, on 120 real scans with M = 30,000.",
)

CLAIMS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "smoke": (
        {**_SMALL, "num_epochs": 50},
        "phantom:dental?n=40&spacing=1.0&pose=15&seed={seed}",
    ),
    "demo": (
        TeethPointCNN.presets["demo"].config,
        "phantom:dental?n=40&spacing=0.8&pose=15&seed={seed}",
    ),
}


def judge(rows: Sequence[Row]) -> list[ClaimCheck]:
    """The claim's inequalities, each on differences paired by seed and scan."""
    return [
        difference(rows, "iou", "both", "uniform", statement="(III) has a higher IoU than uniform PointCNN"),
        difference(
            rows, "border_iou", "nonuniform", "uniform",
            statement="(I) gains at the borders between teeth and gingiva",
        ),
        difference(
            rows, "order_violations", "adversarial", "uniform", lower_is_better=True,
            statement="(II) has fewer teeth out of order along the arch",
        ),
    ]  # fmt: skip


@dataclass(frozen=True)
class _Scored:
    """A scan's row, its confusion over all points and near borders, and what was predicted."""

    row: Row
    confusion: IntArray
    border: IntArray
    classes: IntArray


def _confusion(true: IntArray, predicted: IntArray) -> IntArray:
    return np.asarray(confusion_matrix(true, predicted, labels=np.arange(NUM_CLASSES)), dtype=np.int64)


def _inference_random(name: str) -> np.random.Generator:
    return np.random.default_rng(seed_of("inference", name))


def _segmenter(config: TeethConfig, trained: Trained) -> PointNetwork:
    segmenter = make_segmenter(config)
    assert trained.weights is not None
    load_network(segmenter, trained.weights, prefix="segmenter.")
    return segmenter.eval()


def _score_scans(config: TeethConfig, trained: Trained, cache: SampleCache, cases: Sequence[Case]) -> list[_Scored]:
    segmenter = _segmenter(config, trained)
    return [_score(config, segmenter, read_scan(case, config.lower_jaw, cache)) for case in cases]


def _score(config: TeethConfig, segmenter: PointNetwork, scan: DentalScan) -> _Scored:
    assert scan.classes is not None  # required to be scored
    started = time.perf_counter()
    probabilities, passes = label_cloud(segmenter, config, scan.points, _inference_random(scan.name))
    seconds = time.perf_counter() - started
    classes = probabilities.argmax(axis=1)
    border = near_border(scan.points.astype(np.float64), scan.classes, config.border_mm / scan.scale_mm)
    confusion, at_border = _confusion(scan.classes, classes), _confusion(scan.classes[border], classes[border])
    violations = order_violations(scan.points.astype(np.float64), classes, scan.classes)
    teeth = len(np.unique(scan.classes[scan.classes > 0]))
    row: Row = {
        "case": scan.name,
        **class_scores(confusion),
        "border_iou": class_scores(at_border)["iou"],
        "order_violations": float("nan") if violations is None else violations,
        "misnumbered_teeth": misnumbered(classes, scan.classes),
        "teeth": teeth,
        "points": len(classes),
        "passes": passes,
        "predict_s": round(seconds, 3),
    }
    return _Scored(row, confusion, at_border, classes)


def _summary(scored: Sequence[_Scored]) -> dict[str, float]:
    """Class scores from counts added over all scans; violations and misnumbered teeth per scan and tooth."""
    if not scored:
        return {}

    def column(name: str) -> NDArray[np.float64]:
        return np.array([float(one.row[name]) for one in scored])

    ordered = column("order_violations")
    return {
        **class_scores(np.sum([one.confusion for one in scored], axis=0)),
        "border_iou": class_scores(np.sum([one.border for one in scored], axis=0))["iou"],
        "order_violations_per_scan": float(np.nansum(ordered) / max(1, np.isfinite(ordered).sum())),
        "misnumbered_percent": float(100 * column("misnumbered_teeth").sum() / column("teeth").sum()),
        "predict_s_per_scan": float(column("predict_s").mean()),
    }


def _figures(config: TeethConfig, scored: Sequence[_Scored], cases: Sequence[Case]) -> list[Figure]:
    """The best and the worst scan, truth beside prediction."""
    order = sorted(range(len(scored)), key=lambda i: float(scored[i].row["iou"]))
    figures = []
    for index in dict.fromkeys([*order[-1:], *order[:1]]):
        case, one = cases[index], scored[index]
        mesh = case.mesh("mesh")
        labels = per_vertex(mesh, case.load("label"))
        numbers = fdi_numbers(jaw_of_labels(labels, case.id), config.lower_jaw)[one.classes]
        caption = (
            f"{case.id}, {config.network}, {config.sampling}{', adversarial' if config.adversarial else ''}: "
            f"IoU {one.row['iou']:.2f}, at borders {one.row['border_iou']:.2f}, "
            f"{one.row['misnumbered_teeth']} of {one.row['teeth']} teeth misnumbered, "
            f"{one.row['order_violations']} out of order"
        )
        name = f"{config.network}_{config.sampling}{'_adversarial' if config.adversarial else ''}_{case.id}"
        png = picture({"true": (mesh, labels), "predicted": (mesh, numbers)})
        figures.append(Figure(name.replace("/", "_"), caption, png))
    return figures
