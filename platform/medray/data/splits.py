"""Training, validation and test cases, never sharing a patient."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medray.data.case import Case, Splits
from medray.errors import UserError

_ROLES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}


def split_by_patient(
    cases: Sequence[Case],
    *,
    validation: float = 0.1,
    test: float = 0.3,
    seed: int = 0,
    require_train: bool = True,
    strata: Mapping[str, str] | None = None,
) -> Splits:
    """Split into three roles by patient; the same cases and seed give the same split on every machine.

    Where the cases carry a ``split`` attribute (from a manifest or from folders called train and test), it decides and
    the fractions are ignored. Otherwise the patients are ordered by a digest of seed and name (so the order depends on
    no library's random numbers, and a patient added later moves few others), the first ``round(test * n)`` of ``n``
    patients are the test set (at least one where ``test > 0`` and there are two patients, at most ``n - 1``), the next
    ``round(validation * n)`` the validation set as long as one patient is left to train on. Each role keeps the cases
    in their given order.

    Args:
        cases: all cases of a source.
        validation: fraction of the patients, 0 to 1; may round to none.
        test: fraction of the patients; 0 for none.
        seed: picks the order.
        require_train: false where only a test set is wanted (``test=1`` scores a model on a whole source).
        strata: case id to its stratum (class, grade, rarest finding): each role gets its share of every stratum, up to
            rounding. A patient belongs to the last of its cases' strata in alphabetical order.

    Raises:
        UserError: no cases; fractions that leave nobody to train or to test on; a ``split`` value that is unknown,
            missing for some cases, or different for cases of one patient.
    """
    if not cases:
        raise UserError("the data source holds no cases to split; see the folder layouts in the documentation")
    if not (0 <= validation <= 1 and 0 <= test <= 1 and validation + test <= 1):
        raise UserError(
            f"split fractions validation={validation:g} and test={test:g} must be 0 or more and sum to 1 at most"
        )
    if any("split" in case.attributes for case in cases):
        return _given_split(cases, require_train=require_train)
    count = len({case.patient for case in cases})
    num_test = _count(test, count, at_least=1, at_most=count - 1 if require_train else count)
    num_validation = _count(validation, count, at_least=0, at_most=count - num_test - int(require_train))
    if test > 0 and num_test == 0:
        raise UserError(
            "the data source has 1 patient, too few to train and to test on different ones; add patients or set the "
            "test fraction to 0"
        )
    shuffled = _shuffled(cases, seed, strata)
    roles = dict.fromkeys(shuffled, "train")
    roles.update(dict.fromkeys(shuffled[:num_test], "test"))
    roles.update(dict.fromkeys(shuffled[num_test : num_test + num_validation], "validation"))
    splits = _gather(cases, roles)
    if require_train and not splits.train:
        raise UserError(f"no patient is left to train on: test={test:g}, validation={validation:g} of {count} patients")
    return splits


def folds_by_patient(
    cases: Sequence[Case], num_folds: int, *, seed: int = 0, strata: Mapping[str, str] | None = None
) -> list[tuple[Case, ...]]:
    """Cut the cases into folds that share no patient; the same cases and seed give the same folds on every machine.

    Args:
        cases: what is cut.
        num_folds: 2 or more.
        seed: picks the order of the patients; repeat a cross-validation with another seed.
        strata: as for `split_by_patient`; each fold gets its share of every stratum, up to rounding.

    Returns:
        The folds, each with its cases in their given order; they differ by one patient at most.

    Raises:
        UserError: fewer patients than folds.
    """
    shuffled = _shuffled(cases, seed, strata)
    if not 2 <= num_folds <= len(shuffled):
        raise UserError(f"{len(shuffled)} patients cannot be cut into {num_folds} folds; use between 2 and that many")
    fold_of = {patient: position * num_folds // len(shuffled) for position, patient in enumerate(shuffled)}
    folds: list[list[Case]] = [[] for _ in range(num_folds)]
    for case in cases:
        folds[fold_of[case.patient]].append(case)
    return [tuple(fold) for fold in folds]


def _shuffled(cases: Sequence[Case], seed: int, strata: Mapping[str, str] | None) -> list[str]:
    """Patients in an order of their digests in which every stratum is spread evenly from the first to the last."""
    members: dict[str, list[str]] = {}
    for patient, stratum in _strata_of_patients(cases, strata or {}).items():
        members.setdefault(stratum, []).append(patient)
    digests = {case.patient: _digest(seed, case.patient) for case in cases}
    places: dict[str, float] = {}
    for stratum, patients in members.items():
        start = int.from_bytes(_digest(seed, f"stratum {stratum}")[:4]) / 2**32  # else a single patient is always amid
        for rank, patient in enumerate(sorted(patients, key=digests.__getitem__)):
            places[patient] = (rank + start) / len(patients)
    return sorted(places, key=lambda patient: (places[patient], digests[patient]))


def _digest(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{name}".encode()).digest()


def _strata_of_patients(cases: Iterable[Case], strata: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for case in cases:
        found[case.patient] = max(found.get(case.patient, ""), strata.get(case.id, ""))
    return found


def _count(fraction: float, patients: int, *, at_least: int, at_most: int) -> int:
    if fraction == 0:
        return 0
    return max(0, min(max(round(fraction * patients), at_least), at_most))


def given_role(case: Case) -> str:
    """The role that a case's attribute ``split`` names: train, validation or test; empty where it names none."""
    return _ROLES.get(case.attributes.get("split", "").strip().lower(), "")


def _given_split(cases: Sequence[Case], *, require_train: bool) -> Splits:
    roles: dict[str, str] = {}
    for case in cases:
        given = case.attributes.get("split", "").strip().lower()
        if not given:
            raise UserError(f"case {case.id} has no split while others have one; fill the column or remove it")
        if given not in _ROLES:
            raise UserError(f"case {case.id} has the split {given!r}; known are train, validation and test")
        role = _ROLES[given]
        if roles.setdefault(case.patient, role) != role:
            raise UserError(
                f"patient {case.patient} is in both {roles[case.patient]} and {role}; a patient has one split"
            )
    splits = _gather(cases, roles)
    if require_train and not splits.train:
        raise UserError("no patient has the split train; nothing to train on")
    return splits


def _gather(cases: Iterable[Case], roles: Mapping[str, str]) -> Splits:
    groups: dict[str, list[Case]] = {"train": [], "validation": [], "test": []}
    for case in cases:
        groups[roles[case.patient]].append(case)
    return Splits(**{role: tuple(members) for role, members in groups.items()})


def splits_to_json(splits: Splits) -> dict[str, list[str]]:
    """Case ids by role, as recorded in a run."""
    return {role: [case.id for case in getattr(splits, role)] for role in ("train", "validation", "test")}


def splits_from_json(data: Mapping[str, Any], cases: Iterable[Case]) -> Splits:
    """The splits recorded by `splits_to_json`, over the cases of the same source opened again.

    Raises:
        UserError: a recorded case is no longer there. Cases that were not recorded are left out.
    """
    known = {case.id: case for case in cases}
    groups: dict[str, tuple[Case, ...]] = {}
    for role in ("train", "validation", "test"):
        ids = list(data.get(role, []))
        missing = [name for name in ids if name not in known]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(f"case {missing[0]}{more} of the recorded {role} split is not in the data source any more")
        groups[role] = tuple(known[name] for name in ids)
    return Splits(**groups)
