"""Folders of a class each, with pictures and several kinds of masks, as COVID-QU-Ex comes.

| layout | cases |
|---|---|
| `COVID-19/images/a.png`, `COVID-19/lung masks/a.png`, `COVID-19/infection masks/a.png` | `COVID-19/a` |

The folder's name is the attribute class. Each mask folder is a field, named in the singular with an underscore:
`lung_mask`, `infection_mask`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from medray.data.case import BadCase, Case, FieldRef
from medray.data.fields import ref_to
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
