"""A tracker of axons learnt by reinforcement: Dai et al., MIDL 2019. Settings, networks, what is learnt.

An agent sees two small windows of the image and the path it came along, and answers with two Beta distributions: where
to go next, anywhere within 4 px along each axis. Proximal policy optimization teaches it on synthetic images, where the
centreline is known; only the critic sees it. The entropy of the Betas says how sure it is.

Rules, rewards and synthetic images are those of `envs.axon`; how the policy is learnt is the engine's
(`Workbench.reinforce`). Where the text does not say, `envs.axon.options` and the fields below name what was chosen.
Shape letters: B trackers, C channels (4 times of 3 views, or of the centreline).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from envs.axon.batched import AxonTrackingVectorEnv
from envs.axon.generator import SETTINGS
from envs.axon.options import FRAMES, WINDOW_PX, TrackingOptions
from envs.axon.scene import Scene, Scenes
from envs.axon.spaces import action_space, observation_space
from medray.metrics.tracing import score_traces
from medray.nn.bounded import Kind
from medray.policy import PolicyProblem, PPOSettings
from medray.systems.tracking.tracing import follow, from_first_ends

CHANNELS = {"views": 3 * FRAMES, "centreline": FRAMES}


@dataclass(frozen=True, kw_only=True)
class AxonTrackerConfig(TrackingOptions, PPOSettings):
    """The tracker, how it is paid and how it learns."""

    method: Literal["policy", "minimal_path", "ridge_following"] = "policy"
    """The learnt policy, or a peer that learns nothing: the cheapest path between the given start and end, or a walk
    along the ridge from the given start and direction."""
    distribution: Kind = "beta"
    """Of the steps: Beta (paper), or a Gaussian squashed into the same box."""
    critic_sees_centreline: bool = True
    """The critic sees the centreline in training (paper); off: what the actor sees."""
    channels: tuple[int, int] = (32, 32)
    """Filters of the two convolutions (paper 32 and 32), of both networks."""
    hidden: int = 512
    """Units of the fully connected layer (paper 512)."""
    bf16: bool = False
    """Both networks compute in bfloat16, 2.5 times as fast on CPUs that have it: as --precision bf16, which a preset
    cannot set, and in tracing too."""
    polarity: Literal["bright", "dark", "auto"] = "auto"
    """Whether structures are brighter (paper) or darker than their surroundings; auto believes the file of centrelines
    if it says so and looks at the image else."""
    intensity: Literal["percentile", "local", "ridges"] = "percentile"
    """Scale of the gray values: each image's minimum to its 99.5th percentile (the paper says nothing); local mean and
    spread, for uneven light; or ridges, how much of a line each pixel is, for faint and noisy structures."""
    symmetries: bool = False
    """Train on the eight flips and quarter turns of each image; synthetic ones come in all directions anyway."""
    synthetic: str = ""
    """Also train on synthetic images of this setting, prepared alike (SI, SI-RC, SI-W, SI-EN, SI-SN, shifted, mixed):
    a tracker that is fine-tuned on one kind of image keeps others. Empty: on the cases alone."""
    synthetic_share: float = 0.33
    """Share of the episodes that they are, where ``synthetic`` is given."""
    start_from: str = ""
    """Run directory or checkpoint folder of a tracker to go on from (fine-tuning, sec. 4.3); empty: start anew."""
    num_validation: int = 64
    """Branches traced when the policy is evaluated during training, at most."""
    folds: int = 0
    """Cut the patients into so many folds; with ``fold`` it decides who is tested (paper 4 on real images, 15 to train
    and 5 to test). 0 splits by ``test_fraction``."""
    fold: int = 0
    """Which of the folds is tested, from 0; -1 scores every image by a model that has not seen it, and the model that
    is kept learns from all."""
    test_fraction: float = 0.1
    """Share of the images kept for testing (paper 3,600 of 35,600 synthetic ones)."""
    validation_fraction: float = 0.1
    """Share of the images that decide which checkpoint is kept and from which entropy on a prediction stops."""

    def __post_init__(self) -> None:
        PPOSettings.__post_init__(self)
        TrackingOptions.__post_init__(self)
        if min(*self.channels, self.hidden) < 1:
            raise ValueError(f"channels and hidden are at least 1, got {self.channels} and {self.hidden}")
        if self.synthetic and self.synthetic not in SETTINGS:
            raise ValueError(f"synthetic is one of {', '.join(SETTINGS)} or empty, got {self.synthetic!r}")
        if not 0 <= self.synthetic_share <= 1:
            raise ValueError(f"synthetic_share is between 0 and 1, got {self.synthetic_share}")
        if self.folds == 1 or self.folds < 0 or not -1 <= self.fold < max(self.folds, 1):
            raise ValueError(
                f"folds is 0 or at least 2, and fold one of them from 0 or -1 (all), got {self.folds} and {self.fold}"
            )

    @property
    def options(self) -> TrackingOptions:
        """The rules of training."""
        return TrackingOptions(**{field.name: getattr(self, field.name) for field in fields(TrackingOptions)})

    @property
    def ppo(self) -> PPOSettings:
        """How it learns."""
        return PPOSettings(**{field.name: getattr(self, field.name) for field in fields(PPOSettings)})


class WindowNet(nn.Module):
    """Two convolutions and two fully connected layers on windows of 11 x 11 (tables 3 and 4).

    The second convolution is printed with padding 1, with which its output could not be the 13 x 13 of the next row.

    Args:
        names: observations it sees, side by side as channels.
        config: widths and precision.
        outputs: numbers it answers with.
    """

    def __init__(self, names: tuple[str, ...], config: AxonTrackerConfig, outputs: int) -> None:
        super().__init__()
        self.names, self.bf16 = names, config.bf16
        first, second = config.channels
        side = WINDOW_PX + 2
        self.layers = nn.Sequential(
            nn.Conv2d(sum(CHANNELS[name] for name in names), first, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, padding=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(second * side * side, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, outputs),
        )

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Observations (B, C, 11, 11) by name to (B, outputs), float32."""
        x = torch.cat([obs[name] for name in self.names], dim=1) if len(self.names) > 1 else obs[self.names[0]]
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            answer: Tensor = self.layers(x)
        return answer.float()


class Critic(WindowNet):
    """The value of a situation; unlike the actor it may see the centreline."""

    def __init__(self, config: AxonTrackerConfig) -> None:
        super().__init__(("views", "centreline") if config.critic_sees_centreline else ("views",), config, 1)

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Observations by name to values (B,)."""
        return super().forward(obs).squeeze(-1)


class AxonProblem(PolicyProblem):
    """What the engine learns: scenes to track in, networks, and how a policy is judged.

    Args:
        config: of the system.
        scenes: to train on.
        validation: to evaluate on; their centrelines are followed from the first point.
        initial_weights: to go on from.
    """

    monitor = "coverage_pct"
    mode = "max"

    def __init__(
        self,
        config: AxonTrackerConfig,
        scenes: Scenes,
        validation: Scenes = (),
        initial_weights: Path | None = None,
    ) -> None:
        self.config, self.scenes, self.validation = config, scenes, validation
        self.settings, self.distribution = config.ppo, config.distribution
        self.initial_weights = initial_weights
        self.observation_space, self.action_space = observation_space(), action_space(config.options)

    def make_env(self, num_envs: int, seed: int) -> VectorEnv[Any, Any, Any]:
        """Trackers side by side; all that is random in them comes from the seed of `reset`."""
        return AxonTrackingVectorEnv(num_envs, scenes=self.scenes, options=self.config.options)

    def make_actor(self) -> nn.Module:
        """Table 3."""
        return WindowNet(("views",), self.config, 4)

    def make_critic(self) -> nn.Module:
        """Table 4."""
        return Critic(self.config)

    def evaluate(self, networks: nn.ModuleDict) -> Mapping[str, float]:
        """Coverage and error of the validation traces, and the mean entropy along them."""
        scenes = [self.validation[i] for i in range(min(len(self.validation), self.config.num_validation))]
        if not scenes:
            return {}
        traces = follow(self, networks["actor"], scenes, from_first_ends(scenes), self.config.options)
        score = score_traces([trace.points for trace in traces], [_truth(scene) for scene in scenes]).metrics()
        reached = np.mean([trace.stopped == "end reached" for trace in traces])
        steps = np.mean([len(trace.points) - 1 for trace in traces])
        entropy = np.nanmean(np.concatenate([trace.entropy for trace in traces]))
        kept = {name: score[name] for name in ("coverage_pct", "error_px", "raw_error_px")}
        return {**kept, "reached_pct": 100 * float(reached), "num_steps": float(steps), "entropy": float(entropy)}


def _truth(scene: Scene) -> np.ndarray:
    assert scene.centreline is not None
    return scene.centreline
