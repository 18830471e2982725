"""One driver at a time for a sweep: a second one would run the same trials in the same folders."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from medray.engine.rundir import RunDirectory
from medray.errors import UserError

log = logging.getLogger("medray.tuning")

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
        except OSError:  # some shared file systems have no such locks: then nobody is refused
            log.warning("%s cannot be locked: see to it that no other process runs this sweep", folder)
        yield
