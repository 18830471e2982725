"""The catalogue: slug -> system. Listing it imports no torch and no ray; a system is imported when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medray.errors import UserError

if TYPE_CHECKING:
    from medray.system import System


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What `medray list` shows without importing the system.

    Attributes:
        target: "module:Class" of the `System`.
        task: the room of `medray/systems/` it lives in.
        title: what it does, in one line.
        paper: authors, venue and year.
        inputs: what a user brings.
    """

    slug: str
    target: str
    task: str
    title: str
    paper: str
    inputs: str


_ENTRIES = (
    Entry(
        slug="boundary_loss",
        target="medray.systems.segmentation.boundary_loss:BoundaryLoss",
        task="segmentation",
        title="small lesions in slices of brain scans, by a loss that measures how far off mistakes are",
        paper="Kervadec, Bouchtiba et al., MIDL 2019",
        inputs="volumes or slices of one or more modalities with lesion masks; as many images to predict",
    ),
    Entry(
        slug="fedprox_attunet",
        target="medray.systems.segmentation.fedprox_attunet:FedProxAttUNet",
        task="segmentation",
        title="breast tumors in ultrasound, segmented by a network that hospitals train without pooling their images",
        paper="Gad et al., MIUA 2023",
        inputs="2D images with lesion masks, by site (a folder per site or a manifest); one image to predict",
    ),
    Entry(
        slug="suts",
        target="medray.systems.registration.suts_system:Suts",
        task="registration",
        title="features learned from organ labels that let an iterative B-spline descent align CT to MR",
        paper="Blendowski & Heinrich, MIDL 2019",
        inputs="2D or 3D images of two modalities with label maps for training; two images to predict",
    ),
)

ENTRIES: Mapping[str, Entry] = {entry.slug: entry for entry in _ENTRIES}


def entry(slug: str) -> Entry:
    """Look a system up by its slug.

    Raises:
        UserError: there is no such system.
    """
    try:
        return ENTRIES[slug]
    except KeyError:
        raise UserError(f"there is no system {slug!r}; `medray list` shows the {len(ENTRIES)} there are") from None


def load(slug: str) -> type[System[Any]]:
    """Import a system's class.

    Raises:
        UserError: there is no such system.
    """
    module, _, name = entry(slug).target.partition(":")
    system: type[System[Any]] = getattr(importlib.import_module(module), name)
    return system
