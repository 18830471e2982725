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
    cases: Sequence[Case], *, validation: float = 0.1, test: float = 0.3, seed: int = 0, require_train: bool = True
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
    patients = sorted({case.patient for case in cases})
    count = len(patients)
    num_test = _count(test, count, at_least=1, at_most=count - 1 if require_train else count)
    num_validation = _count(validation, count, at_least=0, at_most=count - num_test - int(require_train))
    if test > 0 and num_test == 0:
        raise UserError(
            "the data source has 1 patient, too few to train and to test on different ones; add patients or set the "
            "test fraction to 0"
        )
    shuffled = sorted(patients, key=lambda patient: hashlib.blake2b(f"{seed}/{patient}".encode()).digest())
    roles = dict.fromkeys(shuffled, "train")
    roles.update(dict.fromkeys(shuffled[:num_test], "test"))
    roles.update(dict.fromkeys(shuffled[num_test : num_test + num_validation], "validation"))
    splits = _gather(cases, roles)
    if require_train and not splits.train:
        raise UserError(f"no patient is left to train on: test={test:g}, validation={validation:g} of {count} patients")
    return splits


def _count(fraction: float, patients: int, *, at_least: int, at_most: int) -> int:
    if fraction == 0:
        return 0
    return max(0, min(max(round(fraction * patients), at_least), at_most))


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
