"""A round of episodes on a vector environment, recorded in arrays: who plays what, and the episodes cut out of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

_NOBODY = -1
_STARTING = -2


@dataclass(frozen=True)
class Played:
    """One whole episode of T steps.

    Attributes:
        obs: name -> (T + 1, ...), the final observation included.
        actions: (T, A).
        rewards: (T,).
        columns: what else was recorded of each step, name -> (T, ...).
        terminated: whether it ended by itself rather than being cut off.
    """

    obs: Mapping[str, np.ndarray]
    actions: np.ndarray
    rewards: np.ndarray
    columns: Mapping[str, np.ndarray]
    terminated: bool


class Recorder:
    """Starts episodes on environments as they become free, until enough have started, and records them to their ends.

    Args:
        num_envs: environments stepped together, just reset. Those that are not needed (any more) idle.
        num_episodes: to play.
    """

    def __init__(self, num_envs: int, num_episodes: int) -> None:
        self.unfinished = num_episodes
        self._started = min(num_envs, num_episodes)
        self._last = num_episodes
        self._episode = np.full(num_envs, _NOBODY)
        self._episode[: self._started] = np.arange(self._started)
        self._terminated = np.zeros(num_episodes, bool)
        self._obs: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
        self._steps: list[tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]] = []

    def playing(self) -> np.ndarray:
        """Environments in the middle of a recorded episode; the actions of others do not count."""
        return np.flatnonzero(self._episode >= 0)

    def add_observations(self, obs: Mapping[str, np.ndarray], rows: np.ndarray) -> None:
        """What those environments see; copied, since environments may write into the same arrays again."""
        self._obs.append((self._episode[rows], {name: value[rows] for name, value in obs.items()}))

    def add_step(
        self,
        rows: np.ndarray,
        obs: Mapping[str, np.ndarray],
        actions: np.ndarray,
        rewards: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        columns: Mapping[str, np.ndarray],
    ) -> None:
        """One step of the vector environment.

        Args:
            rows: environments that were `playing`.
            obs: of all environments, after the step.
            actions: of ``rows`` only.
            rewards: of all, and so on.
            terminated: an environment that did resets in the next step, whose action and reward count for nothing.
            truncated: likewise.
            columns: what else to record, of ``rows`` only.
        """
        self._steps.append((self._episode[rows], actions, np.asarray(rewards)[rows], dict(columns)))
        self._episode[self._episode == _STARTING] = self._fresh(int((self._episode == _STARTING).sum()))
        done = rows[(terminated | truncated)[rows]]
        if not len(done):
            return
        self.add_observations(obs, done)
        self._terminated[self._episode[done]] = np.asarray(terminated)[done]
        self.unfinished -= len(done)
        again = done[: self._last - self._started]
        self._episode[done] = _NOBODY
        self._episode[again] = _STARTING

    def _fresh(self, number: int) -> np.ndarray:
        first, self._started = self._started, self._started + number
        return np.arange(first, self._started)

    def episodes(self) -> Iterator[Played]:
        """All of them, in the order they started. Arrays are parts of larger ones."""
        ids, obs = _together([(who, rows) for who, rows in self._obs])
        seen = np.cumsum(np.bincount(ids))[:-1]
        whose, steps = _together([
            (who, {"actions": a, "rewards": r} | {f"column {name}": c for name, c in columns.items()})
            for who, a, r, columns in self._steps
        ])  # fmt: skip
        cuts = np.cumsum(np.bincount(whose))[:-1]
        obs_parts = {name: np.split(value, seen) for name, value in obs.items()}
        parts = {name: np.split(value, cuts) for name, value in steps.items()}
        for number in range(self._last):
            yield Played(
                obs={name: split[number] for name, split in obs_parts.items()},
                actions=parts["actions"][number],
                rewards=parts["rewards"][number],
                columns={n.removeprefix("column "): p[number] for n, p in parts.items() if n.startswith("column ")},
                terminated=bool(self._terminated[number]),
            )


def _together(parts: list[tuple[np.ndarray, dict[str, np.ndarray]]]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows of all steps, sorted by episode and, within one, by time."""
    ids = np.concatenate([who for who, _ in parts])
    order = np.argsort(ids, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    ends = np.cumsum([len(who) for who, _ in parts])
    sorted_columns = {}
    for name, like in parts[0][1].items():
        rows = sorted_columns[name] = np.empty((len(ids), *like.shape[1:]), like.dtype)
        for (who, columns), end in zip(parts, ends, strict=True):
            rows[place[end - len(who) : end]] = columns[name]
    return ids[order], sorted_columns
