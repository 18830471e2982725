"""Run directories as the engine leaves them, small and made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ORGANS = {"liver": 0.82, "spleen": 0.66, "left_kidney": 0.74, "right_kidney": 0.7}
VARIANTS = {"cnn": 0.0, "mind": -0.07, "intensity": -0.3, "elastix": -0.02}
EVIL = "<script>alert(1)</script>"

RunMaker = Callable[..., Path]


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def picture(path: Path, size: tuple[int, int] = (320, 200)) -> None:
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    checks = ((x // 40 + y // 40) % 2) * 90
    pixels = np.stack([checks + 60, x * 120 // size[0] + 60, y * 120 // size[1] + 60], axis=-1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def config(**changes: Any) -> dict[str, Any]:
    return {
        "medray": "0.1.0",
        "system": "nowhere",
        "variant": "cnn",
        "preset": "smoke",
        "config": {"features": "cnn", "grid_spacing": [12, 8, 5], "lambda": 0.025, "optimizer": {"lr": 0.001}},
        "defaults": {"features": "cnn", "grid_spacing": [20, 10, 7], "lambda": 0.025, "optimizer": {"lr": 0.001}},
        "options": {"data": "phantom:abdomen", "num_workers": 2, "seed": 3, "use_gpu": False, "compare": ["mind"]},
        "data": {
            "spec": "phantom:abdomen?n=20&seed=0",
            "fingerprint": "sha256:5f0c2a",
            "splits": {"train": ["a", "b", "c"], "validation": [], "test": [f"p{i}" for i in range(9)]},
            "bad": [{"case": EVIL, "reason": "holds 12 NaN voxels & more", "file": "ct/x.nii.gz"}],
        },
        "versions": {"python": "3.11.7", "torch": "2.13.0", "ray": "2.60.0"},
        "command": "python jobs/nowhere.py train --preset smoke --seed 3",
        "started": "2025-06-01T12:00:00+0200",
        **changes,
    }


def training_log(num_steps: int = 300) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for step in range(1, num_steps + 1):
        loss = 0.9 * np.exp(-step / 60) + 0.004 + 0.01 * rng.random() * np.exp(-step / 90)
        place = {"loop": "train", "step": 411 * step + 1, "epoch": step // 30, "wall_s": step * 0.21}
        lines.append({"name": "train", **place, "loss": float(loss)})
        if step % 30 == 0:
            rise = 1 - np.exp(-step / 80)
            dice = {f"dice_{organ}": float(top * rise + 0.01 * rng.normal()) for organ, top in ORGANS.items()}
            mean = float(np.mean(list(dice.values())))
            epe = float(4 - 2.5 * rise)
            lines.append(
                {"name": "validation", **place, "loss": float(loss * 1.2), "dice": mean, **dice, "epe_px": epe}
            )
    return lines


def evaluation(num_cases: int = 9) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    hardness = rng.normal(0, 0.04, num_cases)
    variants = {}
    for variant, offset in VARIANTS.items():
        rows: list[dict[str, Any]] = []
        for case in range(num_cases):
            dice = {o: float(top + offset + hardness[case] + rng.normal(0, 0.015)) for o, top in ORGANS.items()}
            if case == 2:
                dice["spleen"] = float("nan")  # that patient has none
            row = {"case": f"p{case}", "dice": float(np.nanmean(list(dice.values())))}
            row |= {f"dice_{organ}": value for organ, value in dice.items()}
            row |= {f"initial_dice_{organ}": 0.5 + float(hardness[case]) for organ in dice} | {"initial_dice": 0.5}
            row |= {"epe_px": 1.3 - 3 * offset + float(rng.random()), "folded_percent": 0.01 * case, "converged": True}
            rows.append(row)
        numeric = [key for key in rows[0] if key not in ("case", "converged")]
        summary = {key: float(np.nanmean([row[key] for row in rows])) for key in numeric}
        variants[variant] = {"rows": rows, "summary": summary}
    return {"variants": variants}


def claim() -> dict[str, Any]:
    rng = np.random.default_rng(2)
    rows = [
        {"part": "cross", "variant": variant, "seed": seed, "case": f"p{case}", "dice": 0.7 + gap + rng.normal(0, 0.02)}
        for variant, gap in VARIANTS.items()
        for seed in range(3)
        for case in range(3)
    ]
    return {
        "checks": [
            {
                "name": "cnn beats mind",
                "statement": "Dice(cnn) − Dice(mind) ≥ 0.03",
                "value": 0.0712,
                "threshold": 0.03,
                "interval": [0.055, 0.088],
                "held": True,
            },
            {
                "name": "intensity loses",
                "statement": "Dice(initial) − Dice(intensity) ≥ 0",
                "value": -0.012,
                "threshold": 0.0,
                "interval": [-0.03, 0.01],
                "held": False,
            },
        ],
        "rows": rows,
        "notes": ["Three seeds, nine pairs each."],
        "held": False,
    }


def result() -> dict[str, Any]:
    return {
        "system": "nowhere",
        "variant": "cnn",
        "preset": "smoke",
        "seed": 3,
        "metrics": {"dice": 0.73, "epe_px": 1.6},
        "seconds": 192.4,
        "samples_per_second": 23.4,
        "checkpoint": "checkpoints/final",
    }


def write_run(run: Path, *parts: str, **config_changes: Any) -> Path:
    """A run directory with these of "config", "log", "evaluation", "figures", "result" and "claim"."""
    run.mkdir(parents=True, exist_ok=True)
    if "config" in parts:
        write_json(run / "config.json", config(**config_changes))
    if "log" in parts:
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in training_log()))
    if "evaluation" in parts:
        write_json(run / "evaluation.json", evaluation())
    if "figures" in parts:
        names = ("best", "median", "worst")
        listed = [{"name": n, "caption": f"The {n} case: p{i}.", "file": f"{n}.png"} for i, n in enumerate(names)]
        write_json(run / "figures" / "figures.json", listed)
        for name in names:
            picture(run / "figures" / f"{name}.png")
    if "result" in parts:
        write_json(run / "result.json", result())
    if "claim" in parts:
        write_json(run / "claim.json", claim())
    return run


@pytest.fixture
def make_run(tmp_path: Path) -> RunMaker:
    """``make_run("config", "log", ...)``: see `write_run`."""
    return partial(write_run, tmp_path / "nowhere" / "20250601-120000-cnn")


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run; shared, so tests leave its files as they are."""
    run = tmp_path_factory.mktemp("runs") / "nowhere" / "20250601-120000-cnn"
    return write_run(run, "config", "log", "evaluation", "figures", "result")


@pytest.fixture(scope="session")
def png(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Content of a small picture."""
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    picture(path)
    return path.read_bytes()
