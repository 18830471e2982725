"""A campaign whose four members are actors: two of them train at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest
from clusters import local_ray
from toy_campaigns import toy_campaign

from medray.active.lead import run_campaign
from medray.engine.options import RunOptions
from medray.engine.ray_train import RayWorkbench
from medray.engine.rundir import read_json_lines
from medray.engine.team import SEATS

pytestmark = pytest.mark.ray


def test_learner_and_sampler_of_a_round_train_at_the_same_time(tmp_path: Path) -> None:
    (tmp_path / "meeting").mkdir()
    campaign = toy_campaign(rounds=1, meeting=str(tmp_path / "meeting"))
    with local_ray(2):
        result = run_campaign(RayWorkbench(tmp_path / "run", RunOptions(data="")), campaign)
    assert [record.num_labelled for record in result.records] == [6, 11]
    lived_in = [
        {seat["pid"] for seat in read_json_lines(tmp_path / "run" / "campaign" / member / SEATS)}
        for member in ("pool", "oracle", "learner", "sampler")
    ]
    assert all(len(pids) == 1 for pids in lived_in)
    assert len(set.union(*lived_in)) == 4
