"""Where this machine keeps its copy of a folder in object storage.

A copy belongs to one role (the driver, a worker): on one machine they must not overwrite each other's files. Its path
tells the url, so that a path into one machine's copy can be followed on any other.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from medray.storage.folder import Folder

_MARK = "medray-copies"


def copies_root() -> Path:
    """MEDRAY_SCRATCH, else medray's folder in the user's cache directory."""
    given = os.environ.get("MEDRAY_SCRATCH")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medray"
    return (Path(given).expanduser().resolve() if given else cache) / _MARK


def local_copy(url: str, role: str) -> Path:
    """The folder that holds this role's copy of what is at ``url``; it may not exist yet."""
    return copies_root() / role / url.replace("://", "/", 1)


def on_this_machine(path: Path) -> Path:
    """``path`` itself; if it leads into another machine's copy and is not on this one, it is downloaded first.

    Raises:
        UserError: object storage does not answer, or refuses.
    """
    parts = path.parts
    if path.exists() or _MARK not in parts:
        return path
    _, scheme, *rest = parts[parts.index(_MARK) + 1 :]
    url, name = f"{scheme}://{'/'.join(rest[:-1])}", rest[-1]
    with contextlib.suppress(FileNotFoundError):  # whoever opens it says so in its own words
        Folder(url).download(name, path)
    return path
