"""M-VAAL's settings: the campaign, its sizes by task as in the paper, presets and variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medray.system import Preset, Variant
from medray.systems.active_learning.mvaal_settings import MvaalSettings
from medray.systems.active_learning.samplers import SAMPLERS
from medray.systems.active_learning.task_settings import TaskSettings
from medray.systems.active_learning.tasks import TaskName

_PAPER_INITIAL: Mapping[TaskName, int] = {"segmentation": 200, "multi_label": 200, "multi_class": 100}
_PAPER_ROUNDS: Mapping[TaskName, int] = {"segmentation": 6, "multi_label": 7, "multi_class": 7}
LUNGS = "lungs"


@dataclass(frozen=True, kw_only=True)
class MvaalConfig(TaskSettings, MvaalSettings):
    """The campaign, the task network (task_...) and the sampler's networks."""

    task: TaskName = "segmentation"
    """What is learnt from the labels: lesions, any number of classes, or one class."""
    sampler: str = "mvaal"
    """Who picks: mvaal, vaal, random, entropy, margin, coreset, coreset_latent."""
    initial: int | None = None
    """Cases that are labelled before the first query, drawn at random; the paper's 200 (100 for multi_class) where
    None. With people as the oracle: all cases of the pool that have a label."""
    budget: int = 100
    """Cases asked for in a round (paper 100)."""
    rounds: int | None = None
    """How often is asked; the paper's 6 (7 for classification) where None."""
    repeats: int = 1
    """Campaigns with seeds of their own, for intervals (paper 3); the first one's network is kept."""
    oracle: Literal["simulated", "human"] = "simulated"
    """Who labels: the data's own labels, held back until asked for; or people, see docs/annotation.md."""
    annotation: str = ""
    """Folder or s3 url where people find worklists and leave labels; left out, annotation/ in the run."""
    answered_share: float = 1.0
    """Share of a round's cases that people must have answered before the next round begins."""
    wait_hours: float = 0.0
    """How long to wait for people before the run stops, to be resumed; 0 waits as long as it takes."""
    main: str = ""
    """Modality that is labelled and predicted from, where patients have several: t1ce, t1post."""
    auxiliary: str = ""
    """What the second decoder learns from: a modality (flair), another field of the cases (lung_mask), or `lungs` for
    a lung mask that is computed from a chest radiograph; left out, the field auxiliary if there is one."""
    min_lesion_px: int = 1000
    """Of volumes with label maps, slices with at least so many pixels of lesion are cases (paper 1000); 0 takes slices
    without a lesion too, without which a network learns that there always is one."""
    validation_fraction: float = 0.16
    """Share of the patients that decide which epoch counts (paper 0.2 of the 0.8 that are not for the test)."""
    test_fraction: float = 0.2
    """Share of the patients that the curve is measured on (paper 0.2)."""

    def __post_init__(self) -> None:
        TaskSettings.__post_init__(self)
        MvaalSettings.__post_init__(self)
        if self.annotation and "://" not in self.annotation:
            # absolute from the start: a run may be resumed from another folder, and its oracle live in another process
            object.__setattr__(self, "annotation", str(Path(self.annotation).expanduser().resolve()))
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler is one of {', '.join(SAMPLERS)}, got {self.sampler!r}")
        for name in ("num_initial", "budget", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name.removeprefix('num_')} must be at least 1, got {getattr(self, name)}")
        for name in ("num_rounds", "wait_hours", "min_lesion_px"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name.removeprefix('num_')} must be 0 or more, got {getattr(self, name)}")
        if not 0 < self.answered_share <= 1:
            raise ValueError(f"answered_share must be above 0 and at most 1, got {self.answered_share:g}")
        if self.oracle == "human" and self.repeats > 1:
            raise ValueError("people label one campaign; repeats is 1 with the human oracle")
        if self.auxiliary and self.auxiliary == self.main:
            raise ValueError(f"main and auxiliary are two modalities, got {self.main!r} for both")

    @property
    def num_initial(self) -> int:
        """`initial`, or the paper's."""
        return _PAPER_INITIAL[self.task] if self.initial is None else self.initial

    @property
    def num_rounds(self) -> int:
        """`rounds`, or the paper's."""
        return _PAPER_ROUNDS[self.task] if self.rounds is None else self.rounds

    @property
    def learns_from_auxiliary(self) -> bool:
        """Whether the sampler needs a second modality."""
        return self.gamma_3 > 0 and self.sampler in ("mvaal", "coreset_latent")


# gamma_1 is 1 in the paper. In networks this small, trained this briefly, the VAE then hides the difference faster than
# the critic finds it, and labelled images come to score below unlabelled ones: see docs/systems/mvaal.md.
_SMALL_SAMPLER = {
    "sampler_size": 32, "channels": (16, 32, 64), "latent": 16, "critic_channels": (64, 64), "lr_vae": 1e-3,
    "lr_critic": 1e-3, "gamma_1": 0.03,
}  # fmt: skip
_SMALL_UNET = {"unet_channels": (8, 16, 24, 32, 48), "task_size": 32, "task_batch_size": 8, "task_lr": 2e-3,
               "task_optimizer": "adam"}  # fmt: skip
_SMALL_CLASSIFIER = {"task_network": "small", "task_size": 64, "task_batch_size": 16, "task_lr": 1e-3}
_DEMO = {**_SMALL_SAMPLER, "sampler_epochs": 10, "initial": 30, "budget": 20, "rounds": 4, "repeats": 3}

PRESETS = {
    "smoke": Preset(
        about="lesions in the two-modality brain phantom, 32 x 32, two rounds, about 20 s",
        data="phantom:brain_multimodal?n=80&validation=9&test=24&size=32",
        config={
            **_SMALL_SAMPLER,
            **_SMALL_UNET,
            "sampler_epochs": 20,
            "task_epochs": 15,
            "initial": 12,
            "budget": 8,
            "rounds": 2,
        },
        compare=("vaal", "random"),
    ),
    "demo": Preset(
        about="lesions in the brain phantom, 64 x 64, four rounds, three seeds, about ten minutes",
        data="phantom:brain_multimodal?n=400&validation=30&test=90&size=64",
        config={**_DEMO, **_SMALL_UNET, "task_size": 64, "task_epochs": 20},
        compare=("vaal", "random", "entropy"),
    ),
    "demo_multi_label": Preset(
        about="parts of the lesions of the same phantom, as demo",
        data="phantom:brain_multimodal?n=400&validation=30&test=90&size=64",
        config={**_DEMO, **_SMALL_CLASSIFIER, "task": "multi_label", "task_epochs": 20},
        compare=("vaal", "random", "entropy"),
    ),
    "demo_chest": Preset(
        about="three classes of the chest phantom with lung masks beside, as demo",
        data="phantom:chest_xray?n=400&validation=30&test=90&size=64",
        config={**_DEMO, **_SMALL_CLASSIFIER, "task": "multi_class", "task_epochs": 20},
        compare=("vaal", "random", "entropy"),
    ),
    "paper": Preset(
        about="BraTS folders, whole tumor, 200 to 800 labels, three seeds; needs a GPU",
        data="",
        config={"gamma_3": 0.2, "sampler_crop": 210, "main": "t1ce", "auxiliary": "flair", "repeats": 3},
        compare=("vaal", "random"),
    ),
    "paper_multi_label": Preset(
        about="BraTS folders, ET, ED and NCR, 200 to 900 labels, three seeds; needs a GPU",
        data="",
        config={"task": "multi_label", "sampler_crop": 210, "main": "t1ce", "auxiliary": "flair", "repeats": 3},
        compare=("vaal", "random"),
    ),
    "paper_chest": Preset(
        about="COVID-QU-Ex folders, three classes, 100 to 800 labels, three seeds; needs a GPU",
        data="",
        config={"task": "multi_class", "auxiliary": "lung_mask", "repeats": 3},
        compare=("vaal", "random"),
    ),
}

VARIANTS = {
    "mvaal": Variant(about="the paper's"),
    "vaal": Variant(about="no auxiliary modality, all else equal (the paper's baseline)", config={"sampler": "vaal"}),
    "random": Variant(about="random picks (the paper's baseline)", config={"sampler": "random"}),
    "entropy": Variant(about="the largest entropy of the task network", config={"sampler": "entropy"}),
    "margin": Variant(about="the smallest margin of the task network", config={"sampler": "margin"}),
    "coreset": Variant(about="k-center on the task network's features", config={"sampler": "coreset"}),
    "coreset_latent": Variant(about="k-center on M-VAAL's latents", config={"sampler": "coreset_latent"}),
    "gamma_02": Variant(about="gamma_3 = 0.2, the paper's best for segmentation", config={"gamma_3": 0.2}),
    "vaal_bce": Variant(
        about="VAAL with its own loss, a classifier's instead of a Wasserstein critic's",
        config={"sampler": "vaal", "adversarial": "bce"},
    ),
    "layer_norm": Variant(about="critic with layer instead of batch norm", config={"critic_norm": "layer"}),
    "no_norm": Variant(about="critic without normalization", config={"critic_norm": "none"}),
    "tripled": Variant(about="gray images fed three times, as printed", config={"gray_channels": 3}),
    "released": Variant(
        about="as the authors' code: sigmoid critic on means, summed KL, two steps of the VAE",
        config={"sigmoid_critic": True, "critic_sees": "mean", "kl_reduction": "sum", "vae_steps": 2,
                "critic_channels": (128, 256, 512, 256, 128)},
    ),
    "released_vaal": Variant(
        about="VAAL as in the authors' code: as released, and decoding the mean",
        config={"sampler": "vaal", "sigmoid_critic": True, "critic_sees": "mean", "kl_reduction": "sum",
                "vae_steps": 2, "critic_channels": (128, 256, 512, 256, 128), "decode": "mean"},
    ),
}  # fmt: skip
