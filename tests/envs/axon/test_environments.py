"""One tracker and many: Gymnasium's rules, and that they are the same game."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs.axon
from envs.axon import AxonSettings, AxonTrackingEnv, AxonTrackingVectorEnv, Scene, SyntheticScenes, TrackingOptions

SMALL = AxonSettings(size_px=64, num_points=(4, 6))


@pytest.fixture(scope="module")
def scenes() -> SyntheticScenes:
    return SyntheticScenes(SMALL, 12, seed=3)


def test_gymnasium_accepts_the_environment(scenes: SyntheticScenes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*recommend using a symmetric and normalized space")  # px, as stated
        env = gymnasium.make("medray/AxonTracking-v0", scenes=scenes, render_mode="rgb_array", disable_env_checker=True)
        check_env(env.unwrapped)


def test_gymnasium_makes_the_batched_one() -> None:
    env = gymnasium.make_vec("envs.axon:medray/AxonTracking-v0", num_envs=5, vectorization_mode="vector_entry_point")
    assert isinstance(env, AxonTrackingVectorEnv)
    observations, _ = env.reset(seed=0)
    assert env.observation_space.contains(observations)
    assert observations["views"].shape == (5, 12, 11, 11)


@pytest.mark.parametrize(
    "options",
    [
        TrackingOptions(max_steps=15),
        TrackingOptions(
            max_steps=40, reward="integral", lost_px=6, history=False, scales=(1.0,), start_noise_px=1,
            heading_noise_deg=20, view_scale=1.5,
        ),
    ],
)  # fmt: skip
def test_many_trackers_are_single_ones_side_by_side(scenes: SyntheticScenes, options: TrackingOptions) -> None:
    """Same seeds and actions: bit for bit the same observations, rewards and ends, over several episodes each."""
    many = AxonTrackingVectorEnv(7, scenes=scenes, options=options)
    singles = [AxonTrackingEnv(scenes=scenes, options=options) for _ in range(7)]
    together, _ = many.reset(seed=11)
    alone = [env.reset(seed=11 + i)[0] for i, env in enumerate(singles)]
    rng, over, episodes = np.random.default_rng(0), np.zeros(7, bool), 0
    for _ in range(60):
        for i in range(7):
            for name, value in alone[i].items():
                np.testing.assert_array_equal(together[name][i], value)
        actions = rng.uniform(-4, 4, (7, 2))
        together, rewards, terminated, truncated, info = many.step(actions)
        for i, env in enumerate(singles):
            if over[i]:
                alone[i] = env.reset()[0]
                assert (rewards[i], terminated[i], truncated[i]) == (0, False, False)
                continue
            alone[i], *expected, told = env.step(actions[i])
            assert [rewards[i], terminated[i], truncated[i]] == expected
            assert (info["distance_px"][i], info["step_px"][i]) == (told["distance_px"], told["step_px"])
        over = terminated | truncated
        episodes += int(over.sum())
    assert episodes > 14


def test_the_same_seed_is_the_same_episode(scenes: SyntheticScenes) -> None:
    env = AxonTrackingEnv(scenes=scenes)
    first, about = env.reset(seed=5)
    second, _ = env.reset(seed=5)
    np.testing.assert_array_equal(first["views"], second["views"])
    assert {env.reset()[1]["scene"] for _ in range(12)} != {about["scene"]}


def test_observations_handed_out_stay_as_they_were(scenes: SyntheticScenes) -> None:
    env = AxonTrackingVectorEnv(3, scenes=scenes)
    before, _ = env.reset(seed=1)
    kept = before["views"].copy()
    for _ in range(3):
        env.step(np.ones((3, 2)))
    np.testing.assert_array_equal(before["views"], kept)


def test_a_start_of_ones_own(scenes: SyntheticScenes) -> None:
    env = AxonTrackingEnv(scenes=[Scene(np.full((40, 50), 0.5, np.float32))])
    _, info = env.reset(seed=0, options={"start": (10.25, 20.0), "heading": (0, 3)})
    assert info["progress"] == 0
    env.step(np.array([2.0, -1.0]))
    np.testing.assert_allclose(env.path, [(10.25, 20), (12.25, 19)])
    with pytest.raises(ValueError, match=r"x=60, y=20 is outside its 50 x 40 px image"):
        env.reset(options={"start": (60, 20)})
    with pytest.raises(ValueError, match="no centreline: give a start point"):
        env.reset()


def test_pictures_show_image_path_and_truth(scenes: SyntheticScenes) -> None:
    env = AxonTrackingEnv(scenes=scenes, render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    assert first is not None
    assert first.shape == (512, 512, 3)
    env.step(np.array([4.0, 4.0]))
    second = env.render()
    assert second is not None
    assert (first != second).any()
    assert (second == envs.axon.rendering.TRUTH).all(-1).sum() > 100


def test_a_window_opens_and_closes(scenes: SyntheticScenes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    env = AxonTrackingEnv(scenes=scenes, render_mode="human")
    env.reset(seed=0)
    env.step(np.array([1.0, 0.0]))
    assert env.render() is None
    env.close()
    with pytest.raises(ValueError, match="render_mode"):
        AxonTrackingEnv(scenes=scenes, render_mode="ansi")  # type: ignore[arg-type]
