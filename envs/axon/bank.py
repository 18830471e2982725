"""The scenes that trackers are in at the moment, padded and side by side in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from envs.axon.scene import FAR_PX, Scene, Scenes


class SceneBank:
    """Scenes by slot. Trackers in the same scene share a slot; a slot that nobody uses is given to the next scene.

    Attributes:
        images: for each blur, (slots, H, W) float32, every scene padded with zeros.
        guides: the same for the centreline image; zeros where a scene has no centreline.
        distances: the same for the distance to the centreline, px, up to 12.
        margin: zeros around each scene, px.
    """

    def __init__(self, scenes: Scenes, margin: int, centreline_px: float, blurs: Sequence[float] = (0.0,)) -> None:
        if not len(scenes):
            raise ValueError("there is no scene to track in")
        self.scenes = scenes
        self.margin = margin
        self._line = centreline_px
        self._blurs = tuple(blurs)
        self.images = [np.zeros((0, 0, 0), np.float32) for _ in self._blurs]
        self.guides = np.zeros((0, 0, 0), np.float32)
        self.distances = np.zeros((0, 0, 0), np.float32)
        self.held: list[Scene | None] = []
        self._slot_of: dict[int, int] = {}
        self._scene_in: list[int] = []
        self._users: list[int] = []

    def enter(self, scene: int) -> int:
        """Take a place in a scene; returns its slot. It stays until `leave` was called as often."""
        slot = self._slot_of.get(scene)
        if slot is None:
            slot = self._load(scene)
        self._users[slot] += 1
        return slot

    def leave(self, slot: int) -> None:
        """Give a place back. The scene stays until another needs its slot."""
        self._users[slot] -= 1

    def _load(self, index: int) -> int:
        scene = self.scenes[index]
        height, width = (n + 2 * self.margin for n in scene.image.shape)
        slot = next((s for s, users in enumerate(self._users) if not users), None)
        if slot is None:
            slot = len(self._users)
            self._users.append(0)
            self._scene_in.append(-1)
            self.held.append(None)
        self._make_room(slot + 1, height, width)
        self._slot_of.pop(self._scene_in[slot], None)
        self._slot_of[index], self._scene_in[slot], self.held[slot] = slot, index, scene
        inner = (slot, slice(self.margin, height - self.margin), slice(self.margin, width - self.margin))
        for store in (*self.images, self.guides):
            store[slot] = 0
        self.distances[slot] = FAR_PX
        for images, blur in zip(self.images, self._blurs, strict=True):
            images[inner] = scene.blurred(blur)
        if scene.centreline is not None:
            self.distances[inner] = scene.distance
            self.guides[inner] = _guide(scene.distance, self._line)
        return slot

    def _make_room(self, slots: int, height: int, width: int) -> None:
        have = self.guides.shape
        if slots <= have[0] and height <= have[1] and width <= have[2]:
            return
        count = max(have[0], 8)
        while count < slots:
            count *= 2
        shape = (count, max(have[1], height), max(have[2], width))
        self.images = [_grown(images, shape) for images in self.images]
        self.guides, self.distances = _grown(self.guides, shape), _grown(self.distances, shape)


def _grown(old: NDArray[np.float32], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    new = np.zeros(shape, np.float32)
    new[: old.shape[0], : old.shape[1], : old.shape[2]] = old
    return new


def _guide(distance: NDArray[np.float32], profile_px: float) -> NDArray[np.float32]:
    """The centreline image I_G: a Gaussian of the distance, or a line one pixel wide."""
    if profile_px == 0:
        return (distance <= 0.5).astype(np.float32)
    guide = np.zeros_like(distance)
    near = distance < min(FAR_PX, 6 * profile_px)  # the rest is less than 1e-7
    guide[near] = np.exp(distance[near] ** 2 * np.float32(-0.5 / profile_px**2))
    return guide
