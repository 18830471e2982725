"""Many trackers as one Gymnasium vector environment, stepped together in NumPy."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.axon.episodes import begin
from envs.axon.generator import SyntheticScenes
from envs.axon.options import TrackingOptions
from envs.axon.scene import Scenes
from envs.axon.spaces import action_space, observation_space
from envs.axon.trackers import Trackers


class AxonTrackingVectorEnv(VectorEnv[dict[str, NDArray[Any]], NDArray[Any], NDArray[Any]]):
    """``num_envs`` trackers. Tracker i behaves as an `AxonTrackingEnv` reset with seed ``seed + i``.

    After an episode ended, the next step resets that tracker: its action is ignored and its reward is 0 (Gymnasium's
    NEXT_STEP).

    Args:
        num_envs: how many.
        scenes: what to draw episodes from; 32,000 standard synthetic images unless given.
        options: rules; the paper's unless given.
        render_mode: only None; render single environments.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012  Gymnasium's name

    def __init__(
        self,
        num_envs: int = 1,
        *,
        scenes: Scenes | None = None,
        options: TrackingOptions | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.num_envs = num_envs
        self.options = options or TrackingOptions()
        self.scenes = SyntheticScenes() if scenes is None else scenes
        self.render_mode = render_mode
        self.trackers = Trackers(self.scenes, num_envs, self.options)
        self.single_observation_space = observation_space()
        self.single_action_space = action_space(self.options)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rngs: list[np.random.Generator] = []
        self._over = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begin an episode everywhere. ``seed`` + i, or ``seed[i]``, is that of tracker i."""
        if seed is not None or not self._rngs:
            seeds = (
                seed if isinstance(seed, list) else [None if seed is None else seed + i for i in range(self.num_envs)]
            )
            self._rngs = [gymnasium.utils.seeding.np_random(each)[0] for each in seeds]
        self._begin(np.arange(self.num_envs))
        self._over[:] = False
        return self.trackers.observe(), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Move every tracker by its displacement (num_envs, 2), px; those whose episode ended begin another."""
        running = np.flatnonzero(~self._over)
        ended = np.flatnonzero(self._over)
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        distance, length = np.zeros(self.num_envs), np.zeros(self.num_envs)
        if len(running):
            outcome = self.trackers.move(running, np.asarray(actions)[running])
            rewards[running] = outcome.reward
            terminated[running], truncated[running] = outcome.terminated, outcome.truncated
            distance[running] = outcome.distance
            length[running] = np.linalg.norm(outcome.moved, axis=1)
        if len(ended):
            self._begin(ended)
        moved = ~self._over
        self._over = terminated | truncated
        infos = {"distance_px": distance, "_distance_px": moved, "step_px": length, "_step_px": moved}
        return self.trackers.observe(), rewards, terminated, truncated, infos

    def _begin(self, which: NDArray[np.intp]) -> None:
        episodes = [begin(self._rngs[i], self.scenes, self.options) for i in which]
        self.trackers.place(
            which,
            [episode.scene for episode in episodes],
            np.stack([episode.start for episode in episodes]),
            np.stack([episode.heading for episode in episodes]),
            np.stack([episode.end for episode in episodes]),
        )
