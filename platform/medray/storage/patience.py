"""Trying again through an outage: one warning when it begins, one line when it is over."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from medray.storage.failures import StorageUnreachable, judge

T = TypeVar("T")
logger = logging.getLogger(__name__)

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 8.0


class _Outages:
    """Which buckets do not answer at the moment, for all threads of a process: each outage is told once."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forked)  # another thread may have held the lock

    def _forked(self) -> None:
        self._lock = threading.Lock()

    def begins(self, bucket: str, reason: str, patience_s: float) -> None:
        with self._lock:
            news = bucket not in self._since
            self._since.setdefault(bucket, time.monotonic())
        if news:
            logger.warning("%s does not answer (%s); trying again for up to %g s", bucket, reason, patience_s)

    def ends(self, bucket: str) -> None:
        if bucket not in self._since:  # the usual case costs no lock
            return
        with self._lock:
            since = self._since.pop(bucket, None)
        if since is not None:
            logger.info("%s answers again after %.0f s", bucket, time.monotonic() - since)

    def given_up(self, bucket: str) -> None:
        with self._lock:
            self._since.pop(bucket, None)


_OUTAGES = _Outages()


def patiently(
    action: Callable[[], T], url: str, *, verb: str, patience_s: float, stop: threading.Event | None = None
) -> T:
    """Call ``action`` until it succeeds, with growing random pauses.

    Args:
        action: a request that may be repeated.
        url: what it is about, for messages.
        verb: what it does: "read", "write", "list" or "delete".
        patience_s: how long failures that may pass are waited out.
        stop: set it from another thread to give up at once.

    Raises:
        StorageUnreachable: still failing after ``patience_s``, or ``stop`` was set.
        StorageError: it cannot succeed.
        FileNotFoundError: there is no such object.
    """
    bucket = "/".join(url.split("/", 3)[:3])
    end = time.monotonic() + patience_s
    delay = FIRST_DELAY_S
    while True:
        try:
            result = action()
        except Exception as error:
            verdict = judge(error, url, verb)
            if verdict is error:
                raise
            if isinstance(verdict, Exception):
                raise verdict from None  # botocore's own texts hold urls and worse
        else:
            _OUTAGES.ends(bucket)
            return result
        remaining = end - time.monotonic()
        if remaining <= 0:
            _OUTAGES.given_up(bucket)
            raise StorageUnreachable(
                f"{bucket} did not answer for {patience_s:g} s ({verdict}) to {verb} {url}; check the network and the "
                "endpoint, then start again"
            )
        _OUTAGES.begins(bucket, verdict, patience_s)
        if _pause(min(delay * random.uniform(0.5, 1.0), remaining), stop):
            raise StorageUnreachable(
                f"{bucket} does not answer ({verdict}), and waiting for it to {verb} {url} was stopped"
            )
        delay = min(2 * delay, LONGEST_DELAY_S)


def _pause(seconds: float, stop: threading.Event | None) -> bool:
    if stop is None:
        time.sleep(seconds)
        return False
    return stop.wait(seconds)
