"""What each command does once its flags are parsed: check what can be checked at once, then ask the engine.

The engine is imported inside the handlers, so that ``--help`` and a wrong flag cost no more than the system's module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from medray import registry
from medray.cli import flags, show
from medray.cli.app import COMMANDS, existing
from medray.cli.sentences import parse
from medray.engine.options import OPERATIONAL, RunOptions
from medray.errors import UserError


def train(slug: str, argv: Sequence[str], prog: str) -> int:
    """Train, or go on with a run; the last line printed is the run directory."""
    system = registry.load(slug)
    folder = _resumed(argv)
    stored = _stored(slug, system, folder) if folder else None
    asked = flags.parse_training(system, argv, prog=prog, description=_description(slug, "train", prog), stored=stored)
    from medray.engine import run

    if folder and stored:
        _settled(stored, asked, folder)
        show.run(run.resume(folder, options=asked.options, expect=slug))
    else:
        show.run(run.train(slug, asked.config, asked.options, preset=asked.preset, variant=asked.variant))
    return 0


def predict(slug: str, argv: Sequence[str], prog: str) -> int:
    """Use a checkpoint on new scans; prints what was written and how long it took."""
    description = _description(slug, "predict", prog)
    asked = flags.parse_predict(registry.load(slug), argv, prog=prog, description=description)
    existing("--checkpoint", asked.checkpoint, "a run directory or a checkpoint folder in one")
    for flag, paths in (("--input", asked.input), ("--labels", asked.labels)):
        for path in paths:
            existing(flag, path, "a file or folder to read")
    options = dict(_switch(text) for text in asked.option)
    from medray.engine import run
    from medray.system import PredictRequest

    request = PredictRequest(inputs=asked.input, out=asked.out, labels=asked.labels, options=options)
    show.prediction(run.predict(asked.checkpoint, request, expect=slug))
    return 0


def evaluate(slug: str, argv: Sequence[str], prog: str) -> int:
    """Score a checkpoint on another data source; the last line printed is the run directory."""
    description = _description(slug, "evaluate", prog)
    checkpoint, options = flags.parse_evaluate(registry.load(slug), argv, prog=prog, description=description)
    existing("--checkpoint", checkpoint, "a run directory or a checkpoint folder in one")
    from medray.engine import run

    show.run(run.evaluate(checkpoint, options, expect=slug))
    return 0


def claim(slug: str, argv: Sequence[str], prog: str) -> int:
    """Run the paper's claim; 0 if it holds, 1 if not. The last line printed is the run directory."""
    system = registry.load(slug)
    preset, options = flags.parse_claim(system, argv, prog=prog, description=_description(slug, "claim", prog))
    from medray.engine import run

    result, folder = run.claim(slug, preset, options)
    show.claim(result)
    show.run(folder)
    return 0 if result.held else 1


def report(slug: str, argv: Sequence[str], prog: str) -> int:
    """Write report.html of a run anew and print its path."""
    description = _description(slug, "report", prog)
    folder = parse(flags.ReportFlags, argv, prog=prog, description=description).run
    _read_config(slug, "report", folder)
    from medray.engine.rundir import RunDirectory
    from medray.report.html import write_report

    run = RunDirectory.open(folder)
    write_report(run.path)
    run.publish()
    show.line(f"{run}/report.html")
    return 0


def describe(slug: str, argv: Sequence[str], prog: str) -> int:
    """Say what the system is."""
    if argv and argv[0] not in ("-h", "--help"):
        raise UserError(f"describe takes nothing more, got {argv[0]!r}")
    show.system(slug, prog=prog.removesuffix(" describe"))
    return 0


HANDLERS: dict[str, Callable[[str, Sequence[str], str], int]] = {
    "train": train,
    "predict": predict,
    "evaluate": evaluate,
    "claim": claim,
    "report": report,
    "describe": describe,
}


def _description(slug: str, command: str, prog: str) -> str:
    """What stands above the flags; the commands too where the user has named none."""
    entry = registry.entry(slug)
    lines = [f"{entry.slug}: {entry.title}.", f"{entry.paper}.", "", f"{command}: {COMMANDS[command]}."]
    if not prog.endswith(f" {command}"):
        width = max(map(len, COMMANDS))
        lines += ["", "Commands, each with its own --help:"]
        lines += [f"  {name:{width}}  {about}" for name, about in COMMANDS.items()]
    return "\n".join(lines)


def _switch(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UserError(f"--option takes KEY=VALUE, got {text!r}")
    return name, value


def _resumed(argv: Sequence[str]) -> str | None:
    """The run of ``--resume``, looked up ahead of the parse; the parse complains where its value is missing."""
    folder = None
    for index, token in enumerate(argv):
        name, equals, value = token.partition("=")
        if name == "--resume":
            value = value if equals else next(iter(argv[index + 1 : index + 2]), "")
            folder = value if value and not value.startswith("--") and value != "None" else folder
    return folder


def _read_config(slug: str, flag: str, folder: str) -> dict[str, Any]:
    """config.json of a run of this system.

    Raises:
        UserError: there is none, or it belongs to another system.
    """
    from medray.engine.rundir import RunDirectory

    existing(flag, folder, "a run directory")
    stored = RunDirectory.open(folder).read_config()
    if stored.get("system") != slug:
        raise UserError(f"{flag}: {folder} is a run of {stored.get('system')}, not of {slug}")
    return stored


def _stored(slug: str, system: flags.SystemClass, folder: str) -> flags.Training:
    """The settings of the run in ``folder``.

    Raises:
        UserError: there is no run there, or this version cannot go on with it.
    """
    from medray.engine.models import config_from_plain

    saved = _read_config(slug, "--resume", folder)
    try:
        options = config_from_plain(RunOptions, saved["options"])
        config = config_from_plain(system.config_class, saved["config"])
        return flags.Training(saved["preset"], saved["variant"], folder, options, config)
    except (KeyError, TypeError) as error:
        raise UserError(f"--resume: {folder} is not a training run: {error!r}") from None


def _settled(stored: flags.Training, asked: flags.Training, folder: str) -> None:
    """Check that nothing that changes the result differs from the run's own settings.

    Raises:
        UserError: something does.
    """
    pairs = [("preset", stored.preset, asked.preset), ("variant", stored.variant, asked.variant)]
    for prefix, before, now in (("", stored.options, asked.options), ("config.", stored.config, asked.config)):
        pairs += [(prefix + item.name, getattr(before, item.name), getattr(now, item.name)) for item in fields(before)]
    for name, before, now in pairs:
        same = before == now or (name == "out" and Path(before).resolve() == Path(now).resolve())
        if not same and name not in OPERATIONAL:
            flag = "--" + name.replace("_", "-")
            raise UserError(
                f"{flag} of a run is settled when it starts: {folder} has {show.plain(before)}, got {show.plain(now)}; "
                "leave it out, or start a new run without --resume"
            )
