"""Open every file of a source before the work starts, and say what is wrong in one line per case."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np

from medray.data.case import BadCase, Case, Mesh, Volume
from medray.data.fields import FileRef, case_fingerprint, is_label_name
from medray.data.formats.mesh import per_vertex
from medray.data.packed import PackedRef
from medray.errors import UserError
from medray.storage import StorageError

Policy = Literal["fail", "quarantine"]
Progress = Callable[[int, int], None]
"""Called with (cases done, cases in all)."""
_MAX_LINES = 10


def check_cases(
    cases: Sequence[Case],
    *,
    required: Iterable[str],
    spatial_dims: int | None = None,
    policy: Policy = "fail",
    progress: Progress | None = None,
    known_labels: Collection[int] | None = None,
    empty_labels: bool = False,
    workers: int = 4,
) -> tuple[tuple[Case, ...], tuple[BadCase, ...]]:
    """Load every field of every case and look for what would fail or mislead later.

    Found are: a required field that the case lacks; files that are missing, truncated, not images, or hold NaN; another
    number of axes than ``spatial_dims``; a label map of another shape than its image, or lying elsewhere in world
    space; an empty label map; a label value that is not known; a pair whose two label maps share no organ; a case whose
    required fields have the same content as an earlier case's; a mesh without faces, or with another number of labels
    than vertices (`formats.mesh.per_vertex`).

    Args:
        cases: of a source.
        required: fields each case must have. Others are checked where they are present.
        spatial_dims: 2 or 3, None for either.
        policy: ``fail`` raises, ``quarantine`` sets the bad cases aside.
        progress: told after each case.
        known_labels: values a label map may hold besides 0, None for any.
        empty_labels: whether a label map may hold nothing but 0.
        workers: threads that read.

    Returns:
        The good cases in their given order, and the bad ones.

    Raises:
        UserError: ``fail`` and something is wrong (the first ten, one per line); or no good case is left.
        StorageError: object storage cannot be used, whatever the policy.
    """
    required = tuple(required)
    check = functools.partial(
        _problem, required=required, spatial_dims=spatial_dims, known_labels=known_labels, empty_labels=empty_labels
    )
    reasons: list[BadCase | None] = []
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for bad in pool.map(check, cases):
            reasons.append(bad)
            if progress is not None:
                progress(len(reasons), len(cases))
    reasons = _with_duplicates(cases, reasons, required)
    wrong = tuple(bad for bad in reasons if bad is not None)
    if wrong and policy == "fail":
        raise UserError(_told(wrong, len(cases)))
    good = tuple(case for case, bad in zip(cases, reasons, strict=True) if bad is None)
    if wrong and not good:
        raise UserError("no case is usable. " + _told(wrong, len(cases)))
    return good, wrong


def _told(wrong: Sequence[BadCase], total: int) -> str:
    """The first problem in a sentence of its own, then one line for each further case."""
    first = f"case {wrong[0].case}: {wrong[0].reason}"
    if len(wrong) == 1:
        return f"{first} (1 of {total} cases; --bad-samples quarantine goes on without it)"
    lines = [f"  case {bad.case}: {bad.reason}" for bad in wrong[1:_MAX_LINES]]
    if len(wrong) > _MAX_LINES:
        lines.append(f"  and {len(wrong) - _MAX_LINES} more")
    head = (
        f"{first} ({len(wrong)} of {total} cases are bad; --bad-samples quarantine goes on without them). The others:"
    )
    return "\n".join([head, *lines])


def _with_duplicates(
    cases: Sequence[Case], reasons: Sequence[BadCase | None], required: Sequence[str]
) -> list[BadCase | None]:
    seen: dict[str, str] = {}
    result = list(reasons)
    for index, case in enumerate(cases):
        if result[index] is not None:
            continue
        first = seen.setdefault(case_fingerprint(case, required), case.id)
        if first != case.id:
            result[index] = BadCase(case.id, f"its files have the same content as those of case {first}", _file(case))
    return result


def _problem(
    case: Case,
    *,
    required: Sequence[str],
    spatial_dims: int | None,
    known_labels: Collection[int] | None,
    empty_labels: bool,
) -> BadCase | None:
    for name in required:
        if name not in case.fields:
            return BadCase(case.id, f"it has no {name}; its fields are {', '.join(case.fields) or 'none'}", _file(case))
    volumes: dict[str, Volume] = {}
    meshes: list[Mesh] = []
    for name in sorted(case.fields, key=is_label_name):  # a mesh before its labels
        try:
            value = case.load(name)
            if isinstance(value, Volume):
                volumes[name] = value
                _check_volume(case, name, value, spatial_dims, known_labels, empty_labels)
            elif isinstance(value, Mesh):
                meshes.append(value)
            elif meshes and is_label_name(name) and isinstance(value, np.ndarray):
                per_vertex(meshes[0], value)
        except StorageError:
            raise  # the storage's fault, not the case's
        except UserError as error:
            return BadCase(case.id, str(error), _file(case, name))
    for name, volume in volumes.items():
        image = _image_of(name, volumes)
        if image and (reason := _mismatch(name, volume, image, volumes[image])):
            return BadCase(case.id, reason, _file(case, name))
    if {"moving_label", "fixed_label"} <= set(volumes):
        shared = label_values(volumes["moving_label"]) & label_values(volumes["fixed_label"])
        if not shared:
            return BadCase(
                case.id, "its moving_label and fixed_label have no organ in common", _file(case, "moving_label")
            )
    return None


def _check_volume(
    case: Case,
    name: str,
    volume: Volume,
    spatial_dims: int | None,
    known_labels: Collection[int] | None,
    empty_labels: bool,
) -> None:
    where = volume.source or f"its {name}"
    if spatial_dims is not None and volume.spatial_dims != spatial_dims:
        shape = " x ".join(str(n) for n in volume.shape)
        raise UserError(f"{where} is {volume.spatial_dims}D ({shape}) where a {spatial_dims}D image is expected")
    if not _is_label(case, name):
        return
    values = label_values(volume)
    if not values and not empty_labels:
        raise UserError(f"{where} is an empty label map, every value is 0")
    unknown = sorted(values - set(known_labels)) if known_labels is not None else []
    if unknown:
        known = ", ".join(str(value) for value in sorted(known_labels or ()))
        raise UserError(f"{where} holds the label value {unknown[0]}; known are {known}")


def _is_label(case: Case, name: str) -> bool:
    ref = case.fields[name]
    return ref.kind == "label" if isinstance(ref, FileRef | PackedRef) else is_label_name(name)


def label_values(volume: Volume) -> frozenset[int]:
    """The values of a label map other than 0; of several channels (overlapping masks) the numbers of those in use."""
    array = volume.array
    if array.shape[0] > 1:
        return frozenset(channel + 1 for channel in range(array.shape[0]) if array[channel].any())
    return frozenset(int(value) for value in np.unique(array) if value)


def _image_of(name: str, volumes: Mapping[str, Volume]) -> str:
    """The image a field lies on: moving for moving_label, image for label and other single-image fields."""
    head = name.rsplit("_", 1)[0]
    if head != name and head in volumes:
        return head
    target = "fixed" if "fixed" in volumes else "image"
    return (
        target
        if name != target and name not in ("moving", "fixed") and is_label_name(name) and target in volumes
        else ""
    )


def _mismatch(name: str, label: Volume, image_name: str, image: Volume) -> str:
    """What keeps a label map from lying on its image, or nothing."""
    if label.shape != image.shape:
        return (
            f"{label.source or name} has the shape {_times(label)}, its {image_name} {_times(image)}; "
            "label and image must lie on one grid"
        )
    ends = np.array(
        [[0, 0, 0, 1], [*(n - 1 for n in image.shape), *[0] * (3 - image.spatial_dims), 1]], dtype=np.float64
    )
    distance = float(np.abs(ends @ (label.affine - image.affine).T).max())
    if distance > 0.5 * min(image.spacing):
        return (
            f"{label.source or name} lies elsewhere than its {image_name}, up to {distance:.1f} mm apart; "
            "save it with the image's affine"
        )
    return ""


def _times(volume: Volume) -> str:
    return " x ".join(str(n) for n in volume.shape)


def _file(case: Case, name: str | None = None) -> str:
    refs: Iterable[Any] = [case.fields[name]] if name is not None else case.fields.values()
    return next((ref.path for ref in refs if isinstance(ref, FileRef | PackedRef)), "")
