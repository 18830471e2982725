"""Cross-validate a preset by patient on real data: every patient is tested once by a model that never saw them.

    python tests/benchmarks/cross_validate.py --preset prostate --data FOLDER --variants mind elastix cnn --seeds 0 1

Prints a row per variant and seed: metrics over all held-out pairs, the lowest Dice, and the mean Dice of each patient.
Fold k holds the patients whose number in alphabetical order is k modulo the number of folds. Folds run side by side.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import sys
import tempfile
from ast import literal_eval
from pathlib import Path

import torch

from medray.cli.flags import chosen_config
from medray.data.case import Case, Splits
from medray.data.sources import open_source
from medray.engine.options import RunOptions
from medray.engine.ray_train import RayWorkbench, ray_session
from medray.system import Row, Workbench
from medray.systems.registration.suts_system import Suts, SutsSettings


def one_fold(
    config: SutsSettings, cases: tuple[Case, ...], seed: int, work: Workbench, held_out: frozenset[str]
) -> list[Row]:
    """Train on the other patients, score these."""
    torch.set_num_threads(1)
    work.seed = seed
    system = Suts(config)
    train = tuple(case for case in cases if case.patient not in held_out)
    test = tuple(case for case in cases if case.patient in held_out)
    trained = system.train(work, Splits(train, (), test))
    return list(system.evaluate(work, trained, test).rows)


def main() -> None:
    """Run every variant and seed over all folds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="prostate")
    parser.add_argument("--data", required=True)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--variants", nargs="+", default=["mind", "elastix", "cnn"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", nargs="*", default=[], help="config fields, NAME=PYTHON_VALUE")
    arguments = parser.parse_args()
    changes = {name: literal_eval(value) for name, value in (item.split("=", 1) for item in arguments.set)}
    cases = open_source(arguments.data).cases
    patients = sorted({case.patient for case in cases})
    folds = [frozenset(patients[k :: arguments.folds]) for k in range(arguments.folds)]
    options = RunOptions(data=arguments.data, num_workers=1)
    print("command:", " ".join(sys.argv))
    with tempfile.TemporaryDirectory() as folder, ray_session(1):
        for variant in arguments.variants:
            config = dataclasses.replace(chosen_config(Suts, arguments.preset, variant), **changes)
            learns = config.features == "cnn" and config.aligner == "descent"
            for seed in arguments.seeds if learns else arguments.seeds[:1]:
                work = RayWorkbench(Path(folder) / f"{variant}{seed}", options)
                parts = work.map_runs(functools.partial(one_fold, config, cases, seed), folds, name="fold")
                show(f"{variant} seed {seed}", [row for part in parts for row in part])


def show(title: str, rows: list[Row]) -> None:
    """One line of means over pairs and one of Dice per patient."""
    names = ("initial_dice_mean", "dice_mean", "initial_landmark_mm", "landmark_mm", "folded_percent", "cpu_s")
    told = []
    for name in names:
        values = [float(row[name]) for row in rows if name in row]
        if values:
            told.append(f"{name} {statistics.mean(values):.3f}")
    dice = [float(row["dice_mean"]) for row in rows]
    print(f"{title}: {len(rows)} pairs, " + ", ".join(told) + f", lowest dice {min(dice):.2f}")
    by_patient: dict[str, list[float]] = {}
    for row in rows:
        by_patient.setdefault(str(row["case"]).split("/z=")[0], []).append(float(row["dice_mean"]))
    print("   " + ", ".join(f"{name} {statistics.mean(v):.2f}" for name, v in sorted(by_patient.items())), flush=True)


if __name__ == "__main__":
    main()
