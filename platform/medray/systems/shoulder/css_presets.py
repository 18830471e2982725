"""CSS-Net by name: sizes of run, each as the fields that differ from the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medray.system import Preset

SMALL: Mapping[str, Any] = {
    "size_px": 64,
    "widths": (16, 32, 64),
    "growth": 16,
    "dilations": (1, 3),
    "translator_width": 8,
    "batch_size": 8,
    "lr": 1e-2,
    "validation_fraction": 0.1,
    "test_fraction": 0.3,
}
"""What runs of minutes share. The learning rate suits hundreds of updates instead of the paper's thousands."""

PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        about="phantom of 60 patients, slices of 64 px, 3 levels of 16 to 64 channels; half a minute on 2 cores",
        data="phantom:shoulder_coronal?patients=60&slices=5&size=64&seed=0",
        config={**SMALL, "num_epochs": 7, "augment_from_epoch": 3},
    ),
    "demo": Preset(
        about="phantom of 80 patients, slices of 128 px; about ten minutes on 2 cores",
        data="phantom:shoulder_coronal?patients=80&slices=5&size=128&seed=0",
        config={**SMALL, "size_px": 128, "widths": (16, 32, 64, 64), "num_epochs": 12, "augment_from_epoch": 5},
        compare=("seg", "unet"),
    ),
    "paper": Preset(
        about="the paper's sizes; on your own slices with --data, needs a GPU",
        data="phantom:shoulder_coronal?patients=42&slices=21&size=512&seed=0",
        compare=("seg", "seg_clf", "seg_sl", "seg_gan", "seg_clf_gan", "unet", "deeplabv3plus"),
        seeds=5,
    ),
    "samples": Preset(
        about="a handful of your own slices (mri/, tear/, tendon/), 128 px; a few minutes on 2 cores",
        data="",
        config={
            **SMALL,
            "size_px": 128,
            "widths": (16, 32, 64, 64),
            "batch_size": 2,
            "lr": 5e-3,
            "num_epochs": 100,
            "augment_from_epoch": 50,
            "validation_fraction": 0.0,
        },
    ),
}
