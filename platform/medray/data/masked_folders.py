"""Pictures with several kinds of masks, a folder for each kind.

| layout | cases |
|---|---|
| `COVID-19/images/a.png`, `COVID-19/lung masks/a.png`, `COVID-19/infection masks/a.png` | `COVID-19/a` |
| `mri/a.png`, `tear/a.png`, `tendon/a.png` | `a`, modality mri, fields image, tear, tendon |

In the first, as COVID-QU-Ex comes, the folder's name is the attribute class, and each mask folder is a field, named in
the singular with an underscore: `lung_mask`, `infection_mask`. In the second the one folder named as a modality holds
the images, and folders with files of the same names beside it hold masks; their names are the fields'.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from medray.data.case import BadCase, Case, FieldRef
from medray.data.fields import Kind, ref_to
from medray.data.places import Place
from medray.data.readers import is_image_name, stem_of

_MASKS = re.compile(r"(?P<what>\w+)[ _-]masks?", re.IGNORECASE)


def find_masked(folders: Sequence[Place]) -> tuple[list[Case], list[BadCase]]:
    """The cases of those folders that have ``images`` and ``<something> masks`` in them.

    Args:
        folders: one per class.

    Returns:
        Cases, and masks without an image of the same name. Nothing where no folder is like that.
    """
    cases: list[Case] = []
    bad: list[BadCase] = []
    for folder in folders:
        inner = {entry.name.lower(): entry for entry in sorted(folder.iterdir()) if entry.is_dir()}
        masks = {_field(name): entry for name, entry in inner.items() if _MASKS.fullmatch(name)}
        if "images" in inner and masks:
            _collect(folder.name, inner["images"], masks, cases, bad)
    return cases, bad


def find_beside(
    folders: Sequence[Place],
    modalities: Collection[str],
    labels: Collection[str] = (),
    kinds: Mapping[str, Kind] | None = None,
) -> tuple[list[Case], list[BadCase]]:
    """The cases of a folder of images named as a modality, and folders of masks of equal names beside it.

    Args:
        folders: all that lie side by side.
        modalities: names of folders that hold images.
        labels: names of folders whose masks are the field ``label``; of others the folder's name is the field's.
        kinds: how fields are read that are no label maps.

    Returns:
        Cases, and masks without an image of the same name. Nothing where there is not exactly one folder of images, or
        where another folder has no file that is named as an image.
    """
    own = [folder for folder in folders if folder.name.lower() in modalities]
    masks = {
        "label" if folder.name.lower() in labels else re.sub(r"[ -]", "_", folder.name.lower()): _images(folder)
        for folder in folders
        if folder not in own
    }
    images = _images(own[0]) if len(own) == 1 else {}
    if not masks or not all(set(files) & set(images) for files in masks.values()):
        return [], []
    cases = []
    for stem, path in images.items():
        refs: dict[str, FieldRef] = {"image": ref_to(path, "image")}
        for field, files in masks.items():
            if stem in files:
                refs[field] = ref_to(files[stem], (kinds or {}).get(field, "label"))
        cases.append(Case(stem, patient_of(stem), refs, {"modality": own[0].name.lower()}))
    return cases, [
        BadCase(stem, f"{field} {files[stem]} has no image of the same name", str(files[stem]))
        for field, files in masks.items()
        for stem in sorted(set(files) - set(images))
    ]


def patient_of(stem: str) -> str:
    """The patient a file name speaks of: the ``sub-`` part of a BIDS name, else the whole stem."""
    match = re.match(r"(sub-[A-Za-z0-9]+)(?:_|$)", stem)
    return match.group(1) if match else stem


def _field(folder: str) -> str:
    """``lung_mask`` for ``lung masks``."""
    match = _MASKS.fullmatch(folder)
    return f"{match['what']}_mask" if match else ""


def _collect(name: str, images: Place, masks: dict[str, Place], cases: list[Case], bad: list[BadCase]) -> None:
    files = {field: _images(folder) for field, folder in masks.items()}
    own = _images(images)
    for stem, path in own.items():
        refs: dict[str, FieldRef] = {"image": ref_to(path, "image")}
        refs.update({field: ref_to(found[stem], "label") for field, found in files.items() if stem in found})
        cases.append(Case(f"{name}/{stem}", stem, refs, {"class": name, "folder": name}))
    for field, found in files.items():
        for stem in sorted(set(found) - set(own)):
            reason = f"{field.replace('_', ' ')} {found[stem]} has no image of the same name"
            bad.append(BadCase(f"{name}/{stem}", reason, str(found[stem])))


def _images(folder: Place) -> dict[str, Place]:
    """By stem. A name that starts with a dot is no image."""
    return {stem_of(file): file for file in sorted(folder.iterdir()) if is_image_name(file) and file.name[0] != "."}
