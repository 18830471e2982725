"""CSS-Net's loop under extreme imbalance, and what inference needs of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medray.data.case import Case, Source, Volume
from medray.data.sources import open_source
from medray.engine.options import LoopOptions
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.learner import Step
from medray.system import PredictRequest, Trained
from medray.systems.shoulder.css_config import VARIANTS, CssConfig
from medray.systems.shoulder.css_learner import CssLearner
from medray.systems.shoulder.css_presets import SMALL
from medray.systems.shoulder.css_system import CssNet

TINY: dict[str, Any] = {**SMALL, "size_px": 32, "widths": (16, 16), "dilations": (1, 2), "num_epochs": 1}


@pytest.fixture(scope="module")
def cases() -> tuple[Case, ...]:
    return open_source("phantom:shoulder_coronal?patients=24&slices=4&size=48&seed=1").cases


def of_kind(cases: tuple[Case, ...], *kinds: str) -> list[Case]:
    return [case for case in cases if case.attributes["kind"] in kinds]


def step_on(name: str, cases: list[Case]) -> dict[str, float]:
    learner = CssLearner(CssConfig(**{**TINY, **VARIANTS[name].config}), cases, [])
    before = {key: value.clone() for key, value in learner.networks.state_dict().items()}
    step = Step(learner.configure_optimizers())
    told = learner.training_step(learner.collate(range(len(cases)), 0), step)
    after = learner.networks.state_dict()
    assert all(bool(torch.isfinite(value).all()) for value in after.values())
    assert any(not torch.equal(before[key], after[key]) for key in before if key.startswith("segmenter."))
    return {key: one.mean for key, one in told.items() if float(one.count)}


@pytest.mark.parametrize("name", ["css_net", "seg_sl", "seg_gan", "seg_clf_gan", "released"])
@pytest.mark.parametrize("kinds", [("nothing",), ("tendon",), ("tear",)])
def test_a_batch_of_one_kind_has_finite_losses(cases: tuple[Case, ...], name: str, kinds: tuple[str, ...]) -> None:
    told = step_on(name, of_kind(cases, *kinds)[:3])
    assert all(math.isfinite(value) for value in told.values())
    assert ("content_loss" in told) == (kinds == ("tear",) and "gan" not in name)


def test_absence_teaches_substitution_and_not_the_classifier(cases: tuple[Case, ...]) -> None:
    learner = CssLearner(CssConfig(**TINY), of_kind(cases, "tear")[:3], [])
    made = learner._substituted(batch := learner.collate(range(3), 0), torch.ones(3, dtype=torch.bool), Step({}))
    torch.as_tensor(made.losses["absence_loss"].total).backward()
    last = learner.networks["substitution"].get_parameter("body.4.weight")
    assert last.grad is not None
    assert float(last.grad.abs().max()) > 0
    assert all(p.grad is None for p in learner.networks["classifier"].parameters())
    assert all(p.requires_grad for p in learner.networks["classifier"].parameters())
    assert batch.images.shape == (3, 1, 32, 32)


def test_balance_visits_the_kinds_equally_often(cases: tuple[Case, ...]) -> None:
    learner = CssLearner(CssConfig(**TINY, balance="images"), cases, [])
    order = [index for epoch in range(8) for index in learner.order(epoch, seed=0)]
    kinds = [cases[index].attributes["kind"] for index in order]
    assert all(abs(kinds.count(kind) / len(kinds) - 1 / 3) < 0.08 for kind in set(kinds))
    assert learner.order(3, seed=0) == learner.order(3, seed=0)


def trained(cases: tuple[Case, ...], name: str, folder: Path) -> tuple[CssNet, Trained]:
    made = CssNet(CssConfig(**{**TINY, **VARIANTS[name].config}))
    work = InProcessWorkbench(folder, LoopOptions(), quiet=True, tensorboard=False)
    return made, made.train(work, made.split(Source("x", cases, ""), 0))


def test_inference_has_the_baselines_weights_and_nothing_else(cases: tuple[Case, ...], tmp_path: Path) -> None:
    full, kept = trained(cases, "css_net", tmp_path / "full")
    _, alone = trained(cases, "seg", tmp_path / "seg")
    assert kept.weights is not None
    assert alone.weights is not None
    shapes = [{key: value.shape for key, value in load_file(one.weights).items()} for one in (kept, alone)]  # type: ignore[arg-type]
    assert shapes[0] == shapes[1]
    assert not alone.files
    image = tmp_path / "slice.npz"
    np.savez(image, image=cases[0].volume("image").array[0])
    full.predict(kept, PredictRequest(inputs=[image], out=tmp_path / "0.nii.gz"))
    helpers = load_file(kept.files["helpers"])
    save_file({key: torch.randn_like(value) for key, value in helpers.items()}, kept.files["helpers"])
    full.predict(kept, PredictRequest(inputs=[image], out=tmp_path / "1.nii.gz"))
    assert (tmp_path / "0.nii.gz").read_bytes() == (tmp_path / "1.nii.gz").read_bytes()


def test_folds_cover_every_patient_once(cases: tuple[Case, ...]) -> None:
    parts = [CssNet(CssConfig(**TINY, num_folds=3, fold=k)).split(Source("x", cases, ""), 0) for k in range(3)]
    tested = [case.id for part in parts for case in part.test]
    assert sorted(tested) == sorted(case.id for case in cases)
    for part in parts:
        groups = [{case.patient for case in role} for role in (part.train, part.validation, part.test)]
        assert not groups[0] & groups[2]
        assert not groups[0] & groups[1]


def test_data_without_anything_to_learn_is_one_sentence(cases: tuple[Case, ...]) -> None:
    made = CssNet(CssConfig(**TINY))
    with pytest.raises(UserError, match="holds tendon"):
        made.split(Source("x", tuple(of_kind(cases, "nothing")), ""), 0)
    with pytest.raises(UserError, match="shows a tear"):
        made.split(Source("x", tuple(of_kind(cases, "nothing", "tendon")), ""), 0)


@dataclass(frozen=True)
class Drawn:
    """A label map of one pixel."""

    value: int

    def load(self) -> Volume:
        return Volume(np.full((1, 1, 1), self.value, np.uint8), np.eye(4))

    def fingerprint(self) -> str:
        return str(self.value)


def patients(num: int, values: Mapping[str, int], **attributes: str) -> list[Case]:
    """Patients whose slices each show one thing."""
    names = [f"{'torn' if 2 in values.values() else 'whole'}{number:02d}" for number in range(num)]
    return [
        Case(f"{name}/{part}", name, {"label": Drawn(value)}, attributes)
        for name in names
        for part, value in values.items()
    ]


def test_every_fold_has_its_share_of_torn_patients_though_they_have_whole_slices_too() -> None:
    cases = [*patients(10, {"a": 1, "b": 2, "c": 0}), *patients(10, {"a": 1, "b": 0})]
    for fold in range(5):
        test = CssNet(CssConfig(**TINY, num_folds=5, fold=fold)).split(Source("x", tuple(cases), ""), 0).test
        assert sum(name.startswith("torn") for name in {case.patient for case in test}) == 2


def test_folds_lose_nobody_where_the_data_comes_with_a_split() -> None:
    cases = [*patients(5, {"a": 2}, split="train"), *patients(5, {"b": 1}, split="test")]
    found = CssNet(CssConfig(**TINY, num_folds=5)).split(Source("x", tuple(cases), ""), 0)
    assert len(found.train) + len(found.validation) + len(found.test) == len(cases)
