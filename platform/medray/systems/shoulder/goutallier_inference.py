"""The folds' networks together on an image: muscle, crop, probability, and where the classifiers look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medray.data.resized import stretched
from medray.nn.attention import grad_cam, guided_grad_cam
from medray.systems.shoulder.goutallier_config import GoutallierConfig
from medray.systems.shoulder.goutallier_images import network_input
from medray.systems.shoulder.goutallier_networks import Grader, probabilities, trained_graders, trained_segmenters
from medray.systems.shoulder.goutallier_regions import (
    FloatArray,
    Mask,
    Region,
    crop,
    muscle_mask,
    region_of,
    whole_image,
)

SEGMENTER, GRADER = "segmenter", "grader"


@dataclass(frozen=True)
class Finding:
    """What is found in an image.

    Attributes:
        muscle: (H, W); of a model on manual crops what a person drew, of one on full images nothing.
        region: what the classifiers saw.
        fold_probabilities: that it is risky, by each fold's classifier.
    """

    muscle: Mask
    region: Region
    fold_probabilities: tuple[float, ...]

    @property
    def probability(self) -> float:
        """Their mean."""
        return sum(self.fold_probabilities) / len(self.fold_probabilities)


def model_files(files: Mapping[str, Path], part: str) -> list[Path]:
    """The folds' files of ``SEGMENTER`` or ``GRADER``, in their order, from `Trained.files`."""
    numbered = {int(name.rpartition("_")[2]): path for name, path in files.items() if name.startswith(f"{part}_")}
    return [numbered[number] for number in sorted(numbered)]


def find(
    config: GoutallierConfig, files: Mapping[str, Path], images: Sequence[FloatArray], drawn: Sequence[Mask]
) -> list[Finding]:
    """Both steps: the mean of the U-Nets gives one contour and crop, which all classifiers see.

    Args:
        config: the method's settings.
        files: `Trained.files`.
        images: (H, W) each, 0 to 1.
        drawn: masks by a person, (H, W) each, for a model on manual crops; else not looked at.
    """
    if config.roi == "full_image":
        muscles = [np.zeros(image.shape, dtype=bool) for image in images]
        regions = [whole_image(mask) for mask in muscles]
    else:
        muscles = _muscles(config, files, images) if config.segments else list(drawn)
        regions = [region_of(mask, config.margin) for mask in muscles]
    crops = _crops(config, images, regions)
    each = np.stack([probabilities(network, crops) for network in trained_graders(config, model_files(files, GRADER))])
    return [
        Finding(muscle, region, tuple(map(float, values)))
        for muscle, region, values in zip(muscles, regions, each.T, strict=True)
    ]


def _muscles(config: GoutallierConfig, files: Mapping[str, Path], images: Sequence[FloatArray]) -> list[Mask]:
    inputs = [network_input(image, config.image_size) for image in images]
    networks = trained_segmenters(config, model_files(files, SEGMENTER))
    mean = np.mean([probabilities(network, inputs) for network in networks], axis=0)
    return [muscle_mask(one, image.shape) for one, image in zip(mean, images, strict=True)]


def _crops(config: GoutallierConfig, images: Sequence[FloatArray], regions: Sequence[Region]) -> list[FloatArray]:
    return [
        crop(image, region, config.image_size, mask_background=config.mask_background)
        for image, region in zip(images, regions, strict=True)
    ]


class _BothWays(nn.Module):
    """A grader with a logit for each answer, so that evidence against risk can be explained too."""

    def __init__(self, grader: Grader) -> None:
        super().__init__()
        self.grader = grader

    def forward(self, crops: Tensor) -> Tensor:
        logits = self.grader(crops)
        return torch.cat([-logits, logits], dim=1)


def attention(
    config: GoutallierConfig, files: Mapping[str, Path], image: FloatArray, finding: Finding
) -> dict[str, FloatArray]:
    """Grad-CAM and guided Grad-CAM of the answer given, mean over the folds' classifiers, on the image's pixels.

    Returns:
        name of the map -> (H, W) in [0, 1], zero outside the region.
    """
    (shown,) = _crops(config, [image], [finding.region])
    batch, answer = torch.from_numpy(shown)[None], [int(finding.probability >= 0.5)]
    found: dict[str, list[FloatArray]] = {"Grad-CAM": [], "guided Grad-CAM": []}
    for grader in trained_graders(config, model_files(files, GRADER)):
        both, layer = _BothWays(grader), f"grader.{grader.explained_layer}"
        for name, explain in (("Grad-CAM", grad_cam), ("guided Grad-CAM", guided_grad_cam)):
            found[name].append(explain(both, batch, layer, answer)[0].numpy())
    return {name: _in_place(np.mean(heats, axis=0), image.shape, finding.region) for name, heats in found.items()}


def _in_place(heat: FloatArray, shape: tuple[int, ...], region: Region) -> FloatArray:
    top, bottom, left, right = region.box
    whole = np.zeros(shape, dtype=np.float32)
    whole[top:bottom, left:right] = stretched(heat[None], (bottom - top, right - left))[0]
    return whole / max(float(whole.max()), 1e-12)
