"""VOCA: every pixel votes for the center of its nucleus. Xie, Vanderbilt, Grabenstetter & Fuchs, MIDL 2019.

A network says for each pixel whether a nucleus is within r (Conf, eq. 1), where its center is (Loc, eq. 2) and how many
nuclei share the pixel (Wt, eq. 3). The accumulator adds Wt * Conf of every pixel at the place it points to (eq. 5); its
peaks are the nuclei.

Not in the text and chosen here: widths 64 to 512, blocks of a 3x3 and a strided 3x3 convolution with batch norm and a
projection shortcut, skips that add, SGD (from "momentum 0.9"), Wt learned on all pixels, votes rounded to the nearest
pixel, and assignments that forbid pairs beyond the hit distance. Each has a setting where it could matter.
Shape letters: B crops, H rows, W columns. Points and vectors are (row, column), in pixels.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.data.fields import case_fingerprint
from medray.data.pictures import rgb_pixels
from medray.data.points import POINT_FIELDS, points_of
from medray.learner import Learner, Schedule, Step, SumCount
from medray.nn.tiling import Tiling, tiled_bands

Task = Literal["conf", "loc", "wt"]
Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]

PEAK_RADIUS_PX, PEAK_SLOPE = 6.0, 0.8  # of the peak regression that the paper compares with (sec. 5.2)
_MARGIN_STRIDES = 6  # a pixel's answer depends on no pixel farther away than this many times the network's stride
_TILE_PX = 512


@dataclass(frozen=True, kw_only=True)
class VocaConfig:
    """VOCA and the maps it is compared with."""

    target: Literal["votes", "peaks"] = "votes"
    """What the network regresses: votes (the paper's three maps), or one map of peaks (its rival PR, sec. 5.2)."""
    tasks: tuple[Task, ...] = ("conf", "loc", "wt")
    """Which of the three losses train (table 1); a map without its loss counts as 1 (conf, wt) or 0 (loc)."""
    radius_px: float = 12.0
    """r: a pixel nearer than this to a nucleus belongs to it, px (paper 12)."""
    lambda_loc: float = 1.0
    """Weight of the localization loss in eq. 4 (paper 1; 0.1 and 10 were worse)."""
    lambda_wt: float = 1.0
    """Weight of the loss of shared pixels in eq. 4 (paper 1)."""
    wt_everywhere: bool = True
    """Learn Wt on all pixels; off: on foreground pixels only (the text does not say)."""
    channels: tuple[int, ...] = (64, 128, 256, 512)
    """Width of each encoder block; their number is the depth (paper 4 blocks; widths are in no text)."""
    skips: bool = True
    """Add each encoder block's output to the decoder's at the same size."""
    norm: Literal["batch", "group"] = "batch"
    """Normalization in the blocks; group does not depend on what else is in the batch."""
    crop_px: int = 127
    """Side of a training crop, px (paper 127 = 2^7 - 1, which 3x3 convolutions of stride 2 halve without padding)."""
    crop_stride_px: int = 17
    """Grid of the training crops (paper 17)."""
    batch_size: int = 8
    """Crops in an update (paper 8)."""
    num_epochs: int = 10
    """Passes over all crops (paper 10)."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """SGD with momentum (paper, inferred), or Adam for short runs."""
    learning_rate: float = 5e-4
    """First learning rate (paper 0.0005)."""
    momentum: float = 0.9
    """Of SGD (paper 0.9)."""
    lr_decay: float = 0.1
    """Factor on the learning rate after every ``lr_decay_epochs`` (paper 0.1)."""
    lr_decay_epochs: int = 3
    """See ``lr_decay`` (paper 3)."""
    augment: bool = True
    """Flips and quarter turns (paper yes)."""
    normalize: Literal["dataset", "image"] = "dataset"
    """Mean and standard deviation that intensities are normalized by: the training set's (paper), or each image's own
    (for fluorescence and other images of very different exposure)."""
    splat: Literal["nearest", "bilinear"] = "nearest"
    """Where a vote counts: at the nearest pixel (paper), or shared between the four around it."""
    conf_threshold: float = 0.0
    """Votes of pixels with a lower Conf are dropped; 0 keeps all (paper)."""
    nms_px: int = 4
    """Peaks closer than this to a higher one are dropped, px (paper 4)."""
    pool_px: float = 2.0
    """A peak's score is the sum of the accumulator within this distance, px (paper 2)."""
    scale_scores: bool = True
    """Divide the scores of an image by its largest (paper); off: compare raw sums across images."""
    hit_px: float = 6.0
    """A detection this near to its nucleus is right, px (paper 6)."""
    fold: Literal[0, 1, 2] = 0
    """CRCHistoPhenotypes: test on subsample 1 or 2 of appendix A and train on the other; 0 splits by patient."""
    test_fraction: float = 0.3
    """Share of the patients kept for testing."""
    validation_fraction: float = 0.0
    """Share of the patients whose losses are logged after each epoch (paper none)."""

    def __post_init__(self) -> None:
        unit = 2 ** len(self.channels)
        if (self.crop_px + 1) % unit or self.crop_px + 1 < 2 * unit:
            raise ValueError(
                f"crop_px must be a multiple of {unit} less 1 and at least {2 * unit - 1} for {len(self.channels)} "
                f"blocks, got {self.crop_px}; try {max(2 * unit, round((self.crop_px + 1) / unit) * unit) - 1}"
            )
        if self.target == "votes" and not set(self.tasks):
            raise ValueError("tasks names at least one of conf, loc and wt")
        if min(self.radius_px, self.hit_px, self.nms_px, self.crop_stride_px) <= 0:
            raise ValueError("radius_px, hit_px, nms_px and crop_stride_px must be above 0")

    @property
    def outputs(self) -> int:
        """Channels of the network's answer: Conf, Loc row, Loc column, Wt; or the peaks."""
        return 4 if self.target == "votes" else 1


# --- targets ---------------------------------------------------------------------------------------------------


def vote_targets(points: Points, shape: tuple[int, int], radius: float) -> NDArray[np.float32]:
    """Conf, Loc (rows, columns) and Wt of every pixel, (4, H, W); eq. 1 to 3.

    Conf is 1 where a point is nearer than ``radius``, Loc points from there to the nearest point (0 elsewhere), Wt
    counts the points nearer than ``radius``.
    """
    maps = np.zeros((4, *shape), dtype=np.float32)
    nearest = np.full(shape, radius)
    for point in points:
        rows, columns = (
            slice(max(0, math.floor(c - radius)), max(0, min(n, math.ceil(c + radius) + 1)))
            for c, n in zip(point, shape, strict=True)
        )
        y, x = np.mgrid[rows, columns]
        distance = np.hypot(point[0] - y, point[1] - x)
        window = maps[:, rows, columns]
        window[3] += distance < radius
        closer = distance < nearest[rows, columns]
        nearest[rows, columns][closer] = distance[closer]
        window[0][closer] = 1
        window[1][closer], window[2][closer] = (point[0] - y)[closer], (point[1] - x)[closer]
    return maps


def peak_targets(points: Points, shape: tuple[int, int]) -> NDArray[np.float32]:
    """The map that PR regresses, (1, H, W): 1 / (1 + 0.8 d) nearer than 6 px to a point, else 0 (sec. 5.2)."""
    foreground, row, column, _ = vote_targets(points, shape, PEAK_RADIUS_PX)
    return np.asarray(foreground / (1 + PEAK_SLOPE * np.hypot(row, column)), dtype=np.float32)[None]


def turn(image: NDArray[Any], maps: NDArray[Any], flips: Sequence[bool], turns: int) -> tuple[NDArray[Any], ...]:
    """A crop and its targets flipped (left to right, then up to down) and turned counterclockwise by quarters.

    The vectors of vote targets turn with them.

    Args:
        image: (H, W, C).
        maps: (4, H, W) of `vote_targets` or (1, H, W).
        flips: horizontally, vertically.
        turns: quarter turns, 0 to 3.
    """
    maps = maps.copy()
    for flip, axis in zip(flips, (1, 0), strict=True):
        if flip:
            image, maps = np.flip(image, axis), np.flip(maps, axis + 1).copy()
            if len(maps) == 4:
                maps[1 + axis] *= -1
    for _ in range(turns):
        image, maps = np.rot90(image), np.rot90(maps, axes=(1, 2)).copy()
        if len(maps) == 4:
            maps[1], maps[2] = -maps[2], maps[1].copy()
    return np.ascontiguousarray(image), maps


# --- network ---------------------------------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """Halve (127 -> 63) or double: a 3x3 convolution, then one of stride 2 without padding or its transpose."""

    def __init__(self, in_channels: int, out_channels: int, *, up: bool, norm: str) -> None:
        super().__init__()
        self.up = up
        resample = nn.ConvTranspose2d if up else nn.Conv2d
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            _norm(norm, out_channels),
            nn.ReLU(),
            resample(out_channels, out_channels, 3, stride=2, bias=False),
            _norm(norm, out_channels),
        )
        self.shortcut = resample(in_channels, out_channels, 3 if up else 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, n, n) to (B, C', (n - 1) / 2, ...) or (B, C', 2 n + 1, ...)."""
        past = x if self.up else x[..., 1:-1, 1:-1]  # the pixels that the strided convolution is centered on
        return F.relu(self.body(x) + self.shortcut(past))


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(math.gcd(8, channels), channels)


class VocaNet(nn.Module):
    """Residual encoder-decoder with a 1x1 convolution per map (fig. 1)."""

    def __init__(self, config: VocaConfig) -> None:
        super().__init__()
        widths = (3, *config.channels)
        pairs = list(itertools.pairwise(widths))
        back = [
            (wide, max(narrow, config.channels[0])) for narrow, wide in reversed(pairs)
        ]  # the last one keeps its width
        self.encoder = nn.ModuleList(ResidualBlock(i, o, up=False, norm=config.norm) for i, o in pairs)
        self.decoder = nn.ModuleList(ResidualBlock(i, o, up=True, norm=config.norm) for i, o in back)
        self.skips = config.skips
        self.heads = nn.ModuleList(nn.Conv2d(config.channels[0], n, 1) for n in _HEADS[config.target])
        self.last = F.relu if config.target == "votes" else torch.sigmoid
        # A ReLU that starts below zero everywhere never learns; peaks start from about their mean.
        nn.init.constant_(self.heads[-1].bias, 0.5 if config.target == "votes" else -3.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, n, n) to (B, 4, n, n): the logit of Conf, Loc, Wt; or (B, 1, n, n), the peaks."""
        seen: list[Tensor] = []
        for block in self.encoder:
            x = block(x)
            seen.append(x)
        seen.pop()
        for block in self.decoder:
            x = block(x)
            if self.skips and seen:
                x = x + seen.pop()
        *maps, last = (head(x) for head in self.heads)
        return torch.cat([*maps, self.last(last)], dim=1)


_HEADS = {"votes": (1, 2, 1), "peaks": (1,)}


# --- training --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Normalization:
    """What is known of the training set: mean and deviation per channel (0 to 255), and the share of foreground."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    foreground: float

    def apply(self, pixels: NDArray[Any], config: VocaConfig) -> NDArray[np.float32]:
        """(..., H, W, 3) to float32, as the config says; a constant image becomes 0."""
        values = pixels.astype(np.float32)
        if config.normalize == "image":
            return np.asarray((values - values.mean()) / max(float(values.std()), 1.0), dtype=np.float32)
        mean, std = np.asarray(self.mean, dtype=np.float32), np.asarray(self.std, dtype=np.float32)
        return np.asarray((values - mean) / std)


@dataclass(frozen=True)
class CropBatch:
    """Crops (B, 3, n, n) with their targets (B, 4 or 1, n, n)."""

    image: Tensor
    target: Tensor


class CaseReader:
    """Pixels, points and target maps of a case, decoded once."""

    def __init__(self, config: VocaConfig, cache: SampleCache | None) -> None:
        self.config, self.cache = config, cache

    def __call__(self, case: Case) -> Mapping[str, NDArray[Any]]:
        """``pixels`` (H, W, 3), ``points`` (N, 2), ``target`` (4 or 1, H, W)."""
        if self.cache is None:
            return self._read(case)
        key = ("voca", self.config.target, self.config.radius_px, case_fingerprint(case, _used(case)))
        return self.cache.get(key, lambda: self._read(case))

    def _read(self, case: Case) -> dict[str, NDArray[Any]]:
        pixels, points = rgb_pixels(case.volume("image")), points_of(case)
        shape = pixels.shape[:2]
        target = (
            vote_targets(points, shape, self.config.radius_px)
            if self.config.target == "votes"
            else peak_targets(points, shape)
        )
        return {"pixels": pixels, "points": points, "target": target}


def _used(case: Case) -> list[str]:
    return ["image", *[name for name in POINT_FIELDS if name in case.fields][:1]]


def map_losses(answer: Tensor, target: Tensor, config: VocaConfig, foreground: float) -> dict[str, SumCount]:
    """Sum and count of each loss of eq. 4; for PR the one loss under ``peak``.

    Args:
        answer: (B, 4 or 1, H, W) of the network.
        target: of the same shape.
        config: which tasks train.
        foreground: share of foreground pixels in the training set; each class counts by the inverse of its share.
    """
    if config.target == "peaks":
        return {"peak": SumCount(F.smooth_l1_loss(answer, target, reduction="sum"), answer.numel())}
    conf, inside = target[:, 0], target[:, 0] > 0
    share = min(max(foreground, 1e-3), 1 - 1e-3)
    weight = torch.where(inside, 0.5 / share, 0.5 / (1 - share))
    entropy = F.binary_cross_entropy_with_logits(answer[:, 0], conf, weight=weight, reduction="sum")
    where = torch.ones_like(inside) if config.wt_everywhere else inside
    per_pixel = F.smooth_l1_loss(answer[:, 1:], target[:, 1:], reduction="none")
    found = {
        "conf": SumCount(entropy, conf.numel()),
        "loc": SumCount((per_pixel[:, :2].sum(1) * inside).sum(), inside.sum()),  # summed over both axes
        "wt": SumCount((per_pixel[:, 2] * where).sum(), where.sum()),
    }
    return {name: found[name] for name in config.tasks}


class VocaLearner(Learner):
    """One network, the three losses of eq. 4.

    Args:
        config: the method's settings.
        train: cases with image and points.
        shapes: (H, W) of each of them.
        known: what `VocaLearner` normalizes and weighs with.
        validation: cases whose losses are logged; may be empty.
        cache: keeps decoded images and their targets.
    """

    def __init__(
        self,
        config: VocaConfig,
        train: Sequence[Case],
        shapes: Sequence[tuple[int, int]],
        known: Normalization,
        validation: Sequence[Case] = (),
        cache: SampleCache | None = None,
    ) -> None:
        super().__init__()
        self.config, self.cases, self.validation, self.known = config, list(train), list(validation), known
        self.read = CaseReader(config, cache)
        self.crops = [(i, *corner) for i, shape in enumerate(shapes) for corner in crop_corners(shape, config)]
        self.networks = nn.ModuleDict({"net": VocaNet(config)})
        self.schedule = Schedule(num_epochs=config.num_epochs, batch_size=config.batch_size)
        self.weights = {"loc": config.lambda_loc, "wt": config.lambda_wt}

    def configure_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """SGD with momentum, or Adam."""
        config, parameters = self.config, self.networks.parameters()
        if config.optimizer == "adam":
            return {"net": torch.optim.Adam(parameters, lr=config.learning_rate)}
        return {"net": torch.optim.SGD(parameters, lr=config.learning_rate, momentum=config.momentum)}

    def configure_schedulers(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Any]:
        """A tenth after every three epochs."""
        config = self.config
        return {"net": torch.optim.lr_scheduler.StepLR(optimizers["net"], config.lr_decay_epochs, config.lr_decay)}

    def num_samples(self) -> int:
        """Crops."""
        return len(self.crops)

    def sample_name(self, index: int) -> str:
        """The case a crop is from."""
        return self.cases[self.crops[index][0]].id

    def collate(self, indices: Sequence[int], epoch: int) -> CropBatch:
        """Cut, turn, normalize."""
        images, targets = zip(*(self._crop(index, epoch) for index in indices), strict=True)
        return CropBatch(torch.stack(images), torch.stack(targets))

    def _crop(self, index: int, epoch: int) -> tuple[Tensor, Tensor]:
        case, row, column = self.crops[index]
        found, side = self.read(self.cases[case]), self.config.crop_px
        image = found["pixels"] if self.config.normalize == "dataset" else self._normalized(case)
        image = image[row : row + side, column : column + side]
        maps = found["target"][:, row : row + side, column : column + side]
        if self.config.augment:
            draws = torch.rand(3, generator=self.sample_generator(index, epoch)).tolist()
            image, maps = turn(image, maps, (draws[0] < 0.5, draws[1] < 0.5), int(4 * draws[2]))
        if self.config.normalize == "dataset":
            image = self.known.apply(image, self.config)
        image = np.ascontiguousarray(np.moveaxis(image, -1, 0), dtype=np.float32)
        return torch.from_numpy(image), torch.from_numpy(np.ascontiguousarray(maps))

    def _normalized(self, case: int) -> NDArray[np.float32]:
        """A whole image by its own mean and deviation; a crop's own would be others."""
        return self.known.apply(self.read(self.cases[case])["pixels"], self.config)

    def training_step(self, batch: CropBatch, step: Step) -> Mapping[str, SumCount]:
        """Eq. 4."""
        with step.autocast():
            answer = self.networks["net"](batch.image)
        losses = map_losses(answer.float(), batch.target, self.config, self.known.foreground)
        loss = sum(
            (self.weights.get(name, 1.0) * step.mean(part.total, part.count) for name, part in losses.items()),  # type: ignore[arg-type]
            start=torch.zeros((), device=batch.image.device),
        )
        step.backward(loss)
        step.update("net")
        logged = {f"{name}_loss": SumCount(part.total.detach(), part.count) for name, part in losses.items()}  # type: ignore[union-attr]
        return {"loss": SumCount(loss.detach() * len(batch.image), len(batch.image)), **logged}

    def num_validation_samples(self) -> int:
        """Validation images."""
        return len(self.validation)

    def validation_step(self, index: int) -> Mapping[str, SumCount]:
        """Losses over a whole image."""
        found = self.read(self.validation[index])
        answer = predict_maps(self.networks["net"], found["pixels"], self.config, self.known)
        target = torch.from_numpy(found["target"])
        losses = map_losses(answer[None], target[None], self.config, self.known.foreground)
        return {f"{name}_loss": part for name, part in losses.items()}


def crop_corners(shape: tuple[int, int], config: VocaConfig) -> list[tuple[int, int]]:
    """Upper left corners of the training crops of an image (sec. 4): 484 for 500 x 500."""
    rows, columns = (range(0, n - config.crop_px + 1, config.crop_stride_px) for n in shape)
    return [(row, column) for row in rows for column in columns]


# --- detection -------------------------------------------------------------------------------------------------


@torch.no_grad()
def predict_maps(network: nn.Module, pixels: Pixels, config: VocaConfig, known: Normalization) -> Tensor:
    """The network's answer for an image of any size, (4 or 1, H, W); the logit of Conf, not yet its probability.

    Images up to a tile go through as a whole, reflected at two sides to a size that halves evenly. Larger ones go in
    tiles that overlap by more than the network sees, on a grid that its strides divide: the same answer without seams.
    """
    unit = 2 ** len(config.channels)
    device = next(network.parameters()).device
    normalized = known.apply(pixels, config) if config.normalize == "image" else None

    def predict(tile: NDArray[Any]) -> Tensor:
        values = tile if normalized is not None else known.apply(tile, config)
        image = torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 0)))[None].to(device)
        # One row and column more than the tile has would be cut off by the strides: an odd side is exact.
        return F.pad(network(image[..., :-1, :-1])[0].cpu(), (0, 1, 0, 1), mode="replicate")

    source = pixels if normalized is None else normalized
    longest = max(pixels.shape[:2])
    if longest < _TILE_PX:
        side = (longest // unit + 1) * unit
        tiling = Tiling(tile=side, kept=side, step=side)
    else:
        margin = _MARGIN_STRIDES * unit
        kept = max(_TILE_PX - 2 * margin, 2 * margin) // unit * unit
        tiling = Tiling(tile=kept + 2 * margin, kept=kept, step=kept)
    answer = torch.empty(config.outputs, *pixels.shape[:2])
    was_training = network.training
    network.eval()
    read = functools.partial(_region, source)
    for top, band in tiled_bands(read, pixels.shape, predict, tiling):
        answer[:, top : top + band.shape[1]] = band
    network.train(was_training)
    return answer


def _region(image: NDArray[Any], top: int, left: int, height: int, width: int) -> NDArray[Any]:
    return image[top : top + height, left : left + width]


def accumulate(answer: Tensor, config: VocaConfig, *, weighted: bool = True) -> NDArray[np.float32]:
    """The accumulator P (H, W) of eq. 5; votes that leave the image are dropped. For PR the peaks as they are.

    Args:
        answer: (4 or 1, H, W) of `predict_maps`.
        config: what the maps are, how votes count.
        weighted: by Wt; off: VOCA-NW with the same network.
    """
    if config.target == "peaks":
        return answer[0].numpy()
    height, width = answer.shape[1:]
    total = torch.zeros(height * width)
    for top in range(0, height, 256):  # in bands: the positions of a large image would take much memory at once
        band = answer[:, top : top + 256]
        votes = band[0].sigmoid() if "conf" in config.tasks else torch.ones_like(band[0])
        votes = torch.where(votes < config.conf_threshold, 0.0, votes)
        if weighted and "wt" in config.tasks:
            votes = votes * band[3]
        rows, columns = torch.meshgrid(torch.arange(top, top + band.shape[1]), torch.arange(width), indexing="ij")
        if "loc" in config.tasks:
            _vote(total, rows + band[1], columns + band[2], votes, (height, width), config.splat)
        else:
            _vote(total, rows.float(), columns.float(), votes, (height, width), "nearest")
    return total.view(height, width).numpy()


def _vote(total: Tensor, rows: Tensor, columns: Tensor, votes: Tensor, shape: tuple[int, int], splat: str) -> None:
    if splat == "nearest":
        corners: Iterable[tuple[Tensor, Tensor, Tensor]] = [(rows.round(), columns.round(), votes)]
    else:
        low_row, low_column = rows.floor(), columns.floor()
        down, right = rows - low_row, columns - low_column
        corners = (
            (low_row + i, low_column + j, votes * (down if i else 1 - down) * (right if j else 1 - right))
            for i in (0, 1)
            for j in (0, 1)
        )
    for row, column, vote in corners:
        inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
        total.index_add_(0, (row[inside] * shape[1] + column[inside]).long(), vote[inside])


@dataclass(frozen=True)
class Detections:
    """Nuclei of an image: positions (N, 2) in px, scores, and the accumulator they come from."""

    points: Points
    scores: NDArray[np.float64]
    accumulator: NDArray[np.float32]


def find_peaks(accumulator: NDArray[np.float32], config: VocaConfig) -> Detections:
    """Peaks by non-maximum suppression, scored by the sum around them (sec. 5.3)."""
    from scipy import ndimage
    from skimage.feature import peak_local_max

    points = peak_local_max(accumulator, min_distance=config.nms_px, threshold_abs=1e-6, exclude_border=False)
    reach = int(config.pool_px)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = (np.hypot(y, x) <= config.pool_px).astype(np.float32)
    pooled = ndimage.convolve(accumulator, disc, mode="constant")
    scores = pooled[points[:, 0], points[:, 1]].astype(np.float64)
    if config.scale_scores and scores.size:
        scores /= scores.max()
    return Detections(points.astype(np.float64), scores, accumulator)
