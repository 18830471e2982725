"""From cases to the scenes that trackers learn in: a branch each, its image prepared and cut out around it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from envs.axon.centrelines import Branch
from envs.axon.preparation import FloatImage, Intensity, Polarity, prepare
from envs.axon.scene import Scene, Scenes
from medray.data.case import Case, Volume
from medray.data.traces import FIELD, centrelines_of, picture_of

MARGIN_PX = 40
"""Around a branch, on images that are larger."""
_IMAGES_KEPT, _SCENES_KEPT = 32, 2048
_SYMMETRIES = 8
ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class Preparation:
    """How images become what trackers see; see `envs.axon.preparation.prepare`."""

    polarity: Polarity
    intensity: Intensity

    def image(self, case: Case) -> FloatImage:
        """The image of a case, (H, W), 0 to 1, structures bright.

        Raises:
            UserError: it cannot be tracked in.
        """
        said = centrelines_of(case).polarity if self.polarity == "auto" and FIELD in case.fields else None
        return replace(self, polarity=said or self.polarity).of(case.volume("image"))

    def bright(self, image: FloatImage) -> FloatImage:
        """The same of a plane (H, W) whose structures are bright."""
        return prepare(image, polarity="bright", intensity=self.intensity)

    def of(self, volume: Volume) -> FloatImage:
        """The same of an image or stack that has been read; dark structures are projected by the minimum."""
        picture = picture_of(volume, projection="min" if self.polarity == "dark" else "max")
        return prepare(picture, polarity=self.polarity, intensity=self.intensity)


class CaseScenes:
    """The branches of cases as scenes, read when asked for; those asked for last stay in memory.

    Args:
        cases: with images and centrelines. One whose attribute ``branches`` says how many there are is not read now.
        preparation: of the images.
        margin_px: image kept around a branch.
    """

    def __init__(self, cases: Sequence[Case], preparation: Preparation, *, margin_px: int = MARGIN_PX) -> None:
        self.cases, self.preparation, self.margin_px = tuple(cases), preparation, margin_px
        counts = [int(c.attributes.get("branches", 0)) or len(centrelines_of(c).branches) for c in self.cases]
        self._place = [(case, branch) for case, count in enumerate(counts) for branch in range(count)]
        self._images: _Kept[FloatImage] = _Kept(_IMAGES_KEPT)
        self._scenes: _Kept[Scene] = _Kept(_SCENES_KEPT)

    def __len__(self) -> int:
        return len(self._place)

    def __getitem__(self, index: int, /) -> Scene:
        return self._scenes.get(index, lambda: self._read(*self._place[index]))

    def _read(self, case: int, branch: int) -> Scene:
        image = self._images.get(case, lambda: self.preparation.image(self.cases[case]))
        line = centrelines_of(self.cases[case]).branches[branch]
        return cut_out(image, line, self.margin_px, f"{self.cases[case].id} branch {branch}")


def cut_out(image: FloatImage, branch: Branch, margin_px: int, name: str) -> Scene:
    """The part of an image around a branch, and the branch in it."""
    size = np.array(image.shape[::-1])
    low = np.clip(np.floor(branch.points.min(axis=0)).astype(int) - margin_px, 0, size - 1)
    high = np.clip(np.ceil(branch.points.max(axis=0)).astype(int) + margin_px + 1, low + 1, size)
    part = np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]])
    return Scene(part, branch.points - low, name)


class SymmetricScenes:
    """Scenes in their eight flips and quarter turns: scene i is the symmetry i mod 8 of scene i // 8."""

    def __init__(self, scenes: Scenes) -> None:
        self.scenes = scenes

    def __len__(self) -> int:
        return _SYMMETRIES * len(self.scenes)

    def __getitem__(self, index: int, /) -> Scene:
        return turned(self.scenes[index // _SYMMETRIES], index % _SYMMETRIES)


def turned(scene: Scene, symmetry: int) -> Scene:
    """A scene under one of the eight symmetries of the square: bit 0 flips x, bit 1 flips y, bit 2 swaps them."""
    line = scene.centreline
    if line is not None:
        line = line.copy()
        for axis in (0, 1):
            if symmetry >> axis & 1:
                line[:, axis] = scene.image.shape[1 - axis] - 1 - line[:, axis]
        line = np.ascontiguousarray(line[:, ::-1]) if symmetry >> 2 & 1 else line
    turned = Scene(_turned_pixels(scene.image, symmetry), line, scene.name)
    vars(turned)["distance"] = _turned_pixels(scene.distance, symmetry)  # what takes longest need not be found again
    return turned


def _turned_pixels(pixels: FloatImage, symmetry: int) -> FloatImage:
    for axis in (0, 1):
        if symmetry >> axis & 1:
            pixels = np.flip(pixels, axis=1 - axis)
    return np.ascontiguousarray(pixels.T if symmetry >> 2 & 1 else pixels)


class Blend:
    """Two sets of scenes as one, of which a random one is of the second set with a given probability.

    Args:
        scenes: the first set.
        others: the second.
        share: of the second, in whole hundredths.
    """

    def __init__(self, scenes: Scenes, others: Scenes, share: float) -> None:
        self.scenes, self.others = scenes, others
        self._hundredths = round(100 * share)

    def __len__(self) -> int:
        return 100 * max(len(self.scenes), len(self.others))

    def __getitem__(self, index: int, /) -> Scene:
        place, hundredth = divmod(index, 100)
        chosen = self.others if hundredth < self._hundredths else self.scenes
        return chosen[place % len(chosen)]


class _Kept(Generic[ValueT]):
    """The values that were asked for last, by number. Copies (to another process) start empty."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._values: OrderedDict[int, ValueT] = OrderedDict()

    def get(self, key: int, make: Callable[[], ValueT]) -> ValueT:
        if key not in self._values:
            self._values[key] = make()
            if len(self._values) > self.room:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return self._values[key]

    def __getstate__(self) -> dict[str, int]:
        return {"room": self.room}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(state["room"])  # type: ignore[misc]
