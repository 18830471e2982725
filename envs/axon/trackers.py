"""Many trackers stepped at once: the rules of the game, in one place for one tracker or hundreds.

Dai et al., "Deep Reinforcement Learning for Subpixel Neural Tracking", MIDL 2019, section 3 and appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.axon.bank import SceneBank
from envs.axon.options import FRAMES, REWARD_SAMPLES, WINDOW_PX, TrackingOptions
from envs.axon.scene import Scene, Scenes
from envs.axon.views import Windows, sample

STUB_PX = 6.0
"""Length of the path that shows the initial direction."""
_ALONG = np.linspace(0.0, 1.0, REWARD_SAMPLES)


@dataclass(frozen=True)
class Outcome:
    """What a step did to each of the trackers that moved, in their order.

    Attributes:
        reward: see `TrackingOptions.reward`.
        terminated: the far end was reached, or the tracker is lost where that ends an episode.
        truncated: the steps ran out.
        moved: (n, 2) displacement made, px: less than was asked for at the image's border.
        distance: to the centreline, px, up to 12.
    """

    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    moved: NDArray[np.float64]
    distance: NDArray[np.float32]


class Trackers:
    """Positions, paths and observations of ``count`` trackers.

    Attributes:
        position: (count, 2) as (x, y), px.
        steps: (count,) made since the start.
        end: (count, 2) the far end of the centreline; nan without one.
    """

    def __init__(self, scenes: Scenes, count: int, options: TrackingOptions) -> None:
        self.options = options
        reach = max(options.scales) * options.view_scale * (WINDOW_PX // 2)
        spread = options.wide_blur * options.view_scale
        blurs = [spread * spacing if spacing > 1 else 0.0 for spacing in options.scales]
        self.bank = SceneBank(scenes, int(np.ceil(reach)) + 2, options.centreline_px, blurs)
        self.position = np.full((count, 2), np.nan)
        self.end = np.full((count, 2), np.nan)
        self.steps = np.zeros(count, np.intp)
        self._previous = np.zeros((count, 2))
        self._turns = np.zeros(count, np.intp)
        self._slot = np.full(count, -1, np.intp)
        self._size = np.ones((count, 2))
        self._paths = np.zeros((count, 0, 0), np.uint8)
        self._views = np.zeros((count, FRAMES, 3, WINDOW_PX, WINDOW_PX), np.float32)
        self._guides = np.zeros((count, FRAMES, WINDOW_PX, WINDOW_PX), np.float32)

    def __len__(self) -> int:
        return len(self.position)

    def scene(self, tracker: int) -> Scene:
        """The scene a tracker is in."""
        scene = self.bank.held[self._slot[tracker]]
        assert scene is not None
        return scene

    def distance(self, which: NDArray[np.intp]) -> NDArray[np.float32]:
        """Distance (n,) of trackers from their centrelines, px, up to 12; that without a centreline."""
        at = (np.rint(self.position[which]) + self.bank.margin).astype(np.intp)
        return self.bank.distances[self._slot[which], at[:, 1], at[:, 0]]

    def place(
        self,
        which: Sequence[int] | NDArray[np.intp],
        scenes: Sequence[int],
        starts: NDArray[np.float64],
        headings: NDArray[np.float64],
        ends: NDArray[np.float64],
    ) -> None:
        """Put trackers at the start of an episode.

        Args:
            which: (n,) trackers.
            scenes: index of each one's scene.
            starts: (n, 2) positions, px.
            headings: (n, 2) unit vectors; nan where the direction is not known.
            ends: (n, 2) far ends, nan where unknown.

        Raises:
            ValueError: a start point is outside its image.
        """
        which = np.asarray(which, np.intp)
        for tracker, scene in zip(which, scenes, strict=True):
            if self._slot[tracker] >= 0:
                self.bank.leave(self._slot[tracker])
            self._slot[tracker] = self.bank.enter(scene)
            self._size[tracker] = self.scene(tracker).image.shape[::-1]
        outside = np.any((starts < -0.5) | (starts > self._size[which] - 0.5), axis=1)
        if outside.any():
            worst = int(outside.argmax())
            (x, y), (width, height) = starts[worst], self._size[which[worst]]
            raise ValueError(f"the start point x={x:g}, y={y:g} is outside its {width:g} x {height:g} px image")
        if self._paths.shape[1:] != self.bank.guides.shape[1:]:
            old = self._paths
            self._paths = np.zeros((len(self), *self.bank.guides.shape[1:]), np.uint8)
            self._paths[:, : old.shape[1], : old.shape[2]] = old
        self._paths[which] = 0
        known = np.all(np.isfinite(headings), axis=1)
        self.position[which] = np.clip(starts, 0, self._size[which] - 1)
        self.end[which] = ends
        self.steps[which] = 0
        self._turns[which] = 0
        self._previous[which] = np.where(known[:, None], headings, 0.0)
        if self.options.history and self.options.heading:
            shown = which[known]
            behind = self.position[shown] - STUB_PX * headings[known]
            self._draw(shown, np.clip(behind, 0, self._size[shown] - 1), self.position[shown])
        self._look(which, first=True)

    def move(self, which: NDArray[np.intp], displacement: NDArray[np.float64]) -> Outcome:
        """One step of the trackers ``which`` (n,), each by its ``displacement`` (n, 2), px."""
        options = self.options
        before = self.position[which]
        limit = options.max_step_px
        asked = before + np.clip(np.asarray(displacement, np.float64), -limit, limit)
        after = np.clip(asked, 0, self._size[which] - 1)
        moved = after - before
        reward = self._reward(which, before, after, moved)
        self.position[which] = after
        self._previous[which] = moved
        self.steps[which] += 1
        if options.history:
            self._draw(which, before, after)
        self._look(which)
        distance = self.distance(which)
        terminated = np.linalg.norm(after - self.end[which], axis=1) <= options.reach_px
        if options.lost_px:
            terminated |= distance > options.lost_px
        truncated = ~terminated & (self.steps[which] >= options.max_steps)
        return Outcome(reward, terminated, truncated, moved, distance)

    def observe(self) -> dict[str, NDArray[np.float32]]:
        """Views of all: (count, 12, 11, 11) for the actor, (count, 4, 11, 11) of the centreline for the critic.

        Channels are ordered by time, t-3 to t, and within a time: window, wide window, path. Values are 0 to 1. The
        arrays are not written to again.
        """
        count = len(self)
        return {
            "views": self._views.reshape(count, 3 * FRAMES, WINDOW_PX, WINDOW_PX),
            "centreline": self._guides,
        }

    def _reward(
        self,
        which: NDArray[np.intp],
        before: NDArray[np.float64],
        after: NDArray[np.float64],
        moved: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Algorithm 1 of the paper."""
        options = self.options
        length = np.linalg.norm(moved, axis=1)
        points = before[:, None] + _ALONG[:, None] * moved[:, None] + self.bank.margin
        earned = sample(self.bank.guides, self._slot[which], points).mean(axis=1, dtype=np.float64)
        if options.reward == "integral":
            earned *= length / options.max_step_px
        elif options.reward == "sum":
            earned *= REWARD_SAMPLES
        self._turns[which] += (self._previous[which] * moved).sum(axis=1) < 0  # more than 90 degrees
        earned = np.where(self._turns[which] % 2 == 1, -earned, earned)
        return np.where(length == 0, -1.0, earned)

    def _draw(self, which: NDArray[np.intp], start: NDArray[np.float64], end: NDArray[np.float64]) -> None:
        """Mark the pixels of segments in the paths: half a pixel apart or less, so that none is left out."""
        along = np.linspace(0.0, 1.0, int(np.ceil(2 * max(STUB_PX, self.options.max_step_px))) + 1)
        points = start[:, None] + along[:, None] * (end - start)[:, None] + self.bank.margin
        at = np.rint(points).astype(np.intp)
        self._paths[which[:, None], at[..., 1], at[..., 0]] = 1

    def _look(self, which: NDArray[np.intp], *, first: bool = False) -> None:
        """Take this time step's views of the trackers ``which``; the first fills all four."""
        bank, options = self.bank, self.options
        centres, slot = self.position[which] + bank.margin, self._slot[which]
        width = bank.guides.shape[2]
        frame = np.zeros((len(which), 3, WINDOW_PX, WINDOW_PX), np.float32)
        near = Windows(centres, options.scales[0] * options.view_scale, width)
        frame[:, 0] = near.cut(bank.images[0], slot)
        if len(options.scales) > 1:
            frame[:, 1] = Windows(centres, options.scales[1] * options.view_scale, width).cut(bank.images[1], slot)
        if options.history:
            frame[:, 2] = near.cut(self._paths, which)
        guide = near.cut(bank.guides, slot)
        views, guides = np.empty_like(self._views), np.empty_like(self._guides)
        if len(which) < len(self):
            views[:], guides[:] = self._views, self._guides
        if first:
            views[which], guides[which] = frame[:, None], guide[:, None]
        else:
            views[which, :-1], guides[which, :-1] = self._views[which, 1:], self._guides[which, 1:]
            views[which, -1], guides[which, -1] = frame, guide
        self._views, self._guides = views, guides
