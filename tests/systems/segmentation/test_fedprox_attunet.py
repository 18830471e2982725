"""The gate, the proximal term, who goes where, and a site that is killed in the middle of training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clusters import Beside, local_ray
from PIL import Image
from torch import nn
from torch.testing import assert_close

from medray.data.case import Case, Source
from medray.data.sources import open_source
from medray.engine.options import RunOptions
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.learner import Step
from medray.system import PredictRequest, Trained
from medray.systems.segmentation.fedprox_attunet import (
    AttentionGate,
    FedProxConfig,
    SegmentationLearner,
    Site,
    SiteData,
    _norm_keys,
    build_networks,
    proximal_term,
    site_of,
)
from medray.systems.segmentation.fedprox_system import FedProxAttUNet

SMALL = FedProxConfig(channels=(4, 8), size=16, rounds=2, local_epochs=1, batch_size=4, lr=1e-2)
PHANTOM = "phantom:ultrasound?n=10&size=32"


def test_a_closed_gate_lets_nothing_through_and_an_open_one_everything() -> None:
    gate = AttentionGate(4, 8)
    x, g = torch.randn(2, 4, 8, 8), torch.randn(2, 8, 4, 4)
    nn.init.zeros_(gate.score.weight)
    for bias, expected in ((-50.0, torch.zeros_like(x)), (50.0, x)):
        nn.init.constant_(gate.score.bias, bias)
        assert_close(gate(x, g), expected)


def test_a_gate_follows_the_level_below() -> None:
    gate = AttentionGate(2, 2)
    for layer in (gate.skip, gate.gating, gate.score):
        nn.init.zeros_(layer.bias)
    nn.init.zeros_(gate.skip.weight)
    nn.init.ones_(gate.gating.weight)
    nn.init.constant_(gate.score.weight, 10.0)
    g = torch.zeros(1, 2, 4, 4)
    g[..., :2] = 1.0
    out = gate(torch.ones(1, 2, 8, 8), g)
    assert out[..., :3].min() > 0.99
    assert_close(out[..., 5:], torch.full((1, 2, 8, 3), 0.5))  # sigmoid of 0


@pytest.mark.parametrize(("attention", "width"), [(True, 64), (False, 64)])
def test_the_papers_network_at_the_papers_size(attention: bool, width: int) -> None:
    network = build_networks(FedProxConfig(attention=attention))["unet"]
    num_weights = sum(p.numel() for p in network.parameters())
    assert 28e6 < num_weights < 34e6  # a U-Net of 64 to 1024 maps has 31 M; gates add little
    with torch.device("meta"):
        shape = build_networks(FedProxConfig(attention=attention))["unet"](torch.empty(1, 1, 256, 256)).shape
    assert shape == (1, 1, 256, 256)


def test_the_proximal_term_by_hand() -> None:
    network = nn.Linear(2, 1)
    anchor = {name: p.detach() - 0.5 for name, p in network.named_parameters()}
    term = proximal_term(network, anchor)
    assert float(term) == pytest.approx(3 * 0.25 / 2)
    term.backward()
    assert_close(network.weight.grad, torch.full((1, 2), 0.5))


def test_mu_pulls_towards_the_anchor_and_without_it_nothing_does() -> None:
    cases = open_source(PHANTOM).cases[:4]
    work = {}
    for mu in (0.0, 1e6):
        config = dataclasses.replace(SMALL, mu=mu, augment=False)
        torch.manual_seed(0)
        anchor = {name: torch.zeros_like(value) for name, value in build_networks(config).state_dict().items()}
        learner = SegmentationLearner(config, cases, 1, InProcessWorkbench.cache.fget(_NoWork()), anchor=anchor)  # type: ignore[attr-defined]
        before = {name: p.detach().clone() for name, p in learner.networks.named_parameters()}
        step = Step(learner.configure_optimizers())
        learner.training_step(learner.collate([0, 1, 2, 3], 0), step)
        moved = [(p.detach() - before[name]).sign() == -before[name].sign()
                 for name, p in learner.networks.named_parameters() if before[name].ndim == 4]  # fmt: skip
        work[mu] = float(torch.cat([m.flatten() for m in moved]).float().mean())
    assert work[1e6] == 1.0
    assert work[0.0] < 0.8


class _NoWork:
    options = RunOptions(data="")


def test_normalization_layers_are_told_apart() -> None:
    keys = _norm_keys(SMALL)
    assert keys
    assert all("adn" in key or "norm" in key.lower() for key in keys)
    assert not any(key.endswith("conv.weight") for key in keys)


def test_fedbn_keeps_a_sites_own_normalization(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, keep_norm=True, lr=0.0)
    site = Site(InProcessWorkbench(tmp_path, quiet=True), SiteData("a", config, open_source(PHANTOM).cases[:4], ()))
    weights = build_networks(config).state_dict()
    own = {name: value + 1 for name, value in weights.items()}
    back = site.train(0, weights, own).weights
    for name, value in weights.items():
        assert_close(back[name], value + 1 if name in _norm_keys(config) else value)


def test_sites_and_diagnoses_are_spread_over_the_roles() -> None:
    source = open_source("phantom:ultrasound?n=40&size=32")
    splits = FedProxAttUNet(SMALL).split(source, seed=0)
    for part, share in ((splits.test, 8), (splits.train, 26), (splits.validation, 6)):
        counts = {site: sum(site_of(c) == site for c in part) for site in ("north", "east", "south")}
        assert set(counts.values()) == {share}
    assert {c.attributes["diagnosis"] for c in splits.test} == {"benign", "malignant", "normal"}


def _sites(*names: str) -> Source:
    cases = open_source(PHANTOM).cases
    return Source("sites.csv", tuple(c for c in cases if c.attributes["site"] in names), "")


def test_a_site_with_no_cases_is_named() -> None:
    config = dataclasses.replace(SMALL, sites=("north", "west"))
    with pytest.raises(UserError, match=r"site west has no cases in sites.csv; its sites are north, south"):
        FedProxAttUNet(config).split(_sites("north", "south"), 0)


def test_a_site_with_too_few_cases_is_named() -> None:
    lonely = dataclasses.replace(_sites("north"), cases=_sites("north").cases[:1])
    with pytest.raises(UserError, match="site north has no cases to train on: of its 1, 1 are for the test"):
        FedProxAttUNet(SMALL).split(lonely, 0)


def test_data_without_sites_is_refused() -> None:
    nameless = [Case(c.id, c.patient, c.fields) for c in _sites("north").cases]
    with pytest.raises(UserError, match="names no sites; give a manifest with a column site"):
        FedProxAttUNet(SMALL).split(Source("x", tuple(nameless), ""), 0)


def test_a_folder_per_site_with_a_file_per_lesion(tmp_path: Path) -> None:
    """The layout of the public data sets: masks beside images, several where there are several lesions."""
    random = np.random.default_rng(0)
    left, right = np.zeros((2, 40, 56), np.uint8)
    left[:10, :10] = right[:10, -10:] = 255
    for site in ("cairo", "sabadell"):
        (tmp_path / site).mkdir()
        for number in range(6):
            scan = random.integers(0, 255, (40, 56)).astype(np.uint8)
            for suffix, content in (("", scan), ("_mask", left), ("_mask_1", right)):
                Image.fromarray(content).save(tmp_path / site / f"b{number}{suffix}.png")
    source = open_source(str(tmp_path))
    assert {site_of(case) for case in source.cases} == {"cairo", "sabadell"}
    splits = FedProxAttUNet(SMALL).split(source, 0)
    learner = SegmentationLearner(
        dataclasses.replace(SMALL, augment=False), splits.train, 1, InProcessWorkbench(tmp_path / "w").cache
    )
    batch = learner.collate([0], 0)
    assert batch["image"].shape == batch["label"].shape == (1, 1, 16, 16)
    assert batch["label"][0, 0, 0, 0] == batch["label"][0, 0, 0, -1] == 1


def test_a_prediction_lies_on_the_images_own_pixels(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70), dtype=np.uint8)).save(tmp_path / "scan.png")
    made = FedProxAttUNet(SMALL)
    told = made.predict(
        Trained(weights=None), PredictRequest(inputs=[tmp_path / "scan.png"], out=tmp_path / "lesion.png")
    )
    mask = np.asarray(Image.open(tmp_path / "lesion.png"))
    assert mask.shape == (50, 70)
    assert set(np.unique(mask)) <= {0, 255}
    measured = json.loads(told.files["measurements"].read_text())
    assert measured["area_px"] == (mask > 0).sum()
    assert "area_mm2" not in measured  # a PNG knows no mm


@pytest.mark.ray
def test_a_site_that_is_killed_is_left_out_and_comes_back(tmp_path: Path) -> None:
    """Real actors: the process of one site is killed while it trains in the second round."""
    import psutil

    from medray.engine.ray_train import RayWorkbench

    config = dataclasses.replace(SMALL, rounds=8, local_epochs=12)
    made = FedProxAttUNet(config)
    splits = made.split(open_source(PHANTOM), 0)

    def seats() -> list[psutil.Process]:
        below = psutil.Process().children(recursive=True)
        return [process for process in below if any("_Seat" in word for word in process.cmdline())]

    def second_round_has_begun() -> bool:
        return any((tmp_path / "sites").glob("*/checkpoints/round-001"))

    with local_ray():
        work: Any = RayWorkbench(tmp_path, RunOptions(data=""))
        training = Beside(lambda: made.train(work, splits))
        training.wait_until(second_round_has_begun)
        seats()[0].kill()
        trained = training.result()
    rounds = trained.about["rounds"]
    assert len(rounds) == 8
    (lost,) = {site for record in rounds for site in record["absent"]}
    away = [record["number"] for record in rounds if lost in record["absent"]]
    assert away[0] in (1, 2)
    assert lost in rounds[-1]["answered"]  # it came back
    assert all(len(record["answered"]) >= 2 for record in rounds)
