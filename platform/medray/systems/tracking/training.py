"""From cases to a trained tracker: one policy, or one for each fold besides."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from envs.axon.generator import SyntheticScenes
from envs.axon.scene import Scene, Scenes
from medray.data.case import Case, Splits
from medray.data.splits import folds_by_patient
from medray.system import Trained, Workbench
from medray.systems.tracking.axon_tracker import AxonProblem, AxonTrackerConfig
from medray.systems.tracking.policies import starting_weights, take_apart
from medray.systems.tracking.scenes import Blend, CaseScenes, Preparation, SymmetricScenes
from medray.systems.tracking.stopping import entropy_limit
from medray.systems.tracking.traced_cases import Job, trace_cases

NUM_SYNTHETIC = 1000
"""Different synthetic images that are mixed into the cases; as many stay in memory, since preparing one takes longer
than the episode in it."""


def train(config: AxonTrackerConfig, work: Workbench, splits: Splits) -> Trained:
    """One policy from all training cases, from the checkpoint that the config names if it names one."""
    return learn(config, work, splits, starting_weights(config, work.out / "start", work.seed))


def train_with_folds(config: AxonTrackerConfig, work: Workbench, splits: Splits) -> Trained:
    """The same, and for each fold of the cases a policy that has not seen them, side by side where there are workers.

    The latter are files of the model; ``scored_by`` in what is known of it says which case is whose.
    """
    folds = folds_by_patient(splits.train, config.folds, seed=work.seed)
    parts = [Splits(tuple(case for other in folds if other is not fold for case in other), (), fold) for fold in folds]
    models = work.map_runs(functools.partial(train, config), parts, name="fold")
    whole = train(config, work, splits)
    names = [f"fold{number}" for number in range(len(folds))]
    files = {name: model.weights for name, model in zip(names, models, strict=True) if model.weights}
    about = {
        "scored_by": {case.id: name for name, fold in zip(names, folds, strict=True) for case in fold},
        "fold_entropy_limits": {name: m.about["entropy_limit"] for name, m in zip(names, models, strict=True)},
    }
    return replace(whole, about={**whole.about, **about}, files={**whole.files, **files})


def learn(config: AxonTrackerConfig, work: Workbench, splits: Splits, start: Path | None = None) -> Trained:
    """One policy.

    Args:
        config: of the tracker.
        work: where.
        splits: whose validation cases, or else training cases, decide which checkpoint is kept.
        start: networks to go on from, as `put_together` or `starting_weights` leave them.

    Returns:
        the actor, the critic for fine-tuning, and from which entropy on a prediction stops.
    """
    preparation = Preparation(config.polarity, config.intensity)
    scenes: Scenes = CaseScenes(splits.train, preparation)
    if config.symmetries:
        scenes = SymmetricScenes(scenes)
    if config.synthetic:
        drawn = SyntheticScenes(
            config.synthetic, NUM_SYNTHETIC, work.seed, prepare=preparation.bright, keep=NUM_SYNTHETIC
        )
        scenes = Blend(scenes, drawn, config.synthetic_share)
    validation = Spread(CaseScenes(splits.validation or splits.train, preparation), config.num_validation)
    fit = work.reinforce(AxonProblem(config, scenes, validation, start))
    assert fit.weights is not None
    files = take_apart(fit.weights, work.out / "parts")
    return Trained(
        weights=files["actor"],
        about={"entropy_limit": _limit(config, files["actor"], splits.validation or splits.train)},
        metrics=fit.metrics,
        fits={"train": fit},
        files={"critic": files["critic"]},
    )


def _limit(config: AxonTrackerConfig, actor: Path, cases: Sequence[Case]) -> float | None:
    traced = trace_cases(config, Job(cases[: config.num_validation], actor))
    traces = [trace for one in traced for trace in one.traces]
    limit = entropy_limit(traces, [line for one in traced for line in one.truths])
    return limit if math.isfinite(limit) else None


class Spread:
    """At most ``count`` of some scenes, evenly spread over them: branches of one image lie side by side."""

    def __init__(self, scenes: Scenes, count: int) -> None:
        self.scenes = scenes
        self.places = np.unique(np.linspace(0, len(scenes) - 1, min(count, len(scenes))).round().astype(int))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int, /) -> Scene:
        return self.scenes[int(self.places[index])]
