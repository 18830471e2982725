"""BliMSR by name: sizes of run, each as the fields that differ from the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medray.system import Preset

SMALL: Mapping[str, Any] = {
    "crop_px": 64,
    "num_blocks": 4,
    "num_channels": 16,
    "disc_channels": 4,
    "batch_size": 8,
    "perceptual": "phantom",
    "lambda_perc": 0.0,
    "crops_per_image": 4,
    "lr": 5e-4,
    "betas": (0.5, 0.999),
    "test_fraction": 0.25,
    "validation_fraction": 0.1,
}
"""What runs of minutes share: a learning rate that suits hundreds of updates instead of 350 thousand, with the momentum
that keeps a GAN from swinging at it, and no perceptual loss, whose textures cost more PSNR than so few updates bring
(its features still measure the distance)."""

PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        about="crops of 64 px of the CT phantom, 4 blocks of 16 channels; half a minute on 2 cores",
        data="phantom:thorax_ct?n=24&slices=1&size=128&seed=0",
        config={**SMALL, "num_epochs": 24, "warmup_epochs": 16},
        compare=("bicubic",),
    ),
    "demo": Preset(
        about="crops of 64 px of more CT phantoms, 6 blocks of 32 channels; about ten minutes on 2 cores",
        data="phantom:thorax_ct?n=60&slices=2&size=128&seed=0",
        config={**SMALL, "num_blocks": 6, "num_channels": 32, "num_epochs": 48, "warmup_epochs": 36},
        compare=("bicubic", "bicubic_degradation"),
    ),
    "paper": Preset(
        about="the paper's sizes and schedule; on CT volumes with --data and --config.vgg19-weights",
        data="phantom:thorax_ct?n=200&slices=4&size=512&seed=0",
        compare=("bicubic", "edsr_mhca", "medsrgan", "medsrgan_discriminator"),
    ),
    "paper_png": Preset(
        about="the same on 8-bit pictures (compressed CT), for crops of 256 px; give --data FOLDER",
        data="",
        config={"crop_px": 256, "scaling": "uint8"},
        compare=("bicubic", "bicubic_degradation"),
    ),
}
