"""An S3 server for tests (moto, an emulator that keeps everything in memory) and a bad network in front of it.

    with object_store() as store:                      # AWS_* point at it
        store.bucket("scans")
        with store.bad_network() as network:           # AWS_* point at the proxy
            network.refuse()

The server is a process of its own: it shares no lock with the test, and can be stopped by its pid. It ends with the
test's process, however that ends, since it watches the pipe between them.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

ACCESS_KEY = "AKIAFAKEFORTESTS0000"
SECRET_KEY = "fake-secret-for-tests-0123456789abcdefgh"
SESSION_TOKEN = "fake-session-token-for-tests-9876543210"

_SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").disabled = True
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


@dataclass
class Store:
    """A running server."""

    endpoint: str
    pid: int

    def client(self) -> Any:
        """A boto3 client that speaks to the server itself, whatever the network does."""
        import boto3.session

        return boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1").client(
            "s3", endpoint_url=self.endpoint
        )

    def bucket(self, name: str) -> str:
        """Make a bucket and return its url."""
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"

    @contextmanager
    def bad_network(self) -> Iterator[Network]:
        """Lead all traffic of this environment through a proxy that can misbehave."""
        network = Network(self.endpoint)
        try:
            with environment(AWS_ENDPOINT_URL=network.endpoint):
                yield network
        finally:
            network.close()


@contextmanager
def object_store() -> Iterator[Store]:
    """Start a server on a free port of 127.0.0.1, with AWS_* set to it and to made-up credentials."""
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet
    )
    try:
        assert process.stdout is not None
        host, port = process.stdout.readline().split()
        endpoint = f"http://{host}:{port}"
        with environment(
            AWS_ENDPOINT_URL=endpoint,
            AWS_ACCESS_KEY_ID=ACCESS_KEY,
            AWS_SECRET_ACCESS_KEY=SECRET_KEY,
            AWS_SESSION_TOKEN=SESSION_TOKEN,
            AWS_REGION="us-east-1",
            AWS_CONFIG_FILE=os.devnull,
            AWS_SHARED_CREDENTIALS_FILE=os.devnull,
            AWS_EC2_METADATA_DISABLED="true",
            AWS_PROFILE=None,
            AWS_ENDPOINT_URL_S3=None,
        ):
            yield Store(endpoint, process.pid)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def environment(**values: str | None) -> Iterator[None]:
    """Environment variables for the duration; None unsets one."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


class Network:
    """A TCP proxy on loopback. As made it passes everything on; each method says how it misbehaves until `heal`.

    Attributes:
        endpoint: what clients connect to.
        bytes_answered: how much the server has said so far.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.bytes_answered = 0
        self._listener: socket.socket | None = None
        self._port = 0
        self._listen()
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self.heal()

    def heal(self) -> None:
        """Pass everything on again."""
        self._hanging = False
        self._cut_after = self._flip_at = self._bytes_per_s = 0
        self._cuts_left = -1
        self._answer = b""
        self._listen()

    def refuse(self) -> None:
        """Cut what is open and accept no connection."""
        if self._listener is not None:
            # closing alone would leave the accepting thread with its socket
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.drop()

    def drop(self) -> None:
        """Reset the connections there are; new ones work."""
        with self._lock:
            connections, self._open = self._open, set()
        for connection in connections:
            _reset(connection)

    def hang(self) -> None:
        """Accept, and pass nothing on."""
        self._hanging = True
        self.drop()

    def cut(self, after: int, times: int = -1) -> None:
        """Reset a connection when ``after`` bytes of answers have passed through it; ``times`` times, -1 for always."""
        self._cut_after, self._cuts_left = after, times
        self.drop()

    def flip(self, at: int, times: int = -1) -> None:
        """Change the byte at this place of what a connection answers."""
        self._flip_at, self._cuts_left = at, times
        self.drop()

    def slow(self, bytes_per_s: int) -> None:
        """Let this much through, per connection."""
        self._bytes_per_s = bytes_per_s

    def answer(self, status: int, code: str) -> None:
        """Answer every request with this S3 error."""
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>said by the proxy</Message></Error>".encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self._answer = head.encode() + body
        self.drop()

    def close(self) -> None:
        """End it."""
        self.refuse()

    def _listen(self) -> None:
        if self._listener is not None:
            return
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self._port))
        self._listener.listen(64)
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with self._lock:
            self._open.add(near)
        if self._hanging:
            return  # stays open and silent until it is dropped
        if self._answer:
            with suppress(OSError):
                near.recv(1 << 16)
                near.sendall(self._answer)
                near.shutdown(socket.SHUT_WR)
                while near.recv(1 << 16):  # a reset would swallow the answer
                    pass
            near.close()
            return
        try:
            far = socket.create_connection(self._target)
        except OSError:
            _reset(near)
            return
        with self._lock:
            self._open.add(far)
        threading.Thread(target=self._copy, args=(near, far, False), daemon=True).start()
        self._copy(far, near, True)

    def _copy(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        passed = 0
        try:
            while data := source.recv(1 << 14):
                while self._hanging:
                    time.sleep(0.01)
                if answers and self._cut_after and self._cuts_left and passed + len(data) > self._cut_after:
                    self._cuts_left -= 1
                    sink.sendall(data[: self._cut_after - passed])
                    break
                if answers and self._flip_at and self._cuts_left and passed <= self._flip_at < passed + len(data):
                    self._cuts_left -= 1
                    at = self._flip_at - passed
                    data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                sink.sendall(data)
                passed += len(data)
                with self._lock:
                    self.bytes_answered += len(data) if answers else 0
                if self._bytes_per_s:
                    time.sleep(len(data) / self._bytes_per_s)
            else:
                sink.shutdown(socket.SHUT_WR)
                return
        except OSError:
            pass
        for connection in (source, sink):
            _reset(connection)


def _reset(connection: socket.socket) -> None:
    """Close without the usual goodbye, so that the other side sees a broken connection."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
