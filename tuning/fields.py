"""Whether a system's config can take what a sweep would give it: known before the first trial starts."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from medray.errors import UserError
from tuning.space import Choice, Dimension, Value


def check_dimensions(config: Any, dimensions: Sequence[Dimension]) -> None:
    """See that every dimension is a field of the config and that the config takes both ends, or each choice.

    Args:
        config: of the preset and variant the trials start from.
        dimensions: what is searched.

    Raises:
        UserError: one is not, or is searched twice.
    """
    names = [dimension.name for dimension in dimensions]
    for dimension in dimensions:
        kind = field_type(type(config), dimension.name)
        if names.count(dimension.name) > 1:
            raise UserError(f"config.{dimension.name} is searched twice")
        for value in dimension.values.corners:
            if not _fits(value, kind):
                raise UserError(f"{dimension.text}: the field takes {_told(kind)}, got {value!r}")
            _try(config, dimension, value)
        if not isinstance(dimension.values, Choice) and not dimension.values.whole and not _fits(0.5, kind):
            raise UserError(f"{dimension.text}: the field takes {_told(kind)}; search it with int or choice")


def field_type(config_class: type[Any], name: str) -> Any:
    """The type of a config's field.

    Raises:
        UserError: there is no such field.
    """
    known = [item.name for item in fields(config_class) if item.init]
    if name not in known:
        near = get_close_matches(name, known, n=1)
        guess = f"did you mean config.{near[0]}? " if near else ""
        raise UserError(f"there is no field config.{name}; {guess}`describe` and `train --help` list them")
    return get_type_hints(config_class)[name]


def flag(name: str) -> str:
    """The flag of a field of the config, as `train` has it: ``--config.lambda-adv``, and ``--config.lambda_``."""
    body = name.strip("_")
    return "--config." + name.replace(body, body.replace("_", "-"))


def with_values(config: Any, values: Mapping[str, Value]) -> Any:
    """The config with some fields changed.

    Raises:
        UserError: they cannot work, with the field's own remedy.
    """
    try:
        return replace(config, **values)
    except ValueError as error:
        raise UserError(f"{', '.join(f'config.{name}={value}' for name, value in values.items())}: {error}") from None


def _try(config: Any, dimension: Dimension, value: Value) -> None:
    try:
        replace(config, **{dimension.name: value})
    except ValueError as error:
        raise UserError(f"{dimension.text}: {value} is out of the field's bounds: {error}") from None


def _fits(value: Value, kind: Any) -> bool:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in get_args(kind))
    if origin is Literal:
        return value in get_args(kind)
    if origin is tuple:
        return isinstance(value, tuple) and _items_fit(value, get_args(kind))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind) if isinstance(kind, type) else True


def _items_fit(value: tuple[Any, ...], kinds: tuple[Any, ...]) -> bool:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return all(_fits(item, kinds[0]) for item in value)
    return len(value) == len(kinds) and all(_fits(item, kind) for item, kind in zip(value, kinds, strict=True))


def _told(kind: Any) -> str:
    """A type in words."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    names = {int: "whole numbers", float: "numbers", bool: "True or False", str: "texts"}
    return names.get(kind, str(kind).replace("typing.", ""))
