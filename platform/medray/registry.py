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
        slug="axon_tracker",
        target="medray.systems.tracking.axon_tracker_system:AxonTracker",
        task="tracking",
        title="axons, vessels and other thin structures followed to subpixel polylines by a policy learnt with PPO",
        paper="Dai et al., MIDL 2019",
        inputs="2D images or stacks with centrelines (SWC, JSON) to train on; an image, and start points, to predict",
    ),
    Entry(
        slug="blimsr",
        target="medray.systems.super_resolution.blimsr_system:Blimsr",
        task="super_resolution",
        title="slices with four times the pixels, by a network trained on images degraded at random",
        paper="Dey et al., MIUA 2023",
        inputs="CT volumes (DICOM series, NIfTI) or 2D images of high resolution to train on; one image to enlarge",
    ),
    Entry(
        slug="boundary_loss",
        target="medray.systems.segmentation.boundary_loss:BoundaryLoss",
        task="segmentation",
        title="small lesions in slices of brain scans, by a loss that measures how far off mistakes are",
        paper="Kervadec, Bouchtiba et al., MIDL 2019",
        inputs="volumes or slices of one or more modalities with lesion masks; as many images to predict",
    ),
    Entry(
        slug="css_net",
        target="medray.systems.shoulder.css_system:CssNet",
        task="segmentation",
        title="the supraspinatus tendon and its tear, by a segmentation that classification and substitution help",
        paper="Lee et al., ACCV 2022",
        inputs="2D coronal MR slices with masks of tendon and tear for training; a slice or volume to predict",
    ),
    Entry(
        slug="fedprox_attunet",
        target="medray.systems.segmentation.fedprox_system:FedProxAttUNet",
        task="segmentation",
        title="breast tumors in ultrasound, segmented by a network that hospitals train without pooling their images",
        paper="Gad et al., MIUA 2023",
        inputs="2D images with lesion masks, by site (a folder per site or a manifest); one image to predict",
    ),
    Entry(
        slug="gmvae_tv",
        target="medray.systems.anomaly.gmvae_tv_system:GmvaeTv",
        task="anomaly",
        title="lesions found without labels, as what changes when a scan is restored under a prior of healthy brains",
        paper="You et al., MIDL 2019",
        inputs="skull-stripped scans of healthy subjects to train on; one scan to predict",
    ),
    Entry(
        slug="goutallier",
        target="medray.systems.shoulder.goutallier_system:Goutallier",
        task="classification",
        title="fat in the supraspinatus graded from one slice: a U-Net finds the muscle, a classifier sees its crop",
        paper="Automated segmentation and classification of supraspinatus fatty infiltration, MEDS Clinic, Santiago",
        inputs="Y-view images with muscle masks and grades in a table; one image to predict",
    ),
    Entry(
        slug="hmlc_cxr",
        target="medray.systems.classification.hmlc_cxr:HmlcCxr",
        task="classification",
        title="a whole taxonomy of chest findings from one radiograph, parents never less likely than their children",
        paper="Chen, Miao, Xu, Hager & Harrison, MIDL 2019",
        inputs="2D images with a table of findings and a taxonomy, or one folder per class; one image to predict",
    ),
    Entry(
        slug="hybrid_cascade",
        target="medray.systems.reconstruction.hybrid_cascade_system:HybridCascade",
        task="reconstruction",
        title="MR images from undersampled k-space by a cascade of networks in both domains with data consistency",
        paper="Souza et al., MIDL 2019",
        inputs="fully sampled complex k-space (HDF5, NPZ, NPY) or magnitude volumes to train on; one scan to predict",
    ),
    Entry(
        slug="mvaal",
        target="medray.systems.active_learning.mvaal_system:Mvaal",
        task="active_learning",
        title="which cases to have labelled next, picked with the help of a second modality; the whole annotation loop",
        paper="Khanal et al., MIUA 2023",
        inputs="2D images or volumes, a second modality or mask of each, and labels of some; one image to predict",
    ),
    Entry(
        slug="stain_cyclegan",
        target="medray.systems.synthesis.stain_system:StainCycleGan",
        task="synthesis",
        title="slides of one lab in the stain of another, unpaired and without seams, to segment without retraining",
        paper="de Bel et al., MIDL 2019",
        inputs="2D RGB slides, a folder per lab, label maps for one of them; a slide of any size to predict",
    ),
    Entry(
        slug="suts",
        target="medray.systems.registration.suts_system:Suts",
        task="registration",
        title="features learned from organ labels that let an iterative B-spline descent align CT to MR",
        paper="Blendowski & Heinrich, MIDL 2019",
        inputs="2D or 3D images of two modalities with label maps for training; two images to predict",
    ),
    Entry(
        slug="teeth_pointcnn",
        target="medray.systems.segmentation.teeth_pointcnn:TeethPointCNN",
        task="segmentation",
        title="FDI tooth numbers for every point of an intra-oral scan, by foveated PointCNN and a layout critic",
        paper="Ghazvinian Zanjani et al., MIDL 2019",
        inputs="surface meshes or point clouds of dental arches, with an FDI number per vertex for training",
    ),
    Entry(
        slug="tofi_ml",
        target="medray.systems.classification.tofi_ml:TofiMl",
        task="classification",
        title="images screened by counting their pieces and holes at every gray value, with boosted trees",
        paper="Ahmed & Coskunuzer, MIUA 2023",
        inputs="2D images in one folder per class or with a table of classes; one image to predict",
    ),
    Entry(
        slug="voca",
        target="medray.systems.detection.voca_system:Voca",
        task="detection",
        title="cell nuclei in histology as points: every pixel votes for the center of its nucleus",
        paper="Xie et al., MIDL 2019",
        inputs="2D images with points (CSV, JSON, .mat) or instance maps for training; an image of any size to predict",
    ),
    Entry(
        slug="vrn_rct",
        target="medray.systems.shoulder.vrn_system:VrnRct",
        task="classification",
        title="how large a rotator cuff tear is, from one shoulder MRI, with a 3D map of where the network sees it",
        paper="Shim et al., Scientific Reports 2020",
        inputs="3D shoulder MRI (NIfTI, DICOM series) with a size class each; one scan to predict",
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
