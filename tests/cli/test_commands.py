"""What commands hand to the engine, print and return."""

from __future__ import annotations

import errno
import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medray import UserError, cli
from medray.engine.options import RunOptions
from medray.system import ClaimCheck, ClaimResult, Prediction


def write_run(folder: Path, settings: Any, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    options = json.loads(json.dumps(asdict(RunOptions(data="phantom:x", out=folder.parent, seed=3)), default=str))
    saved = {
        "system": "standin",
        "preset": "paper",
        "variant": "mind",
        "config": json.loads(json.dumps(asdict(settings))),
        "options": options,
    }
    (folder / "config.json").write_text(json.dumps(saved | changes))
    return folder


@pytest.mark.parametrize(
    "argv", [[], ["train"], ["evaluate", "--checkpoint", ".", "--data", "x"]], ids=["bare", "train", "evaluate"]
)
def test_the_run_directory_is_the_last_line(
    argv: list[str], engine: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.run.path.mkdir(parents=True)
    (engine.run.path / "result.json").write_text(json.dumps({"metrics": {"dice": 0.81234, "tre_px": None}}))
    (engine.run.path / "report.html").touch()
    assert cli.run("standin", argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(engine.run)
    assert [line.split() for line in lines[:2]] == [["dice", "0.8123"], ["tre_px", "-"]]


def test_evaluate_hands_over_checkpoint_and_options(engine: SimpleNamespace, tmp_path: Path) -> None:
    assert cli.run("standin", ["evaluate", "--checkpoint", str(tmp_path), "--data", "d", "--num-workers", "0"]) == 0
    checkpoint, options = engine.asked.args
    assert checkpoint == str(tmp_path)
    assert options == RunOptions(data="d", num_workers=0)
    assert engine.asked.keywords == {"expect": "standin"}


def test_predict_hands_over_the_request_and_says_how_long(
    engine: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / name for name in ("ct.nii", "mr.nii", "labels.nii")]
    for file in files:
        file.touch()
    out = tmp_path / "warped.nii.gz"
    engine.answer = Prediction(files={"warped": out}, metrics={"folded_fraction": 0.0005}, seconds=2.345)
    argv = ["predict", "--checkpoint", str(tmp_path), "--out", str(out), "--input", *map(str, files[:2])]
    assert cli.run("standin", [*argv, "--labels", str(files[2]), "--option", "device=cpu"]) == 0
    checkpoint, request = engine.asked.args
    assert checkpoint == str(tmp_path)
    assert (list(request.inputs), list(request.labels), request.out) == (files[:2], files[2:], out)
    assert request.options == {"device": "cpu"}
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed == [["warped", str(out)], ["folded_fraction", "0.0005"], ["took", "2.35", "s"]]


@pytest.mark.parametrize(("second", "code", "verdict"), [(True, 0, "holds"), (False, 1, "does NOT hold")])
def test_claim_exits_by_whether_it_holds(
    second: bool, code: int, verdict: str, engine: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [
        ClaimCheck("cnn_over_mind", "Dice(cnn) - Dice(mind)", 0.0412, 0.03, (0.0301, 0.0525), True),
        ClaimCheck("mono", "Dice after - before", 0.18, 0.2, (0.15, 0.21), second),
    ]
    engine.answer = (ClaimResult(checks=checks, rows=()), engine.run)
    assert cli.run("standin", ["claim", "--preset", "paper", "--seed", "5"]) == code
    slug, preset, options = engine.asked.args
    assert (slug, preset, options.seed, options.data) == ("standin", "paper", 5, "phantom:abdomen?n=20")
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == str(engine.run)
    assert verdict in out[-2]
    assert "0.0412" in out[1]
    assert "0.0301 to 0.0525" in out[1]
    assert out[1].endswith("yes")


def test_resume_takes_the_runs_own_settings(engine: SimpleNamespace, tmp_path: Path, stand_in: Any) -> None:
    config = stand_in.StandInConfig(grid_spacing=(9, 4), features="mind")
    folder = write_run(tmp_path / "runs" / "1", config)
    assert cli.run("standin", ["train", "--resume", str(folder), "--num-workers", "2", "--min-workers", "1"]) == 0
    assert engine.asked.name == "resume"
    assert engine.asked.args == (str(folder),)
    assert engine.asked.keywords["expect"] == "standin"
    assert engine.asked.keywords["options"].num_workers == 2
    same = ["--preset", "paper", "--variant", "mind", "--seed", "3", "--config.grid-spacing", "9", "4"]
    assert cli.run("standin", ["--resume", str(folder), *same]) == 0
    assert engine.asked.keywords["options"].num_workers == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--seed", "4"], ["--seed", "has 3, got 4"]),
        (["--preset", "smoke"], ["--preset", "has paper, got smoke"]),
        (["--variant", "cnn"], ["--variant", "has mind, got cnn"]),
        (["--config.grid-spacing", "9", "5"], ["--config.grid-spacing", "has 9 4, got 9 5"]),
        (["--data", "other"], ["--data", "has phantom:x, got other"]),
    ],
)
def test_resume_refuses_what_differs(
    argv: list[str],
    words: list[str],
    engine: SimpleNamespace,
    tmp_path: Path,
    stand_in: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_run(tmp_path / "1", stand_in.StandInConfig(grid_spacing=(9, 4)))
    assert cli.run("standin", ["--resume", str(folder), *argv]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    for word in words:
        assert word in err
    assert engine.asked is None


def test_resume_of_another_system_or_of_rubbish_is_refused(
    tmp_path: Path, stand_in: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_run(tmp_path / "1", stand_in.StandInConfig(), system="mvaal")
    assert cli.run("standin", ["--resume", str(other)]) == 2
    assert "a run of mvaal, not of standin" in capsys.readouterr().err
    newer = write_run(tmp_path / "2", stand_in.StandInConfig(), config={"unheard_of": 1})
    assert cli.run("standin", ["--resume", str(newer)]) == 2
    assert "unheard_of" in capsys.readouterr().err
    rubbish = write_run(tmp_path / "3", stand_in.StandInConfig())
    (rubbish / "config.json").write_text('{"system": ')
    assert cli.run("standin", ["--resume", str(rubbish)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


class Interrupted(KeyboardInterrupt):
    def __init__(self, run: Path) -> None:
        super().__init__("stopped")
        self.run = run


def test_ctrl_c_says_how_to_resume(engine: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    engine.answer = Interrupted(engine.run)
    assert cli.run("standin", [], prog="python jobs/standin.py") == 130
    assert capsys.readouterr().err == f"stopped; go on with: python jobs/standin.py train --resume {engine.run}\n"
    assert cli.run("standin", ["claim"]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_user_errors_are_one_line_and_crashes_keep_their_traceback(
    engine: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answer = UserError("the folder /x is empty;\n  expected images")
    assert cli.run("standin", []) == 2
    assert capsys.readouterr().err == "error: the folder /x is empty; expected images\n"
    engine.answer = UserError("2 cases cannot be used:\n  a: truncated\n  b: holds NaN\n")
    assert cli.run("standin", []) == 2
    assert capsys.readouterr().err == "error: 2 cases cannot be used: a: truncated; b: holds NaN\n"
    engine.answer = OSError(errno.ENOSPC, "No space left on device", "/full/metrics.jsonl")
    assert cli.run("standin", []) == 2
    assert capsys.readouterr().err.startswith("error: no space left to write /full/metrics.jsonl;")
    engine.answer = ZeroDivisionError("inside")
    with pytest.raises(ZeroDivisionError):
        cli.run("standin", [])
    engine.answer = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output"):
        cli.run("standin", [])


def test_console_command(engine: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    assert "stands in for a system" in capsys.readouterr().out
    assert cli.main(["describe", "standin"]) == 0
    described = capsys.readouterr().out
    for word in ("Nobody, Nowhere 2019", "moving, fixed", "about a minute", "MIND", "medray run standin train --help"):
        assert word in described
    assert cli.main(["run", "standin", "train", "--seed", "9"]) == 0
    assert engine.asked.args[2].seed == 9
    capsys.readouterr()
    engine.answer = Interrupted(engine.run)
    assert cli.main(["run", "standin"]) == 130
    assert f"go on with: medray run standin train --resume {engine.run}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["lits"], ["there is no command 'lits'", "did you mean list?"]),
        (["describe", "standinn"], ["there is no system 'standinn'", "did you mean standin?", "medray list"]),
        (["run", "nothing"], ["there is no system 'nothing'"]),
        (["run"], ["medray run needs the name of a system"]),
        (["list", "all"], ["'all'"]),
    ],
)
def test_console_command_refuses(argv: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    for word in words:
        assert word in err
