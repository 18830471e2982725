"""SUTS: features learned so that Demons steps align two modalities. Blendowski & Heinrich, MIDL 2019.

Two small CNNs map the moving and the fixed image to a common feature space. There a closed-form Demons step, carried
over to a B-spline control grid and given to Adam as a gradient, aligns any pair without labels. The features are
learned from organ labels: their step has to match the step that the signed distance maps of the organs would take.

Departs from the paper, each time for a measured reason or because the text is silent:
- The control grid lives in normalized coordinates, [-1, 1] over the image. With the paper's step size of 5e-3 per
  iteration, a grid in pixels could not move by more than 4.5 px in all.
- The smoothness penalty pulls the control grid toward its local mean (``smooth_on="field"``). Taken literally, on the
  update, Adam's rescaling undoes it; ``smooth_on="update"`` keeps that reading.
- Equation 3 gets a damping term of its own (``damping``), the CNNs start from the same weights and their learning rate
  decays. Undamped features of the phantom end below no registration; docs/systems/suts.md has the numbers.
- Equation 1 prints the penalty as (u + v)^2, but equation 2 follows from u^2 + v^2, which is used.

Shape letters: B pairs, C feature channels, D = 2 or 3 axes, ``shape`` pixels, ``knots`` control points. Displacements
are in pixels unless said otherwise, components in array-axis order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from medray.nn.bspline import BSplineGrid, refine
from medray.nn.grid_state import GridState
from medray.nn.mind import mind_ssc
from medray.nn.warp import warp

LAYERS = ((7, 4), (7, 6), (5, 6), (5, 8), (5, 8), (3, 8), (3, 8))
"""Kernel size and output channels of the feature CNN's convolutions (sec. 3)."""

NumberT = TypeVar("NumberT", int, float)


@dataclass(frozen=True, kw_only=True)
class SutsConfig:
    """Everything that can be changed; the defaults are the paper's."""

    spatial_dims: Literal[2, 3] = 2
    """2 for slices (paper), 3 for volumes (the paper's future work)."""
    features: Literal["cnn", "mind", "intensity", "sdm"] = "cnn"
    """What the descent layer compares (table 1): learned features, MIND-SSC, raw intensities, or the signed distance
    maps of the true labels (an oracle that needs labels of the pair to be aligned)."""
    shared_weights: bool = False
    """One CNN for both modalities; the paper trains one for each."""
    final_tanh: bool = False
    """Squash the features to [-1, 1], the range of the distance maps; the paper's last layer is linear."""

    append_mind: bool = False
    """Let the descent layer see MIND's channels beside the learned ones, in training and registration alike; costs
    half as much time again (paper: off)."""
    same_start: bool = True
    """Both CNNs start from the same random weights (paper: not said). Otherwise they first have to find each other."""

    feature_lr: float = 1e-3
    """Learning rate of the feature CNNs (Adam; paper 1e-3 "initially")."""
    feature_lr_decay: float = 0.01
    """Fraction of feature_lr left at the end of training, reached along a cosine (paper: no schedule given). At a
    constant rate the features follow whatever stage of alignment was seen last."""
    feature_lr_warmup: int = 20
    """Updates over which the learning rate rises to feature_lr (paper: not said)."""
    batch_size: int = 2
    """Image pairs per feature update (paper 2)."""
    feature_every: int = 5
    """Grid updates between two feature updates (paper 5)."""
    subintervals: int = 60
    """Portions p into which the iterations of a pair at one scale are cut; pairs take turns in random order, so that
    the features see all stages of alignment (paper: p not given; 60 makes each portion one feature update)."""
    passes: int = 1
    """Times the whole coarse-to-fine scheme is trained through (paper 1)."""
    sdm_alpha: float = 0.01
    """Distance maps are tanh(alpha * distance), alpha in 1/px (paper 0.01)."""
    border_mask: bool = True
    """Learn only near organ borders, where the distance maps say something (paper); off: everywhere."""
    sdm_weight: float = 0.0
    """Weight of a second loss: the squared distance of the features themselves to the distance maps, class after class
    over the channels. It gives the descent loss good features to start from within minutes; paper 0."""
    border_threshold: float = 0.1
    """Near means |distance map| below this; 0.1 is about 10 px at alpha 0.01 (paper 0.1)."""

    grid_spacing: tuple[int, ...] = (20, 10, 7)
    """Control-point distance of each scale, px, coarse to fine (paper 20 10 7)."""
    iterations_per_scale: int = 300
    """Grid updates at each scale, at most (paper 300)."""
    grid_lr: float = 5e-3
    """Step size of the grid's Adam, in units of half the image (paper 5e-3)."""
    grid_lr_decay: float = 1.0
    """Fraction of grid_lr left at the end of a scale, reached along a cosine; 1 keeps it constant (paper). At a
    constant step Adam circles around the optimum by a fraction of a pixel."""
    smooth_on: Literal["field", "bending", "update"] = "field"
    """What the smoothness penalty acts on: the displacement grid G, pulled toward its local mean S G; "bending", the
    gradient of |G - S G|^2 / 2, which leaves long waves alone; or, to the letter of the paper, the update."""
    smooth_weights: tuple[float, ...] = (0.0125, 0.0125, 0.025)
    """Weight of the smoothness penalty at each scale, or one for all (paper 0.0125 0.0125 0.025)."""
    damping: float = 0.1
    """Added to the denominator of equation 3, in squared feature units. The paper's formula (0) does not change when
    the features shrink, so that noise in flat places counts like an edge; with damping the CNNs can learn to be
    silent."""
    target_damping: float = 1e-8
    """The same for the distance maps that supervise, which are nowhere flat (paper 0)."""
    mind_radius: int = 2
    """Half width of MIND's patches, px."""
    mind_dilation: int = 2
    """Distance of MIND's neighbors from the center, px."""

    strides: tuple[int, ...] = (1, 1, 1)
    """Downsampling of the features at each scale (average pooling), or one for all; 4 2 1 is faster, paper 1 1 1."""
    converged_px: float = 0.0
    """A pair leaves a scale early once 10 updates have moved its control points by less than this, px, on average; 0
    never (paper)."""

    def __post_init__(self) -> None:
        scales = len(self.grid_spacing)
        if self.spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims is 2 or 3, got {self.spatial_dims}")
        if scales == 0 or list(self.grid_spacing) != sorted(self.grid_spacing, reverse=True):
            raise ValueError(f"grid_spacing runs coarse to fine, got {self.grid_spacing}; try 20 10 7")
        for name in ("smooth_weights", "strides"):
            if len(getattr(self, name)) not in (1, scales):
                raise ValueError(
                    f"{name} needs one value for each of the {scales} scales of grid_spacing, or one for all, "
                    f"got {getattr(self, name)}; give {scales} values"
                )
        if min(self.grid_spacing) < 1 or min(self.strides) < 1:
            raise ValueError(f"grid_spacing {self.grid_spacing} and strides {self.strides} are whole pixels from 1 up")
        positive = ("feature_lr", "batch_size", "feature_every", "subintervals", "passes", "sdm_alpha")
        for name in (
            *positive,
            "border_threshold",
            "iterations_per_scale",
            "grid_lr",
            "damping",
            "target_damping",
            "mind_dilation",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0, got {getattr(self, name)}")
        for name in ("grid_lr_decay", "feature_lr_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is a fraction in (0, 1], got {getattr(self, name)}; 1 keeps the step size")
        if min(self.smooth_weights) < 0 or max(self.smooth_weights) >= 1:
            raise ValueError(f"smooth_weights lie in [0, 1), got {self.smooth_weights}; try 0.0125 0.0125 0.025")
        for name in ("converged_px", "sdm_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}; 0 turns it off")
        portion = self.subintervals * self.feature_every
        if self.iterations_per_scale % portion:
            raise ValueError(
                f"iterations_per_scale {self.iterations_per_scale} must be a multiple of subintervals * feature_every "
                f"= {portion}; try subintervals={max(1, self.iterations_per_scale // self.feature_every)}"
            )

    def per_scale(self, values: tuple[NumberT, ...]) -> tuple[NumberT, ...]:
        """A setting's value at each scale; one that is given for all is repeated."""
        return values * len(self.grid_spacing) if len(values) == 1 else values


class FeatureCNN(nn.Module):
    """One modality's feature extractor: 7 stride-1 convolutions, 6,312 weights and a reach of 29 px in 2D (sec. 3).

    Args:
        spatial_dims: 2 or 3.
        final_tanh: squash the 8 output channels to [-1, 1].
    """

    def __init__(self, spatial_dims: int = 2, *, final_tanh: bool = False) -> None:
        super().__init__()
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        layers: list[nn.Module] = []
        in_channels = 1
        for kernel_size, out_channels in LAYERS[:-1]:
            layers += [
                conv(in_channels, out_channels, kernel_size, padding="same", bias=False),
                nn.GroupNorm(2, out_channels),
                nn.Tanh(),
            ]
            in_channels = out_channels
        kernel_size, out_channels = LAYERS[-1]
        layers.append(conv(in_channels, out_channels, kernel_size, padding="same"))
        if final_tanh:
            layers.append(nn.Tanh())
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, *shape) to (B, 8, *shape)."""
        features: Tensor = self.layers(image)
        return features


class FeaturePair(nn.Module):
    """Features of both images of a pair, by whatever ``config.features`` says. Only "cnn" has weights."""

    def __init__(self, config: SutsConfig) -> None:
        super().__init__()
        self.config = config
        if config.features == "cnn":
            self.moving = FeatureCNN(config.spatial_dims, final_tanh=config.final_tanh)
            self.fixed = (
                self.moving if config.shared_weights else FeatureCNN(config.spatial_dims, final_tanh=config.final_tanh)
            )
            if config.same_start:
                self.fixed.load_state_dict(self.moving.state_dict())

    def forward(
        self, moving: Tensor, fixed: Tensor, moving_sdm: Tensor | None = None, fixed_sdm: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images (B, 1, *shape) each, and for "sdm" their distance maps (B, C, *shape), to two (B, C, *shape).

        Raises:
            ValueError: images of another dimension than configured, or "sdm" without distance maps.
        """
        if moving.ndim != self.config.spatial_dims + 2 or moving.shape != fixed.shape:
            raise ValueError(
                f"moving {tuple(moving.shape)} and fixed {tuple(fixed.shape)} must have one shape with "
                f"{self.config.spatial_dims} spatial axes; resample them to one grid or set spatial_dims"
            )
        if self.config.features == "cnn":
            learned = self.moving(moving), self.fixed(fixed)
            if not self.config.append_mind:
                return learned
            hand_crafted = self._mind(moving), self._mind(fixed)
            return torch.cat([learned[0], hand_crafted[0]], dim=1), torch.cat([learned[1], hand_crafted[1]], dim=1)
        if self.config.features == "mind":
            return self._mind(moving), self._mind(fixed)
        if self.config.features == "intensity":
            return moving, fixed
        if moving_sdm is None or fixed_sdm is None:
            raise ValueError("features='sdm' is an oracle and needs the labels of both images; use features='cnn'")
        return moving_sdm, fixed_sdm

    def _mind(self, image: Tensor) -> Tensor:
        return mind_ssc(image, radius=self.config.mind_radius, dilation=self.config.mind_dilation)


def signed_distance_maps(labels: Tensor, classes: Sequence[int], alpha: float = 0.01) -> Tensor:
    """Squashed signed distance to the border of each class, the features that supervise (sec. 3).

    Args:
        labels: integer label maps, (B, *shape).
        classes: label values, background included; one channel each.
        alpha: 1/px inside tanh(alpha * distance).

    Returns:
        (B, len(classes), *shape) in [-1, 1], float32: positive inside, 0 between the last pixel inside and the first
        outside; a constant -1 (or 1) where a class is absent (or everywhere).
    """
    maps = np.empty((labels.shape[0], len(classes), *labels.shape[1:]), dtype=np.float32)
    for case, label in enumerate(labels.cpu().numpy()):
        for channel, value in enumerate(classes):
            inside = label == value
            if inside.all() or not inside.any():
                maps[case, channel] = np.inf if inside.any() else -np.inf
                continue
            # Pixel centers lie half a pixel off the border, on either side.
            maps[case, channel] = np.where(
                inside, distance_transform_edt(inside) - 0.5, 0.5 - distance_transform_edt(~inside)
            )
    return torch.tanh(alpha * torch.from_numpy(maps)).to(labels.device)


def demons_step(moving: Tensor, fixed: Tensor, damping: float = 1e-8, scratch: Tensor | None = None) -> Tensor:
    """Closed-form Demons update at every pixel, averaged over the feature channels.

    Args:
        moving: features already warped by the current field, (B, C, *shape).
        fixed: features to meet, same shape.
        damping: keeps the quotient finite where both are flat, in squared feature units.
        scratch: memory from `step_scratch`, for loops that take many untracked steps.

    Returns:
        Update in pixels, (B, D, *shape), never longer than 0.5 px; zero where ``moving`` is flat or equals ``fixed``.

    Raises:
        ValueError: the shapes differ.

    Source: equation 3, with lambda = (M - F)^2 per channel and pixel after Vercauteren et al., NeuroImage 2009.
    """
    if moving.shape != fixed.shape:
        raise ValueError(f"moving {tuple(moving.shape)} and fixed {tuple(fixed.shape)} must have the same shape")
    if not (torch.is_grad_enabled() and (moving.requires_grad or fixed.requires_grad)):
        return _untracked_step(moving, fixed, damping, step_scratch(moving) if scratch is None else scratch)
    difference = fixed - moving
    slopes = torch.gradient(moving, dim=tuple(range(2, moving.ndim)))  # M_x, M_y
    denominator = difference.square() + damping  # lambda
    for slope in slopes:
        denominator = denominator + slope.square()  # + M_x^2 + M_y^2
    gain = difference / denominator
    return torch.stack([(gain * slope).mean(1) for slope in slopes], dim=1)


def step_scratch(features: Tensor) -> Tensor:
    """Memory for `demons_step` on features of this shape. Fresh pages cost as much as the arithmetic; these stay.

    Pairs too large for the processor's cache together are worked off one after the other, and share it.
    """
    pairs = 1 if features[0].numel() > 1 << 16 and features.device.type == "cpu" else features.shape[0]
    return features.new_empty(features.ndim, pairs, *features.shape[1:])


def _untracked_step(moving: Tensor, fixed: Tensor, damping: float, scratch: Tensor) -> Tensor:
    """`demons_step` without a graph: same numbers, less than half the time."""
    if scratch.shape[1] < moving.shape[0]:
        pairs = zip(moving.split(1), fixed.split(1), strict=True)
        return torch.cat([_untracked_step(m, f, damping, scratch) for m, f in pairs])
    gain, denominator, *slopes = scratch
    torch.sub(fixed, moving, out=gain)
    torch.mul(gain, gain, out=denominator).add_(damping)
    for axis, slope in enumerate(slopes, start=2):
        last = moving.shape[axis] - 1
        _difference(moving, axis, 2, slope.narrow(axis, 1, last - 1)).mul_(0.5)
        _difference(moving.narrow(axis, 0, 2), axis, 1, slope.narrow(axis, 0, 1))
        _difference(moving.narrow(axis, last - 1, 2), axis, 1, slope.narrow(axis, last, 1))
        denominator.addcmul_(slope, slope)
    gain.div_(denominator)
    return torch.stack([slope.mul_(gain).mean(1) for slope in slopes], dim=1)


def _difference(values: Tensor, axis: int, step: int, out: Tensor) -> Tensor:
    n = values.shape[axis] - step
    return torch.sub(values.narrow(axis, step, n), values.narrow(axis, 0, n), out=out)


def feature_loss(
    moving: Tensor, fixed: Tensor, moving_sdm: Tensor, fixed_sdm: Tensor, displacement: Tensor, config: SutsConfig
) -> tuple[Tensor, Tensor]:
    """Squared difference between the step the features take and the step the distance maps would take (Algorithm 1, D).

    The only place where gradients reach the feature CNNs: through the warped features, their slopes, lambda and F of
    this one descent step.

    Args:
        moving: features with gradient, (B, C, *shape), not warped.
        fixed: likewise.
        moving_sdm: distance maps (B, K, *shape), not warped.
        fixed_sdm: likewise.
        displacement: current alignment of each pair, (B, D, *shape) in pixels.
        config: border mask and damping.

    Returns:
        Sum of squared differences in px^2 and number of values summed, scalars; their quotient is the loss (plus
        ``sdm_weight`` times the mean squared distance of the features to the distance maps).
    """
    step = demons_step(warp(moving, displacement), fixed, config.damping)
    with torch.no_grad():
        warped_sdm = warp(moving_sdm, displacement)
        target = demons_step(warped_sdm, fixed_sdm, config.target_damping)
        mask = torch.ones_like(target[:, :1])
        if config.border_mask:
            near = (warped_sdm.abs() < config.border_threshold) | (fixed_sdm.abs() < config.border_threshold)
            mask = near.any(1, keepdim=True).to(target.dtype)
    total, count = ((step - target).square() * mask).sum(), mask.sum() * target.shape[1]
    if config.sdm_weight:
        error = _map_error(moving, moving_sdm) + _map_error(fixed, fixed_sdm)
        total = total + config.sdm_weight * error * count
    return total, count


def _map_error(features: Tensor, sdm: Tensor) -> Tensor:
    """Mean squared difference of the learned channels and the distance maps, which repeat over them."""
    learned = features[:, : LAYERS[-1][1]]
    channels = torch.arange(learned.shape[1], device=sdm.device) % sdm.shape[1]
    return (learned - sdm[:, channels]).square().mean()


def half_extent(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Pixels per unit of normalized coordinates, (1, D, 1, ...): -1 and 1 are the outer pixel centers of an axis."""
    half = torch.tensor([(n - 1) / 2 for n in shape], dtype=like.dtype, device=like.device)
    return half.view(1, -1, *(1,) * len(shape))


def grid_gradient(
    moving: Tensor,
    fixed: Tensor,
    control_px: Tensor,
    grid: BSplineGrid,
    smooth_weight: float,
    config: SutsConfig,
    scratch: Tensor | None = None,
) -> Tensor:
    """The B-spline descent layer (sec. 2.1): what the grid optimizer takes as gradient of the control grid.

    Args:
        moving: features, (B, C, *grid.dense_shape), not warped.
        fixed: features, same shape.
        control_px: control grid in pixels, (B, D, *grid.knots).
        grid: the scale's control grid; with a stride, the features are pooled by it.
        smooth_weight: weight of the smoothness penalty.
        config: damping and form of the penalty.
        scratch: as for `demons_step`.

    Returns:
        Minus the local mean of the update around each knot plus the penalty's pull, (B, D, *grid.knots), pixels.
    """
    displacement = grid.dense(control_px) / grid.stride
    update = demons_step(warp(moving, displacement), fixed, config.damping, scratch) * grid.stride
    if config.smooth_on == "update":
        update = update - smooth_weight * (update - _local_mean(update))
        return -grid.adjoint_mean(update)
    rough = control_px - _local_mean(control_px)
    if config.smooth_on == "bending":  # (I - S)^T (I - S) G; S is symmetric but for the border
        rough = rough - _local_mean(rough)
    return -grid.adjoint_mean(update) + smooth_weight * rough


def _local_mean(values: Tensor) -> Tensor:
    """Mean over 3 neighbors per axis, border repeated."""
    dims = values.ndim - 2
    padded = F.pad(values, (1,) * (2 * dims), mode="replicate")
    return F.avg_pool2d(padded, 3, stride=1) if dims == 2 else F.avg_pool3d(padded, 3, stride=1)


@torch.no_grad()
def advance(
    moving: Tensor, fixed: Tensor, state: GridState, grid: BSplineGrid, scale: int, num_steps: int, config: SutsConfig
) -> GridState:
    """Grid updates of Algorithms 1 and 2, not tracked by autograd.

    Args:
        moving: features at the grid's resolution (`pool`), (B, C, *grid.dense_shape).
        fixed: likewise.
        state: where the pairs stand; not changed.
        grid: control grid of this scale.
        scale: index of the scale, for its smoothness weight.
        num_steps: updates to make.
        config: step size, its decay, penalty.

    Returns:
        The pairs ``num_steps`` updates on.
    """
    extent = half_extent(state.control, grid.shape)
    weight, scratch = config.per_scale(config.smooth_weights)[scale], step_scratch(moving)
    for _ in range(num_steps):
        gradient = grid_gradient(moving, fixed, state.control * extent, grid, weight, config, scratch)
        done = state.step.double() / config.iterations_per_scale
        decay = config.grid_lr_decay + (1 - config.grid_lr_decay) * (1 + torch.cos(torch.pi * done)) / 2
        state = state.moved(gradient, config.grid_lr * decay)
    return state


def pool(features: Tensor, stride: int) -> Tensor:
    """Features of a scale at reduced resolution: means over cells of ``stride`` pixels a side."""
    if stride == 1:
        return features
    return F.avg_pool2d(features, stride) if features.ndim == 4 else F.avg_pool3d(features, stride)


def scale_grids(shape: Sequence[int], config: SutsConfig, like: Tensor) -> list[BSplineGrid]:
    """The control grid of every scale over images of one shape, on the device of ``like``."""
    return [
        BSplineGrid(shape, spacing, stride=stride, dtype=like.dtype, device=like.device)
        for spacing, stride in zip(config.grid_spacing, config.per_scale(config.strides), strict=True)
    ]


@torch.no_grad()
def register(moving: Tensor, fixed: Tensor, config: SutsConfig) -> Tensor:
    """Align a batch of pairs by their features, coarse to fine (Algorithm 2).

    Args:
        moving: features of the moving images, (B, C, *shape).
        fixed: features of the fixed images, same shape.
        config: scales, steps and penalties.

    Returns:
        Displacement (B, D, *shape) in pixels: ``moving(x + displacement(x))`` meets ``fixed(x)``.

    Raises:
        ValueError: the shapes differ or have another dimension than configured.
    """
    if moving.shape != fixed.shape or moving.ndim != config.spatial_dims + 2:
        raise ValueError(
            f"moving {tuple(moving.shape)} and fixed {tuple(fixed.shape)} features must have one shape with "
            f"{config.spatial_dims} spatial axes"
        )
    shape = moving.shape[2:]
    grids = scale_grids(shape, config, moving)
    extent = half_extent(moving, shape)
    control = moving.new_zeros(moving.shape[0], len(shape), *grids[0].knots)
    for scale, grid in enumerate(grids):
        if scale:
            control = refine(control, grids[scale - 1], grid)
        control = _align(pool(moving, grid.stride), pool(fixed, grid.stride), control, grid, scale, config)
    return BSplineGrid(shape, config.grid_spacing[-1], dtype=moving.dtype, device=moving.device).dense(control * extent)


def _align(moving: Tensor, fixed: Tensor, control: Tensor, grid: BSplineGrid, scale: int, config: SutsConfig) -> Tensor:
    """All iterations of one scale; pairs that have converged leave the batch, so that the others run faster."""
    if not config.converged_px:
        steps = config.iterations_per_scale
        return advance(moving, fixed, GridState.start(control), grid, scale, steps, config).control
    result = control.clone()
    extent = half_extent(control, grid.shape)
    active = torch.arange(control.shape[0], device=control.device)
    state = GridState.start(control)
    for begin in range(0, config.iterations_per_scale, 10):
        before = state.control
        state = advance(moving, fixed, state, grid, scale, min(10, config.iterations_per_scale - begin), config)
        result[active] = state.control
        change_px = torch.linalg.vector_norm((state.control - before) * extent, dim=1).flatten(1).mean(1)
        keep = (change_px >= config.converged_px).nonzero()[:, 0]
        if len(keep) == 0:
            break
        if len(keep) < len(active):
            active, moving, fixed, state = active[keep], moving[keep], fixed[keep], state.select(keep)
    return result
