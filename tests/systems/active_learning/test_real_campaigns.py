"""Small campaigns on real images: chest films with computed lungs, slices of brains with two modalities."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from medray import cli

pytestmark = pytest.mark.real_data
_FAST = [
    "--num-workers", "0", "--config.sampler-epochs", "2", "--config.task-epochs", "3", "--rounds", "1", "--compare",
    "random",
]  # fmt: skip


def scores(out: Path) -> dict[str, float]:
    (run,) = (out / "mvaal").iterdir()
    assert (run / "report.html").is_file()
    result: dict[str, float] = json.loads((run / "result.json").read_text())["metrics"]
    return result


def test_chest_films_with_computed_lungs(real_data: Path, tmp_path: Path) -> None:
    films = tmp_path / "films"
    for folder in (real_data / "chest_xray").iterdir():
        (films / folder.name).mkdir(parents=True)
        for film in sorted(folder.iterdir())[:30]:
            (films / folder.name / film.name).symlink_to(film)
    asked = ["train", "--preset", "demo_chest", "--data", str(films), "--config.auxiliary", "lungs", "--initial", "12",
             "--budget", "8", "--config.repeats", "1", "--out", str(tmp_path / "runs"), *_FAST]  # fmt: skip
    assert cli.run("mvaal", asked) == 0
    found = scores(tmp_path / "runs")
    assert found["labels"] == 20
    assert 0 <= found["recall_covid"] <= 1
    (run,) = (tmp_path / "runs" / "mvaal").iterdir()
    with (run / "pool.csv").open() as file:
        states = [row["state"] for row in csv.DictReader(file)]
    assert states == ["labelled"] * 20
    film = next((films / "covid").iterdir())
    out = tmp_path / "film.json"
    assert cli.run("mvaal", ["predict", "--checkpoint", str(run), "--input", str(film), "--out", str(out)]) == 0
    assert out.is_file()


def test_slices_of_brains_with_two_modalities(real_data: Path, tmp_path: Path) -> None:
    asked = ["train", "--preset", "smoke", "--data", str(real_data / "ms_brain_mni"), "--config.main", "t1post",
             "--config.auxiliary", "flair", "--config.min-lesion-px", "20", "--initial", "6", "--budget", "4",
             "--config.sampler-crop", "180", "--out", str(tmp_path / "runs"), *_FAST]  # fmt: skip
    assert cli.run("mvaal", asked) == 0
    assert scores(tmp_path / "runs")["labels"] == 10
