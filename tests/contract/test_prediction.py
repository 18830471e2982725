"""Every trained system is used on files: what it says it wrote is there, and a bad file is one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from files import save_field

from medray.cli import run
from medray.data.geometry import Grid
from medray.data.readers import is_image_name, read_volume
from medray.data.sources import open_source
from medray.engine.models import load_model
from medray.engine.run import predict
from medray.system import PredictRequest, System


@pytest.fixture(scope="session")
def inputs(system: type[System[Any]], smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of a test case of the smoke data, as many as the model takes."""
    made, trained, _ = load_model(smoke)
    source = open_source(system.presets["smoke"].data, fields=made.field_kinds)
    splits = made.split(type(source)(source.spec, tuple(made.arrange(source.cases)), source.fingerprint), seed=0)
    wanted, folder = made.input_names(trained.about), tmp_path_factory.mktemp("inputs")
    together = next((case for case in splits.test if set(wanted) <= set(case.fields)), None)
    if together is not None:
        return [save_field(together.load(name), folder, name) for name in wanted]
    # One image per case: each input is one of another modality, as moving and fixed are.
    by_modality = {case.attributes.get("modality", ""): case for case in splits.test}
    return [
        save_field(case.load("image"), folder, name)
        for name, (_, case) in zip(wanted, sorted(by_modality.items()), strict=True)
    ]


def test_predict_writes_what_it_says(
    system: type[System[Any]], smoke: Path, inputs: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / f"result{system.predict_suffix}"
    told = predict(smoke, PredictRequest(inputs=inputs, out=out))
    assert out in told.files.values()
    for path in told.files.values():
        assert path.is_file()
        assert path.stat().st_size > 0
        assert path.parent == tmp_path
    assert any(path.suffix == ".png" and path != out for path in told.files.values()), "no picture"
    assert told.seconds > 0
    assert all(np.isfinite(value) for value in told.metrics.values())
    if is_image_name(out) and is_image_name(inputs[-1]):
        result, given = read_volume(out, channels=True), read_volume(inputs[-1], channels=True)
        assert result.shape == tuple(system.magnification * length for length in given.shape[:2]) + given.shape[2:]
        # the same grid, or a finer one with the same corners
        assert np.allclose(Grid.of(result).corners(), Grid.of(given).corners(), atol=1e-4)


def test_predictions_repeat(system: type[System[Any]], smoke: Path, inputs: list[Path], tmp_path: Path) -> None:
    outs = [tmp_path / side / f"result{system.predict_suffix}" for side in ("one", "two")]
    for out in outs:
        out.parent.mkdir()
        predict(smoke, PredictRequest(inputs=inputs, out=out))
    assert outs[0].read_bytes() == outs[1].read_bytes()


@pytest.mark.parametrize("damage", ["truncated", "text", "too many"])
def test_a_bad_input_is_one_sentence_and_exit_code_2(
    slug: str,
    system: type[System[Any]],
    smoke: Path,
    inputs: list[Path],
    damage: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / inputs[0].name
    content = inputs[0].read_bytes()
    bad.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"not what it seems\n" * 20)
    given = [*inputs, inputs[0]] if damage == "too many" else [bad, *inputs[1:]]
    arguments = ["predict", "--checkpoint", str(smoke), "--out", str(tmp_path / f"r{system.predict_suffix}")]
    assert run(slug, [*arguments, "--input", *map(str, given)]) == 2
    told = capsys.readouterr().err.strip()
    assert len(told.splitlines()) == 1
    assert bad.name in told or damage == "too many"
    assert "Traceback" not in told
