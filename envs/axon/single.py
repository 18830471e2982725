"""One tracker as a Gymnasium environment."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.axon.episodes import Beginning, begin
from envs.axon.generator import SyntheticScenes
from envs.axon.options import TrackingOptions
from envs.axon.polyline import arc_lengths
from envs.axon.rendering import Screen, draw_tracker
from envs.axon.scene import Scenes
from envs.axon.spaces import action_space, observation_space
from envs.axon.trackers import Trackers

_HERE = np.array([0])


class AxonTrackingEnv(gymnasium.Env[dict[str, NDArray[Any]], NDArray[Any]]):
    """Follow a thin structure from one end to the other; see `TrackingOptions` for the rules.

    ``info`` holds distance_px to the centreline (up to 12), step_px just made, progress (part of the centreline's
    length that lies behind the point nearest to the tracker), reached, and the name of the scene.

    Args:
        scenes: what to draw episodes from; 32,000 standard synthetic images unless given.
        options: rules; the paper's unless given.
        render_mode: "rgb_array" for pictures, "human" for a window.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 15}  # noqa: RUF012  Gymnasium's name

    def __init__(
        self,
        *,
        scenes: Scenes | None = None,
        options: TrackingOptions | None = None,
        render_mode: Literal["rgb_array", "human"] | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is rgb_array, human or None, got {render_mode!r}")
        self.options = options or TrackingOptions()
        self.scenes = SyntheticScenes() if scenes is None else scenes
        self.render_mode = render_mode
        self.observation_space = observation_space()
        self.action_space = action_space(self.options)
        self.trackers = Trackers(self.scenes, 1, self.options)
        self.path: list[NDArray[np.float64]] = []
        self._backwards = False
        self._screen: Screen | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begin an episode. ``options`` may name its ``scene`` (an index), a ``start`` and a ``heading``, (x, y) in px.

        Raises:
            ValueError: the scene has no centreline and no start is given, or the start is outside the image.
        """
        super().reset(seed=seed)
        episode = self._beginning(options or {})
        self.trackers.place(_HERE, [episode.scene], episode.start[None], episode.heading[None], episode.end[None])
        self.path = [self.trackers.position[0].copy()]
        self._show()
        return self._observation(), self._info(0.0, float(self.trackers.distance(_HERE)[0]))

    def step(self, action: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Move by a displacement (x, y), px."""
        outcome = self.trackers.move(_HERE, np.asarray(action, np.float64)[None])
        self.path.append(self.trackers.position[0].copy())
        self._show()
        # Along an axis, as for many trackers: a norm of all values goes through BLAS, which rounds otherwise.
        length = float(np.linalg.norm(outcome.moved, axis=1)[0])
        info = self._info(length, float(outcome.distance[0]))
        return (
            self._observation(), float(outcome.reward[0]), bool(outcome.terminated[0]), bool(outcome.truncated[0]), info
        )  # fmt: skip

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]  # Gymnasium's type is a type variable
        """The image, the centreline, the path and the tracker with its window, (H, W, 3); None with a window or without
        a mode.
        """
        return self._picture() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Close the window."""
        if self._screen is not None:
            self._screen.close()
            self._screen = None

    def _beginning(self, asked: dict[str, Any]) -> Beginning:
        if "start" not in asked:
            return begin(self.np_random, self.scenes, self.options, asked.get("scene"))
        unknown = np.full(2, np.nan)
        heading = np.asarray(asked.get("heading", unknown), np.float64)
        scene = int(asked.get("scene", 0))
        line = self.scenes[scene].centreline
        end = unknown if line is None else line[-1]
        return Beginning(scene, np.asarray(asked["start"], np.float64), heading / np.linalg.norm(heading), end)

    def _observation(self) -> dict[str, NDArray[Any]]:
        return {name: value[0] for name, value in self.trackers.observe().items()}

    def _info(self, step_px: float, distance_px: float) -> dict[str, Any]:
        position, end = self.trackers.position[0], self.trackers.end[0]
        return {
            "distance_px": distance_px,
            "step_px": step_px,
            "progress": self._progress(position, end),
            "reached": bool(np.linalg.norm(position - end) <= self.options.reach_px),
            "scene": self.trackers.scene(0).name,
        }

    def _progress(self, position: NDArray[np.float64], end: NDArray[np.float64]) -> float:
        line = self.trackers.scene(0).centreline
        if line is None:
            return 0.0
        if np.array_equal(end, line[0]):
            line = line[::-1]
        arc = arc_lengths(line)
        return float(arc[np.linalg.norm(line - position, axis=1).argmin()] / arc[-1])

    def _picture(self) -> NDArray[np.uint8]:
        return draw_tracker(self.trackers.scene(0), np.array(self.path), self.options)

    def _show(self) -> None:
        if self.render_mode == "human":
            self._screen = self._screen or Screen(1 / self.metadata["render_fps"])
            self._screen.show(self._picture())
