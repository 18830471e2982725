import numpy as np
import pytest
from numpy.testing import assert_allclose
from ray.rllib.utils.postprocessing.value_predictions import compute_value_targets

from medray.rl.advantages import advantages

REWARDS, VALUES = np.array([1.0, 2.0]), np.array([0.5, 1.0, 4.0], np.float32)


@pytest.mark.parametrize(
    ("terminated", "expected"),
    [
        # by hand, gamma = lambda = 1/2: delta_0 = 1 + 1/2 - 1/2 = 1, and A_0 = delta_0 + A_1 / 4
        (False, [1.75, 3.0]),  # cut off: delta_1 = 2 + 4/2 - 1 = 3
        (True, [1.25, 1.0]),  # over: delta_1 = 2 + 0 - 1 = 1, whatever the critic says of the end
    ],
)
def test_only_an_episode_that_was_cut_off_bootstraps(terminated: bool, expected: list[float]):
    assert_allclose(advantages(REWARDS, VALUES, terminated=terminated, gamma=0.5, lambda_=0.5), expected)


@pytest.mark.parametrize("terminated", [False, True])
def test_agrees_with_rllibs_targets(terminated: bool):
    draws = np.random.default_rng(0)
    rewards, values = draws.normal(size=30), draws.normal(size=31).astype(np.float32)
    flags = np.zeros((2, 31), np.float32)
    flags[int(not terminated), -2] = 1  # RLlib marks the last real step and adds one for the bootstrap value
    theirs = compute_value_targets(
        values=values,
        rewards=np.append(rewards, 0),
        terminateds=flags[0],
        truncateds=flags[1],
        gamma=0.99,
        lambda_=0.95,
    )
    mine = values[:-1] + advantages(rewards, values, terminated=terminated, gamma=0.99, lambda_=0.95)
    assert_allclose(mine, theirs[:-1], rtol=1e-5, atol=1e-5)


def test_without_lambda_only_the_next_value_counts():
    found = advantages(REWARDS, VALUES, terminated=False, gamma=0.9, lambda_=0.0)
    assert_allclose(found, [1 + 0.9 * 1 - 0.5, 2 + 0.9 * 4 - 1], rtol=1e-6)
