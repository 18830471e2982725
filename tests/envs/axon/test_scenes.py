"""Scenes, distances to their lines, and the memory they share."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from envs.axon import SETTINGS, Scene, SyntheticScenes
from envs.axon.bank import SceneBank
from envs.axon.generator import draw
from envs.axon.polyline import resample
from envs.axon.scene import line_map


@pytest.mark.parametrize("seed", range(3))
def test_distances_agree_with_a_tree_of_points(seed: int) -> None:
    _, line = draw(SETTINGS["SI"], seed)
    found = line_map(line, (128, 128))
    y, x = np.indices((128, 128))
    exact, _ = cKDTree(resample(line, 0.02)).query(np.stack([x, y], axis=-1).reshape(-1, 2))
    exact = exact.reshape(128, 128)
    near = exact < 3
    assert np.percentile(np.abs(found.distance - exact)[near], 99) < 0.12
    assert np.abs(found.distance - exact)[near].max() < 0.25  # beyond the line's ends
    assert np.abs(found.distance - exact)[near].mean() < 0.01
    between = (exact >= 3) & (exact < 11)
    assert np.abs(found.distance - exact)[between].max() < 1
    assert (found.distance[exact > 13] == 12).all()


def test_resampling_keeps_both_ends_and_the_length() -> None:
    line = resample(np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 10.0]]), 0.5)
    np.testing.assert_array_equal(line[[0, -1]], [(0, 0), (3, 10)])
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    assert steps.max() <= 0.5 + 1e-9
    assert steps.sum() == pytest.approx(11, abs=0.1)


@pytest.mark.parametrize(
    ("image", "line", "sentence"),
    [
        (np.zeros((3, 40, 40)), None, r"must be \(H, W\), got shape \(3, 40, 40\)"),
        (np.zeros((40, 50)), np.zeros((1, 2)), r"must be \(n, 2\) with n >= 2"),
        (np.zeros((40, 50)), np.array([[0.0, 0.0], [20.0, 45.0]]), r"leaves its 50 x 40 px image at x=20, y=45"),
    ],
)
def test_scenes_that_cannot_be_are_refused(image: np.ndarray, line: np.ndarray | None, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Scene(image.astype(np.float32), line, "this one")


class Counted(list[Scene]):
    """Scenes that know how often they were asked for."""

    asked = 0

    def __getitem__(self, index: int) -> Scene:  # type: ignore[override]
        self.asked += 1
        return super().__getitem__(index)


def _scenes(*sizes: tuple[int, int]) -> Counted:
    line = np.array([[1.0, 1.0], [5.0, 5.0]])
    return Counted(Scene(np.full(size, 0.1 * (k + 1), np.float32), line) for k, size in enumerate(sizes))


def test_trackers_of_one_scene_share_its_slot() -> None:
    scenes = _scenes((20, 20), (20, 20))
    bank = SceneBank(scenes, margin=3, centreline_px=1.0)
    assert bank.enter(0) == bank.enter(0) != bank.enter(1)
    assert scenes.asked == 2


def test_a_slot_goes_to_the_next_scene_once_nobody_uses_it() -> None:
    bank = SceneBank(_scenes((30, 25), (20, 20), (10, 12)), margin=3, centreline_px=1.0)
    first, second = bank.enter(0), bank.enter(1)
    bank.leave(first)
    third = bank.enter(2)
    assert third == first != second
    stored = bank.images[0][third]
    np.testing.assert_allclose(stored[3:13, 3:15], 0.3)
    assert stored.sum() == pytest.approx(0.3 * 120, rel=1e-5)  # nothing is left of the larger image
    assert bank.enter(0) not in (second, third)


def test_a_scene_that_is_still_there_is_not_read_again() -> None:
    scenes = _scenes((20, 20))
    bank = SceneBank(scenes, margin=3, centreline_px=1.0)
    slot = bank.enter(0)
    bank.leave(slot)
    assert bank.enter(0) == slot
    assert scenes.asked == 1


def test_more_and_larger_scenes_make_room_and_keep_the_others() -> None:
    bank = SceneBank(_scenes(*[(10, 10)] * 9, (40, 30)), margin=2, centreline_px=1.0)
    slots = [bank.enter(scene) for scene in range(10)]
    assert len(set(slots)) == 10
    for scene, slot in enumerate(slots[:9]):
        np.testing.assert_allclose(bank.images[0][slot][2:12, 2:12], 0.1 * (scene + 1), rtol=1e-6)
    assert bank.images[0].shape[1:] == bank.distances.shape[1:] == (44, 34)


def test_without_scenes_there_is_nothing_to_do() -> None:
    with pytest.raises(ValueError, match="no scene to track in"):
        SceneBank([], 3, 1.0)
    with pytest.raises(IndexError, match="scene 3 of 3"):
        SyntheticScenes(count=3)[3]
