"""Trained systems on disk: what `train` leaves under checkpoints/final/ and `predict` takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import medray
from medray import registry
from medray.engine.checkpoint import WEIGHTS
from medray.engine.rundir import RunDirectory
from medray.errors import UserError
from medray.storage import is_url
from medray.storage.local import local_copy, on_this_machine
from medray.system import System, Trained

CARD = "medray.json"


def save_model(run: RunDirectory, system: System[Any], trained: Trained, *, variant: str) -> None:
    """Write ``checkpoints/final/``: weights as safetensors, the model's other files, and a JSON card that says how to
    rebuild the system.
    """
    folder = run.path / "checkpoints" / "final"
    folder.mkdir(parents=True, exist_ok=True)
    if trained.weights is not None:
        shutil.copyfile(on_this_machine(trained.weights), folder / WEIGHTS)
    files = {name: f"{name}{path.suffix}" for name, path in trained.files.items()}
    for name, path in trained.files.items():
        shutil.copyfile(on_this_machine(path), folder / files[name])
    run.write_json(
        f"checkpoints/final/{CARD}",
        {
            "medray": medray.__version__,
            "system": system.slug,
            "variant": variant,
            "config": asdict(system.config),
            "about": trained.about,
            "metrics": trained.metrics,
            "weights": WEIGHTS if trained.weights is not None else None,
            "files": files,
        },
    )


def load_model(where: str | Path, *, expect: str | None = None) -> tuple[System[Any], Trained, Mapping[str, Any]]:
    """Rebuild a system from a run directory or a checkpoint folder.

    Args:
        where: run directory (a folder or an ``s3://`` url), its checkpoints/final folder, or a file in that.
        expect: slug of the system the caller is about to use.

    Returns:
        the system with the config it was trained with, what training left, and the card's other fields.

    Raises:
        UserError: nothing readable there, or a checkpoint of another system.
    """
    path = _fetched_model(str(where)) if is_url(where) else Path(where)
    folder = next(
        (f for f in (path / "checkpoints" / "final", path, path.parent) if (f / CARD).is_file()),
        None,
    )
    if folder is None:
        if not path.exists():
            raise UserError(f"there is no checkpoint at {where}")
        raise UserError(f"{where} holds no finished checkpoint: expected a run directory or its checkpoints/final")
    try:
        card = json.loads((folder / CARD).read_text())
        slug, config, about = card["system"], card["config"], card["about"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read the checkpoint card {folder / CARD}: {error}") from None
    if expect is not None and slug != expect:
        raise UserError(f"{where} is a checkpoint of {slug}, not of {expect}; use `python jobs/{slug}.py predict`")
    system_class = registry.load(slug)
    weights = folder / WEIGHTS if card.get("weights") else None
    files = {name: folder / Path(kept).name for name, kept in (card.get("files") or {}).items()}
    for kept in (*([weights] if weights else []), *files.values()):
        if not kept.is_file():
            raise UserError(f"the checkpoint {folder} has lost its {kept.name}")
    system = system_class(config_from_plain(system_class.config_class, config))
    return system, Trained(weights=weights, about=about, metrics=card.get("metrics") or {}, files=files), card


def _fetched_model(url: str) -> Path:
    run = RunDirectory(local_copy(url.rstrip("/"), "driver"), url.rstrip("/"))
    run.fetch("checkpoints/final")
    run.fetch("")
    return run.path


def config_from_plain(config_class: type[Any], values: Mapping[str, Any]) -> Any:
    """A config dataclass from what JSON kept of it.

    Raises:
        UserError: a field is unknown to this version, or a value is refused by the config.
    """
    known = {f.name for f in fields(config_class)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UserError(f"this version of medray does not know the setting {unknown[0]!r} of {config_class.__name__}")
    try:
        return config_class(**{key: _tuples(value) for key, value in values.items()})
    except (TypeError, ValueError) as error:
        raise UserError(f"{config_class.__name__}: {error}") from None


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
