"""`s3://bucket/prefix`, taken apart."""

from __future__ import annotations

import os
import re

from medray.errors import UserError

_SCHEME = "s3://"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


def is_url(text: str | os.PathLike[str]) -> bool:
    """Whether this names something in object storage rather than a local path.

    >>> is_url("s3://scans/abdomen"), is_url("/scans/abdomen")
    (True, False)
    """
    return os.fspath(text).startswith(_SCHEME)


def split_url(url: str) -> tuple[str, str]:
    """Bucket and prefix; the prefix has no slash at either end and may be empty.

    Raises:
        UserError: not an s3 url, no valid bucket name, or credentials in it (which the sentence does not repeat).
    """
    if "@" in url.removeprefix(_SCHEME).partition("/")[0]:
        raise UserError(
            "an s3:// url takes no credentials; write s3://BUCKET/FOLDER and put the keys into AWS_* variables"
        )
    if not is_url(url):
        raise UserError(f"{url!r} is not an s3 url; expected s3://BUCKET/FOLDER")
    bucket, _, prefix = url.removeprefix(_SCHEME).partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise UserError(f"{url!r} names no valid bucket; expected s3://BUCKET/FOLDER")
    prefix = prefix.strip("/")
    checked_name(prefix, url)
    return bucket, prefix


def checked_name(name: str, within: str) -> str:
    """A name below a folder, as it is.

    Raises:
        UserError: a part of it is ``.`` or ``..`` or empty, which object storage would take literally.
    """
    if name and any(part in ("", ".", "..") for part in name.removesuffix("/").split("/")):
        raise UserError(f"{within}: the name {name!r} has an empty part, a '.' or a '..'; write it without")
    return name
