"""Pieces of a run that are done once: a folder that is there as a whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from medray.engine.mirror import Mirror

_CONTENT = "stage.json"
"""Names and sizes of a finished stage's files: in object storage they do not appear at once."""


def run_stage(folder: Path, make: Callable[[Path], None], mirror: Mirror | None = None) -> Path:
    """Fill ``folder`` with ``make`` unless a whole one is there, here or where the run's files last.

    Args:
        folder: of the stage.
        make: fills the empty folder it is given.
        mirror: of the run, where that lives in object storage.
    """
    if not _is_whole(folder) and mirror is not None:
        mirror.fetch_below(folder.relative_to(mirror.local).as_posix())
    if _is_whole(folder):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    make(part)
    sizes = {p.relative_to(part).as_posix(): p.stat().st_size for p in sorted(part.rglob("*")) if p.is_file()}
    (part / _CONTENT).write_text(json.dumps(sizes))
    part.rename(folder)
    if mirror is not None:
        mirror.push()
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / _CONTENT).read_text())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (FileNotFoundError, ValueError):
        return False
