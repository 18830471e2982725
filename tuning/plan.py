"""A sweep before it starts: what its settings, its space and its system say together, and whether that can work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from medray import registry
from medray.cli.app import known_slug, unknown
from medray.cli.flags import first_preset, parse_training, variants
from medray.engine.options import RunOptions
from medray.errors import UserError
from medray.storage import is_url
from medray.system import System
from tuning.fields import check_dimensions, field_type, flag
from tuning.settings import SweepSettings
from tuning.space import Dimension, Space, combinations, parse_dimension, parse_setting
from tuning.spaces import load_space

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep with everything looked up that its settings leave to the space or the system.

    Attributes:
        settings: as given.
        system: the class.
        config: that trials start from.
        dimensions: what is searched.
        objectives: metric -> "max" or "min".
        preset: size of the trials.
        variant: of the system.
        data: source of the trials.
        sampler: what chooses.
        scheduler: what gives up.
        fields_set: fields that differ from the preset's in all trials, as text.
    """

    settings: SweepSettings
    system: type[System[Any]]
    config: Any
    dimensions: tuple[Dimension, ...]
    objectives: Mapping[str, str]
    preset: str
    variant: str
    data: str
    sampler: str
    scheduler: str
    fields_set: Mapping[str, str]

    @property
    def num_trials(self) -> int:
        """As asked for; with the grid no more than there are."""
        most = combinations(self.dimensions) if self.sampler == "grid" else None
        return min(self.settings.trials, most) if most else self.settings.trials

    @property
    def stop_on(self) -> str:
        """The metric that the scheduler goes by."""
        return self.settings.stop_on or next(iter(self.objectives))

    @property
    def stop_mode(self) -> str:
        """Whether more or less of it is better; "" where nobody says."""
        return self.objectives.get(self.stop_on, self.settings.stop_mode)

    @property
    def options(self) -> RunOptions:
        """Of the runs of a trial."""
        settings = self.settings
        return RunOptions(
            data=self.data,
            num_workers=settings.num_workers,
            use_gpu=settings.use_gpu and settings.num_workers > 0,
            seed=settings.seed,
            precision=settings.precision,
            bad_samples=settings.bad_samples,
            max_failures=settings.max_failures,
            checkpoint_every_minutes=settings.checkpoint_every_minutes,
            loader_workers=0,  # several trials share the machine: none takes cores that look free
        )


def plan(settings: SweepSettings) -> Plan:
    """Look up and check everything that can be known before any data is opened.

    Raises:
        UserError: something does not exist or does not go together.
    """
    space = load_space(settings.space) if settings.space else None
    slug = _system_of(settings, space)
    system = registry.load(slug)
    preset = settings.preset or (space.preset if space else first_preset(system))
    variant = settings.variant or variants(system)[0]
    _known("preset", preset, list(system.presets))
    _known("variant", variant, list(variants(system)))
    fields_set = {**(space.set if space else {}), **dict(parse_setting(text) for text in settings.set)}
    config = _config(system, preset, variant, fields_set)
    dimensions = tuple(parse_dimension(text) for text in settings.search) or (space.dimensions if space else ())
    if not dimensions:
        raise UserError("nothing to search; give --space NAME or --search 'config.FIELD=loguniform(1e-3,1e-1)'")
    check_dimensions(config, dimensions)
    scheduler = settings.scheduler or (space.scheduler if space else "none")
    found = Plan(
        settings=settings,
        system=system,
        config=config,
        dimensions=dimensions,
        objectives=_objectives(settings, space),
        preset=preset,
        variant=variant,
        data=settings.data or (space.data if space else "") or system.presets[preset].data,
        sampler=_sampler(settings, space, scheduler),
        scheduler=scheduler,
        fields_set=fields_set,
    )
    _check_together(found)
    return found


def flags_of(config_class: type[Any], values: Mapping[str, str]) -> list[str]:
    """Fields of a config as flags of `train`.

    Args:
        config_class: whose fields they are.
        values: field -> value as text; the items of a tuple are separate words.

    Raises:
        UserError: there is no such field, or the text is not one of its values.
    """
    words: list[str] = []
    for name, text in values.items():
        kind = field_type(config_class, name)
        if kind is bool:
            words.append(flag(name) if _truth(name, text) else flag(name).replace("--config.", "--config.no-"))
        else:
            words += [flag(name), *((text.split() if _has_items(kind) else []) or [text])]
    return words


def _truth(name: str, text: str) -> bool:
    if text.lower() not in _TRUTHS:
        raise UserError(f"config.{name} takes True or False, got {text!r}")
    return _TRUTHS[text.lower()]


def _has_items(kind: Any) -> bool:
    """Whether a field's type is a tuple, or may be."""
    return get_origin(kind) is tuple or any(get_origin(each) is tuple for each in get_args(kind))


def _config(system: type[System[Any]], preset: str, variant: str, values: Mapping[str, str]) -> Any:
    """The config of a preset and variant with fields changed, read as `train` reads its flags."""
    argv = ["--preset", preset, "--variant", variant, *flags_of(system.config_class, values)]
    return parse_training(system, argv, prog="tuning.sweep", description="").config


def _system_of(settings: SweepSettings, space: Space | None) -> str:
    if not settings.system and space is None:
        raise UserError("which system? `python -m tuning.sweep SYSTEM --search ...`; `medray list` shows them")
    slug = known_slug(settings.system or (space.system if space else ""))
    if space and slug != space.system:
        raise UserError(f"the space {settings.space} is for {space.system}, not for {slug}")
    return slug


def _sampler(settings: SweepSettings, space: Space | None, scheduler: str) -> str:
    if settings.sampler:
        return settings.sampler
    if scheduler == "pbt":  # all of a population begin before any has told anything
        return "random"
    return space.sampler if space and not settings.search else "tpe"


def _known(kind: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise unknown(kind, name, names, f"there are {', '.join(names)}")


def _objectives(settings: SweepSettings, space: Space | None) -> dict[str, str]:
    if not settings.metric:
        if space is None:
            raise UserError("what is best? give --metric NAME and --mode max or min")
        return dict(space.objectives)
    known = dict(space.objectives) if space else {}
    modes = list(settings.mode) + [known.get(name, "") for name in settings.metric[len(settings.mode) :]]
    for name, mode in zip(settings.metric, modes, strict=True):
        if not mode:
            raise UserError(f"--mode: is more or less of {name} better? give max or min for each --metric")
    return dict(zip(settings.metric, modes, strict=True))


def _check_together(made: Plan) -> None:
    settings = made.settings
    if made.sampler == "grid" and combinations(made.dimensions) is None:
        continuous = next(each for each in made.dimensions if combinations([each]) is None)
        raise UserError(f"--sampler grid goes through choices, and {continuous.text} is not one; give choice(...)")
    if len(made.objectives) > 1 and made.scheduler != "none":
        raise UserError(f"--scheduler {made.scheduler} compares by one metric, got {', '.join(made.objectives)}")
    if made.scheduler != "none" and not made.stop_mode:
        raise UserError(f"--stop-mode: is more or less of {made.stop_on} better? give max or min")
    if made.scheduler == "pbt":
        _check_population(settings)
    if settings.use_gpu and settings.precision == "fp16" and settings.num_workers == 0:
        raise UserError("--precision fp16 needs workers; give --num-workers 1 or more")


def _check_population(settings: SweepSettings) -> None:
    """That population-based training can do what is asked."""
    if settings.trials < 2:
        raise UserError("--scheduler pbt compares trials with each other; give --trials 2 or more")
    if settings.seeds > 1:
        raise UserError(
            f"--scheduler pbt has trials go on from each other, one seed each, got --seeds {settings.seeds}"
        )
    if settings.num_workers:
        raise UserError(
            f"--scheduler pbt trains in the trials' own processes, got --num-workers {settings.num_workers}"
        )
    if settings.concurrent:
        raise UserError("--scheduler pbt has all trials take turns on the cores there are; leave --concurrent out")
    if is_url(settings.out):
        raise UserError(
            f"--scheduler pbt hands checkpoints on in a folder that every node sees, got --out {settings.out}"
        )
