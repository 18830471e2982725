"""The tear classifier by name: sizes of run, each as the fields that differ from the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medray.system import Preset

SMALL: Mapping[str, Any] = {
    "size": 18,
    "edge_mm": 64.0,
    "width": 8,
    "lr": 0.03,
    "num_epochs": 24,
    "lr_drop_epoch": 18,
    "test_fraction": 0.3,
}
"""What runs of minutes share: a smaller cube of fewer voxels, a fourth of the channels, and a learning rate that suits
hundreds of updates instead of 32 thousand."""

PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        about="cubes of 18^3 of the shoulder phantom, 8 channels; half a minute on 2 cores",
        data="phantom:shoulder_3d?n=80&seed=0",
        config={**SMALL, "num_epochs": 12, "lr_drop_epoch": 9, "validation_fraction": 0.1},
        compare=(),
    ),
    "demo": Preset(
        about="cubes of 32^3 of more phantoms, 8 channels; about ten minutes on 2 cores",
        data="phantom:shoulder_3d?n=400&seed=0",
        config={
            **SMALL,
            "size": 32,
            "edge_mm": 80.0,
            "num_epochs": 16,
            "lr_drop_epoch": 12,
            "validation_fraction": 0.1,
        },
        compare=("resnet2d",),
    ),
    "paper": Preset(
        about="the paper's sizes and schedule; on your scans with --data",
        data="phantom:shoulder_3d?n=2124&size=96&seed=0",
        compare=("vrn4", "resnet2d"),
    ),
}
