"""What a sweep searches: one dimension for each field of a system's config, as code or as text.

    Dimension("lambda_adv", LogUniform(1e-3, 1e-1))
    parse_dimension("config.lambda_adv=loguniform(1e-3,1e-1)")

A choice may be of anything a config field holds, also of tuples, which Optuna's storages cannot keep: there it goes by
its text.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from medray.errors import UserError

Value = Any
"""A setting: a number, a truth value, a text, None, or a tuple of them."""


@dataclass(frozen=True)
class Uniform:
    """Numbers between two, both included; in steps where ``step`` is above 0.

    Attributes:
        low: the smallest.
        high: the largest.
        log: whether each factor of ten is as likely as any other.
        step: distance of neighbors; 0 for none.
        whole: whether the numbers are whole.
    """

    low: float
    high: float
    log: bool = False
    step: float = 0.0
    whole: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"goes from a lower to a higher number, got {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"on a logarithmic scale starts above 0, got {self.low:g}")
        if self.step < 0 or self.step > self.high - self.low:
            raise ValueError(f"has a step between 0 and {self.high - self.low:g}, got {self.step:g}")
        if self.whole and (self.low % 1 or self.high % 1):
            raise ValueError(f"goes from one whole number to another, got {self.low:g} and {self.high:g}")

    @property
    def text(self) -> str:
        """As the command line takes it."""
        name = {(False, False): "uniform", (False, True): "loguniform", (True, False): "int", (True, True): "logint"}
        low, high = self.corners
        if self.step:
            return f"quniform({low!r},{high!r},{self.step!r})"
        return f"{name[self.whole, self.log]}({low!r},{high!r})"

    @property
    def distribution(self) -> BaseDistribution:
        """As Optuna takes it."""
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step or None)

    @property
    def corners(self) -> tuple[Value, ...]:
        """The values most likely to be refused by the field: both ends."""
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def decode(self, stored: Any) -> Value:
        """The setting for what the study keeps."""
        return stored

    def encode(self, value: Value) -> Any:
        """What the study keeps for a setting."""
        return value


@dataclass(frozen=True)
class Choice:
    """One of several values, in no order."""

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2 or len(set(map(repr, self.values))) < len(self.values):
            raise ValueError(f"is between two different values or more, got {self.values}")

    @property
    def text(self) -> str:
        """As the command line takes it."""
        return f"choice({','.join(map(repr, self.values))})"

    @property
    def distribution(self) -> BaseDistribution:
        """As Optuna takes it."""
        return CategoricalDistribution([self.encode(value) for value in self.values])

    @property
    def corners(self) -> tuple[Value, ...]:
        """All of them."""
        return self.values

    def decode(self, stored: Any) -> Value:
        """The setting for what the study keeps."""
        return next(value for value in self.values if self.encode(value) == stored)

    def encode(self, value: Value) -> Any:
        """What the study keeps for a setting: tuples by their text, "20 10 7"."""
        return " ".join(map(str, value)) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Dimension:
    """A field of the config and the values it may take."""

    name: str
    values: Uniform | Choice

    @property
    def text(self) -> str:
        """As the command line takes it."""
        return f"config.{self.name}={self.values.text}"


@dataclass(frozen=True, kw_only=True)
class Space:
    """A search space with what it is meant for, under a name on the command line.

    Attributes:
        system: slug of the system.
        about: one line for ``--help``.
        dimensions: what is searched.
        objectives: metric -> "max" or "min"; what is optimized unless the user says otherwise.
        preset: size of a trial unless the user says otherwise.
        scheduler: how trials are stopped early unless the user says otherwise.
        sampler: likewise, how they are chosen.
        set: fields that differ from the preset's in all trials, as text.
        data: data source of all trials, where it is not the preset's.
    """

    system: str
    about: str
    dimensions: tuple[Dimension, ...]
    objectives: Mapping[str, str]
    preset: str = "demo"
    scheduler: str = "none"
    sampler: str = "tpe"
    set: Mapping[str, str] = field(default_factory=dict)
    data: str = ""


def parse_dimension(text: str) -> Dimension:
    """A dimension from ``config.lambda_adv=loguniform(1e-3,1e-1)``; ``config.`` may be left out.

    Raises:
        UserError: it is not of that form.
    """
    name, equals, expression = (part.strip() for part in text.partition("="))
    name = name.removeprefix("config.").replace("-", "_")
    if not (name and equals and expression):
        raise UserError(f"--search takes config.FIELD=loguniform(1e-3,1e-1) or the like, got {text!r}")
    kind, arguments = _call(expression, text)
    if kind not in _KINDS:
        raise UserError(f"--search {text}: {kind} is none of {', '.join(_KINDS)}")
    try:
        return Dimension(name, _KINDS[kind](*arguments))
    except ValueError as error:
        raise UserError(f"--search {text}: {kind} {error}") from None
    except TypeError:
        raise UserError(f"--search {text}: {_USAGE[kind]}, got {len(arguments)} of them") from None


def parse_setting(text: str) -> tuple[str, str]:
    """Field and value as text, from ``config.task=segmentation``.

    Raises:
        UserError: it is not of that form.
    """
    name, equals, value = text.partition("=")
    name = name.strip().removeprefix("config.").replace("-", "_")
    if not (name and equals):
        raise UserError(f"--set takes config.FIELD=VALUE, got {text!r}")
    return name, value.strip()


def combinations(dimensions: Sequence[Dimension]) -> int | None:
    """How many different trials there are; None where a dimension is continuous."""
    number = 1
    for dimension in dimensions:
        if not isinstance(dimension.values, Choice):
            return None
        number *= len(dimension.values.values)
    return number


def _number(**more: Any) -> Callable[..., Uniform]:
    def make(low: Any, high: Any) -> Uniform:
        return Uniform(_numeric(low), _numeric(high), **more)

    return make


def _stepped(low: Any, high: Any, step: Any) -> Uniform:
    return Uniform(_numeric(low), _numeric(high), step=_numeric(step))


def _numeric(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"takes numbers, got {value!r}")
    return float(value)


def _choice(*values: Any) -> Choice:
    return Choice(tuple(tuple(value) if isinstance(value, list) else value for value in values))


_KINDS: Mapping[str, Callable[..., Uniform | Choice]] = {
    "uniform": _number(),
    "loguniform": _number(log=True),
    "quniform": _stepped,
    "int": _number(whole=True),
    "logint": _number(whole=True, log=True),
    "choice": _choice,
}
_USAGE = {
    **dict.fromkeys(("uniform", "loguniform", "int", "logint"), "takes two numbers, the smallest and the largest"),
    "quniform": "takes three numbers, the smallest, the largest and the step",
    "choice": "takes the values",
}


def _call(expression: str, text: str) -> tuple[str, list[Any]]:
    """Name and arguments of ``name(literal, ...)``; bare words among the arguments are texts. Nothing is evaluated.

    Raises:
        UserError: it is not of that form.
    """
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise UserError(
            f"--search {text}: cannot read {expression!r}; expected loguniform(1e-3,1e-1) or the like"
        ) from None
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name) or tree.keywords:
        raise UserError(f"--search {text}: expected one of {', '.join(_KINDS)} with its values in parentheses")
    try:
        arguments = [node.id if isinstance(node, ast.Name) else ast.literal_eval(node) for node in tree.args]
    except ValueError:
        raise UserError(f"--search {text}: values are numbers, words or tuples of them, got {expression!r}") from None
    return tree.func.id, arguments
