"""The axon tracker as a system: which data it takes, how it is trained and judged, what a user gets."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from envs.axon.centrelines import point_outside
from envs.axon.scene import Scenes
from medray.data.case import BadCase, Case, Source, Splits
from medray.data.fields import Kind
from medray.data.splits import folds_by_patient, split_by_patient
from medray.errors import UserError
from medray.figures.tracing import animation_png, entropy_png, errors_png, traces_png
from medray.system import (
    ClaimResult,
    Evaluation,
    Figure,
    FitResult,
    Prediction,
    PredictRequest,
    Preset,
    System,
    Trained,
    Variant,
    Workbench,
)
from medray.systems.tracking.axon_presets import PRESETS, VARIANTS
from medray.systems.tracking.axon_tracker import AxonProblem, AxonTrackerConfig
from medray.systems.tracking.evaluation import Job, Judged, TracedCase, in_groups, judge, trace_jobs, write_branches
from medray.systems.tracking.policies import starting_weights, take_apart
from medray.systems.tracking.scenes import CaseScenes, Preparation, SymmetricScenes, centrelines_of, cut_out, plane
from medray.systems.tracking.stopping import entropy_limit

_EXAMPLES = 3
_FIGURE_BRANCHES = 400
_ALL = -1


class AxonTracker(System[AxonTrackerConfig]):
    """Axons, vessels and other thin structures as ordered subpixel polylines."""

    slug = "axon_tracker"
    config_class = AxonTrackerConfig
    predict_inputs = ("image",)
    optional_inputs = ("starts",)
    predict_suffix = ".swc"
    learning_signal = ("return_mean", "max")
    field_kinds: ClassVar[Mapping[str, Kind]] = {"centrelines": "traces"}
    presets: ClassVar[Mapping[str, Preset]] = PRESETS
    variants: ClassVar[Mapping[str, Variant]] = VARIANTS

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        """An image and the lines in it."""
        return ("image", "centrelines")

    def problems(self, cases: Sequence[Case], known: Mapping[str, Any]) -> Sequence[BadCase]:
        """Images that cannot be tracked in, centrelines that leave them, and cases without any."""
        found = []
        for case in cases:
            try:
                lines, shape = centrelines_of(case), plane(case.volume("image")).shape
                reason = point_outside(lines, shape) or ("" if lines.branches else "it has no centreline")
            except UserError as error:
                reason = str(error)
            if reason:
                found.append(BadCase(case.id, reason))
        return found

    def split(self, source: Source, seed: int) -> Splits:
        """By patient: fractions, or folds."""
        config = self.config
        if not config.folds:
            shares = {"validation": config.validation_fraction, "test": config.test_fraction}
            return split_by_patient(source.cases, **shares, seed=seed)
        folds = folds_by_patient(source.cases, config.folds, seed=seed)
        if config.fold == _ALL:
            return Splits(source.cases, (), source.cases)
        rest = tuple(case for number, fold in enumerate(folds) if number != config.fold for case in fold)
        return Splits(rest, (), folds[config.fold])

    def train(self, work: Workbench, splits: Splits) -> Trained:
        """Learn the policy; with all folds one for each besides, which has not seen the fold's cases."""
        if self.config.method != "policy":
            return Trained(weights=None)
        if not (self.config.folds and self.config.fold == _ALL):
            return self._learn(work, splits)
        folds = folds_by_patient(splits.train, self.config.folds, seed=work.seed)
        parts = [
            Splits(tuple(case for other in folds if other is not fold for case in other), (), fold) for fold in folds
        ]
        models = work.map_runs(functools.partial(_learn_fold, self.config), parts, name="fold")
        whole = self._learn(work, splits)
        files = {f"fold{number}": model.weights for number, model in enumerate(models) if model.weights}
        scored_by = {case.id: f"fold{number}" for number, fold in enumerate(folds) for case in fold}
        limits = {f"fold{number}": model.about["entropy_limit"] for number, model in enumerate(models)}
        about = {**whole.about, "scored_by": scored_by, "fold_entropy_limits": limits}
        return replace(whole, about=about, files={**whole.files, **files})

    def _learn(self, work: Workbench, splits: Splits) -> Trained:
        preparation = Preparation(self.config.polarity, self.config.intensity)
        scenes: Scenes = CaseScenes(splits.train, preparation)
        validation = CaseScenes(splits.validation or splits.train, preparation)
        if self.config.symmetries:
            scenes = SymmetricScenes(scenes)
        start = starting_weights(self.config, work.out / "start", work.seed)
        fit = work.reinforce(AxonProblem(self.config, scenes, Spread(validation, self.config.num_validation), start))
        return self.learnt(work, fit, splits)

    def learnt(self, work: Workbench, fit: FitResult, splits: Splits) -> Trained:
        """What a fit leaves: the actor, the critic for fine-tuning, and from which entropy on a prediction stops."""
        assert fit.weights is not None
        files = take_apart(fit.weights, work.out / "parts")
        held_out = (splits.validation or splits.train)[: self.config.num_validation]
        traced = trace_jobs(self.config)(Job(held_out, files["actor"]))
        limit = entropy_limit(
            [trace for one in traced for trace in one.traces], [line for one in traced for line in one.truths]
        )
        about = {"entropy_limit": limit if math.isfinite(limit) else None}
        return Trained(
            weights=files["actor"],
            about=about,
            metrics=fit.metrics,
            fits={"train": fit},
            files={"critic": files["critic"]},
        )

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        """Tables 1 and 2, and the entropy on and off track (table 6)."""
        jobs = [job for part in self._by_model(trained, cases) for job in part]
        traced = [one for part in work.map(trace_jobs(self.config), jobs, name="evaluate") for one in part]
        write_branches(work.out / "branches.csv", traced)
        judged = judge(traced)
        return Evaluation(judged.rows, judged.summary, self._figures(cases, traced, judged))

    def _by_model(self, trained: Trained, cases: Sequence[Case]) -> list[list[Job]]:
        """Cases in groups, each with the model that has not seen them."""
        scored_by: Mapping[str, str] = trained.about.get("scored_by", {})
        limits = trained.about.get("fold_entropy_limits", {})
        jobs = []
        for name in dict.fromkeys(scored_by.get(case.id, "") for case in cases):
            weights = trained.files[name] if name else trained.weights
            limit = limits[name] if name else trained.about.get("entropy_limit")
            own = [case for case in cases if scored_by.get(case.id, "") == name]
            jobs.append([Job(group, weights, math.inf if limit is None else limit) for group in in_groups(own)])
        return jobs

    def _figures(self, cases: Sequence[Case], traced: Sequence[TracedCase], judged: Judged) -> list[Figure]:
        by_id = {case.id: case for case in cases}
        ordered = sorted(judged.rows, key=lambda row: float(row["coverage_pct"]))
        places = np.unique(np.linspace(0, len(ordered) - 1, min(_EXAMPLES, len(ordered))).round().astype(int))
        of_case = {one.case: one for one in traced}
        figures = []
        for place in places:
            row = ordered[place]
            caption = f"{row['case']}: coverage {row['coverage_pct']:.1f} %, error {row.get('error_px', 0):.2f} px"
            one = of_case[str(row["case"])]
            image = self._image(by_id[one.case])
            shown = slice(0, _FIGURE_BRANCHES)
            png = traces_png(image, one.traces[shown], one.truths[shown], title=caption)
            figures.append(Figure(f"traced_{place}", caption, png))
        figures.append(Figure("errors", "Distances of all traced points to their lines", errors_png(judged.errors)))
        if self.config.method == "policy":
            figures.append(self._entropy_figure(judged))
            best = of_case[str(ordered[-1]["case"])]
            figures.append(self._animation(by_id[best.case], best))
        return figures

    def _entropy_figure(self, judged: Judged) -> Figure:
        table = judged.entropy
        caption = (
            f"Entropy on and off track; mean difference {table.difference:.2f} nats over {table.num_images} images"
        )
        return Figure("entropy", f"{caption}, paired p = {table.p_images:.2g}", entropy_png(table.rows))

    def _animation(self, case: Case, one: TracedCase) -> Figure:
        branch = int(np.argmax([trace.length_px for trace in one.traces]))
        line, trace = centrelines_of(case).branches[branch], one.traces[branch]
        scene = cut_out(self._image(case), line, 24, case.id)
        moved = trace.points - (line.points - scene.centreline)[0]  # type: ignore[operator]
        caption = f"The tracker on its way along {case.id}, windows in blue"
        return Figure("animation", caption, animation_png(scene, moved, self.config.options))

    def _image(self, case: Case) -> np.ndarray:
        return Preparation(self.config.polarity, self.config.intensity).image(case)

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        """Trace the structures of an image from given or found start points."""
        from medray.systems.tracking.prediction import predict

        return predict(self.config, trained, request)

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        """Synthetic images teach tracking, a few real ones help on, and doubt shows off the track."""
        from medray.systems.tracking.axon_claim import claim

        return claim(work, preset)


class Spread:
    """At most ``count`` of some scenes, evenly spread over them: branches of one image lie side by side."""

    def __init__(self, scenes: Scenes, count: int) -> None:
        self.scenes = scenes
        self.places = np.unique(np.linspace(0, len(scenes) - 1, min(count, len(scenes))).round().astype(int))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int, /) -> Any:
        return self.scenes[int(self.places[index])]


def _learn_fold(config: AxonTrackerConfig, work: Workbench, part: Splits) -> Trained:
    return AxonTracker(config)._learn(work, part)
