"""What a bad network, a broken service and wrong credentials do. Patience is short here; the rules are the same."""

from __future__ import annotations

import logging
import os
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from object_store import ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, Network, Store, environment

from medray.errors import UserError
from medray.storage import Folder, StorageUnreachable
from medray.storage.folder import _Transfer

MEGABYTE = bytes(range(256)) * 4096


def _said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("medray") and r.levelno == level]


def _later(seconds: float, action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


@pytest.mark.parametrize(("kind", "seconds"), [("refuse", 3), ("hang", 7)])
def test_an_outage_is_waited_out_and_told_once(
    network: Network, bucket: str, caplog: pytest.LogCaptureFixture, kind: str, seconds: float
) -> None:
    caplog.set_level(logging.INFO)
    folder = Folder(bucket, patience_s=15)  # a connection that hangs is given up twice after 15 s / 6, then told
    folder.write("a", b"before")
    getattr(network, kind)()
    timer = _later(seconds, network.heal)
    folder.write("a", b"during")
    folder.write("a", b"after")
    timer.join()
    assert folder.read("a") == b"after"
    (warning,) = _said(caplog, logging.WARNING)
    assert warning.startswith(f"{bucket} does not answer (")
    assert warning.endswith("trying again for up to 15 s")
    (info,) = _said(caplog, logging.INFO)
    assert info.startswith(f"{bucket} answers again after ")


def test_threads_tell_of_one_outage_once(network: Network, bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = Folder(bucket, patience_s=30)
    network.refuse()
    threads = [threading.Thread(target=folder.write, args=(f"{i}", b"x")) for i in range(6)]
    for thread in threads:
        thread.start()
    timer = _later(2, network.heal)
    for thread in threads:
        thread.join()
    timer.join()
    assert len(folder.list()) == 6
    assert len(_said(caplog, logging.WARNING)) == 1


def test_patience_ends_in_one_sentence(network: Network, bucket: str) -> None:
    network.refuse()
    with pytest.raises(StorageUnreachable) as caught:
        Folder(bucket, patience_s=1).read("a")
    assert str(caught.value).startswith(f"{bucket} did not answer for 1 s (no connection at 127.0.0.1:")
    assert isinstance(caught.value, UserError)
    assert caught.value.__cause__ is None


def test_waiting_can_be_stopped(network: Network, bucket: str) -> None:
    network.refuse()
    stop = threading.Event()
    timer = _later(1, stop.set)
    with pytest.raises(StorageUnreachable, match=r"waiting for it to write .* was stopped"):
        Folder(bucket, patience_s=500, stop=stop).folder("a").write("b", b"")
    timer.join()


def test_a_server_that_stands_still_is_waited_for(store: Store, bucket: str) -> None:
    folder = Folder(bucket, patience_s=60)
    folder.write("a", b"1")
    os.kill(store.pid, signal.SIGSTOP)
    timer = _later(2, lambda: os.kill(store.pid, signal.SIGCONT))
    assert folder.read("a") == b"1"
    timer.join()


def test_a_download_goes_on_where_it_broke_off(network: Network, bucket: str, tmp_path: Path) -> None:
    folder = Folder(bucket, patience_s=30)
    folder.write("big", 8 * MEGABYTE)
    network.cut(after=3 << 20)  # every connection, always: only going on in the middle can end this
    folder.download("big", tmp_path / "big")
    assert (tmp_path / "big").read_bytes() == 8 * MEGABYTE
    assert folder.read("big") == 8 * MEGABYTE
    assert [path.name for path in tmp_path.iterdir()] == ["big"]


def _put_in_parts(store: Store, bucket: str, data: bytes) -> None:
    """An object whose etag is no MD5, so that only its being the same one protects from mixtures."""
    client, target = store.client(), {"Bucket": bucket.removeprefix("s3://"), "Key": "big"}
    upload = client.create_multipart_upload(**target)["UploadId"]
    tags = [
        client.upload_part(**target, UploadId=upload, PartNumber=n + 1, Body=data[n * (5 << 20) : (n + 1) * (5 << 20)])
        for n in range(2)
    ]
    parts = [{"PartNumber": n + 1, "ETag": tag["ETag"]} for n, tag in enumerate(tags)]
    client.complete_multipart_upload(**target, UploadId=upload, MultipartUpload={"Parts": parts})


def test_an_object_replaced_in_the_middle_is_read_anew(
    network: Network, bucket: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = 8 * MEGABYTE, bytes(8 << 20)
    _put_in_parts(store, bucket, old)
    network.cut(after=3 << 20, times=1)
    go_on, calls = _Transfer.go_on, []

    def then_replace(transfer: _Transfer, s3: Callable[[], Any]) -> bool:
        done = go_on(transfer, s3)
        if not calls:
            assert not done  # some of the old one is there
            _put_in_parts(store, bucket, new)
        calls.append(done)
        return done

    monkeypatch.setattr(_Transfer, "go_on", then_replace)
    assert Folder(bucket, patience_s=30).read("big") == new


def test_an_upload_survives_cuts(network: Network, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(70 * MEGABYTE)
    network.slow(1 << 26)
    timer = _later(0.3, network.refuse)
    again = _later(2.5, network.heal)
    folder = Folder(bucket, patience_s=60)
    folder.upload(tmp_path / "big", "big")
    timer.join()
    again.join()
    assert folder.stat("big").size == 70 << 20
    assert folder.read_range("big", 40 << 20, 1 << 20) == MEGABYTE


def test_a_flipped_byte_is_noticed_and_fetched_again(network: Network, bucket: str, tmp_path: Path) -> None:
    folder = Folder(bucket, patience_s=30)
    folder.write("a", MEGABYTE)
    network.flip(at=500_000, times=1)
    assert folder.read("a") == MEGABYTE
    network.flip(at=500_000)
    with pytest.raises(UserError, match=f"{bucket}/a .*damaged"):
        Folder(bucket, patience_s=30).download("a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests"), (409, "ConditionalRequestConflict")],
)
def test_a_busy_service_is_asked_again(network: Network, bucket: str, status: int, code: str) -> None:
    network.answer(status, code)
    timer = _later(1.5, network.heal)
    Folder(bucket, patience_s=30).write("a", b"1")
    timer.join()
    network.answer(status, code)
    with pytest.raises(StorageUnreachable, match=f"{code}, HTTP {status}"):
        Folder(bucket, patience_s=1).read("a")


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (403, "AccessDenied", "access denied; these credentials may not write there"),
        (403, "InvalidAccessKeyId", "the access key is not known at 127.0.0.1:"),
        (403, "SignatureDoesNotMatch", "the secret key does not fit the access key"),
        (400, "ExpiredToken", "the credentials have expired; get new ones"),
        (403, "RequestTimeTooSkewed", "the clock of this machine is wrong"),
        (507, "XMinioStorageFull", "the storage is full at 127.0.0.1:"),
        (418, "Teapot", "the storage at 127.0.0.1:.* refuses to write .Teapot, HTTP 418"),
    ],
)
def test_what_cannot_succeed_ends_at_once(
    network: Network, bucket: str, status: int, code: str, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    network.answer(status, code)
    with pytest.raises(UserError, match=sentence) as caught:
        Folder(bucket, patience_s=600).write("a", b"1")
    assert not isinstance(caught.value, StorageUnreachable)
    assert str(caught.value).startswith(f"{bucket}/a: ")
    assert _said(caplog, logging.WARNING) == []


def test_no_such_bucket(store: Store) -> None:
    folder = Folder("s3://not-there", patience_s=600)
    for action in (folder.list, folder.names, lambda: folder.read("a"), lambda: folder.write("a", b""), folder.exists):
        with pytest.raises(UserError, match=r"s3://not-there.*: there is no such bucket"):
            action()


def test_credentials_and_endpoint_of_the_environment_are_judged(bucket: str) -> None:
    folder = Folder(bucket, patience_s=600)
    with (
        environment(AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None, AWS_SESSION_TOKEN=None),
        pytest.raises(UserError, match="no credentials were found; set AWS_ACCESS_KEY_ID"),
    ):
        folder.list()
    with environment(AWS_ACCESS_KEY_ID=None), pytest.raises(UserError, match="no credentials were found"):
        folder.list()
    with environment(AWS_PROFILE="nobody"), pytest.raises(UserError, match="AWS_PROFILE does not exist"):
        folder.list()
    with (
        environment(AWS_REQUEST_CHECKSUM_CALCULATION="sometimes"),
        pytest.raises(UserError, match="boto3 cannot work with"),
    ):
        Folder(bucket, patience_s=599).list()
    for endpoint in ("not a url", "ftp:/", f"http://user:{SECRET_KEY}@host name/"):
        with environment(AWS_ENDPOINT_URL=endpoint), pytest.raises(UserError, match="AWS_ENDPOINT_URL") as caught:
            folder.list()
        assert SECRET_KEY not in str(caught.value)
    folder.write("a", b"1")  # and the right ones still work in the same process


def test_credentials_appear_nowhere(
    network: Network, bucket: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)  # as an application does that wants to see everything
    texts = []
    folder = Folder(bucket, patience_s=1)
    folder.write("a", b"1")
    for trouble in (
        network.refuse,
        lambda: network.answer(403, "InvalidAccessKeyId"),
        lambda: network.answer(503, "SlowDown"),
    ):
        network.heal()
        trouble()
        with pytest.raises(UserError) as caught:
            folder.read("a")
        texts += [str(caught.value), repr(caught.value), caught.exconly()]
    texts += [caplog.text, *capfd.readouterr(), repr(folder)]
    for secret in (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN):
        assert secret not in "\n".join(texts)


def test_a_full_disk_is_no_outage(bucket: str, tmp_path: Path) -> None:
    folder = Folder(bucket, patience_s=600)
    folder.write("a", 2 * MEGABYTE)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            folder.download("a", tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
