"""How SUTS learns its features: Algorithm 1 as a `Learner`.

A training sample is an image pair. Its control grid and Adam moments live in the learner's sample state, go through
the scales over the epochs (one epoch is one scale of the scheme) and are saved with every checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from medray.learner import Learner, Schedule, Step, SumCount, seed_of
from medray.metrics.registration import dice_per_label, warp_labels
from medray.nn.bspline import BSplineGrid, refine
from medray.nn.grid_state import GridState
from medray.systems.registration.pair_reader import ImagePair
from medray.systems.registration.suts import (
    FeaturePair,
    SutsConfig,
    advance,
    feature_loss,
    half_extent,
    pool,
    register,
    scale_grids,
    signed_distance_maps,
)


@dataclass(frozen=True)
class PairBatch:
    """Image pairs on one grid: (B, 1, *shape) images, (B, K, *shape) distance maps, (B, *shape) labels."""

    index: Tensor
    moving: Tensor
    fixed: Tensor
    moving_sdm: Tensor
    fixed_sdm: Tensor
    moving_label: Tensor
    fixed_label: Tensor


class SutsLearner(Learner):
    """Feature CNNs trained on labelled pairs at changing stages of alignment.

    Args:
        config: the method's settings.
        pairs: training pairs with labels, all of one shape.
        validation: pairs registered to the end after each scale; may be empty.
        labels: organ values; background is added.

    Raises:
        ValueError: no pair, pairs of different shapes, or fewer pairs than a batch holds.
    """

    def __init__(
        self,
        config: SutsConfig,
        pairs: Sequence[ImagePair],
        validation: Sequence[ImagePair] = (),
        labels: Sequence[int] = (1,),
    ) -> None:
        super().__init__()
        shapes = {pair.moving.shape for pair in pairs}
        if len(shapes) != 1:
            raise ValueError(f"training pairs must share one grid, got shapes {sorted(shapes)}")
        if len(pairs) < config.batch_size:
            raise ValueError(
                f"{len(pairs)} training pairs do not fill a batch of {config.batch_size}; lower batch_size"
            )
        self.config = config
        self.pairs, self.validation = list(pairs), list(validation)
        self.labels = (0, *labels)
        self.networks = nn.ModuleDict({"features": FeaturePair(config)})
        self.num_scales = len(config.grid_spacing)
        self.schedule = Schedule(num_epochs=self.num_scales * config.passes, batch_size=config.batch_size)
        self.shape = tuple(self.pairs[0].moving.shape)
        self._maps: dict[int, Tensor] = {}
        self._grids: dict[torch.device, list[tuple[BSplineGrid, BSplineGrid]]] = {}

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """The Feature Optimizer; the Grid Optimizer is part of each pair's state."""
        return {"features": Adam(self.networks.parameters(), lr=self.config.feature_lr)}

    def num_samples(self) -> int:
        """Training pairs."""
        return len(self.pairs)

    def order(self, epoch: int, seed: int) -> list[int]:
        """The pair presentation scheme of one scale: `subintervals` visits to each pair, in random order.

        No pair is twice in a batch, since its second visit would have to wait for the first.
        """
        generator = torch.Generator().manual_seed(seed_of("pairs", seed, epoch))
        return presentation_scheme(len(self.pairs), self.config.subintervals, self.config.batch_size, generator)

    def collate(self, indices: Sequence[int], epoch: int) -> PairBatch:
        """Stack pairs; their distance maps are computed at the first visit and kept."""
        pairs = [self.pairs[index] for index in indices]
        return PairBatch(
            index=torch.tensor(indices),
            moving=torch.stack([torch.from_numpy(pair.moving) for pair in pairs])[:, None],
            fixed=torch.stack([torch.from_numpy(pair.fixed) for pair in pairs])[:, None],
            moving_sdm=torch.stack([self._distance_maps(pair.moving_label) for pair in pairs]),
            fixed_sdm=torch.stack([self._distance_maps(pair.fixed_label) for pair in pairs]),
            moving_label=torch.stack([torch.from_numpy(pair.moving_label) for pair in pairs]),
            fixed_label=torch.stack([torch.from_numpy(pair.fixed_label) for pair in pairs]),
        )

    def training_step(self, batch: PairBatch, step: Step) -> Mapping[str, SumCount]:
        """A portion of each pair's iterations; after every `feature_every` grid updates one update of the features."""
        self._set_rate(step)
        config, scale = self.config, step.epoch % self.num_scales
        grid, full = self._scales(batch.moving.device)[scale]
        indices = batch.index.tolist()
        state = self._states(indices, scale, batch.moving.device)
        loss = SumCount(0.0, 0.0)
        for _ in range(config.iterations_per_scale // (config.subintervals * config.feature_every)):
            with step.autocast():
                moving, fixed = self.networks["features"](batch.moving, batch.fixed)  # B in figure 1, tracked
            moving, fixed = moving.float(), fixed.float()
            pooled = [pool(features.detach(), grid.stride) for features in (moving, fixed)]
            state = advance(pooled[0], pooled[1], state, grid, scale, config.feature_every, config)  # C, not tracked
            displacement = full.dense(state.control * half_extent(state.control, self.shape))
            total, count = feature_loss(moving, fixed, batch.moving_sdm, batch.fixed_sdm, displacement, config)  # D
            step.backward(step.mean(total, count))
            step.update("features")
            loss += SumCount(total.detach(), count.detach())
        self._keep(indices, state, scale)
        return {"loss": loss, "dice": self._dice(batch, displacement)}

    def _set_rate(self, step: Step) -> None:
        """Linear rise, then a cosine down to `feature_lr_decay`: a function of the step alone, so resuming is exact."""
        config = self.config
        steps_per_epoch = -(-len(self.pairs) * config.subintervals // config.batch_size)
        done = min(1.0, step.index / (steps_per_epoch * self.schedule.num_epochs))
        decay = config.feature_lr_decay + (1 - config.feature_lr_decay) * (1 + math.cos(math.pi * done)) / 2
        rise = min(1.0, (step.index + 1) / max(1, config.feature_lr_warmup))
        for group in step.optimizers["features"].param_groups:
            group["lr"] = config.feature_lr * decay * rise

    def num_validation_samples(self) -> int:
        """Validation pairs."""
        return len(self.validation)

    def validation_step(self, index: int) -> Mapping[str, SumCount]:
        """Dice of one pair registered to the end with the features as they are, and before."""
        pair = self.validation[index]
        moving, fixed = (torch.from_numpy(image)[None, None] for image in (pair.moving, pair.fixed))
        moving_features, fixed_features = self.networks["features"](moving, fixed)
        displacement = register(moving_features, fixed_features, self.config)
        labels = [torch.from_numpy(label)[None] for label in (pair.moving_label, pair.fixed_label)]
        scores = {}
        for name, field in (("dice", displacement), ("initial_dice", torch.zeros_like(displacement))):
            dice = dice_per_label(warp_labels(labels[0], field), labels[1], self.labels[1:])
            scores[name] = SumCount(float(dice.nansum()), float(dice.isfinite().sum()))
        return scores

    def _distance_maps(self, label: object) -> Tensor:
        key = id(label)  # images are shared between pairs, and so are their maps
        if key not in self._maps:
            self._maps[key] = signed_distance_maps(torch.from_numpy(label)[None], self.labels, self.config.sdm_alpha)[0]
        return self._maps[key]

    def _scales(self, device: torch.device) -> list[tuple[BSplineGrid, BSplineGrid]]:
        """Each scale's control grid over the pooled features and over every pixel."""
        if device not in self._grids:
            like = torch.empty(0, device=device)
            full = [BSplineGrid(self.shape, spacing, device=device) for spacing in self.config.grid_spacing]
            self._grids[device] = list(zip(scale_grids(self.shape, self.config, like), full, strict=True))
        return self._grids[device]

    def _states(self, indices: Sequence[int], scale: int, device: torch.device) -> GridState:
        """Where the pairs stand at this scale; a pair that enters it starts from its upscaled grid (or from zero)."""
        rows = [self._enter(self.sample_state.get(index), scale) for index in indices]
        return GridState(*(torch.cat([getattr(row, name) for row in rows]).to(device) for name in _STATE))

    def _enter(self, kept: dict[str, Tensor] | None, scale: int) -> GridState:
        if kept is not None and int(kept["scale"]) == scale:
            return GridState(*(kept[name][None] for name in _STATE))
        if kept is None or scale == 0:
            return GridState.start(torch.zeros(1, len(self.shape), *self._scales(_CPU)[0][0].knots))
        coarse, fine = self._scales(_CPU)[scale - 1][0], self._scales(_CPU)[scale][0]
        return GridState.start(refine(kept["control"][None], coarse, fine))

    def _keep(self, indices: Sequence[int], state: GridState, scale: int) -> None:
        for row, index in enumerate(indices):
            self.sample_state[index] = {
                **{name: getattr(state, name)[row].detach().cpu().clone() for name in _STATE},
                "scale": torch.tensor(scale),
            }

    def _dice(self, batch: PairBatch, displacement: Tensor) -> SumCount:
        dice = dice_per_label(warp_labels(batch.moving_label, displacement), batch.fixed_label, self.labels[1:])
        return SumCount(dice.nansum(), dice.isfinite().sum())


_CPU = torch.device("cpu")
_STATE = ("control", "exp_avg", "exp_avg_sq", "step")


def presentation_scheme(num_pairs: int, visits: int, batch_size: int, generator: torch.Generator) -> list[int]:
    """Every pair `visits` times in random order, never twice in one batch of ``batch_size``.

    Args:
        num_pairs: at least ``batch_size``.
        visits: how often each pair comes.
        batch_size: the list is cut into batches from its start; the last one may be smaller.
        generator: source of the randomness.

    Returns:
        Pair indices, num_pairs * visits of them.
    """
    remaining = torch.full((num_pairs,), float(visits))
    slots = num_pairs * visits
    sizes = [batch_size] * (slots // batch_size) + ([slots % batch_size] if slots % batch_size else [])
    batches: list[list[int]] = []
    # Drawn from the end, where the smaller batch is. A pair with as many visits left as there are batches left must be
    # in each of them; the others are drawn in proportion to their visits left.
    for drawn, size in enumerate(reversed(sizes)):
        due = (remaining >= len(sizes) - drawn).nonzero()[:, 0][:size]
        weights = remaining.clone()
        weights[due] = 0
        free = size - len(due)
        more = torch.multinomial(weights, free, generator=generator) if free else due[:0]
        chosen = torch.cat([due, more])
        chosen = chosen[torch.randperm(size, generator=generator)]
        remaining[chosen] -= 1
        batches.append([int(index) for index in chosen])
    return [index for batch in reversed(batches) for index in batch]
