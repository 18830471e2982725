"""Steps per second of the batched axon environment, observations included, and of single ones in a loop, on one core.

    python tests/benchmarks/bench_axon_env.py [--num-envs 256] [--rounds 5] [--size 128]

Trackers wander with random steps. Two kinds of episode: 200 steps long, as in the paper, and ended 6 px off the line as
in the short presets, so that a reset comes every few steps. Images are drawn before; what drawing one costs is told
apart, since training sees each a few times at most. Seconds are the CPU's; the ratio is of medians over rounds in which
both run. Not a test.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import time
from dataclasses import replace

import numpy as np

from envs.axon import SETTINGS, AxonTrackingEnv, AxonTrackingVectorEnv, SyntheticScenes, TrackingOptions

_STEPS = 400
_KINDS = {"200 steps": TrackingOptions(), "lost at 6 px": TrackingOptions(lost_px=6.0)}


def together(scenes: SyntheticScenes, options: TrackingOptions, num_envs: int) -> float:
    """Steps per second of the batched environment; the steps that only reset are not counted."""
    env = AxonTrackingVectorEnv(num_envs, scenes=scenes, options=options)
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-4, 4, (_STEPS, num_envs, 2))
    began, moved = time.process_time(), 0
    for step in range(_STEPS):
        *_, info = env.step(actions[step])
        moved += int(info["_step_px"].sum())
    return moved / (time.process_time() - began)


def alone(scenes: SyntheticScenes, options: TrackingOptions, count: int) -> float:
    """Steps per second of a single environment."""
    env = AxonTrackingEnv(scenes=scenes, options=options)
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-4, 4, (count, 2))
    began = time.process_time()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return count / (time.process_time() - began)


def main() -> None:
    """Print both rates, their ratio and what an image costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-envs", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=128, help="of the images, px")
    parser.add_argument("--images", type=int, default=512)
    given = parser.parse_args()
    scenes = SyntheticScenes(replace(SETTINGS["SI"], size_px=given.size), given.images)
    began = time.process_time()
    for index in range(given.images):
        scenes[index]
    drawing = (time.process_time() - began) / given.images
    print(f"{given.num_envs} trackers, images of {given.size} px, load {os.getloadavg()[0]:.1f}")
    for name, options in _KINDS.items():
        rounds = [
            (together(scenes, options, given.num_envs), alone(scenes, options, 4 * _STEPS)) for _ in range(given.rounds)
        ]
        many, one = (statistics.median(part) for part in zip(*rounds, strict=True))
        spread = " ".join(f"{rate:.0f}" for rate, _ in rounds)
        print(f"{name:>12}: {many:8.0f} steps/s batched ({spread}), {one:6.0f} alone, ratio {many / one:.1f}")
    print(f"drawing an image: {1000 * drawing:.2f} ms")


if __name__ == "__main__":
    main()
