"""The flags of each command, as dataclasses that tyro turns into a command line.

Precedence: the system's defaults (its paper's), then the preset, then the variant, then what the user gives. So the
preset and the variant are looked up in the arguments first and become the defaults of the real parse.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_type_hints

import tyro

from medray.cli.app import unknown
from medray.cli.sentences import parse
from medray.engine.options import RunOptions
from medray.errors import UserError
from medray.system import System

SystemClass = type[System[Any]]


@dataclass(frozen=True)
class Training:
    """What `train` was asked for."""

    preset: str
    variant: str
    resume: str | None
    options: RunOptions
    config: Any


@dataclass(frozen=True, kw_only=True)
class PredictFlags:
    """What a prediction reads and writes."""

    checkpoint: str
    """A run directory or a checkpoint folder in one, on this machine or at s3://."""
    input: tuple[Path, ...]
    """Files or folders."""
    out: Path
    """File for the main result; by-products are named after it."""
    labels: tuple[Path, ...] = ()
    """Label maps to carry along, where the system can."""
    option: tuple[str, ...] = ()
    """The system's own switches, as KEY=VALUE."""


@dataclass(frozen=True, kw_only=True)
class EvaluateFlags(RunOptions):
    """What is scored, on which data, and where it computes."""

    checkpoint: str
    """A run directory or a checkpoint folder in one, on this machine or at s3://."""
    data: str
    seed: tyro.conf.Suppress[int] = 0
    min_workers: tyro.conf.Suppress[int] = 0
    max_failures: tyro.conf.Suppress[int] = 3
    shard: tyro.conf.Suppress[bool] = False
    skip_nonfinite: tyro.conf.Suppress[int] = 0
    loader_workers: tyro.conf.Suppress[int] = -1
    cache_memory_gb: tyro.conf.Suppress[float] = 2.0
    cache_disk_gb: tyro.conf.Suppress[float] = 0.0
    checkpoint_every_steps: tyro.conf.Suppress[int] = 0
    checkpoint_every_minutes: tyro.conf.Suppress[float] = 10.0
    keep_checkpoints: tyro.conf.Suppress[int] = 2


@dataclass(frozen=True, kw_only=True)
class ClaimFlags(RunOptions):
    """Where a claim writes and computes; its data come with the preset."""

    data: tyro.conf.Suppress[str] = ""
    bad_samples: tyro.conf.Suppress[Literal["fail", "quarantine"]] = "fail"
    compare: tyro.conf.Suppress[tuple[str, ...]] = ()


@dataclass(frozen=True, kw_only=True)
class ReportFlags:
    """Which run."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A run directory, on this machine or at s3://."""


def selected(argv: Sequence[str], flag: str, known: Sequence[str], otherwise: str) -> str:
    """The value of ``--preset`` or ``--variant`` ahead of the real parse, which is the one to complain about it."""
    found = otherwise
    for index, token in enumerate(argv):
        name, equals, value = token.partition("=")
        if name == flag:
            value = value if equals else next(iter(argv[index + 1 : index + 2]), "")
            found = value if value in known else found
    return found


def lengthened(system: SystemClass, argv: Sequence[str]) -> list[str]:
    """The arguments with the system's short flags written out: ``--budget`` becomes ``--config.budget``."""
    long = {f"--{name.replace('_', '-')}": f"--config.{name.replace('_', '-')}" for name in system.short_flags}
    named = [token.partition("=") for token in argv]
    return [long.get(name.replace("_", "-"), name) + equals + value for name, equals, value in named]


def first_preset(system: SystemClass) -> str:
    """The preset of a job without arguments: smoke, or the first there is."""
    return "smoke" if "smoke" in system.presets else next(iter(system.presets))


def variants(system: SystemClass) -> tuple[str, ...]:
    """Names of the variants, the default first; a system without any has one called ``paper``."""
    return tuple(system.variants) or ("paper",)


def chosen_config(system: SystemClass, preset: str, variant: str) -> Any:
    """The system's config under a preset and a variant.

    Raises:
        UserError: the two do not go together.
    """
    changes = dict(system.presets[preset].config)
    if variant in system.variants:
        changes |= system.variants[variant].config
    try:
        return system.config_class(**changes)
    except ValueError as error:
        raise UserError(f"--variant {variant} does not go with --preset {preset}: {error}") from None


def parse_training(
    system: SystemClass,
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    stored: Training | None = None,
) -> Training:
    """Parse the flags of `train`.

    Args:
        system: whose presets, variants and config become flags.
        argv: arguments.
        prog: how the user calls it.
        description: stands above the flags in ``--help``.
        stored: the settings of the run to go on with, which are the defaults then.

    Raises:
        UserError: the arguments do not fit.
    """
    if stored is None:
        preset = selected(argv, "--preset", list(system.presets), first_preset(system))
        variant = selected(argv, "--variant", variants(system), variants(system)[0])
        options = RunOptions(data=system.presets[preset].data, compare=system.presets[preset].compare)
        stored = Training(preset, variant, None, options, chosen_config(system, preset, variant))
    config_flags = _explained(system.config_class)
    flags = make_dataclass(
        "TrainFlags",
        [
            ("preset", _preset_choice(system), field(default=stored.preset)),
            ("variant", _variant_choice(system), field(default=stored.variant)),
            (
                "resume",
                Annotated[
                    str | None,
                    tyro.conf.arg(
                        help="A run directory to go on with, under its own settings; only those that do not change the "
                        "result (workers, checkpoints, loader) may be given anew.",
                        metavar="RUN",
                        help_behavior_hint="",
                    ),
                ],
                field(default=None),
            ),
            ("run", tyro.conf.OmitArgPrefixes[RunOptions], field(default=stored.options)),
            ("config", config_flags, field(default=config_flags(**_values(stored.config)))),
        ],
        frozen=True,
        kw_only=True,
    )
    if system.short_flags:
        short = ", ".join(f"--{name.replace('_', '-')}" for name in system.short_flags)
        description += f"\n\nOf the config, {short} can be given without the prefix."
    given: Any = parse(flags, lengthened(system, argv), prog=prog, description=description, default=flags())
    _check_compare(system, given.run.compare)
    config = system.config_class(**_values(given.config))
    return Training(given.preset, given.variant, given.resume, given.run, config)


def parse_claim(system: SystemClass, argv: Sequence[str], *, prog: str, description: str) -> tuple[str, RunOptions]:
    """Parse the flags of `claim` into a preset and options; their data source is the preset's.

    Raises:
        UserError: the arguments do not fit.
    """
    flags = make_dataclass(
        "ClaimFlags",
        [
            ("preset", _preset_choice(system), field(default=first_preset(system))),
            ("run", tyro.conf.OmitArgPrefixes[ClaimFlags], field(default=ClaimFlags())),
        ],
        frozen=True,
        kw_only=True,
    )
    given: Any = parse(flags, argv, prog=prog, description=description, default=flags())
    return given.preset, RunOptions(**(_values(given.run, RunOptions) | {"data": system.presets[given.preset].data}))


def parse_evaluate(system: SystemClass, argv: Sequence[str], *, prog: str, description: str) -> tuple[str, RunOptions]:
    """Parse the flags of `evaluate` into a checkpoint and options.

    Raises:
        UserError: the arguments do not fit.
    """
    given = parse(EvaluateFlags, argv, prog=prog, description=description)
    _check_compare(system, given.compare)
    return given.checkpoint, RunOptions(**_values(given, RunOptions))


def parse_predict(system: SystemClass, argv: Sequence[str], *, prog: str, description: str) -> PredictFlags:
    """Parse the flags of `predict`.

    Raises:
        UserError: the arguments do not fit.
    """
    names = ", ".join(system.predict_inputs)
    if system.optional_inputs:
        names += f", and if there is one: {', '.join(system.optional_inputs)}"
    inputs = Annotated[tuple[Path, ...], tyro.conf.arg(help=f"Files or folders, in this order: {names}.")]
    described = [("input", inputs, field())]
    flags = make_dataclass("PredictFlags", described, bases=(PredictFlags,), frozen=True, kw_only=True)
    return parse(cast(type[PredictFlags], flags), argv, prog=prog, description=description)


def _check_compare(system: SystemClass, names: Sequence[str]) -> None:
    for name in names:
        if name not in system.variants:
            raise unknown("variant", name, system.variants, f"--compare takes some of {', '.join(system.variants)}")


def _values(config: Any, of: type[Any] | None = None) -> dict[str, Any]:
    return {item.name: getattr(config, item.name) for item in fields(of or config) if item.init}


def _preset_choice(system: SystemClass) -> Any:
    text = "Size of the run. " + "; ".join(f"{name}: {preset.about}" for name, preset in system.presets.items())
    return Annotated[Literal[tuple(system.presets)], tyro.conf.arg(help=text)]


def _variant_choice(system: SystemClass) -> Any:
    text = "Which form of the system. " + "; ".join(f"{name}: {item.about}" for name, item in system.variants.items())
    return Annotated[Literal[variants(system)], tyro.conf.arg(help=text)]


def _explained(config_class: type[Any]) -> type[Any]:
    """The config class with its fields' docstrings as help texts, without the line breaks of the source."""
    hints = get_type_hints(config_class, include_extras=True)
    docs = field_docs(config_class)
    # Without defaults: the values come with the instance that the parse takes as its default.
    flags = [
        (item.name, Annotated[hints[item.name], tyro.conf.arg(help=docs[item.name])], field())
        for item in fields(config_class)
        if item.init and item.name in docs and not is_dataclass(hints[item.name])
    ]
    about, bases = {"__doc__": config_class.__doc__}, (config_class,)
    return make_dataclass(config_class.__name__, flags, bases=bases, namespace=about, frozen=True, kw_only=True)


def field_docs(config_class: type[Any]) -> dict[str, str]:
    """What the string under each field of a dataclass says, inherited fields too, on one line each."""
    docs: dict[str, str] = {}
    for base in reversed([base for base in config_class.__mro__ if is_dataclass(base)]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        for item, text in pairwise(cast(ast.ClassDef, definition).body):
            match item, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                    docs[name] = " ".join(said.split())
    return docs
