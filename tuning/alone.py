"""One driver at a time for a sweep: a second one would run the same trials in the same folders."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from medray.engine.rundir import RunDirectory
from medray.errors import UserError

_LOCK = ".driver"


@contextmanager
def alone(folder: RunDirectory) -> Iterator[None]:
    """Hold the sweep in ``folder`` as long as this process lives in the block; a kill lets go of it too.

    A sweep in object storage is held on this machine only.

    Raises:
        UserError: another process holds it.
    """
    with (folder.path / _LOCK).open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"the sweep in {folder} is being run by another process; end that one first") from None
        yield
