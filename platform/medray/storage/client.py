"""One boto3 client per process and setting, made when first needed."""

from __future__ import annotations

import logging
import os
import threading
from functools import lru_cache
from typing import Any

from medray.storage.failures import StorageError

# A client keeps what it read from these; a notebook that sets them after a failure gets a new client.
_SETTINGS = (
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_CA_BUNDLE",
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN",
)  # fmt: skip
_CONNECTIONS = 32


def client(patience_s: float) -> Any:
    """The S3 client of this process. Thread-safe; a forked child gets its own.

    Its timeouts are short parts of the patience, so that a connection that hangs is noticed, told and tried again.

    Raises:
        StorageError: the endpoint or the profile in the environment cannot be used.
    """
    settings = tuple(os.environ.get(name, "") for name in _SETTINGS)
    with _lock:
        return _make(os.getpid(), settings, min(5.0, patience_s / 12), min(15.0, patience_s / 6))


def forget() -> None:
    """Make a new client next time: this one found no credentials, and keeps that in mind."""
    with _lock:
        _make.cache_clear()


@lru_cache(maxsize=8)
def _make(pid: int, settings: tuple[str, ...], connect_timeout_s: float, read_timeout_s: float) -> Any:
    import boto3.session
    from botocore.config import Config

    for name in ("boto3", "botocore", "s3transfer", "urllib3"):
        if logging.getLogger(name).level == logging.NOTSET:  # at DEBUG botocore logs signatures and session tokens
            logging.getLogger(name).setLevel(logging.INFO)
    config = Config(
        connect_timeout=max(0.2, connect_timeout_s),
        read_timeout=max(0.5, read_timeout_s),
        retries={"mode": "standard", "total_max_attempts": 2},  # the patience is ours; this spares a part of an upload
        max_pool_connections=_CONNECTIONS,
        user_agent_extra="medray",
    )
    try:
        session = boto3.session.Session(region_name=os.environ.get("AWS_REGION") or None)
        return session.client("s3", config=config)
    except ValueError:  # its text repeats the endpoint, which may hold a password
        raise StorageError(
            "AWS_ENDPOINT_URL is not a url that can be used; expected http://HOST:PORT or https://HOST"
        ) from None


_lock = threading.Lock()


def _forked() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_forked)
