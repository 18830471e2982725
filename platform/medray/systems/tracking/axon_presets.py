"""Sizes of run and named variants of the axon tracker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medray.system import Preset, Variant

_QUICK: Mapping[str, Any] = {
    "lost_px": 6.0,
    "reward": "integral",
    "num_envs": 128,
    "episodes_per_iteration": 128,
    "num_epochs": 3,
    "minibatch_size": 1024,
    "lr_end": 2.5e-5,
    "bf16": True,
}
"""What learns in minutes: episodes end 6 px off the line, pixels are paid instead of steps, many episodes per round and
many small updates from them."""

SMOKE: Mapping[str, Any] = {
    **_QUICK,
    "channels": (16, 16),
    "hidden": 128,
    "lr": 1e-3,
    "max_steps": 120,
    "num_envs": 64,
    "episodes_per_iteration": 64,
    "minibatch_size": 512,
    "num_iterations": 16,
    "evaluate_every_iterations": 8,
    "num_validation": 16,
}
_ROBUST: Mapping[str, Any] = {
    **_QUICK,
    "lost_px": 8.0,
    "intensity": "ridges",
    "polarity": "auto",
    "wide_blur": 0.5,
    "gamma": 0.9,
    "weight_decay": 0.0,
    "num_envs": 128,
    "episodes_per_iteration": 384,
    "num_epochs": 2,
    "minibatch_size": 512,
    "lr": 4e-4,
    "heading_noise_deg": 5.0,
    "start_noise_px": 0.3,
    "evaluate_every_iterations": 15,
    "num_validation": 128,
}
"""What learnt real vessels fastest among what was tried: a nearer horizon, no L2 penalty, more and smaller updates."""
PEERS = ("minimal_path", "ridge_following")

PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        about="phantom images of 64 px, small networks; under a minute",
        data="phantom:axons?n=160&size=64&seed=0",
        config=SMOKE,
        compare=PEERS,
    ),
    "demo": Preset(
        about="the paper's standard images and networks, about ten minutes on 2 cores",
        data="phantom:axons?n=2000&seed=0",
        config={**_QUICK, "num_iterations": 90, "evaluate_every_iterations": 10, "num_validation": 64},
        compare=PEERS,
    ),
    "paper": Preset(
        about="the paper's sizes and schedule: 32,000 images to train on, 1,000 rounds of 32 episodes; hours",
        data="phantom:axons?n=35600&seed=0",
        config={"validation_fraction": 0.01},
        compare=PEERS,
    ),
    "anywhere": Preset(
        about="a tracker for any image: synthetic ones of every look, as ridges; about 20 minutes on 2 cores",
        data="phantom:axons?n=2000&setting=mixed&seed=0",
        config={**_ROBUST, "num_iterations": 75},
        compare=PEERS,
    ),
    "finetune": Preset(
        about="go on from a tracker of the preset `anywhere` on your own images with centrelines: give --data FOLDER "
        "and --config.start-from RUN; every image is scored by a model that has not seen it; an hour on 2 cores",
        data="",
        config={
            **_ROBUST,
            "num_iterations": 160,
            "num_envs": 96,
            "episodes_per_iteration": 192,
            "num_epochs": 3,
            "minibatch_size": 256,
            "lr": 3e-4,
            "entropy_coeff": 0.03,
            "evaluate_every_iterations": 40,
            "num_validation": 96,
            "symmetries": True,
            "synthetic": "mixed",
            "folds": 4,
            "fold": -1,
        },
        compare=PEERS,
    ),
}

VARIANTS: Mapping[str, Variant] = {
    "axon_tracker": Variant(about="Beta policy, critic that sees the centreline, four frames of three views (paper)"),
    "gaussian": Variant(about="a squashed Gaussian instead of the Beta", config={"distribution": "gaussian"}),
    "symmetric_critic": Variant(about="the critic sees what the actor sees", config={"critic_sees_centreline": False}),
    "no_history": Variant(about="the path travelled is not shown, nor the heading", config={"history": False}),
    "single_scale": Variant(about="without the wide window", config={"scales": (1.0,)}),
    "no_heading": Variant(about="the first view does not show where to", config={"heading": False}),
    "no_early_end": Variant(about="episodes wander to their last step (paper)", config={"lost_px": 0.0}),
    "mean_reward": Variant(
        about="a step earns the mean under it, as long as it may be (paper)", config={"reward": "mean"}
    ),
    "integral": Variant(about="a step earns the line integral: per pixel, not per step", config={"reward": "integral"}),
    "summed": Variant(about="a step earns the sum that algorithm 1 prints", config={"reward": "sum"}),
    "minimal_path": Variant(
        about="peer: the cheapest path between the given start and end", config={"method": "minimal_path"}
    ),
    "ridge_following": Variant(
        about="peer: along the ridge from the given start and direction", config={"method": "ridge_following"}
    ),
}
