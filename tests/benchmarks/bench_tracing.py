"""Classical tracers on the vessels of DRIVE: coverage, error, time per branch, in one run on one core.

    python tests/benchmarks/bench_tracing.py                  MEDRAY_REAL_DATA, or shared/data beside the checkout
    python tests/benchmarks/bench_tracing.py --data DIR       a folder with images/ and centrelines/

`minimal path` knows both ends of a branch, `ridge following` the start and the direction. A trace that does not know
the end is cut where it first came closest to it within 3 px (`until_end`) and judged as far as the branch is long plus
3 px (`until_length`). The settings were chosen on the odd-numbered photographs. `error` leaves out lost track, `raw`
does not. Time is the CPU's for tracing all branches of an image, ridges included, by branch; preparing the image is
told apart. Not a test.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.axon.centrelines import Branch, read_centrelines
from envs.axon.pictures import read_picture
from envs.axon.preparation import prepare
from medray.classical.minimal_path import minimal_paths
from medray.classical.ridge_following import follow_ridges
from medray.metrics.tracing import TraceScore, score_trace, until_end, until_length

FloatArray = NDArray[np.float64]
Tracer = Callable[["Photograph"], list[FloatArray]]
SLACK_PX = 3.0


@dataclass(frozen=True)
class Photograph:
    """An image from 0 to 1 with bright vessels, and its branches."""

    name: str
    image: NDArray[np.float32]
    branches: tuple[Branch, ...]
    prepare_ms: float

    def column(self, name: str) -> FloatArray:
        """``start``, ``end`` or ``heading`` of all branches, (b, 2)."""
        return np.array([getattr(branch, name) for branch in self.branches])


def minimal(photograph: Photograph) -> list[FloatArray]:
    """From start to end."""
    return minimal_paths(photograph.image, photograph.column("start"), photograph.column("end"))


def following(photograph: Photograph) -> list[FloatArray]:
    """From the start, in its direction."""
    traces = follow_ridges(photograph.image, photograph.column("start"), photograph.column("heading"))
    return [trace.points for trace in traces]


TRACERS: dict[str, Tracer] = {"minimal path": minimal, "ridge following": following}


def load(folder: Path) -> list[Photograph]:
    """The photographs of a folder in order of their names."""
    photographs = []
    for path in sorted((folder / "images").glob("*.png")):
        begin = time.process_time()
        image = prepare(read_picture(path), intensity="local")
        spent = 1000 * (time.process_time() - begin)
        branches = read_centrelines(folder / "centrelines" / f"{path.stem}.json").branches
        photographs.append(Photograph(path.stem, image, branches, spent))
    return photographs


def judge(photographs: list[Photograph], tracer: Tracer, *, knows_end: bool) -> tuple[list[TraceScore], float]:
    """The score of each photograph, and milliseconds per branch."""
    scores, spent = [], 0.0
    for photograph in photographs:
        begin = time.process_time()
        traces = tracer(photograph)
        spent += time.process_time() - begin
        score = TraceScore()
        for trace, branch in zip(traces, photograph.branches, strict=True):
            if not knows_end:
                trace = until_length(until_end(trace, branch.end), branch.length_px + SLACK_PX)
            score += score_trace(trace, branch.points)
        scores.append(score)
    return scores, 1000 * spent / sum(len(photograph.branches) for photograph in photographs)


def main() -> None:
    """Print the table."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("MEDRAY_REAL_DATA", beside)) / "retina_drive"
    parser.add_argument("--data", type=Path, default=default, help="folder with images/ and centrelines/")
    folder = parser.parse_args().data
    photographs = load(folder)
    if not photographs:
        parser.error(f"{folder} has no images/*.png")
    branches = sum(len(photograph.branches) for photograph in photographs)
    prepared = sum(photograph.prepare_ms for photograph in photographs)
    print(f"{len(photographs)} photographs, {branches} branches, preparing {prepared / branches:.1f} ms per branch")
    print("tracer           images  coverage %       error px         raw px  lost %  ms/branch")
    for name, tracer in TRACERS.items():
        scores, milliseconds = judge(photographs, tracer, knows_end=name == "minimal path")
        for part, chosen in (("all", scores), ("tuned", scores[::2]), ("others", scores[1::2])):
            print(f"{name:16} {part:7} {_row(sum(chosen, TraceScore()))} {milliseconds:10.1f}")


def _row(score: TraceScore) -> str:
    row = score.metrics()
    errors = [f"{row[f'{kind}_px']:6.2f} ± {row[f'{kind}_sd_px']:5.2f}" for kind in ("error", "raw_error")]
    return f"{row['coverage_pct']:10.2f} {errors[0]} {errors[1]} {row['lost_pct']:7.2f}"


if __name__ == "__main__":
    main()
