"""Episodes cut out of a scripted environment that writes who, which episode and what time into its observations."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from medray.rl.rounds import Played, Recorder


class Scripted:
    """Episode k of environment e lasts ``lengths[e][k]`` steps; even episodes terminate, odd ones are cut off."""

    def __init__(self, lengths: list[list[int]]) -> None:
        self.lengths = lengths
        self.episode, self.time = np.zeros((2, len(lengths)), int)
        self.over = np.zeros(len(lengths), bool)
        self.seen = np.zeros((len(lengths), 3))  # one array that is written again and again

    def look(self) -> dict[str, np.ndarray]:
        self.seen[:] = np.stack([np.arange(len(self.lengths)), self.episode, self.time], 1)
        return {"seen": self.seen}

    def step(self) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
        starting = self.over
        self.episode[starting] += 1
        self.time = np.where(starting, 0, self.time + 1)
        ends = [self.time[e] == self.lengths[e][self.episode[e] % len(self.lengths[e])] for e in range(len(self.time))]
        self.over = np.array(ends) & ~starting
        rewards = np.where(starting, np.nan, 100.0 * self.episode + self.time)
        return self.look(), rewards, self.over & (self.episode % 2 == 0), self.over & (self.episode % 2 == 1)


def played(lengths: list[list[int]], num_episodes: int) -> list[Played]:
    env, recorder = Scripted(lengths), Recorder(len(lengths), num_episodes)
    obs = env.look()
    while recorder.unfinished:
        rows = recorder.playing()
        actions = obs["seen"][rows] + 0.5
        recorder.add_observations(obs, rows)
        obs, rewards, terminated, truncated = env.step()
        recorder.add_step(rows, obs, actions, rewards, terminated, truncated, {"twice": 2 * actions})
    return list(recorder.episodes())


@pytest.mark.parametrize(
    ("lengths", "num_episodes"),
    [([[3], [1], [2]], 3), ([[3, 1], [1, 4, 2], [2]], 7), ([[5], [1], [1], [1]], 2), ([[2, 1, 3]], 5)],
)
def test_episodes_are_whole_and_in_order(lengths: list[list[int]], num_episodes: int):
    episodes = played(lengths, num_episodes)
    assert len(episodes) == num_episodes
    for episode in episodes:
        who, which, time = episode.obs["seen"].T
        assert len(set(who)) == len(set(which)) == 1
        steps = lengths[int(who[0])][int(which[0]) % len(lengths[int(who[0])])]
        assert_array_equal(time, np.arange(steps + 1))
        assert_array_equal(episode.actions, episode.obs["seen"][:-1] + 0.5)
        assert_array_equal(episode.columns["twice"], 2 * episode.actions)
        assert_array_equal(episode.rewards, 100 * which[0] + np.arange(1, steps + 1))
        assert episode.terminated == (which[0] % 2 == 0)


def test_a_long_episode_that_was_started_is_played_to_its_end():
    """The first two to end would be the short ones, and a policy that dies early would look better than it is."""
    episodes = played([[9], [1, 1, 1, 1]], 2)
    assert sorted(len(episode.rewards) for episode in episodes) == [1, 9]


def test_environments_that_are_not_needed_idle():
    recorder = Recorder(5, 2)
    assert_array_equal(recorder.playing(), [0, 1])
