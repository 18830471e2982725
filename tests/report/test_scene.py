"""A figure with a volume: from the system's hands over the run directory into the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from medray.engine.rundir import RunDirectory
from medray.figures.scene import Scene, make_scene, scene_record
from medray.report.html import write_report
from medray.report.run_files import read_run
from medray.system import Figure


@pytest.fixture
def scene() -> Scene:
    values = np.random.default_rng(0).random((6, 5, 4))
    return make_scene(values, values, (1.0, 2.0, 3.0), mask=values > 0.5)


@pytest.fixture
def run(tmp_path: Path, png: bytes, scene: Scene) -> Path:
    """A run directory with a figure that turns and one that does not."""
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    directory.write_figures([Figure("tear", "A </script> tear.", png, scene), Figure("flat", "No volume.", png)])
    return directory.path


def embedded(page: str) -> list[dict[str, object]]:
    """The records that follow an opening button."""
    found = re.findall(r'class="open-scene".*?<script type="application/json">(.*?)</script>', page, re.DOTALL)
    return [json.loads(text) for text in found]


def test_the_page_holds_what_the_system_gave(run: Path, scene: Scene) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    assert embedded(page) == [json.loads(json.dumps(scene_record(scene)))]
    assert page.count('class="turnable"') == 1
    assert "DecompressionStream" in page


def test_the_report_can_be_made_again_from_the_folder_alone(run: Path) -> None:
    listed = json.loads((run / "figures" / "figures.json").read_text())
    assert [item.get("scene") for item in listed] == ["tear.scene.json", None]
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_a_page_without_volumes_has_no_viewer(run: Path) -> None:
    index = run / "figures" / "figures.json"
    index.write_text(json.dumps([item | {"scene": None} for item in json.loads(index.read_text())]))
    page = write_report(run).read_text(encoding="utf-8")
    assert embedded(page) == []
    assert "DecompressionStream" not in page
    assert ".viewer" not in page


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "tear.scene.json cannot be read, so its figure cannot be turned: "),
        ('{"shape": [2, 2, 2]}', "not a scene: KeyError 'spacing'"),
        ("[]", "not a scene"),
        (None, "The volume tear.scene.json is listed but is not in this run's figures folder."),
    ],
)
def test_a_broken_volume_leaves_its_picture_and_a_sentence(run: Path, content: str | None, message: str) -> None:
    file = run / "figures" / "tear.scene.json"
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    files = read_run(run)
    assert [(picture.name, picture.scene) for picture in files.pictures] == [("tear", None), ("flat", None)]
    assert any(message in problem for problem in files.problems)
    assert message.split(":")[0] in write_report(run).read_text(encoding="utf-8").replace("&#39;", "'")


def test_a_volume_outside_of_the_run_is_not_read(run: Path, scene: Scene) -> None:
    (run.parent / "other.json").write_text(json.dumps(scene_record(scene)))
    index = run / "figures" / "figures.json"
    index.write_text(json.dumps([{"name": "tear", "file": "tear.png", "scene": "../../other.json"}]))
    files = read_run(run)
    assert files.pictures[0].scene is None
    assert "../../other.json is listed but is not in this run's" in " ".join(files.problems)
