"""`medray data ...`: what concerns data sources rather than a system."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from medray.cli.app import unknown
from medray.cli.sentences import parse
from medray.errors import UserError

COMMANDS = ("pack",)


@dataclass(frozen=True, kw_only=True)
class PackFlags:
    """What is packed, and where to."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A data source, as for --data."""
    out: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]
    """A new or empty folder, local or s3://BUCKET/FOLDER; the same one again goes on where a stopped try was."""
    shard_mb: int = 128
    """A shard ends with the case that reaches this much, MB before compression; 64 to 256 suit object storage."""
    compression: Literal["zstd", "none"] = "zstd"
    """Of the shards: smaller, or quicker to read."""
    bad_samples: Literal["fail", "quarantine"] = "fail"
    """What an unreadable case does: stop, or be left out and listed in the index."""

    def __post_init__(self) -> None:
        if self.shard_mb < 1:
            raise UserError(f"--shard-mb is 1 or more, got {self.shard_mb}")


def run(argv: Sequence[str]) -> int:
    """Run one of the commands and return its exit code.

    Raises:
        UserError: no such command, or something it can not do.
    """
    command, rest = (argv[0], argv[1:]) if argv else ("", [])
    if command in ("", "-h", "--help"):
        print("usage: medray data COMMAND\n\n  pack SOURCE OUT  write a source as Parquet shards, to stream them")
        return 0
    if command not in COMMANDS:
        known = [f"data {name}" for name in COMMANDS]
        raise unknown("command", f"data {command}", known, f"the commands are {', '.join(known)}")
    return pack(rest)


def pack(argv: Sequence[str]) -> int:
    """Pack a source; the last line on standard output is where it is."""
    from medray.data import packing
    from medray.data.sources import open_source
    from medray.progress import counted

    flags = parse(
        PackFlags,
        argv,
        prog="medray data pack",
        description="Write a data source as Parquet shards, one case per row group, and an index.",
    )
    source = open_source(flags.source)
    with counted(f"packing {flags.source}", len(source.cases)) as tick:
        done = packing.pack(
            source,
            flags.out,
            shard_bytes=flags.shard_mb * 10**6,
            compression=flags.compression,
            policy=flags.bad_samples,
            progress=tick,
        )
    for bad in done.bad:
        print(f"left out {bad.case}: {bad.reason}", file=sys.stderr)
    shards = "1 shard" if done.shards == 1 else f"{done.shards} shards"
    there = f", {done.shards - done.written} of them there already" if done.written < done.shards else ""
    print(
        f"packed {done.cases} cases into {shards} ({done.size / 1e6:.1f} MB{there}); use it with --data {flags.out}",
        file=sys.stderr,
    )
    print(flags.out)
    return 0
