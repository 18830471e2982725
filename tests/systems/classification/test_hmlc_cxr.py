"""HMLC: stages, scores, labels from columns and folders, and what a user gets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.testing import assert_close

from medray.data.case import Case, Source
from medray.data.phantoms import chest
from medray.data.sources import open_source
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.learner import Step
from medray.system import PredictRequest, Trained
from medray.systems.classification.densenet import build_densenet, load_imagenet_weights
from medray.systems.classification.hmlc_cxr import (
    HmlcConfig,
    HmlcCxr,
    HmlcLearner,
    large_logits,
    probabilities,
    stages,
)
from medray.systems.classification.taxonomy import flat_taxonomy, taxonomy_of
from medray.systems.classification.taxonomy_scores import summarize

FAST = HmlcConfig(network="small", image_size=32, epochs=1, finetune_epochs=1, batch_size=8, lr=1e-3)
TREE = taxonomy_of({"any": None, "lung": "any", "nodule": "lung", "fluid": "any"})


def _learner(objective: str, start: Path | None = None) -> HmlcLearner:
    cases = chest.cases(n=12, size=32, prevalence=0.8)
    taxonomy = taxonomy_of(chest.TAXONOMY)
    system = HmlcCxr(FAST)
    labels = {"train": system._labels(cases, taxonomy), "validation": system._labels(cases[:2], taxonomy)}
    torch.manual_seed(0)
    return HmlcLearner(
        FAST,
        taxonomy,
        objective,  # type: ignore[arg-type]
        cases,
        cases[:2],
        labels,
        start=start,
        num_epochs=1,
        lr=1e-3,
    )


def test_two_stages_of_the_same_passes_as_one() -> None:
    assert [stage[:2] for stage in stages(HmlcConfig())] == [("train", "conditional"), ("finetune", "unconditional")]
    for method in ("hlcp", "hlup", "br_all", "br_leaf"):
        ((name, _, num_epochs, _),) = stages(HmlcConfig(method=method))  # type: ignore[arg-type]
        assert (name, num_epochs) == ("train", 15)
    assert [stage[0] for stage in stages(HmlcConfig(finetune_epochs=0))] == ["train"]


@pytest.mark.parametrize("objective", ["conditional", "unconditional", "independent"])
def test_halves_of_a_batch_give_the_gradient_of_the_whole(objective: str) -> None:
    # what two workers do: each takes its part of the total over the count of both
    learner = _learner(objective)
    whole = learner.collate(range(8), 0)
    network = learner.networks["net"]

    def gradient(parts: list[list[int]]) -> torch.Tensor:
        network.zero_grad()
        for part in parts:
            logits = network(whole.image[part])
            (learner._loss(logits, whole.label[part]).sum() / 8).backward()
        return torch.cat([p.grad.flatten() for p in network.parameters()])

    assert_close(gradient([[0, 1, 2], [3, 4, 5, 6, 7]]), gradient([list(range(8))]), rtol=1e-4, atol=1e-6)


def test_the_second_stage_goes_on_from_the_first(tmp_path: Path) -> None:
    first = _learner("conditional")
    step = Step(first.configure_optimizers())
    first.training_step(first.collate(range(8), 0), step)
    save_file({k: v.contiguous() for k, v in first.networks.state_dict().items()}, tmp_path / "w.safetensors")
    second = _learner("unconditional", start=tmp_path / "w.safetensors")
    assert_close(second.networks.state_dict(), first.networks.state_dict())


def test_products_obey_the_tree_and_independent_labels_need_not() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    p = probabilities(logits, TREE, "hlup")[0]
    sigmoid = torch.sigmoid(logits[0])
    assert_close(p, torch.stack([sigmoid[0], sigmoid[:2].prod(), sigmoid[:3].prod(), sigmoid[0] * sigmoid[3]]))
    independent = probabilities(logits, TREE, "br_all").double().numpy()
    labels = np.array([[True, True, True, False]])
    assert summarize(TREE, labels, independent)["violations_percent"] == pytest.approx(100 * 2 / 3)
    assert summarize(TREE, labels, p[None].double().numpy())["violations_percent"] == 0


def test_scores_by_hand() -> None:
    labels = np.array([[1, 1, 1, 0], [1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
    scores = np.array([[0.9, 0.8, 0.3, 0.2], [0.8, 0.3, 0.4, 0.3], [0.7, 0.2, 0.1, 0.1], [0.85, 0.1, 0.0, 0.4]])
    found = summarize(TREE, labels, scores)
    assert found["auc_leaf"] == pytest.approx((2 / 3 + 2 / 3) / 2)  # nodule: below case 1; fluid: below case 3
    assert found["auc_high"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["auc_leaf_abnormal"] == pytest.approx((0 + 1) / 2)
    assert found["num_undefined_labels"] == 0
    leaves_only = np.where(TREE.leaves, scores, np.nan)
    found = summarize(TREE, labels, leaves_only)
    assert "auc_high" not in found
    assert "violations_percent" not in found


def test_large_logits_tell_the_forms_apart() -> None:
    assert large_logits("powerset")["large_logit_error"] < 1e-4
    assert large_logits("log1mexp")["large_logit_error"] < 1e-4
    assert large_logits("naive")["large_logit_error"] > 1e6


def test_published_weights_come_under_their_own_names(tmp_path: Path) -> None:
    network = build_densenet("densenet121", 3)
    published = {
        name.replace(".layers.", "."): torch.randn(tensor.shape) if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
        if name.startswith("features.") and not name.endswith("num_batches_tracked")
    }
    published["features.conv0.weight"] = torch.randn(64, 3, 7, 7)
    published |= {"classifier.weight": torch.zeros(1000, 1024), "classifier.bias": torch.zeros(1000)}
    old = {name.replace("norm1.", "norm.1.").replace("conv1.", "conv.1."): t for name, t in published.items()}
    for content in (published, old):
        torch.save(content, tmp_path / "densenet121.pth")
        load_imagenet_weights(network, tmp_path / "densenet121.pth")
        state = network.state_dict()
        assert_close(state["features.conv0.weight"], published["features.conv0.weight"].sum(dim=1, keepdim=True))
        name = "features.denseblock3.denselayer7.layers.conv1.weight"
        assert_close(state[name], published[name.replace(".layers.", ".")])
    del published["features.norm5.bias"]
    save_file(published, tmp_path / "part.safetensors")
    with pytest.raises(UserError, match=r"features.norm5.bias does not fit"):
        load_imagenet_weights(network, tmp_path / "part.safetensors")
    (tmp_path / "no.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot read the weights"):
        load_imagenet_weights(network, tmp_path / "no.pth")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[HmlcCxr, Trained, InProcessWorkbench, Source]:
    system, work = HmlcCxr(FAST), InProcessWorkbench(tmp_path_factory.mktemp("run"), quiet=True)
    source = open_source("phantom:chest?n=60&size=32&prevalence=0.7")
    return system, system.train(work, system.split(source, 0)), work, source


def test_a_run_has_two_fits_and_scores_that_obey_the_tree(
    run: tuple[HmlcCxr, Trained, InProcessWorkbench, Source],
) -> None:
    system, trained, work, source = run
    assert list(trained.fits) == ["train", "finetune"]
    evaluation = system.evaluate(work, trained, source.cases[:20])
    assert evaluation.summary["violations_percent"] == 0
    assert len(evaluation.rows) == 20
    assert set(json.loads(str(evaluation.rows[0]["probabilities"]))) == set(chest.TAXONOMY)
    assert {"case", "log_loss", "true"} <= set(evaluation.rows[0])
    assert len(evaluation.figures) == 3


def test_predict_writes_the_tree(run: tuple[HmlcCxr, Trained, InProcessWorkbench, Source], tmp_path: Path) -> None:
    system, trained, _, source = run
    path = tmp_path / "cxr.png"
    Image.fromarray(source.cases[0].volume("image").array[0]).resize((90, 70)).save(path)
    prediction = system.predict(trained, PredictRequest(inputs=[path], out=tmp_path / "out" / "cxr.json"))
    findings = {one["name"]: one for one in json.loads(prediction.files["result"].read_text())["findings"]}
    assert len(findings) == 19
    for one in findings.values():
        if one["parent"]:
            assert one["probability"] <= findings[one["parent"]]["probability"]
    assert len(prediction.files["table"].read_text().splitlines()) == 20
    assert prediction.files["picture"].stat().st_size > 1000
    with pytest.raises(UserError, match=r"suffix \.json"):
        system.predict(trained, PredictRequest(inputs=[path], out=tmp_path / "cxr.png"))


def _in_folder(name: str, folder: str) -> Case:
    return Case(f"{folder}/{name}", name, chest.cases(n=1, size=32)[0].fields, {"class": folder})


def test_folders_are_a_flat_taxonomy_or_nodes_of_a_tree(tmp_path: Path) -> None:
    cases = [_in_folder("a", "normal"), _in_folder("b", "covid"), _in_folder("c", "pneumonia")]
    flat = HmlcCxr(FAST)
    assert flat.taxonomy(cases) == flat_taxonomy(["normal", "covid", "pneumonia"])
    np.testing.assert_array_equal(flat._labels(cases, flat.taxonomy(cases)), np.eye(3, dtype=bool))
    (tmp_path / "t.yaml").write_text("abnormal:\ncovid: abnormal\npneumonia: abnormal\n")
    tree = HmlcCxr(replace(FAST, taxonomy=str(tmp_path / "t.yaml")))
    labels = tree._labels(cases, tree.taxonomy(cases))
    np.testing.assert_array_equal(labels, [[0, 0, 0], [1, 1, 0], [1, 0, 1]])
    (bad,) = tree.problems([*cases, _in_folder("d", "flu")], {})
    assert "'flu' is none of the model's: abnormal, covid, pneumonia, normal" in bad.reason


def test_a_manifest_without_the_columns_is_refused() -> None:
    case = Case("a", "a", {}, {"site": "x"})
    with pytest.raises(UserError, match=r"no column 'nodule', which the taxonomy names"):
        HmlcCxr(FAST).problems([case], {})


def test_splits_hold_rare_findings_on_both_sides() -> None:
    system, source = HmlcCxr(FAST), open_source("phantom:chest?n=800&size=32")
    splits = system.split(source, seed=3)
    for sign in chest.SIGNS:
        shares = [
            np.mean([case.attributes[sign] == "1" for case in part])
            for part in (splits.train, splits.test, source.cases)
        ]
        assert shares[1] == pytest.approx(shares[2], abs=0.025)


@pytest.mark.parametrize(
    "change", [{"epochs": -1}, {"epochs": 0, "finetune_epochs": 0}, {"image_size": 8}, {"weights": "x"}, {"lr": 0.0}]
)
def test_settings_that_cannot_work(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"epochs|image_size|weights|rates"):
        replace(FAST, **change)  # type: ignore[arg-type]


@pytest.mark.real_data
def test_chest_radiographs(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "chest_xray"
    if not folder.is_dir():
        pytest.skip(f"{real_data} has no chest_xray")
    system = HmlcCxr(replace(FAST, method="br_all", epochs=3, finetune_epochs=0, lr=2e-3))
    source = open_source(str(folder))
    source = replace(source, cases=tuple(case for index, case in enumerate(source.cases) if index % 3 == 0))
    assert not system.problems(source.cases, {})
    splits, work = system.split(source, 0), InProcessWorkbench(tmp_path, quiet=True)
    summary = system.evaluate(work, system.train(work, splits), splits.test).summary
    assert summary["auc_leaf"] > 0.6  # 0.5 by chance
    assert "auc_high" not in summary
