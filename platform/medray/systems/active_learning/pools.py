"""From the cases of a data source to the slices, sets and labels of a campaign."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from medray.active.answers import LabelKind, class_list
from medray.data.auxiliary import auxiliary_from, pair_modalities
from medray.data.case import BadCase, Case, Splits
from medray.data.modalities import AUXILIARY, LABEL, MAIN
from medray.data.sliced import slices_as_cases
from medray.data.splits import given_role, split_by_patient
from medray.errors import UserError
from medray.learner import seed_of
from medray.systems.active_learning.mvaal_config import LUNGS, MvaalConfig
from medray.systems.active_learning.tasks import TaskName
from medray.systems.classification.labels import class_column, class_names

LABELLED = "labelled"
"""Attribute of a case: whether it may be labelled before the first query."""
log = logging.getLogger(__name__)
KINDS: Mapping[TaskName, LabelKind] = {"segmentation": "mask", "multi_label": "classes", "multi_class": "class"}


def arranged(cases: Sequence[Case], config: MvaalConfig) -> list[Case]:
    """Cases with the fields image and auxiliary, and the class under its name.

    Raises:
        UserError: a modality or field that the config names is not there.
    """
    found = list(cases)
    if config.main:
        found = pair_modalities(found, config.main, config.auxiliary)
    elif config.auxiliary == LUNGS:
        from medray.classical.lung_mask import with_lung_masks

        found = with_lung_masks(found)
    elif config.auxiliary:
        found = auxiliary_from(found, config.auxiliary)
    if config.task == "multi_class":
        column = class_column(found)
        found = [_renamed(case, column) for case in found]
    return found


def _renamed(case: Case, column: str) -> Case:
    if column == "class" or column not in case.attributes:
        return case
    return replace(case, attributes={**case.attributes, "class": case.attributes[column]})


def want_auxiliary(cases: Sequence[Case], sampler: str) -> None:
    """Look for auxiliary images.

    Raises:
        UserError: no case has one.
    """
    if cases and not any(AUXILIARY in case.fields for case in cases):
        raise UserError(
            f"no case has an auxiliary image, which the sampler {sampler} learns from; say what it is with "
            "--config.auxiliary (and --config.main, for modalities), or take --sampler vaal"
        )


def sliced(cases: Sequence[Case], config: MvaalConfig) -> list[Case]:
    """Volumes as slices; 2D cases as they are."""
    return slices_as_cases(cases, (MAIN, AUXILIARY, LABEL), min_label_px=config.min_lesion_px)


def has_label(case: Case, kind: LabelKind) -> bool:
    """Whether the data holds the case's label."""
    return LABEL in case.fields if kind == "mask" else kind in case.attributes


def unusable(cases: Sequence[Case], config: MvaalConfig, classes: Sequence[str]) -> list[BadCase]:
    """Cases whose class a campaign of this config, or a model with these classes, cannot use."""
    kind, bad = KINDS[config.task], []
    for case in cases:
        given = case.attributes.get(kind, "")
        if kind == "class" and not given and config.oracle == "simulated":
            bad.append(BadCase(case.id, "its class is missing, while the simulated oracle has to know it"))
        elif kind == "class" and given and classes and given not in classes:
            bad.append(BadCase(case.id, f"its class {given!r} is none of the model's: {', '.join(classes)}"))
    return bad


def split_cases(cases: Sequence[Case], config: MvaalConfig, seed: int) -> Splits:
    """By patient. Those without a label can only be asked for, and only people can answer then.

    Raises:
        UserError: too few labelled cases, or nothing to ask for.
    """
    kind = KINDS[config.task]
    labelled = [case for case in cases if has_label(case, kind)]
    open_cases = [case for case in cases if not has_label(case, kind)]
    if not labelled:
        what = "label map" if kind == "mask" else f"attribute {kind}"
        raise UserError(
            f"no case has a {what}; some must be labelled from the start, to validate and to test on. With volumes, "
            f"slices need {config.min_lesion_px} pixels of lesion (--config.min-lesion-px)"
        )
    if open_cases and config.oracle == "simulated":
        log.warning(
            "%d of %d cases have no label, %s for one, and are left out: the simulated oracle has to know it",
            len(open_cases), len(cases), open_cases[0].id,
        )  # fmt: skip
        open_cases = []
    patients, known_patients = ({case.patient for case in some} for some in (cases, labelled))
    if len(known_patients) < 2:
        raise UserError(
            f"{len(known_patients)} of {len(patients)} patients has a label; more must be labelled from the start, to "
            "train, to validate and to test on"
        )
    strata = {case.id: case.attributes["class"] for case in labelled} if kind == "class" else None
    known = split_by_patient(
        labelled, validation=config.validation_fraction, test=config.test_fraction, seed=seed, strata=strata
    )
    train, validation = (known.train, known.validation) if known.validation else _shared(known.train, config)
    judged = {case.patient for case in known.test} | {case.patient for case in known.validation}
    free = (case for case in open_cases if case.patient not in judged and given_role(case) in ("", "train"))
    pool = (*train, *free)
    return Splits(pool, validation, known.test)


def _shared(train: Sequence[Case], config: MvaalConfig) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """With too few patients for a validation set of their own: some of the training patients' slices."""
    every = max(2, round(1 / max(config.validation_fraction, 1e-3)))
    if len(train) < every:
        raise UserError(f"{len(train)} labelled cases are left to train and validate on; more must be labelled")
    log.warning("too few patients are labelled to validate on others than those that are trained on")
    validation = tuple(train[every - 1 :: every])
    chosen = {case.id for case in validation}
    return tuple(case for case in train if case.id not in chosen), validation


def initial_cases(pool: Sequence[Case], config: MvaalConfig, seed: int) -> tuple[str, ...]:
    """Ids of those that are labelled before the first query: drawn at random, or with people all that have a label.

    Cases may say with the attribute ``labelled`` (yes, no) which of them may be drawn.

    Raises:
        UserError: there are none, or the pool is no larger than that.
    """
    known = [case for case in pool if has_label(case, KINDS[config.task])]
    if config.oracle == "human":
        if not known:
            raise UserError(
                "no case of the pool has a label to begin with; label a random sample of the patients first"
            )
        return tuple(case.id for case in known)
    first = [case.id for case in known if case.attributes.get(LABELLED, "yes").lower() == "yes"]
    if len(first) < config.num_initial or len(known) <= config.num_initial:
        raise UserError(
            f"the pool has {len(known)} labelled cases, {len(first)} to begin with, and --initial asks for "
            f"{config.num_initial} of them; give fewer, so that some are left to ask for"
        )
    order = np.random.default_rng(seed_of("initial", seed)).permutation(len(first))
    return tuple(first[index] for index in order[: config.num_initial])


def class_names_of(cases: Sequence[Case], config: MvaalConfig) -> tuple[str, ...]:
    """What is told apart.

    Raises:
        UserError: nothing is.
    """
    if config.task == "segmentation":
        return ("lesion",)
    if config.task == "multi_class":
        return class_names(cases, "class")
    names = sorted({name for case in cases for name in class_list(case.attributes.get("classes", ""))})
    if not names:
        raise UserError(
            "no case names its classes: expected label maps of volumes with the values 1, 2 and 4, or a column classes "
            "in the manifest, as in ET;ED"
        )
    return tuple(names)


def group_of(case: Case) -> str:
    """What a case is counted as in the mix of the picks: its kind, its class or its classes; empty if unknown."""
    return next((case.attributes[name] for name in ("kind", "class", "classes") if case.attributes.get(name)), "")


def mix_of(cases: Sequence[Case]) -> dict[str, int]:
    """How many of each group, the largest first; unknown ones are not counted."""
    return dict(Counter(group for case in cases if (group := group_of(case))).most_common())
