"""The modalities of a patient as one case: what a network with several input channels takes."""

from __future__ import annotations

from collections.abc import Sequence

from medray.data.case import Case, FieldRef
from medray.errors import UserError


def by_patient(cases: Sequence[Case], modalities: Sequence[str]) -> list[Case]:
    """Group the single-image cases of each patient into one case with a field per modality.

    A folder with ``t1.nii.gz``, ``flair.nii.gz`` and ``lesion.nii.gz`` per patient is found as one case per image
    (`medray.data.folders`); a network that sees T1 and FLAIR together takes them as one. Cases that have a field of
    each modality already (from a manifest, or from ``?t1=...&flair=...``) pass as they are.

    Args:
        cases: as found in a source.
        modalities: names of the fields wanted, in channel order; compared with the attribute ``modality``.

    Returns:
        Cases in the order their patients first appear. A patient that lacks a modality keeps the fields it has, so that
        the checks name what is missing. Labels and other fields of the grouped cases are kept under their names.

    Raises:
        UserError: no case shows one of the modalities.
    """
    ready = [case for case in cases if set(modalities) <= set(case.fields)]
    loose = [case for case in cases if not set(modalities) <= set(case.fields)]
    known = {case.attributes.get("modality", "") for case in loose} - {""}
    if loose and not ready:
        for name in modalities:
            if name not in known:
                found = f"it has {', '.join(sorted(known))}" if known else "its images name no modality"
                raise UserError(f"the data has no {name} images; {found}")
    grouped: dict[str, dict[str, FieldRef]] = {}
    attributes: dict[str, dict[str, str]] = {}
    for case in loose:
        if case.attributes.get("modality", "") not in modalities:
            continue
        fields = grouped.setdefault(case.patient, {})
        fields[case.attributes["modality"]] = case.fields["image"]
        for name, ref in case.fields.items():
            if name != "image":
                fields.setdefault(name, ref)
        kept = {key: value for key, value in case.attributes.items() if key not in ("modality", "folder")}
        attributes.setdefault(case.patient, {}).update(kept)
    return [*ready, *(Case(name, name, fields, attributes[name]) for name, fields in grouped.items())]


def of_modality(cases: Sequence[Case], modality: str) -> list[Case]:
    """The cases that show one modality, for a network with one input channel; all of them where ``modality`` is empty.

    Raises:
        UserError: none shows it; the sentence names those there are.
    """
    chosen = [case for case in cases if not modality or case.attributes.get("modality", "") == modality]
    if cases and not chosen:
        known = sorted({case.attributes.get("modality", "") for case in cases} - {""})
        raise UserError(f"the data has no {modality} images; it has {', '.join(known) or 'no images with a modality'}")
    return chosen
