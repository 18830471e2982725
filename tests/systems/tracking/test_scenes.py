"""Cases become scenes: every branch one, cut out, in its symmetries."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from envs.axon.centrelines import Branch
from envs.axon.scene import Scene
from medray.data.sources import open_source
from medray.systems.tracking.scenes import Blend, CaseScenes, Preparation, SymmetricScenes, cut_out, turned
from medray.systems.tracking.training import Spread

PLAIN = Preparation("bright", "percentile")


def _folder(path: Path) -> str:
    """Two images with three branches in all, bright lines along them."""
    for number, branches in enumerate(([[20, 30, 160, 30], [40, 60, 40, 90]], [[30, 100, 90, 100]])):
        pixels = np.random.default_rng(number).integers(0, 20, (120, 200)).astype(np.uint8)
        lines = []
        for x0, y0, x1, y1 in branches:
            pixels[y0 : y1 + 1, x0 : x1 + 1] = 200
            lines.append({"points": np.linspace((x0, y0), (x1, y1), 61).tolist()})
        (path / "images").mkdir(exist_ok=True)
        (path / "centrelines").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path / "images" / f"i{number}.png")
        (path / "centrelines" / f"i{number}.json").write_text(json.dumps({"branches": lines}))
    return str(path)


def test_every_branch_is_a_scene_around_it(tmp_path: Path) -> None:
    scenes = CaseScenes(open_source(_folder(tmp_path)).cases, PLAIN, margin_px=15)
    assert len(scenes) == 3
    assert [scenes[i].image.shape for i in range(3)] == [(31, 171), (61, 31), (31, 91)]  # 105 + 15 rows: at the border
    for index in range(3):
        line = scenes[index].centreline
        assert line is not None
        columns, rows = np.rint(line).astype(int).T
        assert scenes[index].image[rows, columns].min() > 0.9
    assert scenes[1] is scenes[1]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(scenes))[2].image, scenes[2].image)


def test_phantoms_are_not_drawn_to_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = open_source("phantom:axons?n=1000").cases
    monkeypatch.setattr("medray.data.phantoms.axons._drawn", lambda drawing: pytest.fail("drawn"))
    assert len(CaseScenes(cases, PLAIN)) == 1000


def test_a_cut_out_keeps_the_subpixel_place() -> None:
    image = np.arange(100.0 * 120).reshape(100, 120).astype(np.float32)
    scene = cut_out(image, Branch(np.array([[50.25, 40.5], [60.0, 44.0]])), 5, "x")
    assert scene.image.shape == (15, 21)
    assert scene.image[0, 0] == image[35, 45]
    assert scene.centreline is not None
    np.testing.assert_array_equal(scene.centreline[0], (5.25, 5.5))


@pytest.mark.parametrize("symmetry", range(8))
def test_lines_turn_with_their_images(symmetry: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.random((30, 40)).astype(np.float32)
    line = rng.integers(0, 30, (12, 2)).astype(float)
    scene = turned(Scene(image, line), symmetry)
    assert scene.centreline is not None
    columns, rows = scene.centreline.astype(int).T
    np.testing.assert_array_equal(scene.image[rows, columns], image[line[:, 1].astype(int), line[:, 0].astype(int)])


def test_distances_turn_with_their_lines() -> None:
    scene = Scene(np.zeros((30, 41), np.float32), np.array([[3.0, 5.0], [20.5, 8.0], [33.0, 24.0]]))
    for symmetry in range(8):
        other = turned(scene, symmetry)
        fresh = Scene(other.image, other.centreline)
        assert other.distance.shape == other.image.shape
        near = fresh.distance < 3  # further off the two may name different points of the raster
        assert np.abs(other.distance - fresh.distance)[near].max() < 0.15


def test_a_blend_draws_both_sets_by_their_shares() -> None:
    def scenes(count: int, name: str) -> list[Scene]:
        return [Scene(np.zeros((30, 30), np.float32), name=f"{name}{i}") for i in range(count)]

    blend = Blend(scenes(7, "a"), scenes(30, "b"), 0.25)
    names = [blend[index].name for index in range(len(blend))]
    assert {name for name in names if name[0] == "a"} == {f"a{i}" for i in range(7)}
    assert {name for name in names if name[0] == "b"} == {f"b{i}" for i in range(30)}
    assert sum(name[0] == "b" for name in names) == 0.25 * len(names)


def test_the_eight_symmetries_are_different() -> None:
    image = np.random.default_rng(0).random((30, 30)).astype(np.float32)
    scenes = SymmetricScenes([Scene(image), Scene(image * 0.5)])
    assert len(scenes) == 16
    assert len({scenes[i].image.tobytes() for i in range(16)}) == 16
    np.testing.assert_array_equal(scenes[8].image, image * 0.5)


def test_a_few_scenes_spread_over_all() -> None:
    numbers = [Scene(np.full((5, 5), 0.01 * k, np.float32)) for k in range(11)]
    few = Spread(numbers, 3)
    assert [round(float(few[i].image[0, 0] * 100)) for i in range(len(few))] == [0, 5, 10]
    assert len(Spread(numbers, 50)) == 11


def test_the_polarity_is_the_files_or_the_images(tmp_path: Path) -> None:
    source = open_source(_folder(tmp_path))
    looked = Preparation("auto", "percentile").image(source.cases[1])
    assert looked[100, 60] > 0.9
    said = {**json.loads((tmp_path / "centrelines" / "i1.json").read_text()), "polarity": "dark"}
    (tmp_path / "centrelines" / "i1.json").write_text(json.dumps(said))
    told = Preparation("auto", "percentile").image(open_source(str(tmp_path)).cases[1])
    assert told[100, 60] < 0.1
    assert Preparation("bright", "percentile").image(open_source(str(tmp_path)).cases[1])[100, 60] > 0.9
