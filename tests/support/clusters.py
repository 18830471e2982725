"""A local Ray for tests: its own temporary folder, its own ports, no other cluster touched."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def local_ray(num_cpus: int = 2) -> Iterator[None]:
    """Start a Ray of this process alone; workers can import the test support modules."""
    import ray

    support = str(Path(__file__).parent)
    with tempfile.TemporaryDirectory(prefix="mr", dir="/tmp", ignore_cleanup_errors=True) as folder:
        previous = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (support, previous)))
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                logging_level="ERROR",
                log_to_driver=False,
                _temp_dir=folder,
            )
            yield
        finally:
            ray.shutdown()
            if previous is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = previous
