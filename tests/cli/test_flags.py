"""Precedence, and every wrong argument in one sentence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from medray import cli


def train(engine: SimpleNamespace, *argv: str) -> SimpleNamespace:
    assert cli.run("standin", list(argv)) == 0
    slug, config, options = engine.asked.args
    assert slug == "standin"
    return SimpleNamespace(config=config, options=options, **engine.asked.keywords)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one sentence on standard error."""
    assert cli.run("standin", list(argv), prog="job") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err[len("error: ") : -1]


def test_no_arguments_train_with_the_smoke_preset(engine: SimpleNamespace) -> None:
    asked = train(engine)
    assert (asked.preset, asked.variant) == ("smoke", "cnn")
    assert asked.options.data == "phantom:abdomen?n=4"
    assert asked.options.compare == ("mind",)
    assert asked.config.grid_spacing == (12, 8)


def test_some_fields_go_without_their_prefix(engine: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(engine, "--feature-lr", "0.125").config.feature_lr == 0.125
    assert train(engine, "--feature_lr=0.25").config.feature_lr == 0.25
    capsys.readouterr()
    assert "--crop" in refused(capsys, "--crop", "3", "4")
    assert cli.run("standin", ["--help"]) == 0
    assert "--feature-lr can be given without the prefix" in " ".join(capsys.readouterr().out.split())


def test_flags_beat_variant_beats_preset_beats_paper(engine: SimpleNamespace) -> None:
    assert train(engine, "--preset", "paper").config.feature_lr == 1e-3
    assert train(engine, "--preset", "smoke").config.feature_lr == 0.5
    both = train(engine, "train", "--preset=smoke", "--variant", "mind")
    assert (both.config.feature_lr, both.config.features, both.config.grid_spacing) == (0.25, "mind", (12, 8))
    assert both.variant == "mind"
    assert train(engine, "--variant", "mind", "--config.feature-lr", "2").config.feature_lr == 2.0


def test_the_system_gets_its_own_config_class(engine: SimpleNamespace, stand_in: SimpleNamespace) -> None:
    assert type(train(engine, "--config.crop", "64", "48").config) is stand_in.StandInConfig
    assert engine.asked.args[1].crop == (64, 48)


def test_every_shared_flag_reaches_the_engine(engine: SimpleNamespace) -> None:
    options = train(
        engine, "--data", "/scans", "--out", "elsewhere", "--num-workers", "2", "--use-gpu", "--precision", "bf16",
        "--seed", "7", "--bad-samples", "quarantine", "--compare", "cnn", "mind", "--config.no-border-mask",
    ).options  # fmt: skip
    assert (options.data, options.out, options.num_workers, options.use_gpu) == ("/scans", "elsewhere", 2, True)
    assert (options.precision, options.seed, options.bad_samples) == ("bf16", 7, "quarantine")
    assert options.compare == ("cnn", "mind")
    assert engine.asked.args[1].border_mask is False


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--num-wokers", "2"], ["--num-wokers", "did you mean --num-workers?", "job --help"]),
        (["--grid-spacing", "20"], ["there is no flag --grid-spacing", "did you mean --config.grid-spacing?"]),
        (["train", "--sede=2"], ["--sede", "--seed", "`job train --help`"]),
        (["--preset", "smok"], ["--preset is one of smoke, paper", "'smok'", "did you mean smoke?"]),
        (["--variant", "elastix"], ["--variant is one of cnn, mind, wrong", "'elastix'"]),
        (["--precision", "fp64"], ["--precision is one of fp32, bf16, fp16", "'fp64'"]),
        (["--num-workers", "two"], ["--num-workers expects a whole number, got 'two'"]),
        (["--num-workers=two"], ["--num-workers expects a whole number, got 'two'"]),
        (["--num-workers", "-3"], ["--num-workers", "-3"]),
        (["--seed"], ["--seed needs a whole number after it"]),
        (["--config.feature-lr", "fast"], ["--config.feature-lr expects a number, got 'fast'"]),
        (["--config.grid-spacing", "20", "ten"], ["--config.grid-spacing expects whole numbers, got '20 ten'"]),
        (["--config.crop", "3"], ["--config.crop expects", "INT INT", "got '3'"]),
        (["--config.grid-spacing", "5", "10"], ["coarse to fine", "(5, 10)", "try 20 10 7"]),
        (["--variant", "wrong"], ["--variant wrong does not go with --preset smoke", "coarse to fine"]),
        (["--use-gpu", "yes"], ["unexpected 'yes' after --use-gpu"]),
        (["--compare", "mimd"], ["there is no variant 'mimd'", "did you mean mind?"]),
        (["trian"], ["there is no command 'trian'", "did you mean train?", "predict"]),
        (["train", "somewhere"], ["unexpected 'somewhere'"]),
        (["claim", "--data", "x"], ["there is no flag --data"]),
        (["evaluate", "--checkpoint", "x"], ["--data is needed"]),
        (["evaluate", "--checkpoint", "nowhere", "--data", "x"], ["--checkpoint", "no nowhere", "expected a run"]),
        (["predict"], ["--checkpoint and --input and --out are needed", "`job predict --help`"]),
        (["report"], ["RUN is needed"]),
        (["report", "nowhere"], ["report", "nowhere"]),
        (["--resume", "nowhere"], ["--resume", "nowhere", "run directory"]),
        (["describe", "more"], ["'more'"]),
    ],
)  # fmt: skip
def test_a_wrong_argument_gets_one_sentence(
    argv: list[str], words: list[str], capsys: pytest.CaptureFixture[str], engine: SimpleNamespace
) -> None:
    sentence = refused(capsys, *argv)
    for word in words:
        assert word in sentence
    assert engine.asked is None


def test_sentences_survive_without_tyros_experimental_hook(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import contextlib

    from medray.cli import sentences

    monkeypatch.setattr(sentences, "_hook", lambda listener: contextlib.nullcontext())
    assert "--num-workers" in refused(capsys, "--num-workers", "two")
    assert "--num-wokers" in refused(capsys, "--num-wokers", "2")


def test_predict_checks_the_files(capsys: pytest.CaptureFixture[str], tmp_path: Path, engine: SimpleNamespace) -> None:
    there = tmp_path / "ct.nii.gz"
    there.touch()
    start = ["predict", "--checkpoint", str(tmp_path), "--out", str(tmp_path / "o.nii.gz"), "--input", str(there)]
    assert "--input: there is no mr.nii" in refused(capsys, *start, "mr.nii")
    assert "--labels: there is no l.nii" in refused(capsys, *start, str(there), "--labels", "l.nii")
    assert "--option takes KEY=VALUE, got 'steps'" in refused(capsys, *start, str(there), "--option", "steps")
    assert engine.asked is None


def test_help_shows_units_the_paper_and_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run("standin", ["--help"], prog="job") == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").replace("|", " ").split())
    assert "Control-point distance of each scale, px, coarse to fine (paper 20 10 7). (default: 12 8)" in text
    assert "Only near borders (paper). (default: True)" in text
    assert "smoke: about a minute; paper: hours" in text
    assert "cnn: learned features; mind: MIND" in text
    assert "One GPU per worker" in text
    for command in ("train", "predict", "evaluate", "claim", "report", "describe"):
        assert command in text


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "claim", "report", "describe"])
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run("standin", [command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert out
    assert err == ""


def test_flag_names_are_those_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The list that did-you-mean draws on leaves out nothing and invents nothing."""
    import re

    from medray.cli import flags, sentences

    names = set(sentences.flag_names(flags.ClaimFlags))
    assert cli.run("standin", ["claim", "--help"]) == 0
    shown = set(re.findall(r"^\W*?(--\w[\w.-]+)", capsys.readouterr().out, re.MULTILINE))
    assert names | {"--preset"} == shown
    assert "--data" not in names


def test_field_docs_are_inherited_and_on_one_line(stand_in: SimpleNamespace) -> None:
    from medray.cli.flags import EvaluateFlags, field_docs

    docs = field_docs(stand_in.StandInConfig)
    assert docs["grid_spacing"] == "Control-point distance of each scale, px, coarse to fine (paper 20 10 7)."
    inherited = field_docs(EvaluateFlags)
    assert inherited["checkpoint"].startswith("A run directory")
    assert inherited["use_gpu"] == "One GPU per worker."
