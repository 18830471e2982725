"""Members of a team keep what is theirs, work side by side, and come back after they were lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import local_ray

from medray.engine.options import RunOptions
from medray.engine.team import _share, gpu_share
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.system import Workbench


class Member:
    """Counts its calls; can lose its process."""

    def __init__(self, work: Workbench, item: int) -> None:
        if item < 0:
            raise UserError("a member needs 0 or more")
        self.work, self.item, self.calls = work, item, 0

    def add(self, number: int) -> tuple[int, int, str]:
        self.calls += 1
        return self.item + number, self.calls, str(self.work.out)

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def die_once(self, mark: str) -> int:
        """How often this process was called before, plus one; lost at the first call."""
        self.calls += 1
        if not Path(mark).exists():
            Path(mark).touch()
            self.die()
        return self.calls

    def kind_of_workbench(self) -> str:
        return type(self.work).__name__

    def fail(self) -> None:
        raise UserError("this cannot work")


ITEMS = {"north": 10, "south": 20, "west": 30}


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from medray.engine.ray_train import RayWorkbench

    with local_ray():  # two CPUs for three members
        yield RayWorkbench(tmp_path_factory.mktemp("run"), RunOptions(data=""))


@pytest.fixture(params=["here", pytest.param("ray", marks=pytest.mark.ray)])
def work(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return request.getfixturevalue("on_ray") if request.param == "ray" else InProcessWorkbench(tmp_path)


def test_members_answer_by_name_and_remember(work: Any) -> None:
    with work.team(Member, ITEMS, name="sites") as team:
        first = team.call("add", dict.fromkeys(ITEMS, (1,)))
        assert {name: answer[0] for name, answer in first.items()} == {"north": 11, "south": 21, "west": 31}
        again = team.call("add", {"south": (2,)})
        assert list(again) == ["south"]
        assert again["south"][:2] == (22, 2)
        assert Path(again["south"][2]) == work.out / "sites" / "south"


def test_what_a_member_raises_is_raised(work: Any) -> None:
    with work.team(Member, ITEMS, name="sites") as team, pytest.raises(UserError, match="this cannot work"):
        team.call("fail", {"north": ()})
    with pytest.raises(UserError, match="0 or more"), work.team(Member, {"a": -1}, name="sites") as team:
        team.call("add", {"a": (1,)})


@pytest.mark.ray
def test_a_lost_member_is_left_out_and_comes_back(on_ray: Any) -> None:
    with on_ray.team(Member, ITEMS, name="sites") as team:
        team.call("add", dict.fromkeys(ITEMS, (1,)))
        assert team.call("die", {"west": ()}) == {}
        deadline = time.monotonic() + 60
        while "west" not in (answers := team.call("add", dict.fromkeys(ITEMS, (1,)))):
            assert {"north", "south"} <= set(answers)
            assert time.monotonic() < deadline, "the lost member did not come back"
            time.sleep(0.2)
        assert answers["west"][:2] == (31, 1)  # made anew
        assert answers["north"][1] > 1  # the others kept what they knew


@pytest.mark.ray
def test_a_patient_team_repeats_the_call_of_a_lost_member(on_ray: Any, tmp_path: Path) -> None:
    with on_ray.team(Member, ITEMS, name="sites", patient=True) as team:
        team.call("add", dict.fromkeys(ITEMS, (1,)))
        answers = team.call("die_once", {"west": (str(tmp_path / "died"),), "north": (str(tmp_path),)})
        assert answers == {"west": 1, "north": 2}  # west was made anew, north was not lost


@pytest.mark.ray
def test_members_that_keep_books_take_no_cores(on_ray: Any) -> None:
    import ray

    with on_ray.team(Member, ITEMS, name="books", hosting="books") as team:
        team.call("add", dict.fromkeys(ITEMS, (1,)))
        assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]


@pytest.mark.ray
def test_members_may_have_workers_of_their_own(tmp_path: Path, on_ray: Any) -> None:
    from medray.engine.ray_train import RayWorkbench

    work = RayWorkbench(tmp_path / "run", RunOptions(data="", num_workers=2))
    with work.team(Member, {"north": 1}, name="wide", hosting="workers") as team:
        assert team.call("kind_of_workbench", {"north": ()}) == {"north": "RayWorkbench"}
    with on_ray.team(Member, {"north": 1}, name="narrow", hosting="workers") as team:
        assert team.call("kind_of_workbench", {"north": ()}) == {"north": "InProcessWorkbench"}


@pytest.mark.parametrize(
    ("wanted", "there", "members", "share"), [(1, 4, 3, 1), (1, 2, 3, 0.6666), (2, 4, 3, 1), (1, 0, 3, 1), (4, 8, 2, 4)]
)
def test_members_share_what_there_is(wanted: int, there: float, members: int, share: float) -> None:
    assert _share(wanted, there, members) == share


def test_parts_of_a_run_share_the_gpus_only_if_they_may() -> None:
    have = {"CPU": 8.0, "GPU": 2.0}
    assert gpu_share(RunOptions(data="", use_gpu=True), have, 5) == 0.4
    assert gpu_share(RunOptions(data="", use_gpu=True), have, 2) == 1
    assert gpu_share(RunOptions(data=""), have, 5) == 0
