"""Read a run directory back, whatever state it was left in.

Every file is optional: a run that died while training has no evaluation, one that died at once has little more than its
config. What cannot be read is named in `RunFiles.problems` so that the report can say so; nothing here guesses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medray.errors import UserError
from medray.figures.scene import Scene, read_scene

IMAGE_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}


@dataclass(frozen=True)
class Picture:
    """A figure of the run: its file, inside the run directory, what is to be seen on it, and the volume behind it."""

    name: str
    caption: str
    file: Path
    scene: Scene | None = None


@dataclass(frozen=True)
class RunFiles:
    """What a run directory holds; a missing file is an empty mapping or sequence, or None where that means something.

    Attributes:
        folder: the run directory.
        config: config.json: system, preset, variant, config, options, data, versions, command, started.
        log: the lines of metrics.jsonl, in the order they were written.
        evaluation: evaluation.json, None when the run was not evaluated.
        claim: claim.json, None when the run tested no claim.
        result: result.json, None when the run did not reach its end.
        pictures: the figures, in the order they were saved.
        problems: sentences about files that are there but cannot be used.
    """

    folder: Path
    config: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any] | None
    claim: Mapping[str, Any] | None
    result: Mapping[str, Any] | None
    pictures: Sequence[Picture]
    problems: Sequence[str]


def read_run(folder: Path) -> RunFiles:
    """Read everything a report needs.

    Raises:
        UserError: ``folder`` is not a directory.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a run directory; it should be a folder with a config.json in it")
    problems: list[str] = []
    config = _read_object(folder / "config.json", problems)
    if config is None:
        problems.append("config.json is missing: settings, data and versions of this run are unknown.")
    return RunFiles(
        folder=folder,
        config=config or {},
        log=_read_log(folder / "metrics.jsonl", problems),
        evaluation=_read_object(folder / "evaluation.json", problems),
        claim=_read_object(folder / "claim.json", problems),
        result=_read_object(folder / "result.json", problems),
        pictures=_find_pictures(folder, problems),
        problems=problems,
    )


def mapping(parent: Mapping[str, Any] | None, key: str) -> Mapping[str, Any]:
    """``parent[key]`` if it is a mapping, an empty one otherwise."""
    value = (parent or {}).get(key)
    return value if isinstance(value, Mapping) else {}


def objects(parent: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    """The mappings in the list ``parent[key]``; anything else is left out."""
    value = (parent or {}).get(key)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def as_number(value: object) -> float | None:
    """A JSON value as a number: null is NaN (how some writers spell it); None for text, lists and truth values."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def _read_object(path: Path, problems: list[str]) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read: {error}.")
        return None
    if not isinstance(value, dict):
        problems.append(f"{path.name} should hold a JSON object and holds a {type(value).__name__}.")
        return None
    return value


def _read_log(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error}.")
        return []
    records, num_broken = [], 0
    for line in filter(str.strip, lines):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            num_broken += 1  # the last line of a run that was killed while writing it
    if num_broken:
        problems.append(f"{num_broken} of {len(records) + num_broken} lines of {path.name} are broken and left out.")
    return records


def _find_pictures(folder: Path, problems: list[str]) -> list[Picture]:
    figures = folder / "figures"
    listed: list[Mapping[str, Any]] = []
    for index in (figures / "figures.json", folder / "figures.json"):
        try:
            value = json.loads(index.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            problems.append(f"{index.name} cannot be read: {error}.")
            continue
        listed = [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
        break
    if not listed and figures.is_dir():
        listed = [{"file": path.name} for path in sorted(figures.iterdir()) if path.suffix.lower() in IMAGE_TYPES]
    pictures = []
    for item in listed:
        name = str(item.get("file") or f"{item.get('name')}.png")
        file = _inside(folder, name, IMAGE_TYPES)
        if file is None:
            problems.append(f"The figure {name} is listed but is no picture in this run's figures folder.")
            continue
        scene = _read_scene(folder, str(item["scene"]), problems) if item.get("scene") else None
        pictures.append(Picture(str(item.get("name") or file.stem), str(item.get("caption") or ""), file, scene))
    return pictures


def _read_scene(folder: Path, name: str, problems: list[str]) -> Scene | None:
    file = _inside(folder, name, {".json"})
    if file is None:
        problems.append(f"The volume {name} is listed but is not in this run's figures folder.")
        return None
    try:
        return read_scene(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        problems.append(f"{name} cannot be read, so its figure cannot be turned: {error}.")
        return None


def _inside(folder: Path, name: str, suffixes: Container[str]) -> Path | None:
    # The list is data: an entry such as ../../secret.png must not pull a stranger's file into the report.
    for candidate in (folder / "figures" / name, folder / name):
        file = candidate.resolve()
        if file.is_file() and file.is_relative_to(folder.resolve()) and file.suffix.lower() in suffixes:
            return file
    return None
