"""The trials of a sweep in its study: handed out once, taken over after a kill, chosen alike whatever happened."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.pruners import BasePruner, NopPruner
from optuna.study import Study
from optuna.trial import Trial as OptunaTrial
from optuna.trial import TrialState

from medray.errors import UserError
from tuning.keeper import StudyKeeper
from tuning.records import read_trials
from tuning.space import Dimension, parse_dimension
from tuning.study import create_study, make_pruner, open_study, without_password

X = parse_dimension("x=uniform(0,1)")
MODE = parse_dimension("mode=choice(plain,other)")
SIZES = parse_dimension("sizes=choice((1,2),(3,))")


def _study(folder: Path, *dimensions: Dimension, name: str = "dials", **more: object) -> Study:
    given: dict[str, object] = {
        "system": "dial",
        "objectives": {"score": "max"},
        "setting": {"preset": "smoke"},
        **more,
    }
    return create_study(f"sqlite:///{folder}/study.db", name, dimensions=dimensions, **given)  # type: ignore[arg-type]


def _keeper(
    study: Study,
    *dimensions: Dimension,
    sweep: str = "one",
    trials: int = 6,
    sampler: str = "random",
    pruner: BasePruner | None = None,
) -> StudyKeeper:
    return StudyKeeper(
        study, dimensions, sweep=sweep, num_trials=trials, sampler=sampler, seed=3, pruner=pruner or NopPruner()
    )


def _work(keeper: StudyKeeper, most: int = 100) -> list[tuple[int, dict[str, object]]]:
    """Hand out, run and close up to ``most`` trials; the value is x."""
    done: list[tuple[int, dict[str, object]]] = []
    while len(done) < most and (found := keeper.next(f"key{len(done)}")) is not None:
        key = f"key{len(done)}"
        keeper.started(key, {"CPU": 1})
        keeper.close(key, [float(found[1].get("x", 0.5))])  # type: ignore[arg-type]
        done.append(found)
    return done


def test_what_a_killed_driver_left_running_is_handed_out_again_first(tmp_path: Path) -> None:
    first = _keeper(_study(tmp_path, X), X)
    begun = [first.next(key) for key in ("a", "b", "c")]
    first.close("b", [0.5])
    second = _keeper(_study(tmp_path, X), X)  # another process: only the study is shared
    assert second.closed == 1
    assert [second.next("d"), second.next("e")] == [begun[0], begun[2]]
    assert second.next("f") == (3, _x(second, 3))


def _x(keeper: StudyKeeper, number: int) -> dict[str, object]:
    return keeper.config_of(keeper.study.get_trials()[number].params)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_sweep_killed_twice_tries_the_same_settings_as_one_left_alone(tmp_path: Path, sampler: str) -> None:
    for name in ("alone", "killed"):
        (tmp_path / name).mkdir()
    alone = _work(_keeper(_study(tmp_path / "alone", X, MODE), X, MODE, trials=14, sampler=sampler))
    killed = []
    for most in (5, 4, 100):
        keeper = _keeper(_study(tmp_path / "killed", X, MODE), X, MODE, trials=14, sampler=sampler)
        killed += _work(keeper, most)
        keeper.next("left running")
    assert len(alone) == 14
    assert sorted(killed, key=lambda found: found[0]) == alone


def test_the_grid_is_gone_through_once_in_order_also_by_two_drivers(tmp_path: Path) -> None:
    dimensions = (MODE, SIZES)
    found = _work(_keeper(_study(tmp_path, *dimensions), *dimensions, trials=4, sampler="grid"), 2)
    found += _work(_keeper(_study(tmp_path, *dimensions), *dimensions, trials=4, sampler="grid"))
    assert [config for _, config in found] == [
        {"mode": mode, "sizes": sizes} for mode in ("plain", "other") for sizes in ((1, 2), (3,))
    ]


def test_two_sweeps_share_a_grid_without_trying_anything_twice(tmp_path: Path) -> None:
    dimensions = (MODE, SIZES)
    one, two = (
        _keeper(_study(tmp_path, *dimensions), *dimensions, sweep=name, trials=4, sampler="grid") for name in "ab"
    )
    found = [*_work(one, 3), *_work(two), *_work(one)]
    assert len(found) == len({str(config) for _, config in found}) == 4
    assert (one.to_hand_out, two.to_hand_out) == (0, 0)


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
@pytest.mark.parametrize("call", ["ask", "_pop_waiting_trial_id", "_suggest"])
def test_a_driver_killed_while_a_trial_is_chosen_leaves_it_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, call: str
) -> None:
    dimensions = (MODE, SIZES)
    keeper = _keeper(_study(tmp_path, *dimensions), *dimensions, trials=4, sampler=sampler)
    _work(keeper, 1)
    owner = OptunaTrial if call == "_suggest" else Study
    before = getattr(owner, call)

    def killed(*arguments: object) -> None:
        if call != "ask":
            before(*arguments)  # killed after its first write, not before it
        raise _Killed

    monkeypatch.setattr(owner, call, killed)
    with pytest.raises(_Killed):
        keeper.next("killed")
    monkeypatch.setattr(owner, call, before)
    found = _work(_keeper(_study(tmp_path, *dimensions), *dimensions, trials=4, sampler=sampler))
    assert [number for number, _ in found] == [1, 2, 3]
    states = [trial.state for trial in keeper.study.get_trials()]
    assert states == [TrialState.COMPLETE] * 4
    if sampler == "grid":
        assert len({str(trial.params) for trial in keeper.study.get_trials()}) == 4


def test_the_grid_is_mixed_where_trials_are_given_up(tmp_path: Path) -> None:
    numbers = parse_dimension(f"x=choice({','.join(str(number / 40) for number in range(32))})")
    asha = make_pruner("asha", grace=1, reduction=3)
    found = _work(_keeper(_study(tmp_path, numbers), numbers, trials=32, sampler="grid", pruner=asha), 12)
    found += _work(_keeper(_study(tmp_path, numbers), numbers, trials=32, sampler="grid", pruner=asha))
    tried = [config["x"] for _, config in found]
    assert sorted(tried) == list(numbers.values.values)  # type: ignore[union-attr,type-var]
    assert tried != sorted(tried)  # type: ignore[type-var]


def test_two_sweeps_feed_one_study_and_leave_each_others_trials_alone(tmp_path: Path) -> None:
    one, two = (_keeper(_study(tmp_path, X), X, sweep=name, trials=3) for name in ("one", "two"))
    running = one.next("a")
    _work(two)
    assert [trial.user_attrs["sweep"] for trial in one.study.get_trials()] == ["one", "two", "two", "two"]
    again = _keeper(_study(tmp_path, X), X, sweep="two", trials=3)
    assert again.to_hand_out == 0
    assert _keeper(_study(tmp_path, X), X, sweep="one", trials=3).next("b") == running


def test_halving_lets_pass_what_is_among_the_best_third_at_its_rung(tmp_path: Path) -> None:
    keeper = _keeper(_study(tmp_path, X), X, trials=9, pruner=make_pruner("asha", grace=1, reduction=3))
    for index in range(9):
        keeper.next(f"{index}")
    given_up = [keeper.watched(f"{index}", 1, float(index)) for index in range(9)]
    assert given_up == [False] * 9  # each newcomer is the best so far
    for value, prune in ((7.5, False), (4.5, True)):  # third and seventh of ten or eleven
        late = keeper.study.ask({"x": X.values.distribution})
        late.report(value, 1)
        assert late.should_prune() is prune


@pytest.mark.parametrize("kind", ["asha", "median"])
def test_what_is_told_on_the_way_may_be_better_in_the_other_direction(tmp_path: Path, kind: str) -> None:
    """A loss, where the objective is a score."""
    pruner = make_pruner(kind, grace=1, reduction=3, reverse=True)
    keeper = _keeper(_study(tmp_path, X), X, trials=12, pruner=pruner)
    for index in range(6):
        keeper.next(f"{index}")
        keeper.watched(f"{index}", 1, 1.0 + index)
        keeper._pruned.clear()
        keeper.close(f"{index}", [0.5])
    keeper.next("good")
    keeper.next("bad")
    assert not keeper.watched("good", 1, 0.5)
    assert keeper.watched("bad", 1, 9.0)


def test_below_the_median_of_its_peers_a_trial_is_given_up_after_its_grace(tmp_path: Path) -> None:
    keeper = _keeper(_study(tmp_path, X), X, trials=6, pruner=make_pruner("median", grace=2, reduction=3))
    for index in range(5):
        keeper.next(f"{index}")
        assert not any(keeper.watched(f"{index}", step, float(index)) for step in (1, 2))  # too few peers to compare
        keeper.close(f"{index}", [float(index)])
    keeper.next("late")
    assert not keeper.watched("late", 1, 1.5)  # before its grace is over
    assert keeper.watched("late", 2, 1.5)  # the median is 2
    assert keeper.close("late", None).state is TrialState.PRUNED


def test_states_and_reasons_are_kept(tmp_path: Path) -> None:
    keeper = _keeper(_study(tmp_path, X), X, trials=4, pruner=make_pruner("median", grace=0, reduction=2))
    for key in "abcd":
        keeper.next(key)
        keeper.started(key, {"CPU": 2, "GPU": 1})
    keeper.started("a", {"CPU": 2, "GPU": 1})
    keeper.close("a", [0.25])
    keeper.close("b", None, failure="the dial broke off")
    keeper.close("c", [float("nan")])
    keeper._pruned.add("d")
    keeper.close("d", [0.1])
    found = read_trials(open_study(f"sqlite:///{tmp_path}/study.db", "dials"), [X])
    assert [record.state for record in found] == ["finished", "failed", "failed", "stopped early"]
    assert [record.values for record in found] == [(0.25,), (), (), ()]
    assert found[1].failure == "the dial broke off"
    assert (found[0].attempts, found[1].attempts) == (2, 1)
    assert (found[0].num_cpus, found[0].num_gpus) == (2.0, 1.0)


def test_a_trial_closed_before_the_kill_is_not_closed_twice(tmp_path: Path) -> None:
    keeper = _keeper(_study(tmp_path, X), X)
    number, _ = keeper.next("a") or (0, {})
    keeper.study.tell(number, 0.75)
    assert keeper.close("a", [0.1]).values == [0.75]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"system": "suts"}, "another system: dial, and this sweep suts"),
        ({"objectives": {"score": "min"}}, r"another objectives|another metric"),
        ({"setting": {"preset": "demo"}}, "another preset: smoke, and this sweep demo"),
        ({"objectives": {"score": "max", "cost": "min"}}, "another objectives"),
    ],
)
def test_a_study_of_something_else_is_refused(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    _study(tmp_path, X)
    with pytest.raises(UserError, match=sentence):
        _study(tmp_path, X, **change)


def test_a_study_of_another_space_or_another_program_is_refused(tmp_path: Path) -> None:
    import optuna

    _study(tmp_path, X)
    with pytest.raises(UserError, match=r"another space: config\.x=uniform"):
        _study(tmp_path, MODE)
    foreign = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db", study_name="theirs", direction="maximize")
    foreign.optimize(lambda trial: trial.suggest_float("y", 0, 1), n_trials=1)
    with pytest.raises(UserError, match="not made by a medray sweep"):
        _study(tmp_path, X, name="theirs")


@pytest.mark.parametrize(
    "url", ["postgresql://me:secret@127.0.0.1:1/none", "sqlite:////nowhere/at/all/study.db", "nonsense://x"]
)
def test_a_storage_that_cannot_be_reached_is_one_sentence_without_the_password(url: str) -> None:
    with pytest.raises(UserError, match="cannot be reached") as found:
        open_study(url, "dials")
    assert "secret" not in str(found.value)
    assert "\n" not in str(found.value)


def test_only_the_password_is_hidden() -> None:
    assert without_password("mysql://me:secret@host:3306/db") == "mysql://me:***@host:3306/db"
    assert without_password("sqlite:////a/b.db") == "sqlite:////a/b.db"
    assert without_password("config.x=uniform(0,1)") == "config.x=uniform(0,1)"


def test_trials_that_ended_well_stay_when_more_are_asked_for(tmp_path: Path) -> None:
    _work(_keeper(_study(tmp_path, X), X, trials=3))
    more = _keeper(_study(tmp_path, X), X, trials=5)
    assert (more.closed, more.to_hand_out) == (3, 2)
    assert [number for number, _ in _work(more)] == [3, 4]
    assert all(trial.state is TrialState.COMPLETE for trial in more.mine())
