"""The grader by name: sizes of run, each as the fields that differ from the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medray.system import Preset

SMALL: Mapping[str, Any] = {
    "backbone": "small",
    "image_size": 64,
    "channels": (8, 16, 32),
    "seg_lr": 5e-3,
    "lr": 2e-3,
}
"""What runs of minutes share: networks of some ten thousand weights, learning rates that suit hundreds of updates."""

PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        about="300 images of 64 px of the phantom, small networks, 2 folds; half a minute on 2 cores",
        data="phantom:shoulder_y?n=300&size=64&seed=0",
        config={**SMALL, "folds": 2, "seg_epochs": 8, "epochs": 6, "test_fraction": 0.25},
    ),
    "demo": Preset(
        about="606 images of 96 px of the phantom, small networks, 5 folds; about ten minutes on 2 cores",
        data="phantom:shoulder_y?n=606&size=96&seed=0",
        config={**SMALL, "image_size": 96, "channels": (8, 16, 32, 64), "seg_epochs": 10, "epochs": 20},
        compare=("manual_roi", "full_image", "no_balance"),
    ),
    "paper": Preset(
        about="the paper's networks and schedule, 5 folds; on your images with --data and --config.weights",
        data="phantom:shoulder_y?n=606&size=224&seed=0",
        compare=("manual_roi", "resnet50", "inception_v3"),
    ),
}
