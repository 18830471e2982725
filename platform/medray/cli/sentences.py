"""tyro with one sentence where it would draw a box.

tyro tells a hook what it could not parse, as structured events. That hook is its own but experimental (tyro._errors),
so nothing here depends on it: an event this file does not know, or a tyro without the hook, gives the text of the box
on one line.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, TypeVar, get_args, get_type_hints

import tyro

from medray.errors import UserError

T = TypeVar("T")
_KINDS = {"INT": "a whole number", "FLOAT": "a number", "[INT [INT ...]]": "whole numbers", "STR": "a text"}


def parse(flags: type[T], argv: Sequence[str], *, prog: str, description: str, default: T | None = None) -> T:
    """Parse arguments into a dataclass.

    Args:
        flags: the dataclass; each field is a flag, its docstring the help.
        argv: arguments.
        prog: how the user calls it.
        description: stands above the flags in ``--help``.
        default: values of the flags not given.

    Raises:
        UserError: the arguments do not fit.
        SystemExit: ``--help`` was printed; code 0.
    """
    printed = io.StringIO()
    more: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(printed), _hook(lambda event: _explain(event, flags, argv)):
            result: T = tyro.cli(flags, args=argv, prog=prog, description=description, **more)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_flatten(printed.getvalue())) from None
    sys.stderr.write(printed.getvalue())
    return result


def flag_names(flags: type[Any], prefix: str = "") -> Iterator[str]:
    """The flags a dataclass gives, as the user types them; ``--no-x`` forms left out."""
    hints = get_type_hints(flags, include_extras=True)
    for field in fields(flags):
        markers = getattr(hints[field.name], "__metadata__", ())
        inner = get_args(hints[field.name])[0] if markers else hints[field.name]
        if _marker(tyro.conf.Suppress) in markers or _marker(tyro.conf.Positional) in markers or not field.init:
            continue
        if is_dataclass(inner) and isinstance(inner, type):
            omitted = _marker(tyro.conf.OmitArgPrefixes) in markers
            yield from flag_names(inner, prefix if omitted else f"{prefix}{field.name}.")
        else:
            yield "--" + f"{prefix}{field.name}".replace("_", "-")


def _marker(marker: Any) -> Any:
    return marker[int].__metadata__[0]


def _hook(listener: Callable[[Any], None]) -> contextlib.AbstractContextManager[Any]:
    try:
        on_parse_error = importlib.import_module("tyro._errors").on_parse_error
    except (ImportError, AttributeError):
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[Any] = on_parse_error(listener)
    return context


def _explain(event: Any, flags: type[Any], argv: Sequence[str]) -> None:
    """Raise the sentence for an event of `tyro._errors`; return if it is of a kind not known here."""
    kind = type(event).__name__
    if kind == "UnrecognizedArgs":
        raise UserError(_unrecognized(event.tokens, list(flag_names(flags)), argv, event.prog))
    if kind == "InvalidChoice":
        near = get_close_matches(event.value, event.choices, n=1)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{_name(event.argument)} is one of {', '.join(event.choices)}, got {event.value!r}{guess}")
    if kind == "BadValue" and event.reason == "too_few_values":
        raise UserError(f"{_name(event.argument)} needs {_expected(event.argument)} after it")
    if kind == "MissingArgs":
        names = [_name(missing.arg) for missing in event.missing_arguments]
        verb = "is" if len(names) == 1 else "are"
        raise UserError(f"{' and '.join(names)} {verb} needed; `{event.prog} --help` explains")
    if kind == "InstantiationFailure":
        if event.argument is None:
            raise UserError(event.message)
        name = _name(event.argument)
        raise UserError(f"{name} expects {_expected(event.argument)}, got {_values_after(name, argv)!r}")


def _unrecognized(tokens: Sequence[str], known: Sequence[str], argv: Sequence[str], prog: str) -> str:
    wrong = [token for token in tokens if token.startswith("--") and len(token) > 2]
    if not wrong:
        before = [token for token in argv[: list(argv).index(tokens[0])] if token.startswith("--")]
        return f"unexpected {tokens[0]!r}" + (f" after {before[-1]}, which takes no such value" if before else "")
    name = wrong[0].partition("=")[0].replace("_", "-")
    near = [flag for flag in known if flag.endswith("." + name[2:])] or get_close_matches(name, known, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    return f"there is no flag {name}; {guess}`{prog} --help` lists them all"


def _name(argument: Any) -> str:
    flag = str(argument.lowered.name_or_flags[0])
    return flag if flag.startswith("-") else str(argument.lowered.metavar)


def _expected(argument: Any) -> str:
    metavar = str(argument.lowered.metavar)
    return _KINDS.get(metavar, metavar)


def _values_after(name: str, argv: Sequence[str]) -> str:
    """What the user gave for a flag, the last time it was given."""
    values: list[str] = []
    inside = False
    for token in argv:
        flag, equals, value = token.partition("=")
        if flag.startswith("--"):
            inside = flag.replace("_", "-") == name
            if inside:
                values = [value] if equals else []
        elif inside:
            values.append(token)
    return " ".join(values)


def _flatten(box: str) -> str:
    """The first paragraph of a box of text, on one line."""
    lines = [line.strip("│╭╮╰╯ ") for line in box.splitlines()]
    rules = [index for index, line in enumerate(lines) if line and not line.strip("─")]
    body = lines[: rules[0]] if rules else lines
    text = " ".join(line for line in body if line and not line.startswith("─"))
    return re.sub(r"\s+", " ", text) or "the arguments cannot be understood; --help lists them"
