"""What the orchestration of a campaign costs: the part of each round in which nobody trains, scores or ranks.

    python tests/benchmarks/bench_campaign.py                 a small campaign on a local Ray and in this process
    python tests/benchmarks/bench_campaign.py --rounds 10

The pool writes to disk before it answers, members answer from processes of their own, and the records of a round are
written. The first round also starts the processes, which import PyTorch. Results to expect are in docs/performance.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from clusters import local_ray
from toy_campaigns import toy_campaign

from medray.active.campaign import CampaignResult
from medray.active.lead import run_campaign
from medray.engine.options import RunOptions
from medray.engine.ray_train import RayWorkbench
from medray.engine.workbench import InProcessWorkbench


def main() -> None:
    """Print a line for each place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    campaign = toy_campaign(rounds=parser.parse_args().rounds)
    options = RunOptions(data="")
    with tempfile.TemporaryDirectory() as folder:
        here = InProcessWorkbench(Path(folder, "here"), options, quiet=True, tensorboard=False)
        _tell("in this process", run_campaign(here, campaign))
        with local_ray():
            _tell("actors on Ray", run_campaign(RayWorkbench(Path(folder, "ray"), options), campaign))


def _tell(where: str, result: CampaignResult) -> None:
    first, *later = [record.seconds["orchestration"] for record in result.records]
    print(
        f"{where:16} first round {first:6.2f} s   later ones, median {statistics.median(later):.3f} s   "
        f"largest {max(later):.3f} s"
    )


if __name__ == "__main__":
    main()
