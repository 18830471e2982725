"""Folders of meshes, at any depth: a surface and its labels by name.

| layout | cases |
|---|---|
| `scans/p07_upper.stl`, `scans/p07_upper.json` (.npz .npy .txt .csv; also `p07_upper_label.txt`) | `p07_upper` |
| `meshes/a.ply`, `labels/a.npz` | `a` |
| `p07/upper.stl`, `p07/upper.json`, `p07/lower.stl` | `p07/upper` with a label, `p07/lower` without |
| `upper/p07/p07_upper.obj`, `upper/p07/p07_upper.json`, `lower/p07/...` | `upper/p07/p07_upper`, ... |

A mesh is a case with the fields `mesh` and, where one was found, `label` (numbers per vertex). The patient is the name
without the words for a jaw; where nothing is left, the name of the folder. So both jaws of a patient stay together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from medray.data.case import BadCase, Case
from medray.data.fields import is_label_name, ref_to
from medray.data.places import Place
from medray.data.readers import MESH_SUFFIXES, VERTEX_LABEL_SUFFIXES

MESH_FOLDERS = ("meshes", "mesh", "scans", "surfaces", "clouds", "points")
LABEL_FOLDERS = ("labels", "label", "annotations", "seg", "segmentations")
_CLOUD_SUFFIXES = (".npz", ".npy")
_JAWS = {"upper": "upper", "maxilla": "upper", "maxillary": "upper", "lower": "lower", "mandible": "lower"}
_LABEL_SUFFIX = re.compile(r"[_-](?:labels?|seg|segmentation)$", re.IGNORECASE)


def find_meshes(root: Place, *, clouds: bool = False) -> tuple[list[Case], list[BadCase]]:
    """The meshes below a folder.

    Args:
        root: the folder.
        clouds: NPZ and NPY files are point clouds, unless they stand in a folder of labels or beside a mesh.

    Returns:
        Cases in the order of their ids, and labels without a mesh (of a folder of labels, or named so). Nothing where
        there is no mesh.
    """
    meshes: dict[str, Place] = {}
    labels: dict[str, Place] = {}
    clear: set[str] = set()  # files that can be nothing but labels
    for path, relative in _files(root, PurePosixPath()):
        suffix = relative.suffix.lower()
        named = _is_label(relative)
        if suffix in MESH_SUFFIXES:
            meshes[_key(relative, MESH_FOLDERS)] = path
        elif suffix in VERTEX_LABEL_SUFFIXES:
            key = _key(relative, LABEL_FOLDERS if named else MESH_FOLDERS)
            labels[key] = path
            clear |= {key} if named else set()
    if clouds:
        for key, path in list(labels.items()):
            if key not in meshes and key not in clear and path.suffix.lower() in _CLOUD_SUFFIXES:
                meshes[key] = labels.pop(key)
    if not meshes:
        return [], []
    cases = [_case(key, meshes[key], labels.get(key)) for key in sorted(meshes)]
    orphans = [
        BadCase(key, f"label {labels[key]} has no mesh of the same name", str(labels[key]))
        for key in sorted(clear - set(meshes))
    ]
    return cases, orphans


def jaw_of(name: str) -> str:
    """``upper``, ``lower`` or nothing, by the words of a path.

    >>> jaw_of("p07/p07_Upper.stl"), jaw_of("mandible-3"), jaw_of("supper")
    ('upper', 'lower', '')
    """
    return next((_JAWS[word] for word in reversed(_words(name)) if word in _JAWS), "")


def _case(key: str, mesh: Place, label: Place | None) -> Case:
    fields = {"mesh": ref_to(mesh, "mesh")}
    if label is not None:
        fields["label"] = ref_to(label, "vertex_label")
    elif mesh.suffix.lower() == ".npz":
        fields["label"] = ref_to(mesh, "vertex_label")
    jaw = jaw_of(key)
    return Case(key, _patient(key), fields, {"jaw": jaw} if jaw else {})


def _patient(key: str) -> str:
    for part in reversed(key.split("/")):
        rest = "_".join(word for word in re.split(r"[_\-. ]+", part) if word.lower() not in _JAWS)
        if rest:
            return rest
    return key


def _is_label(relative: PurePosixPath) -> bool:
    return any(part.lower() in LABEL_FOLDERS for part in relative.parts[:-1]) or is_label_name(relative.stem)


def _key(relative: PurePosixPath, dropped: Sequence[str]) -> str:
    """Folders and stem, without the folder that only says what its files are and without ``_label``."""
    folders = [part for part in relative.parts[:-1] if part.lower() not in dropped]
    return "/".join([*folders, _LABEL_SUFFIX.sub("", relative.stem)])


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z]+", name.lower()) if word]


def _files(folder: Place, relative: PurePosixPath) -> Iterator[tuple[Place, PurePosixPath]]:
    for entry in sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".")):
        if entry.is_dir():
            yield from _files(entry, relative / entry.name)
        else:
            yield entry, relative / entry.name
