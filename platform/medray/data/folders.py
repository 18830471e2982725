"""Folders of images as people keep them: the layout is found out by looking, never by a switch.

| layout | cases |
|---|---|
| `mr_images/a.nii.gz`, `mr_labels/a.nii.gz` | `mr/a`, modality mr |
| `mr/a.nii.gz`, `mr_labels/a.nii.gz`; or `mr/images/a`, `mr/labels/a` | the same |
| `images/a.png`, `labels/a.png` (or `masks/`, `instances/`) | `a` |
| `images/a.png`, `centrelines/a.json` (or .swc); or `a.png`, `a.swc` side by side | `a` with the field centrelines |
| `p07/t1.nii.gz`, `p07/flair.nii.gz`, `p07/label.nii.gz` | `t1/p07`, modality t1, patient p07 |
| `p07/moving.nii.gz`, `p07/fixed.nii.gz`, `p07/fixed_label.nii.gz` | `p07` with those fields |
| `study/series3/*.dcm`, at any depth | one per series; patients by a digest of their id |
| `mr/a.nii.gz`, `ct/a.nii.gz` | `mr/a`, modality mr |
| `normal/a.png`, `covid/b.png` | `normal/a`, attribute class |
| `covid/images/a.png`, `covid/lung masks/a.png` (`medray.data.masked_folders`) | `covid/a`, field lung_mask |
| `mri/a.png`, `tear/a.png`, `tendon/a.png`: one folder named as a modality | `a`, fields image, tear, tendon |
| `a.nii.gz`, `a_label.nii.gz` (or `_seg`, `_mask`), also inside `mr/` | `a`; without label files: unlabelled images |
| `scans/a.stl`, `scans/a.json`, and other folders of surfaces (`medray.data.mesh_folders`) | `a`, fields mesh, label |
| any of these inside `train/`, `validation/`, `test/` | the same, attribute split |

A table ``labels.csv`` beside any of them gives the cases attributes (`medray.data.case_table`).

An image is a case with the fields `image` and, where one was found, `label`. The patient is the file's stem (for BIDS
names the ``sub-`` part), so `mr/a` and `us/a` are the same patient. Several slices of one patient need such names, or
a manifest, or they may end up on both sides of a split. A label without its image is reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from medray.data.case import BadCase, Case
from medray.data.case_table import with_table
from medray.data.fields import FileRef, Kind, is_label_name, kind_of, ref_to
from medray.data.masked_folders import find_beside, find_masked, patient_of
from medray.data.mesh_folders import find_meshes
from medray.data.places import Place
from medray.data.readers import MESH_SUFFIXES, TRACE_SUFFIXES, is_image_name, stem_of, suffix_of
from medray.errors import UserError
from medray.storage import StorageError

LAYOUTS = (
    "mr_images/ + mr_labels/; mr/ + mr_labels/; mr/images/ + mr/labels/; images/ + labels/ (or masks/, centrelines/); "
    "mri/ + tear/, tendon/ with masks of the same names; one folder per patient with t1.nii.gz, flair.nii.gz, "
    "label.nii.gz; folders of DICOM slices; one folder per modality or class; name.nii.gz + "
    "name_label.nii.gz; or meshes (.stl .ply .obj) with name.json, .npz or .txt"
)
LABEL_FOLDERS = ("labels", "label", "masks", "mask", "segmentations", "seg", "instances", "vessels")
TRACE_FOLDERS = ("centrelines", "centerlines", "traces", "swc")
# fmt: off
MODALITIES = frozenset({
    "ct", "cbct", "cta", "pet", "spect", "xray", "cxr", "us", "trus", "ultrasound", "mr", "mri", "mra", "he", "ihc",
    "pas", "t1", "t1w", "t1c", "t1ce", "t1gd", "t1post", "t2", "t2w", "t2star", "flair", "stir", "dixon", "pd", "dwi",
    "adc", "dce", "swi", "asl", "bold", "dti", "fa", "image",
})
# fmt: on
SPLIT_FOLDERS = {"train": "train", "training": "train", "validation": "validation", "val": "validation", "test": "test"}
_LABEL_SUFFIX = re.compile(r"[_-](?:label|labels|seg|segmentation|mask)(?P<number>[_-]?\d+)?$", re.IGNORECASE)


@dataclass
class Found:
    """Cases of a layout, and what does not fit into it."""

    cases: list[Case] = field(default_factory=list)
    bad: list[BadCase] = field(default_factory=list)

    def add(self, other: Found) -> None:
        """Take over another's cases."""
        self.cases += other.cases
        self.bad += other.bad


def discover(root: Place, kinds: Mapping[str, Kind] | None = None) -> Found:
    """Find the cases of a folder.

    Args:
        root: the folder.
        kinds: how fields are read where the name does not tell; see `fields.kind_of`.

    Returns:
        Cases sorted by id, and orphan labels and unreadable series.

    Raises:
        UserError: it is missing, not a folder, empty, or of no known layout; the sentence lists the layouts.
    """
    if not root.exists():
        raise UserError(f"{root} does not exist; --data takes a folder, a manifest (.csv, .parquet) or phantom:NAME")
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    entries = _entries(root)
    if not entries:
        raise UserError(f"{root} is empty; expected one of: {LAYOUTS}")
    splits = {folder: SPLIT_FOLDERS[folder.name.lower()] for folder in entries if folder.name.lower() in SPLIT_FOLDERS}
    if splits and all(folder.is_dir() for folder in splits):
        return _with_table(root, _in_splits(splits, kinds))
    found = _match(root, entries, kinds)
    if not found.cases:
        orphans = f"; {found.bad[0].reason}" if found.bad else ""
        raise UserError(f"{root} holds no images in a known layout{orphans}; expected one of: {LAYOUTS}")
    found.cases.sort(key=lambda case: case.id)
    _drop_double_ids(found)
    return _with_table(root, found)


def _with_table(root: Place, found: Found) -> Found:
    cases, bad = with_table(root, found.cases)
    return Found(cases, [*found.bad, *bad])


def by_fields(root: Place, columns: Mapping[str, str], kinds: Mapping[str, Kind] | None = None) -> Found:
    """Cases of a folder whose sub-folders are named as fields: ``{"image": "mri", "label": "tear"}``.

    Files are matched by stem; a case has the fields whose folder has its file, and needs the first one.

    Raises:
        UserError: a named sub-folder is missing or empty.
    """
    files: dict[str, dict[str, Place]] = {}
    for name, folder in columns.items():
        if not (root / folder).is_dir():
            raise UserError(f"{root / folder} does not exist; {name}={folder} names a sub-folder of {root}")
        files[name] = {stem_of(p): p for p in sorted((root / folder).iterdir()) if suffix_of(p) and p.is_file()}
        if not files[name]:
            raise UserError(f"{root / folder} holds no image, array or table files")
    main = next(iter(columns))
    found = Found()
    for stem in sorted(set().union(*files.values())):
        paths = {name: members[stem] for name, members in files.items() if stem in members}
        if main not in paths:
            lost = min(str(path) for path in paths.values())
            found.bad.append(BadCase(stem, f"{lost} has no {main} of the same name", lost))
            continue
        refs = {name: ref_to(path, kind_of(name, str(path), kinds)) for name, path in paths.items()}
        found.cases.append(Case(stem, patient_of(stem), refs))
    return _with_table(root, found)


def _in_splits(splits: Mapping[Place, str], kinds: Mapping[str, Kind] | None) -> Found:
    found = Found()
    for folder, role in splits.items():
        inner = discover(folder, kinds)
        found.cases += [
            Case(f"{role}/{case.id}", case.patient, case.fields, {**case.attributes, "split": role})
            for case in inner.cases
        ]
        found.bad += inner.bad
    found.cases.sort(key=lambda case: case.id)
    return found


def _match(root: Place, entries: Sequence[Place], kinds: Mapping[str, Kind] | None) -> Found:
    folders = [entry for entry in entries if entry.is_dir()]
    near = [file for entry in entries for file in (_entries(entry) if entry.is_dir() else [entry])]
    clouds = "mesh" in (kinds or {}).values()
    if clouds or any(suffix_of(file) in MESH_SUFFIXES for file in near) or not any(map(is_image_name, near)):
        meshes = Found(*find_meshes(root, clouds=clouds))
        if meshes.cases:
            return meshes
    layouts: tuple[Callable[[], Found], ...] = (
        lambda: Found(*find_masked(folders)),
        lambda: _modality_folders(folders),
        lambda: Found(*find_beside(folders, MODALITIES, LABEL_FOLDERS, kinds)),
        lambda: _plain_folders(folders),
        lambda: _dicom(root),
    )
    for layout in layouts:
        found = layout()
        if found.cases or found.bad:
            return found
    images = {folder: _images(folder) for folder in folders}
    images = {folder: files for folder, files in images.items() if files}
    if images and all(_is_patient_folder(folder, files) for folder, files in images.items()):
        found = Found()
        for folder, files in images.items():
            found.add(_patient(folder, files, kinds))
        return found
    found = Found()
    for folder, files in images.items():
        names_modality = folder.name.lower() in MODALITIES
        inner = _paired(files, [], folder.name, "modality" if names_modality else "class")
        _add_traces(inner, _traces(folder, TRACE_SUFFIXES), folder.name)
        found.add(inner)
    loose = _paired([entry for entry in entries if entry.is_file() and is_image_name(entry)], [], "", "")
    _add_traces(loose, [entry for entry in entries if entry.is_file() and suffix_of(entry) in TRACE_SUFFIXES])
    found.add(loose)
    return found


def _modality_folders(folders: Sequence[Place]) -> Found:
    """`mr_images` + `mr_labels`, `mr` + `mr_labels`, `mr/images` + `mr/labels`."""
    by_name = {folder.name: folder for folder in folders}
    found = Found()
    for name, folder in by_name.items():
        if name.endswith("_images"):
            modality, images = name.removesuffix("_images"), folder
            labels = _first(by_name, [f"{modality}_{label}" for label in LABEL_FOLDERS])
        elif (folder / "images").is_dir():
            modality, images = name, folder / "images"
            labels = next((folder / label for label in LABEL_FOLDERS if (folder / label).is_dir()), None)
        else:
            modality, images = name, folder
            labels = _first(by_name, [f"{name}_{label}" for label in LABEL_FOLDERS])
            if labels is None:
                continue
        found.add(_paired(_images(images), _images(labels) if labels else [], modality, "modality"))
    return found if found.cases else Found()


def _plain_folders(folders: Sequence[Place]) -> Found:
    """`images` + `labels` or `masks`, `centrelines`."""
    by_name = {folder.name.lower(): folder for folder in folders}
    if "images" not in by_name:
        return Found()
    labels, lines = _first(by_name, LABEL_FOLDERS), _first(by_name, TRACE_FOLDERS)
    found = _paired(_images(by_name["images"]), _images(labels) if labels else [], "", "")
    beside = _traces(by_name["images"], TRACE_SUFFIXES)
    _add_traces(found, _traces(lines, (*TRACE_SUFFIXES, ".json")) if lines else beside)
    return found


def _traces(folder: Place, suffixes: Sequence[str]) -> list[Place]:
    return [entry for entry in _entries(folder) if entry.is_file() and suffix_of(entry) in suffixes]


def _add_traces(found: Found, files: Sequence[Place], folder: str = "") -> None:
    """Give cases the centrelines of the same stem; report those without an image."""
    places = {case.id: number for number, case in enumerate(found.cases)}
    for path in files:
        name = f"{folder}/{stem_of(path)}" if folder else stem_of(path)
        if name not in places:
            found.bad.append(BadCase(name, f"centrelines {path} have no image of the same name", str(path)))
            continue
        case = found.cases[places[name]]
        fields = {**case.fields, "centrelines": ref_to(path, "traces")}
        found.cases[places[name]] = replace(case, fields=fields)


def _first(by_name: Mapping[str, Place], names: Iterable[str]) -> Place | None:
    return next((by_name[name] for name in names if name in by_name), None)


def _paired(images: Sequence[Place], labels: Sequence[Place], folder: str, attribute: str) -> Found:
    """One case per image; labels by the same stem, from ``labels`` or beside the images as `stem_label`."""
    beside = {path for path in images if _LABEL_SUFFIX.search(stem_of(path))}
    own = [path for path in images if path not in beside]
    if not own:  # every name ends in _mask: then these are the images
        own, beside = list(images), set()
    by_stem: dict[str, dict[str, Place]] = {}
    for path in [*labels, *sorted(beside)]:
        stem = stem_of(path)
        match = _LABEL_SUFFIX.search(stem)
        number = (match.group("number") or "").strip("_-") if match else ""
        known = {stem_of(image) for image in own}
        target = stem if stem in known or match is None else stem[: match.start()]
        by_stem.setdefault(target, {})[f"label_{number}" if number else "label"] = path
    found = Found()
    for path in own:
        stem = stem_of(path)
        refs = {"image": ref_to(path, "image")}
        refs.update({name: ref_to(label, "label") for name, label in by_stem.pop(stem, {}).items()})
        attributes = {attribute: folder, "folder": folder} if attribute else {}
        found.cases.append(Case(f"{folder}/{stem}" if folder else stem, patient_of(stem), refs, attributes))
    for stem, orphans in by_stem.items():
        for path in orphans.values():
            name = f"{folder}/{stem}" if folder else stem
            found.bad.append(BadCase(name, f"label {path} has no image of the same name", str(path)))
    return found


def _modality_in(stem: str, folder: str) -> str:
    """``t1`` for ``t1`` and for ``patient07_t1`` in the folder patient07."""
    return (stem.removeprefix(folder).lstrip("_-") or stem).lower() if stem.startswith(folder) else stem.lower()


def _is_patient_folder(folder: Place, files: Sequence[Place]) -> bool:
    """Whether its files are named by what they show, not by whom."""
    names = [_modality_in(stem_of(path), folder.name) for path in files]
    return any(name in MODALITIES or name.split("_")[0] in MODALITIES for name in names) or {"moving", "fixed"} <= set(
        names
    )


def _patient(folder: Place, files: Sequence[Place], kinds: Mapping[str, Kind] | None) -> Found:
    """The cases of one patient's folder: a ready-made pair, or one case per modality."""
    named = {_modality_in(stem_of(path), folder.name): path for path in files}
    if {"moving", "fixed"} <= set(named):
        refs = {name: ref_to(path, kind_of(name, str(path), kinds)) for name, path in named.items()}
        return Found([Case(folder.name, folder.name, refs)])
    labels = {name: path for name, path in named.items() if is_label_name(name)}
    images = {name: path for name, path in named.items() if name not in labels}
    own = {_label_owner(name, images): path for name, path in labels.items() if _label_owner(name, images)}
    shared = {name: path for name, path in labels.items() if not _label_owner(name, images)}
    main = next((name for name in shared if name.startswith("label")), next(iter(shared)) if len(shared) == 1 else "")
    found = Found()
    for name, path in images.items():
        refs = {"image": ref_to(path, "image")}
        refs.update({"label" if label == main else label: ref_to(p, "label") for label, p in shared.items()})
        if name in own:
            refs["label"] = ref_to(own[name], "label")
        attributes = {"modality": name} if name != "image" else {}
        case_id = f"{name}/{folder.name}" if attributes else folder.name
        found.cases.append(Case(case_id, folder.name, refs, attributes))
    if not images:
        found.bad += [
            BadCase(folder.name, f"label {path} has no image beside it", str(path)) for path in labels.values()
        ]
    return found


def _label_owner(name: str, images: Mapping[str, Place]) -> str:
    """The modality a label map belongs to: t1 for ``t1_label`` and ``label_t1``; empty if it is for all of them."""
    words = [word for word in re.split(r"[_-]", name) if not is_label_name(word)]
    joined = "_".join(words)
    return joined if joined in images else ""


def _dicom(root: Place) -> Found:
    """One case per DICOM series below ``root``."""
    from medray.data.formats import dicom

    found = Found()
    for relative, folder in [("", root), *_folders_below(root, "")]:
        if not dicom.dicom_files(folder):
            continue
        name = relative or root.name
        try:
            series = dicom.series_in(folder)
        except StorageError:
            raise  # the storage's fault, not the series'
        except UserError as error:
            found.bad.append(BadCase(name, str(error), str(folder)))
            continue
        for number, one in enumerate(series):
            ref = ref_to(folder, "image", "" if len(series) == 1 else one.uid)
            attributes = {"folder": name, **({"modality": one.modality} if one.modality else {})}
            case_id = name if len(series) == 1 else f"{name}/{number}"
            patient = one.patient or (relative or ".").split("/", 1)[0]
            found.cases.append(Case(case_id, patient, {"image": ref}, attributes))
    return found


def _folders_below(folder: Place, relative: str) -> Iterator[tuple[str, Place]]:
    """Folders at any depth, each before those in it, with their names relative to the first."""
    for entry in _entries(folder):
        if entry.is_dir():
            name = f"{relative}/{entry.name}" if relative else entry.name
            yield name, entry
            yield from _folders_below(entry, name)


def _entries(folder: Place) -> list[Place]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _images(folder: Place) -> list[Place]:
    return [entry for entry in _entries(folder) if entry.is_file() and is_image_name(entry)]


def _drop_double_ids(found: Found) -> None:
    """Two files of one stem (a.png, a.jpg) would be the same case: keep the first, report the rest."""
    seen: set[str] = set()
    kept = []
    for case in found.cases:
        if case.id in seen:
            ref = case.fields["image"]
            path = ref.path if isinstance(ref, FileRef) else ""
            found.bad.append(BadCase(case.id, f"{path} has the same name as another image of its folder", path))
        else:
            kept.append(case)
        seen.add(case.id)
    found.cases = kept
