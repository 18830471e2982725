"""What a sweep costs beyond the work of its trials, and what giving trials up early saves.

    python tests/benchmarks/bench_sweeps.py overhead
    python tests/benchmarks/bench_sweeps.py halving

`overhead`: 16 trials of a system that does nothing, one at a time, on a Ray that is up: seconds per trial, with the
trial's process kept warm (as sweeps do it), with a new one for each trial, and with a Ray Train worker for each.
`halving`: a fixed grid of 32 trials of BliMSR on its phantom to the end, then the same grid with successive
halving: the ratio of training epochs, and whether both name the same best.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from clusters import local_ray
from toy_sweeps import registered

from tuning.records import TrialRecord, read_sweep, read_trials
from tuning.study import open_study
from tuning.sweep import main

NUM_TRIALS, NUM_COLD, ROUNDS = 16, 4, 3


def overhead() -> None:
    """Print seconds per trial for each way of hosting trials, and their ratio to the warm one."""
    arms = {"warm process": (["--num-workers", "0"], True), "new process": (["--num-workers", "0"], False),
            "Ray Train worker": (["--num-workers", "1", "--set", "config.network=True"], True)}  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in arms}
    with registered(), local_ray(2, dashboard=True), tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            for name, (arguments, warm) in arms.items():
                trials = NUM_TRIALS if name == "warm process" else NUM_COLD
                found[name].append(_seconds_per_trial(Path(folder, f"{number}{name}"), arguments, trials, warm=warm))
                print(f"round {number}: {name} {found[name][-1]:.2f} s per trial", file=sys.stderr)
    reference = statistics.median(found["warm process"])
    for name, seconds in found.items():
        middle = statistics.median(seconds)
        spread = " ".join(f"{one:.2f}" for one in seconds)
        print(f"{name:18} {middle:6.2f} s per trial, {middle / reference:5.1f} x the warm one ({spread})")


def _seconds_per_trial(folder: Path, arguments: Sequence[str], trials: int, *, warm: bool) -> float:
    """Time from the first trial's end to the last one's, less the trials' own work: starting up is paid once."""
    from ray import tune

    real = tune.TuneConfig

    def config(**settings: Any) -> Any:
        return real(**{**settings, "reuse_actors": warm and settings["reuse_actors"]})

    ends: list[float] = []
    search = ["dial", "--search", "config.x=uniform(0,1)", "--metric", "score", "--mode", "max", "--sampler", "random"]
    with mock.patch.object(tune, "TuneConfig", config), mock.patch("tuning.progress.Progress._closed", _noting(ends)):
        assert main([*search, "--trials", str(trials), "--concurrent", "1", "--out", str(folder), *arguments]) == 0
    own = [trial.seconds for trial in _trials(folder)][1:]
    return (ends[-1] - ends[0] - (0 if "worker" in str(folder) else sum(own))) / (len(ends) - 1)


def _noting(ends: list[float]) -> Any:
    def closed(self: Any, trial: Any) -> None:
        ends.append(time.monotonic())
        self._ended(trial)

    return closed


def _trials(out: Path) -> list[TrialRecord]:
    (folder,) = (out / "sweeps").glob("*/*")
    record = read_sweep(folder)
    return read_trials(open_study(record.storage, record.study), record.dimensions)


GRID = ("config.lr=choice(1e-5,3e-5,1e-4,3e-4,1e-3,3e-3,1e-2,3e-2)", "config.lambda_cont=choice(0.0,0.1,1.0,10.0)")

SMALL = ("config.crop_px=32", "config.num_blocks=2", "config.num_channels=8", "config.lambda_adv=0",
         "config.warmup_epochs=0", "config.num_epochs=27", "config.validation_fraction=0.25")  # fmt: skip


def halving() -> None:
    """Print the epochs that a grid takes with and without giving trials up, and the best of each."""
    common = ["blimsr", "--search", *GRID, "--sampler", "grid", "--trials", "32", "--metric", "ssim", "--mode", "max",
              "--concurrent", "1", "--data", "phantom:thorax_ct?n=16&slices=1&size=64", "--set", *SMALL]  # fmt: skip
    found: dict[str, list[TrialRecord]] = {}
    with local_ray(2), tempfile.TemporaryDirectory() as folder:
        for name in ("none", "asha"):
            assert main([*common, "--scheduler", name, "--stop-on", "ssim", "--out", f"{folder}/{name}"]) == 0
            found[name] = _trials(Path(folder, name))
    whole = max(max(trial.curve, default=0) for trial in found["asha"])
    epochs = {"none": whole * len(found["none"]), "asha": sum(max(trial.curve) for trial in found["asha"])}
    for name, trials in found.items():
        best = max((trial for trial in trials if trial.finished), key=lambda trial: trial.values[0])
        print(f"{name}: {epochs[name]} epochs, best trial {best.number} {dict(best.config)} ssim {best.values[0]:.4f}")
    print(f"ratio of epochs {epochs['asha'] / epochs['none']:.2f}")


if __name__ == "__main__":
    {"overhead": overhead, "halving": halving}[sys.argv[1]]()
