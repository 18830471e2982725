"""M-VAAL as a system: a campaign over a pool of cases, its scores, prediction with the network it ends with.

The sampler is in `mvaal`, its peers in `samplers`, the downstream tasks in `tasks`; rounds, books and oracles are
`medray.active`.
"""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np

from medray.active.campaign import Campaign, CampaignResult
from medray.active.lead import run_campaign
from medray.active.oracle import Oracle, SimulatedOracle
from medray.active.people.human import HumanOracle
from medray.active.people.rules import LabelRules
from medray.active.records import RoundRecord, read_record
from medray.data.case import BadCase, Case, Source, Splits
from medray.system import (
    ClaimResult,
    Evaluation,
    Figure,
    Prediction,
    PredictRequest,
    Preset,
    System,
    Trained,
    Variant,
    Workbench,
)
from medray.systems.active_learning import mvaal_claim, pools
from medray.systems.active_learning.campaign_pictures import comparison_figures, result_figures, training_figures
from medray.systems.active_learning.campaign_summary import campaign_numbers
from medray.systems.active_learning.mvaal_config import PRESETS, VARIANTS, MvaalConfig
from medray.systems.active_learning.network_task import NetworkTask
from medray.systems.active_learning.prediction import predict
from medray.systems.active_learning.samplers import make_sampler
from medray.systems.active_learning.tasks import make_task


class Mvaal(System[MvaalConfig]):
    """Active learning with a sampler that learns from a second modality."""

    slug = "mvaal"
    config_class = MvaalConfig
    predict_inputs = ("image",)
    presets: ClassVar[Mapping[str, Preset]] = PRESETS
    variants: ClassVar[Mapping[str, Variant]] = VARIANTS
    short_flags = ("task", "sampler", "initial", "budget", "rounds")
    learning_signal = ("dice", "max")
    empty_labels = True

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        """The image; the auxiliary one where the sampler learns from it; label maps where they are the labels.

        Raises:
            UserError: the sampler learns from auxiliary images and no case has one.
        """
        fields = ["image"]
        if training and self.config.learns_from_auxiliary:
            pools.want_auxiliary(cases, self.config.sampler)
            fields.append("auxiliary")
        if self.config.task == "segmentation" and not (training and self.config.oracle == "human"):
            fields.append("label")
        return tuple(fields)

    def arrange(self, cases: Sequence[Case]) -> Sequence[Case]:
        """The two modalities of a patient as one case."""
        return pools.arranged(cases, self.config)

    def problems(self, cases: Sequence[Case], known: Mapping[str, Any]) -> Sequence[BadCase]:
        """Cases without a class, or of one that the model does not know."""
        return pools.unusable(cases, self.config, known.get("classes", ()))

    def split(self, source: Source, seed: int) -> Splits:
        """By patient, before volumes are cut into slices."""
        return pools.split_cases(pools.sliced(source.cases, self.config), self.config, seed)

    def train(self, work: Workbench, splits: Splits) -> Trained:
        """One campaign, or one for each seed side by side; the first one's last network is the model."""
        classes = pools.class_names_of([*splits.train, *splits.validation, *splits.test], self.config)
        if self.config.repeats == 1:
            results = [self.campaign(work, splits, classes)]
        else:
            run = functools.partial(_one_seed, self.config, splits, classes, work.seed)
            results = work.map_runs(run, range(self.config.repeats), name="seeds")
            _log_means(work, results)
        cases = {case.id: case for case in splits.train}
        metric = self._task(classes).metric
        told = [_told(result, cases) for result in results]
        groups = {name: pools.group_of(case) for name, case in cases.items()}
        numbers = [campaign_numbers(r.records, metric, groups, _initial(r)) for r in results]
        slices = any("slice" in case.attributes for case in splits.train)
        return Trained(
            weights=results[0].weights,
            about={"classes": list(classes), "metric": metric, "campaigns": told, "pool": pools.mix_of(splits.train)},
            metrics=_means(numbers),
            figures=training_figures(results[0].records, cases, slices=slices),
        )

    def campaign(self, work: Workbench, splits: Splits, classes: Sequence[str]) -> CampaignResult:
        """Run one campaign with the workbench's seed."""
        return run_campaign(work, self._campaign(work, splits, classes))

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        """The last task network on each case; what the campaign itself measured is beside it."""
        task, cases = self._task(trained.about["classes"]), pools.sliced(cases, self.config)
        found = task.score(work, trained.weights, cases)
        figures = result_figures(work, task, trained.weights, cases, found.rows)
        return Evaluation(found.rows, {**found.summary, **trained.metrics}, figures)

    def alone(self) -> str:
        """People label for one sampler."""
        return "people label one campaign" if self.config.oracle == "human" else ""

    def overview(self, found: Mapping[str, tuple[Trained, Evaluation]]) -> Sequence[Figure]:
        """Label curves and picks of all samplers."""
        about = {name: trained.about for name, (trained, _) in found.items()}
        first = next(iter(about.values()))
        records = {name: [_records(told) for told in one["campaigns"]] for name, one in about.items()}
        mixes = {name: _mixes(one["campaigns"]) for name, one in about.items()}
        return comparison_figures(records, mixes, first["pool"], first["metric"])

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        """The task network on a new scan."""
        return predict(self._task(trained.about["classes"]), trained.weights, request)

    @classmethod
    def claim_setting(cls, preset: str) -> tuple[MvaalConfig, str]:
        """See `mvaal_claim`.

        Raises:
            UserError: the preset has no phantom.
        """
        return mvaal_claim.setting(preset)

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        """At small budgets M-VAAL is no worse than VAAL, and that no worse than random picks."""
        return mvaal_claim.run(cls, work, preset)

    def _campaign(self, work: Workbench, splits: Splits, classes: Sequence[str]) -> Campaign:
        config, task = self.config, self._task(classes)
        place = config.annotation or f"{work.place}/annotation"
        cases = {case.id: case for case in splits.train}
        make_oracle: Callable[[], Oracle] = (
            functools.partial(HumanOracle, place, cases, LabelRules(task.kind, task.classes))
            if config.oracle == "human"
            else functools.partial(SimulatedOracle, cases, task.kind)
        )
        return Campaign(
            task=task,
            sampler=make_sampler(config.sampler, config),
            make_oracle=make_oracle,
            pool=splits.train,
            initial=pools.initial_cases(splits.train, config, work.seed),
            validation=splits.validation,
            test=splits.test,
            budget=config.budget,
            rounds=config.num_rounds,
            answered_share=config.answered_share,
            wait_hours=config.wait_hours,
        )

    def _task(self, classes: Sequence[str]) -> NetworkTask[Any]:
        return make_task(self.config.task, self.config, classes)


def _one_seed(
    config: MvaalConfig, splits: Splits, classes: Sequence[str], seed: int, work: Workbench, number: int
) -> CampaignResult:
    work.seed = seed + number
    return Mvaal(config).campaign(work, splits, classes)


def _initial(result: CampaignResult) -> set[str]:
    """Ids of the cases that were labelled before the first query: answers are in the order they came."""
    return {answer.case for answer in result.answers[: result.records[0].num_labelled]}


def _log_means(work: Workbench, results: Sequence[CampaignResult]) -> None:
    """The rounds in the run's own log, as means over seeds; those of each seed are in its folder."""
    for records in zip(*(result.records for result in results), strict=False):
        numbers = {"num_labelled": float(records[0].num_labelled), **_means([record.scores for record in records])}
        work.log({"step": records[0].number, **numbers}, name="rounds")


def _told(result: CampaignResult, cases: Mapping[str, Case]) -> dict[str, Any]:
    """A campaign as the model remembers it: its records, and what was picked by group."""
    rounds = [{**asdict(r), "mix": pools.mix_of([cases[name] for name in r.picks])} for r in result.records]
    told: dict[str, Any] = json.loads(json.dumps({"rounds": rounds}))
    return told


def _records(told: Mapping[str, Any]) -> list[RoundRecord]:
    return [read_record({key: value for key, value in kept.items() if key != "mix"}) for kept in told["rounds"]]


def _mixes(campaigns: Sequence[Mapping[str, Any]]) -> list[Mapping[str, int]]:
    """Groups of the picks by round, over all seeds."""
    longest = max(len(told["rounds"]) for told in campaigns)
    mixes: list[Counter[str]] = [Counter() for _ in range(longest)]
    for told in campaigns:
        for mix, kept in zip(mixes, told["rounds"], strict=False):
            mix.update(kept["mix"])
    return [mix for mix in mixes if mix]


def _means(numbers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over seeds of what every seed has."""
    shared = [name for name in numbers[0] if all(name in one for one in numbers)]
    means = {name: float(np.mean([one[name] for one in numbers])) for name in shared}
    return {name: value for name, value in means.items() if math.isfinite(value)}
