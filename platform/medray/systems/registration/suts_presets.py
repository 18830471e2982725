"""SUTS by name: sizes of run, real tasks, baselines and ablations, each as the fields that differ from the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medray.system import Preset, Variant

FAST: Mapping[str, Any] = {
    "smooth_on": "bending",
    "smooth_weights": (0.03, 0.03, 0.06),
    "strides": (4, 2, 1),
    "grid_lr_decay": 0.05,
    "iterations_per_scale": 60,
    "subintervals": 12,
}
"""Coarse scales on pooled features and a decaying grid step: as accurate in a tenth of the iterations."""

_GUIDED: Mapping[str, Any] = {"sdm_alpha": 1.0, "border_threshold": 0.9999, "damping": 0.01, "target_damping": 0.01}

PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        about="phantom of 96 x 96 pixels, 9 training pairs; about a minute on 2 cores",
        data="phantom:abdomen?n=6&size=96&seed=0",
        config={"grid_spacing": (12, 8, 5), "iterations_per_scale": 60, "subintervals": 12, "feature_lr": 5e-3},
        compare=("mind", "intensity"),
    ),
    "demo": Preset(
        about="phantom of 160 x 160 pixels, 36 training pairs; about ten minutes on 2 cores",
        data="phantom:abdomen?n=10&size=160&seed=0",
        config={"iterations_per_scale": 100, "subintervals": 20, "feature_lr": 4e-3},
        compare=("mind", "intensity", "sdm", "elastix"),
    ),
    "paper": Preset(
        about="the paper's sizes and schedule; on your own CT and MR slices with --data",
        data="phantom:abdomen?n=10&size=320&seed=0",
        config={"validation_fraction": 0.0},
        compare=("mind", "intensity", "elastix"),
        seeds=10,
    ),
    "brain": Preset(
        about="T1 to FLAIR with known deformations; give --data 'deformed:FOLDER?moving=t1&fixed=flair'; ten minutes",
        data="",
        config={
            **FAST,
            **_GUIDED,
            "sdm_weight": 0.3,
            "feature_lr": 4e-3,
            "feature_lr_decay": 0.02,
            "passes": 4,
            "mind_radius": 1,
            "mind_dilation": 1,
            "label_names": ("csf", "grey", "white"),
            "labels": (1, 2, 3),
            "test_fraction": 0.5,
            "validation_fraction": 0.0,
        },
        compare=("mind", "elastix"),
    ),
    "prostate": Preset(
        about="MR to ultrasound slices with gland labels of a few patients; give --data FOLDER; two minutes",
        data="",
        config={
            "pairing": "all",
            "align": "center",
            "match_slices": "organ",
            "spacing_mm": (0.8, 0.8),
            "augmented_copies": 3,
            "sdm_weight": 1.0,
            "sdm_alpha": 0.1,
            "border_mask": False,
            "feature_lr": 5e-3,
            "iterations_per_scale": 20,
            "subintervals": 4,
            "test_fraction": 0.25,
            "validation_fraction": 0.0,
        },
        compare=("mind", "elastix"),
    ),
}

VARIANTS: Mapping[str, Variant] = {
    "cnn": Variant(about="learned features, the paper's method"),
    "cnn_mind": Variant(about="learned features beside MIND-SSC's", config={"append_mind": True}),
    "mind": Variant(about="hand-crafted MIND-SSC features in the same optimizer", config={"features": "mind"}),
    "intensity": Variant(about="raw intensities in the same optimizer", config={"features": "intensity"}),
    "sdm": Variant(about="distance maps of the true labels, an oracle", config={"features": "sdm", "damping": 1e-8}),
    "undamped": Variant(about="equation 3 to the letter, no damping", config={"damping": 1e-8}),
    "own_start": Variant(about="each CNN from random weights of its own", config={"same_start": False}),
    "shared_weights": Variant(about="one CNN for both modalities", config={"shared_weights": True}),
    "no_border_mask": Variant(about="learning everywhere, not only at borders", config={"border_mask": False}),
    "elastix": Variant(
        about="elastix: mutual information, affine then 4-level B-spline",
        config={"aligner": "elastix", "features": "intensity"},
    ),
}
