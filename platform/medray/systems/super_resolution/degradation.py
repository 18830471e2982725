"""The second-order random degradation of BliMSR: from a high-resolution image to one of a quarter of its sides.

Blur, resizing, noise and compression are applied twice with parameters drawn anew for every image (Dey et al., MIUA
2023, sec. 4.1, after Real-ESRGAN). All draws of a sample are made first, on the CPU, into a `Plan`; `degrade` then
carries out the plans of a batch on the images' device:

    plans = [draw_plan(DegradationSettings(), (512, 512), generator) for _ in range(4)]
    low = degrade(high, plans)      # (4, 1, 512, 512) -> (4, 1, 128, 128), both in [0, 1]

A plan gives the same result alone and in any batch. Another kind of device draws other Poisson counts from the same
seeds, and rounds sums in another order, which JPEG can turn into a gray level; all else is the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

from medray.errors import UserError
from medray.systems.super_resolution.degradation_draws import Draws, draw_round
from medray.systems.super_resolution.degradation_settings import ROUNDS, SCALE, DegradationSettings
from medray.systems.super_resolution.degradation_steps import Step

__all__ = ["SCALE", "DegradationSettings", "Plan", "degrade", "draw_plan"]


@dataclass(frozen=True)
class Plan:
    """All that will be done to one image: numbers, seeds and small kernels, so it pickles and moves to devices."""

    size: tuple[int, int]
    """Of the high-resolution image, (H, W)."""
    steps: tuple[Step | None, ...]
    """In order. None is a step that was not drawn: it keeps the places of the others, so that batches run together."""


def draw_plan(settings: DegradationSettings, size: tuple[int, int], generator: torch.Generator) -> Plan:
    """Draw what will be done to one image of ``size`` (H, W) in pixels.

    Args:
        settings: kind and strength.
        size: both sides multiples of 4. Kernels are never larger than the image they are applied to.
        generator: on the CPU; the only source of chance.

    Raises:
        UserError: a side is not a multiple of 4.
    """
    if min(size) < SCALE or any(side % SCALE for side in size):
        raise UserError(f"both sides of an image to degrade must be multiples of {SCALE}, got {size[0]} x {size[1]} px")
    draws = Draws(generator)
    steps: list[Step | None] = []
    current = size
    for settings_of_round in ROUNDS[settings.kind]:
        drawn, current = draw_round(settings_of_round, settings.strength, size, current, draws)
        steps.extend(drawn)
    return Plan(size, tuple(steps))


@torch.no_grad()
def degrade(high: Tensor, plans: Sequence[Plan]) -> Tensor:
    """Carry out one plan per image.

    Steps that stand at the same place in several plans run as one batch where they are of one kind and their images of
    one size. After the first round sizes differ as drawn, so these batches are small; only the last resize brings all
    images to one size again.

    Args:
        high: (B, 1, H, W) in [0, 1].
        plans: B plans drawn for (H, W).

    Returns:
        (B, 1, H / 4, W / 4) in [0, 1], float32, on the device of ``high``, without gradient.

    Raises:
        ValueError: number of plans, channels or sizes do not fit.
    """
    _check(high, plans)
    images = list(high.float().unbind())
    for steps in zip_longest(*(plan.steps for plan in plans)):
        _run_together(images, steps)
    return torch.stack(images).clamp(0, 1)


def _run_together(images: list[Tensor], steps: Sequence[Step | None]) -> None:
    """Replace each image (1, h, w) by what its step makes of it."""
    groups: dict[Hashable, list[tuple[int, Step]]] = {}
    for index, step in enumerate(steps):
        if step is not None:
            groups.setdefault((type(step), images[index].shape, step.alike), []).append((index, step))
    for group in groups.values():
        indices, alike = zip(*group, strict=True)
        results = type(alike[0]).run(torch.stack([images[index] for index in indices]), alike)
        for index, result in zip(indices, results, strict=True):
            images[index] = result


def _check(high: Tensor, plans: Sequence[Plan]) -> None:
    if high.ndim != 4 or high.shape[1] != 1 or len(plans) != len(high) or not len(high):
        raise ValueError(f"{len(plans)} plans need as many images (B, 1, H, W), got {tuple(high.shape)}")
    for plan in plans:
        if plan.size != tuple(high.shape[-2:]):
            raise ValueError(f"a plan for {plan.size} px cannot be carried out on images of {tuple(high.shape[-2:])}")
