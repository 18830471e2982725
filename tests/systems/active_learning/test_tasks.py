"""The tasks of a campaign: losses, what they learn, which epoch counts, scores, and labels that cannot be used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.losses.dice import DiceCELoss
from rehearsal import StopsAfter, run, same, state_in
from sklearn.metrics import average_precision_score, recall_score
from squares import CLASSES, square_cases
from torch import Tensor
from torch.testing import assert_close

from medray.active.task import Task
from medray.data.case import Case
from medray.engine.rundir import read_json_lines
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.learner import Step
from medray.metrics.segmentation import Confusion
from medray.system import FitResult
from medray.systems.active_learning.classification_tasks import Judged, MultiClassTask, MultiLabelTask
from medray.systems.active_learning.network_task import NetworkTask
from medray.systems.active_learning.segmentation_task import SegmentationTask
from medray.systems.active_learning.task_learner import NETWORK, TaskLearner
from medray.systems.active_learning.task_settings import TaskSettings
from medray.systems.active_learning.tasks import TaskName, make_task

FAST = TaskSettings(
    unet_channels=(4, 8, 8, 16, 16), task_network="small", task_batch_size=6, task_epochs=5, task_lr=2e-3
)
NAMES: Mapping[TaskName, Sequence[str]] = {
    "segmentation": ("lesion",),
    "multi_label": ("any", "strong"),
    "multi_class": CLASSES,
}


def fast_task(name: TaskName, **changes: Any) -> NetworkTask[Any]:
    return make_task(name, replace(FAST, **changes), NAMES[name])


def workbench(folder: Path) -> InProcessWorkbench:
    return InProcessWorkbench(folder, quiet=True, tensorboard=False)


@pytest.fixture(scope="module", params=list(NAMES))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A task, its training, and where it ran; validation cases are `square_cases(9, seed=1)`."""
    task, work = fast_task(request.param), workbench(tmp_path_factory.mktemp(request.param))
    return task, task.train(work, square_cases(36), square_cases(9, seed=1), name="task-0"), work


def test_segmentation_loss_by_hand() -> None:
    task = SegmentationTask(FAST)
    truth = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]], [[[1.0, 1.0], [1.0, 1.0]]]])
    found = task.losses(torch.zeros(2, 1, 2, 2), truth)
    # p = 1/2 everywhere: entropy log 2; Dice 2 * 0.5 / (2 + 1) and 2 * 2 / (2 + 4)
    assert_close(found, math.log(2) + torch.tensor([2 / 3, 1 / 3]), atol=1e-5, rtol=0)


def test_segmentation_loss_is_monais_of_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 1, 8, 8, generator=generator)
    truth = (torch.rand(4, 1, 8, 8, generator=generator) > 0.6).float()
    assert_close(SegmentationTask(FAST).losses(logits, truth).mean(), DiceCELoss(sigmoid=True)(logits, truth))


def test_classification_losses_by_hand() -> None:
    logits = torch.tensor([[math.log(2.0), 0.0, 0.0]])
    told = fast_task("multi_class").losses(logits, torch.tensor([0]))
    assert_close(told, torch.tensor([math.log(2)]))  # 2 / (2 + 1 + 1)
    told = fast_task("multi_label").losses(logits[:, :2], torch.tensor([[1.0, 0.0]]))
    assert_close(told, torch.tensor([(math.log(3 / 2) + math.log(2)) / 2]))


class HeldStep(Step):
    """Leaves gradients where they are; the batch of all workers has ``count`` images."""

    def __init__(self, count: int) -> None:
        super().__init__({})
        self.count = count

    def mean(self, total: Tensor, count: Tensor | float) -> Tensor:
        return total / self.count

    def update(self, name: str, *, max_norm: float | None = None) -> None:
        pass


@pytest.mark.parametrize("name", list(NAMES))
def test_two_workers_add_up_to_the_gradient_of_one(name: TaskName) -> None:
    torch.manual_seed(0)
    learner = TaskLearner(fast_task(name), square_cases(6), [], mean=0.3, sd=0.1)

    def gradient(shares: list[list[int]]) -> Tensor:
        learner.networks.zero_grad()
        for share in shares:
            learner.training_step(learner.collate(share, 0), HeldStep(6))
        return torch.cat([p.grad.flatten() for p in learner.networks.parameters() if p.grad is not None])

    assert_close(gradient([[0, 1], [2, 3, 4, 5]]), gradient([[0, 1, 2, 3, 4, 5]]), rtol=1e-3, atol=1e-6)


def test_what_is_there_to_see_is_learnt(trained: Any) -> None:
    task, fit, work = trained
    summary = task.score(work, fit.weights, square_cases(15, seed=2)).summary
    assert summary[task.metric] > {"dice": 0.6, "mean_ap": 0.95, "accuracy": 0.8}[task.metric]


def test_the_best_epoch_counts_and_validation_measures_what_score_does(trained: Any) -> None:
    task, fit, work = trained
    records = read_json_lines(work.out / "metrics.jsonl")
    measured = [record[task.metric] for record in records if record["name"] == "validation"]
    assert len(measured) == FAST.task_epochs
    again = task.score(work, fit.weights, square_cases(9, seed=1)).summary[task.metric]
    assert again == pytest.approx(max(measured), abs=1e-6)


def test_a_round_starts_from_the_same_weights_whatever_its_name(tmp_path: Path) -> None:
    task, cases = fast_task("multi_class", task_epochs=1), square_cases(9)
    first, second = (task.train(workbench(tmp_path), cases, [], name=f"task-{number}").weights for number in range(2))
    assert first is not None
    assert second is not None
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", list(NAMES))
def test_a_stopped_training_ends_as_an_undisturbed_one(name: TaskName, tmp_path: Path) -> None:
    def make() -> TaskLearner:
        return TaskLearner(fast_task(name, task_epochs=3), square_cases(12), square_cases(4, seed=1), mean=0.3, sd=0.1)

    assert run(make, tmp_path / "whole")
    assert not run(make, tmp_path / "stopped", StopsAfter(3), checkpoint_every_steps=1)
    assert run(make, tmp_path / "stopped")
    assert same(state_in(tmp_path / "whole"), state_in(tmp_path / "stopped")) == []


def test_the_network_of_a_segmentation_standardizes_by_its_training_images(tmp_path: Path) -> None:
    task, cases = fast_task("segmentation", task_epochs=1), square_cases(4)
    network = task.load(task.train(workbench(tmp_path), cases, [], name="task").weights)
    pixels = np.stack([task.reader().image(case) for case in cases])
    assert float(network.mean) == pytest.approx(pixels.mean(), rel=1e-5)
    assert float(network.sd) == pytest.approx(pixels.std(), rel=1e-5)


def test_looking_gives_probabilities_and_features_of_every_case_in_turn(trained: Any) -> None:
    task, fit, work = trained
    cases = square_cases(20, seed=3)
    seen = list(task.look(work, fit.weights, cases))
    rows = task.score(work, fit.weights, cases).rows
    assert len(seen) == 20
    assert {tuple(one.features.shape) for one in seen} == {(4,) if task.kind == "mask" else (128,)}
    for one, row in zip(seen, rows, strict=True):
        if task.kind == "mask":
            assert_close(one.probabilities.sum(0), torch.ones(32, 32))
            assert int((one.probabilities[1] > 0.5).sum()) == row["lesion_px"] - row["missed_px"] + row["false_px"]
        else:
            told = torch.tensor([row[f"probability_{name}"] for name in task.classes])
            assert_close(one.probabilities, told.float(), atol=1e-6, rtol=0)


def test_looking_reads_a_few_images_at_a_time(tmp_path: Path) -> None:
    task, cases, read = fast_task("multi_class"), square_cases(64), []

    class Noting:
        def __init__(self, case: Case) -> None:
            self.case = case

        def load(self) -> Any:
            read.append(self.case.id)
            return self.case.fields["image"].load()

        def fingerprint(self) -> str:
            return self.case.id

    noted = [replace(case, fields={"image": Noting(case)}) for case in cases]
    next(iter(task.look(workbench(tmp_path), None, noted)))
    assert 0 < len(read) < 32


def test_dice_is_a_mean_over_images_in_which_nothing_counts_one() -> None:
    outcomes = [Confusion(tn=9), Confusion(fp=2, tn=7), Confusion(tp=3, fp=1, fn=1, tn=4), Confusion(fn=4, tn=5)]
    found = SegmentationTask(FAST).scores(square_cases(4), outcomes)
    assert [row["dice"] for row in found.rows] == pytest.approx([1, 0, 0.75, 0])
    assert found.summary == pytest.approx(
        {"dice": 1.75 / 4, "dice_pooled": 6 / 14, "sensitivity": 3 / 8, "precision": 3 / 6}
    )


def test_mean_average_precision_is_scikit_learns() -> None:
    task, generator = MultiLabelTask(FAST, ("a", "b")), np.random.default_rng(0)
    truth, score = generator.integers(0, 2, (30, 2)), generator.random((30, 2))
    outcomes = [Judged(p, t) for p, t in zip(score, truth, strict=True)]
    expected = average_precision_score(truth, score, average="macro")
    summary = task.scores(square_cases(30), outcomes).summary
    assert summary["mean_ap"] == pytest.approx(expected)
    assert summary["ap_b"] == pytest.approx(average_precision_score(truth[:, 1], score[:, 1]))
    assert task.validated(outcomes).mean == pytest.approx(expected)


def test_a_class_without_both_outcomes_is_left_out_and_with_none_left_a_sentence_says_so() -> None:
    task = MultiLabelTask(FAST, ("a", "b"))
    outcomes = [Judged(np.array([0.9, 0.2]), np.array([1, 1])), Judged(np.array([0.1, 0.6]), np.array([0, 1]))]
    assert task.scores(square_cases(2), outcomes).summary == pytest.approx({"mean_ap": 1.0, "ap_a": 1.0})
    with pytest.raises(UserError, match="average precision needs a class that some of the 1 cases have"):
        task.scores(square_cases(1), outcomes[:1])
    assert math.isnan(task.validated(outcomes[:1]).mean)


def test_multi_class_scores_by_hand() -> None:
    task = MultiClassTask(FAST, CLASSES)
    truth = [0, 0, 0, 2]
    score = np.array([[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.2, 0.7, 0.1], [0.3, 0.1, 0.6]])
    found = task.scores(square_cases(4), [Judged(p, np.array(t)) for p, t in zip(score, truth, strict=True)])
    assert found.summary["accuracy"] == 0.75
    assert found.summary["recall_nothing"] == pytest.approx(2 / 3)
    assert "recall_dim" not in found.summary  # no case has it
    recall = recall_score(truth, score.argmax(1), average="macro", labels=[0, 2])
    assert found.summary["balanced_accuracy"] == pytest.approx(recall)
    assert found.summary["auc"] == pytest.approx((2 / 3 + 1) / 2)  # the third 0 is below the 2; the 2 above all
    assert found.rows[2] == {
        "case": "0-2",
        "true": "nothing",
        "predicted": "dim",
        "right": False,
        "probability_nothing": 0.2,
        "probability_dim": 0.7,
        "probability_bright": 0.1,
    }


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("multi_class", {"class": "odd"}, "0-0 is of the class 'odd', which is none of nothing, dim, bright"),
        ("multi_label", {"classes": "any;odd"}, "0-0 is of the class 'odd', which is none of any, strong"),
        ("multi_class", {}, "0-0 has no attribute class; expected one of nothing, dim, bright"),
        ("multi_label", {}, "0-0 has no attribute classes; a case with none of them says 'none'"),
        ("segmentation", {}, "0-0 has no label map"),
    ],
)
def test_labels_that_cannot_be_used(name: TaskName, change: dict[str, str], sentence: str) -> None:
    task, (case,) = fast_task(name), square_cases(1)
    bad = replace(case, attributes=change, fields={"image": case.fields["image"]})
    with pytest.raises(UserError, match=sentence):
        task.target(task.reader(), bad)


def test_images_that_do_not_fit_together_or_into_the_network(tmp_path: Path) -> None:
    task, work = fast_task("segmentation"), workbench(tmp_path)
    with pytest.raises(
        UserError, match=r"without a task_size takes images of one size, and these differ: 0-0 32 x 32, 1-0 40 x 40$"
    ):
        list(task.look(work, None, [*square_cases(2), *square_cases(1, seed=1, size=40)]))
    with pytest.raises(UserError, match=r"without a task_size takes images from 32 px on, got 0-0 20 x 20$"):
        list(task.look(work, None, square_cases(1, size=20)))
    resized = fast_task("segmentation", task_size=32)
    assert len(list(resized.look(work, None, [*square_cases(1, size=20), *square_cases(1, size=40)]))) == 2


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("segmentation", {"task_size": 16}, "task_size must be at least 32 px, got 16"),
        ("multi_class", {"task_size": 48, "task_network": "resnet18"}, "task_size must be at least 64 px, got 48"),
        ("segmentation", {"task_network": "resnet18", "task_weights": "w.pth"}, "the U-Net starts from random ones"),
        ("multi_class", {"task_weights": "w.pth"}, "the network small starts from random ones"),
        ("multi_class", {"unet_channels": (8, 16)}, "unet_channels are 5 numbers"),
        ("multi_class", {"task_lr": 0.0}, "task_lr is above 0"),
        ("multi_class", {"task_epochs": 0}, "task_epochs are at least 1"),
    ],
)
def test_settings_that_cannot_work(name: TaskName, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        fast_task(name, **change)


@pytest.mark.parametrize(
    ("name", "epochs", "optimizer"),
    [
        ("segmentation", 30, torch.optim.RMSprop),
        ("multi_label", 50, torch.optim.Adam),
        ("multi_class", 50, torch.optim.Adam),
    ],
)
def test_the_papers_schedules_unless_the_settings_say_otherwise(name: TaskName, epochs: int, optimizer: type) -> None:
    paper = fast_task(name, task_epochs=None, task_lr=1e-5, task_batch_size=32)
    learner = TaskLearner(paper, square_cases(3), [], mean=0.0, sd=1.0)
    assert (learner.schedule.num_epochs, learner.schedule.monitor) == (epochs, paper.metric)
    assert type(learner.configure_optimizers()[NETWORK]) is optimizer
    other: Any = "adam" if optimizer is torch.optim.RMSprop else "rmsprop"
    changed = TaskLearner(fast_task(name, task_optimizer=other), square_cases(3), [], mean=0.0, sd=1.0)
    assert type(changed.configure_optimizers()[NETWORK]) is not optimizer


def test_random_weights_of_a_network_that_was_pretrained_in_the_paper_are_told(tmp_path: Path) -> None:
    class Noting(InProcessWorkbench):
        def __init__(self) -> None:
            super().__init__(tmp_path, quiet=True, tensorboard=False)
            self.told: list[str] = []

        def say(self, message: str) -> None:
            self.told.append(message)

        def fit(self, make_learner: Any, *, name: str = "train") -> FitResult:
            return FitResult(None, {}, 0, 0.0, 0.0)

    for network, told in (("resnet18", 1), ("small", 0)):
        work = Noting()
        fast_task("multi_class", task_network=network).train(work, square_cases(3), [], name="task")
        assert len([line for line in work.told if "random weights" in line and "task_weights" in line]) == told


def test_tasks_keep_the_contract_and_travel() -> None:
    import pickle

    for name in NAMES:
        task: Task = pickle.loads(pickle.dumps(fast_task(name)))
        assert (task.kind, task.metric, task.classes) == {
            "segmentation": ("mask", "dice", ("lesion",)),
            "multi_label": ("classes", "mean_ap", ("any", "strong")),
            "multi_class": ("class", "accuracy", CLASSES),
        }[name]
        assert json.dumps(task.classes)
