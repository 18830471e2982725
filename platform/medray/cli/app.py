"""From arguments to a command, and from an exception to an exit code. Imports nothing heavy."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from medray import __version__, registry
from medray.errors import UserError

COMMANDS = {
    "train": "learn from data, score the result, write a report; the default",
    "predict": "use a checkpoint on new scans",
    "evaluate": "score a checkpoint on another data source",
    "claim": "run the paper's central claim; exits 1 if it does not hold",
    "report": "write report.html of a run anew",
    "describe": "what the system is, its presets and variants",
}
_CONSOLE = {
    "list": "every system there is",
    "describe SLUG": "what one of them is, its presets and variants",
    "data pack SOURCE OUT": "write a data source as Parquet shards that stream from object storage",
    "run SLUG ...": "its command line; `medray run SLUG --help` explains it",
}
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def run(slug: str, argv: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run the command line of one system, as its job does.

    Args:
        slug: the system.
        argv: arguments after the program's name; those of this process when left out.
        prog: how the user calls it, for messages.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = prog or f"python {sys.argv[0] or f'jobs/{slug}.py'}"
    command = arguments[0] if arguments and not arguments[0].startswith("-") else "train"
    log_to_stderr()
    return guarded(
        lambda: _dispatch(slug, arguments, name), resume_with=f"{name} train --resume" if command == "train" else ""
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `medray` console command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command == "run" and rest and not rest[0].startswith("-"):
        return run(rest[0], rest[1:], prog=f"medray run {rest[0]}")
    return guarded(lambda: _console(command, rest), resume_with="")


def guarded(action: Callable[[], int], *, resume_with: str) -> int:
    """Turn what a command raises into an exit code and, where the user can mend it, one sentence.

    Any other exception passes through, so that Python shows its traceback and exits with 1.

    Args:
        action: the command; returns its exit code.
        resume_with: the command that continues an interrupted run, without the run; empty where none does.
    """
    try:
        return action()
    except UserError as error:
        return _refuse(str(error))
    except KeyboardInterrupt as stop:
        folder = getattr(stop, "run", None)  # engine.run.Interrupted has it; before there is a run, nothing has
        again = f"; go on with: {resume_with} {folder}" if folder and resume_with else ""
        print(f"stopped{again}", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        where = f" to write {error.filename}" if error.filename else ""
        return _refuse(f"no space left{where}; free some, or choose another disk with --out")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def unknown(kind: str, value: str, known: Iterable[str], remedy: str) -> UserError:
    """The sentence for a name that does not exist, with the nearest one that does."""
    names = list(known)
    near = get_close_matches(value, names, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    return UserError(f"there is no {kind} {value!r}; {guess}{remedy}")


def existing(flag: str, path: str | Path, expected: str) -> None:
    """See that there is something at ``path``; of a url, storage will tell later.

    Raises:
        UserError: there is not.
    """
    if "://" not in str(path) and not Path(path).exists():
        raise UserError(f"{flag}: there is no {path}; expected {expected}")


class _Stderr(logging.Handler):
    """Plain lines on whatever is standard error at the moment: a progress bar puts itself in between."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        sys.stderr.write(f"{prefix}{record.getMessage()}\n")


def log_to_stderr() -> None:
    """Show what medray says as plain lines on standard error."""
    logger = logging.getLogger("medray")
    if not any(isinstance(handler, _Stderr) for handler in logger.handlers):
        logger.addHandler(_Stderr())
        logger.setLevel(logging.INFO)


def _refuse(sentence: str) -> int:
    """Print one line, also for an error that lists several bad files one below the other."""
    lines = [" ".join(line.split()) for line in sentence.splitlines() if line.strip()]
    told = "".join(line + (" " if line[-1] in ":;,." else "; ") for line in lines).rstrip("; ")
    print(f"error: {told}", file=sys.stderr)
    return 2


def known_slug(slug: str) -> str:
    """The slug, if a system has it.

    Raises:
        UserError: none has.
    """
    if slug not in registry.ENTRIES:
        raise unknown("system", slug, registry.ENTRIES, f"`medray list` shows the {len(registry.ENTRIES)} there are")
    return slug


def _dispatch(slug: str, argv: list[str], prog: str) -> int:
    known_slug(slug)
    command, rest, called = "train", argv, prog
    if argv and not argv[0].startswith("-"):
        command, rest = argv[0], argv[1:]
        if command not in COMMANDS:
            raise unknown("command", command, COMMANDS, f"the commands are {', '.join(COMMANDS)}")
        called = f"{prog} {command}"
    from medray.cli import commands  # only now: this imports the parser

    return commands.HANDLERS[command](slug, rest, called)


def _console(command: str, rest: list[str]) -> int:
    if command in ("-h", "--help"):
        width = max(map(len, _CONSOLE))
        print("usage: medray COMMAND\n\n" + "\n".join(f"  {name:{width}}  {about}" for name, about in _CONSOLE.items()))
        return 0
    if command == "--version":
        print(f"medray {__version__}")
        return 0
    names = [name.split()[0] for name in _CONSOLE]
    if command not in names:
        raise unknown("command", command, names, f"the commands are {', '.join(names)}")
    if command == "data":
        from medray.cli import data

        return data.run(rest)
    from medray.cli import show

    if command == "list":
        if rest:
            raise UserError(f"medray list takes nothing more, got {rest[0]!r}")
        show.systems(registry.ENTRIES.values())
        return 0
    if len(rest) != 1 or rest[0].startswith("-"):
        raise UserError(f"medray {command} needs the name of a system; `medray list` shows them")
    show.system(known_slug(rest[0]), prog=f"medray run {rest[0]}")
    return 0
