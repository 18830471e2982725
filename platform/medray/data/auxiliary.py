"""Which images of a case are the main and the auxiliary one, for methods that look at two modalities.

Both functions are called where a system regroups what a source found (`System.arrange`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from medray.data.case import Case, FieldRef
from medray.data.channels import by_patient
from medray.data.fields import FileRef, is_label_name
from medray.errors import UserError


def pair_modalities(cases: Sequence[Case], main: str, auxiliary: str) -> list[Case]:
    """Two modalities of each patient as the fields ``image`` and ``auxiliary`` of one case.

    Args:
        cases: as found in a source: one case per modality (see `medray.data.channels.by_patient`), or cases with fields
            of these names. Cases that say no modality, or have the field ``auxiliary``, pass as they are.
        main: the modality that becomes ``image``: t1ce, t1post.
        auxiliary: the one that becomes ``auxiliary``: flair; empty for none.

    Returns:
        Cases in the order their patients first appear, those that pass first. Who lacks the main modality has no
        ``image``, for the checks to name; who lacks the auxiliary one has no ``auxiliary``. Other modalities are left
        out, label maps stay.

    Raises:
        UserError: no case shows one of the two.
    """
    wanted = [name for name in (main, auxiliary) if name]
    ready = [case for case in cases if not _is_loose(case, wanted)]
    loose = [case for case in cases if _is_loose(case, wanted)]
    return [*ready, *(_renamed(case, main, auxiliary) for case in by_patient(loose, wanted))]


def _is_loose(case: Case, wanted: Sequence[str]) -> bool:
    return "auxiliary" not in case.fields and ("modality" in case.attributes or bool(set(wanted) & set(case.fields)))


def _renamed(case: Case, main: str, auxiliary: str) -> Case:
    names = {main: "image", auxiliary: "auxiliary"}
    return replace(case, fields={names.get(name, name): ref for name, ref in case.fields.items()})


def auxiliary_from(cases: Sequence[Case], field: str) -> list[Case]:
    """Cases whose auxiliary image is another of their fields, such as a mask of the lungs.

    Args:
        cases: of a source. Those with the field ``auxiliary`` pass as they are.
        field: the one that becomes ``auxiliary``. A mask is read as an image from then on: it is looked at, and being
            empty is no fault.

    Returns:
        In the given order. Other masks than ``label`` are left out, since nobody asks for them and those of healthy
        people are empty. A case without the field has no ``auxiliary``.

    Raises:
        UserError: no case has the field; the sentence names those there are.
    """
    if cases and not any(field in case.fields or "auxiliary" in case.fields for case in cases):
        found = sorted({name for case in cases for name in case.fields})
        modalities = sorted({case.attributes["modality"] for case in cases if "modality" in case.attributes})
        more = f" of the modalities {', '.join(modalities)}, of which the main one has to be named too"
        raise UserError(
            f"the data has no {field} that could be the auxiliary image; it has {', '.join(found)}"
            f"{more if modalities else ''}"
        )
    return [case if "auxiliary" in case.fields else _with_auxiliary(case, field) for case in cases]


def _with_auxiliary(case: Case, field: str) -> Case:
    fields: dict[str, FieldRef] = {
        name: ref for name, ref in case.fields.items() if name == "label" or not is_label_name(name)
    }
    fields.pop(field, None)
    if field in case.fields:
        ref = case.fields[field]
        fields["auxiliary"] = replace(ref, kind="image") if isinstance(ref, FileRef) else ref
    return replace(case, fields=fields)
