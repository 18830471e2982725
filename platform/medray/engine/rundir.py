"""A run's folder: what every job writes, where, and in which words."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medray.engine.mirror import Mirror
from medray.errors import UserError
from medray.figures.scene import scene_record
from medray.storage import Folder, is_url
from medray.storage.local import local_copy
from medray.system import Figure

_ROLE = "driver"
_LEFT_THERE = frozenset(("checkpoints", "tensorboard", "ledger", "annotation"))
"""Folders that are large and fetched when they are needed, or used only where they last: a copy of what people write,
sent back, would undo what they have changed since."""
_PACKAGES = ("medray", "ray", "torch", "monai", "numpy", "scipy", "nibabel", "SimpleITK", "itk-elastix")


class RunDirectory:
    """``<out>/<slug>/<run id>/``. Its files are the only thing the report, resume and predict read.

    Attributes:
        path: the folder on this machine.
        mirror: copies it to object storage, for a run that lives there; None for a folder that lasts by itself.
    """

    def __init__(self, path: Path, url: str = "") -> None:
        self.path = path
        self.mirror = Mirror(path, Folder(url)) if url else None

    def __str__(self) -> str:
        return self.mirror.remote.url if self.mirror else str(self.path)

    @classmethod
    def create(cls, out: str, slug: str, label: str) -> RunDirectory:
        """Make a new run folder named after the moment and what runs.

        Args:
            out: a folder, or an ``s3://`` url.
            slug: the system.
            label: what runs, for the name.

        Raises:
            UserError: it cannot be written.
        """
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for attempt in range(1000):
            name = f"{slug}/{stamp}-{label}" + (f"-{attempt}" if attempt else "")
            url = f"{out.rstrip('/')}/{name}" if is_url(out) else ""
            path = local_copy(url, _ROLE) if url else permanent(Path(out)) / name
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise UserError(f"cannot write to --out {out}: {error.strerror}") from None
            if not url or not Folder(url).exists():
                return cls(path, url)
        raise UserError(f"cannot find a free name for a run in {out}/{slug}")

    @classmethod
    def open(cls, where: str | Path) -> RunDirectory:
        """An existing run, in a folder or at an ``s3://`` url; of the latter all but its checkpoints is fetched.

        Raises:
            UserError: there is no run at ``where``.
        """
        if is_url(where):
            run = cls(local_copy(str(where).rstrip("/"), _ROLE), str(where).rstrip("/"))
            run.fetch("")
        else:
            run = cls(Path(where).resolve())
        if not run.config_file.is_file():
            raise UserError(f"{where} is not a run directory: it has no config.json")
        return run

    @classmethod
    def at(cls, where: str) -> RunDirectory:
        """A run in a place that its caller chose, a folder or an ``s3://`` url, new or not."""
        run = cls(local_copy(where, _ROLE), where) if is_url(where) else cls(permanent(Path(where)))
        run.path.mkdir(parents=True, exist_ok=True)
        run.fetch("")
        return run

    def fetch(self, folder: str) -> None:
        """Get a run's files below ``folder`` from object storage; "" for all that a run reads on this machine."""
        if self.mirror is None:
            return
        for entry in self.mirror.remote.list():
            left = not _LEFT_THERE.isdisjoint(entry.name.split("/"))
            if entry.name.startswith(f"{folder}/") if folder else not left:
                self.mirror.download(entry.name)

    def publish(self) -> None:
        """Make what was written here last, where that takes more than writing it."""
        if self.mirror is not None:
            self.mirror.push()

    @property
    def config_file(self) -> Path:
        """System, settings, data, versions and command."""
        return self.path / "config.json"

    @property
    def metrics_file(self) -> Path:
        """Every logged value, one JSON object per line."""
        return self.path / "metrics.jsonl"

    def read_config(self) -> dict[str, Any]:
        """The run's config.json.

        Raises:
            UserError: it is not readable.
        """
        try:
            config: dict[str, Any] = json.loads(self.config_file.read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {self.config_file}: {error}") from None
        return config

    def read_result(self) -> dict[str, Any] | None:
        """The run's result.json; None before its end."""
        try:
            result: dict[str, Any] = json.loads((self.path / "result.json").read_text())
        except (OSError, ValueError):
            return None
        return result

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file whole or not at all; nan becomes null.

        Raises:
            UserError: no space is left.
        """
        path = self.path / name
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            partial.write_text(json.dumps(plain(value), indent=1) + "\n")
        except OSError as error:
            partial.unlink(missing_ok=True)
            if error.errno == 28:
                raise UserError(f"no space left in {self.path}; free some and go on with --resume") from None
            raise
        os.replace(partial, path)
        return path

    def write_figures(self, figures: Sequence[Figure]) -> None:
        """Save pictures and scenes under figures/ and their captions in figures.json."""
        folder = self.path / "figures"
        folder.mkdir(exist_ok=True)
        listed = []
        for figure in figures:
            (folder / f"{figure.name}.png").write_bytes(figure.png)
            listed.append({"name": figure.name, "caption": figure.caption, "file": f"{figure.name}.png"})
            if figure.scene is not None:
                listed[-1]["scene"] = f"{figure.name}.scene.json"
                self.write_json(f"figures/{figure.name}.scene.json", scene_record(figure.scene))
        self.write_json("figures/figures.json", listed)


def permanent(out: Path) -> Path:
    """An absolute output folder that outlives the job.

    A job submitted with a working directory runs in an uploaded copy that Ray deletes, so a relative path would vanish
    with it; it goes to the home directory instead.
    """
    if not out.is_absolute() and "working_dir_files" in Path.cwd().parts:
        return (Path.home() / out).resolve()
    return out.resolve()


def append_json(path: Path, record: Mapping[str, Any]) -> None:
    """Append one line to a JSON-lines file; after half a line of a writer that was killed, one of its own."""
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        start = b"" if file.read() in (b"", b"\n") else b"\n"
        file.write(start + json.dumps(plain(record)).encode() + b"\n")


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a JSON-lines file; a half-written last line is left out."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def plain(value: Any) -> Any:
    """JSON's own types only: paths as text, dataclasses and tuples opened, nan and infinity as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int | bool) or value is None:
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return plain(value.item())
    return str(value)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages a result depends on."""
    found = {"python": platform.python_version(), "platform": sys.platform}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
