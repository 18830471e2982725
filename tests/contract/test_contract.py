"""What every registered system promises. A system gets these tests by being registered."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medray import registry
from medray.cli import run
from medray.data.check import check_cases
from medray.data.sources import open_source
from medray.engine.models import config_from_plain, load_model
from medray.engine.rundir import plain, read_json_lines
from medray.engine.trial import judged_on_validation
from medray.errors import UserError
from medray.system import System

ROOT = Path(__file__).parents[2]


def test_the_class_keeps_its_entry(slug: str, system: type[System[Any]]) -> None:
    assert system.slug == slug
    assert {"smoke", "demo", "paper"} <= set(system.presets)
    assert (ROOT / "jobs" / f"{slug}.py").is_file()
    assert (ROOT / "platform/medray/systems" / registry.entry(slug).task).is_dir()


def test_every_preset_and_variant_builds(system: type[System[Any]]) -> None:
    for preset in system.presets.values():
        for variant in system.variants.values():
            changes = {**preset.config, **variant.config}
            built = system(system.config_class(**changes)).config
            assert all(getattr(built, name) == value for name, value in changes.items())


def test_compared_variants_exist(system: type[System[Any]]) -> None:
    for preset in system.presets.values():
        assert set(preset.compare) <= set(system.variants)


def test_every_config_field_is_explained(system: type[System[Any]]) -> None:
    text = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / f"{system.slug}.py"), "train", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for field in dataclasses.fields(system.config_class):
        assert f"--config.{field.name.strip('_').replace('_', '-')}" in text


def test_config_survives_json(system: type[System[Any]]) -> None:
    for preset in system.presets.values():
        config = system.config_class(**preset.config)
        assert config_from_plain(system.config_class, plain(config)) == config


def test_smoke_data_passes_the_checks(system: type[System[Any]]) -> None:
    made = system(system.config_class(**system.presets["smoke"].config))
    found = open_source(system.presets["smoke"].data, fields=made.field_kinds)
    source = dataclasses.replace(found, cases=tuple(made.arrange(found.cases)))
    good, bad = check_cases(
        source.cases,
        required=made.required_fields(source.cases, training=True),
        spatial_dims=made.expected_dims(),
        empty_labels=made.empty_labels,
    )
    assert not bad
    assert not made.problems(good, {})
    assert len(good) == len(source.cases)
    splits = made.split(source, seed=0)
    patients = [{c.patient for c in part} for part in (splits.train, splits.validation, splits.test)]
    assert patients[0]
    assert patients[2]
    assert not patients[0] & patients[1]
    assert not patients[0] & patients[2]
    assert not patients[1] & patients[2]


def test_smoke_run_leaves_a_complete_directory(smoke: Path) -> None:
    for name in ("config.json", "metrics.jsonl", "evaluation.json", "result.json", "report.html"):
        assert (smoke / name).is_file(), name


def test_smoke_run_shows_pictures(smoke: Path) -> None:
    told = json.loads((smoke / "figures" / "figures.json").read_text())
    assert told
    assert len({figure["file"] for figure in told}) == len(told)  # one would hide the other
    for figure in told:
        assert figure["caption"]
        assert (smoke / "figures" / figure["file"]).read_bytes().startswith(b"\x89PNG")


def test_smoke_run_learns(smoke: Path, system: type[System[Any]]) -> None:
    if system.learning_signal is None:
        pytest.skip("has no gradient loop")
    name, direction = system.learning_signal
    records = [r for r in read_json_lines(smoke / "metrics.jsonl") if name in r and r["name"] != "validation"]
    values = [r[name] for r in records if (r["name"], r.get("loop")) == (records[0]["name"], records[0].get("loop"))]
    assert len(values) > 1
    fifth = max(1, len(values) // 5)
    gain = sum(values[-fifth:]) / fifth - sum(values[:fifth]) / fifth
    assert gain > 0 if direction == "max" else gain < 0


def test_checkpoint_round_trips(smoke: Path, slug: str) -> None:
    first, trained, _ = load_model(smoke, expect=slug)
    again, kept, _ = load_model(smoke / "checkpoints" / "final")
    assert first.config == again.config
    assert (trained.about, sorted(trained.files)) == (kept.about, sorted(kept.files))
    for path in (trained.weights, *trained.files.values()):
        assert path is None or path.suffix not in (".pkl", ".pickle", ".joblib", ".pt", ".pth")


def test_checkpoint_of_another_system_is_refused(smoke: Path) -> None:
    with pytest.raises(UserError, match="is a checkpoint of"):
        load_model(smoke, expect="another")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--no-such-flag", "1"], "no-such-flag"),
        (["train", "--data", "/no/such/folder"], "/no/such/folder"),
        (["train", "--preset", "huge"], "huge"),
        (["predict", "--checkpoint", "/no/such/run", "--input", "a", "b", "--out", "c.nii.gz"], "/no/such/run"),
        (["train", "--resume", "/no/such/run"], "/no/such/run"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    slug: str, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(slug, arguments) == 2
    told = capsys.readouterr()
    assert sentence in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert "Traceback" not in told.err


def test_a_sweep_judges_by_cases_that_neither_train_nor_test(system: type[System[Any]]) -> None:
    preset = system.presets["smoke"]
    made = system(system.config_class(**preset.config))
    source = open_source(preset.data, fields=made.field_kinds)
    source = dataclasses.replace(source, cases=tuple(made.arrange(source.cases)))
    whole, judged = made.split(source, 0), judged_on_validation(made, source, 0)
    assert judged.train
    judges = {case.id for case in judged.test}
    assert judges
    assert judges.isdisjoint({case.id for case in (*judged.train, *whole.test)})
