"""M-VAAL: each term of its losses, one channel for three, batch norm's trap, and what it asks for."""

from __future__ import annotations

import functools
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rehearsal import StopsAfter, run, same, state_in
from torch import Tensor, nn
from torch.testing import assert_close
from toy_pool import ToyField, toy_cases

from medray.active.sampler import SamplingRound
from medray.data.case import Case, Volume
from medray.data.modalities import ModalReader
from medray.engine.workbench import InProcessWorkbench
from medray.errors import UserError
from medray.learner import Learner, Step
from medray.systems.active_learning import mvaal
from medray.systems.active_learning.mvaal import (
    MvaalLearner,
    MvaalSampler,
    MvaalSettings,
    PairBatch,
    build,
    critic_scores,
    field_statistics,
    fooling_loss,
    kl_to_prior,
    penalty,
    reader,
    reconstruction_error,
    telling_loss,
)
from medray.systems.active_learning.mvaal_networks import Critic, ToImage, TwoDecoderVae

SMALL = MvaalSettings(
    sampler_size=16,
    channels=(4, 8),
    latent=3,
    critic_channels=(8, 8),
    sampler_batch_size=4,
    sampler_epochs=2,
    lr_vae=1e-3,
    lr_critic=1e-3,
)


def _learner(settings: MvaalSettings = SMALL, labelled: int = 5, unlabelled: int = 10) -> MvaalLearner:
    torch.manual_seed(0)
    cases = toy_cases("common", range(labelled)), toy_cases("rare", range(unlabelled))
    learner = MvaalLearner(settings, *cases)
    learner.begin_epoch(0)
    return learner


# --- each term by hand -----------------------------------------------------------------------------------------


def test_reconstruction_is_the_mean_squared_error_of_each_image() -> None:
    made, wanted = torch.zeros(2, 1, 1, 2), torch.tensor([[[[1.0, 3.0]]], [[[0.0, 2.0]]]])
    assert_close(reconstruction_error(made, wanted), torch.tensor([5.0, 2.0]))


def test_kl_agrees_with_torch_distributions() -> None:
    z_mu, log_variance = torch.randn(4, 3), torch.randn(4, 3)
    posterior = torch.distributions.Normal(z_mu, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1)
    assert_close(kl_to_prior(z_mu, log_variance), expected)


def test_vae_wants_labelled_low_and_unlabelled_high_and_the_critic_the_reverse() -> None:
    scores = torch.tensor([2.0, 3.0, -1.0, 0.5])  # labelled 2 and 3, unlabelled -1 and 0.5
    assert_close(fooling_loss(scores), torch.tensor([3.0, 2.5]))
    assert_close(telling_loss(scores), torch.tensor([-3.0, -2.5]))


def test_vaals_cross_entropy() -> None:
    scores = torch.randn(6)
    ones, zeros = torch.ones(3), torch.zeros(3)
    entropy = functools.partial(nn.functional.binary_cross_entropy_with_logits, reduction="none")
    labelled, unlabelled = scores.chunk(2)
    assert_close(fooling_loss(scores, "bce"), entropy(labelled, ones) + entropy(unlabelled, ones))
    assert_close(telling_loss(scores, "bce"), entropy(labelled, ones) + entropy(unlabelled, zeros))


def test_penalty_of_a_linear_critic() -> None:
    critic = Critic(2, ())
    with torch.no_grad():
        critic.layers[0].weight.copy_(torch.tensor([[3.0, 4.0]]))
    found = penalty(critic, torch.randn(6, 2), torch.rand(3, 1))
    assert_close(found, torch.full((3,), 16.0))  # the slope is (3, 4) everywhere: (5 - 1)^2
    found.sum().backward()
    # by hand: d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w| = 8 (3, 4) / 5, for each of three pairs
    assert_close(critic.layers[0].weight.grad, 3 * torch.tensor([[4.8, 6.4]]))


def test_penalty_is_taken_between_the_pair() -> None:
    class Square(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return 0.5 * z.square().sum(1)  # slope z

    latents = torch.tensor([[4.0], [0.0]])  # labelled 4, unlabelled 0
    assert_close(penalty(Square(), latents, torch.tensor([[0.75]])), torch.tensor([4.0]))  # at 3: (3 - 1)^2
    assert_close(penalty(Square(), latents, torch.tensor([[0.0]])), torch.tensor([1.0]), rtol=0, atol=1e-4)


def test_slope_of_zero_has_a_finite_gradient() -> None:
    critic = Critic(2, ())
    nn.init.zeros_(critic.layers[0].weight)
    penalty(critic, torch.randn(2, 2), torch.rand(1, 1)).sum().backward()
    assert bool(torch.isfinite(critic.layers[0].weight.grad).all())


def test_penalty_leaves_running_statistics_and_mode_alone() -> None:
    critic = Critic(2, (4,))
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    penalty(critic, torch.randn(6, 2), torch.rand(3, 1)).sum().backward()
    assert critic.training
    assert all(torch.equal(value, before[name]) for name, value in critic.state_dict().items())


def test_penalty_of_a_compiled_critic() -> None:
    critic = Critic(2, (4,))
    latents, mix = torch.randn(6, 2), torch.rand(3, 1)
    expected = penalty(critic, latents, mix)
    critic.compile(backend="aot_eager")  # which cannot be derived twice
    found = penalty(critic, latents, mix)
    found.sum().backward()
    assert_close(found, expected)


@pytest.mark.parametrize(("reduction", "factor"), [("pixels", 1 / (3 * 16 * 16)), ("mean", 1 / 3), ("sum", 4.0)])
def test_divergence_is_weighed(reduction: Any, factor: float) -> None:
    assert replace(SMALL, kl_reduction=reduction, kl_weight=2.0).kl_factor == pytest.approx(2 * factor)


def test_the_vaes_loss_is_the_weighed_sum_of_its_terms() -> None:
    learner = _learner(replace(SMALL, gamma_1=0.5, gamma_2=2.0, gamma_3=3.0, kl_weight=7.0))
    seen = learner.training_step(learner.collate([0, 1, 2], 0), Step(learner.configure_optimizers()))
    # errors and divergence are means over images; the loss has those of a labelled and of an unlabelled one
    expected = (
        0.5 * seen["adversarial"].mean
        + 2 * (2.0 * seen["image_error"].mean + 3.0 * seen["auxiliary_error"].mean)
        + 2 * 7.0 * seen["kl"].mean / (3 * 16 * 16)
    )
    assert seen["vae_loss"].mean == pytest.approx(expected, rel=1e-5)


def test_critic_rises_on_labelled_and_vae_lowers_it() -> None:
    learner = _learner(replace(SMALL, critic_norm="none", critic_channels=(), critic_sees="mean", gradient_penalty=0.0))
    batch = learner.collate(range(4), 0)
    vae, critic = learner.networks["vae"], learner.networks["critic"]

    def difference() -> float:
        with torch.no_grad():
            labelled, unlabelled = critic(vae(batch.images[0], batch.noise[0]).z_mu).chunk(2)
        return float(labelled.mean() - unlabelled.mean())

    optimizers = learner.configure_optimizers()
    z = vae(batch.images[0], batch.noise[0]).z_mu.detach()
    before = difference()
    learner._move_critic(z, batch.mix[0], Step(optimizers))
    raised = difference()
    assert raised > before
    only_adversarial = replace(learner.settings, gamma_2=0.0, gamma_3=0.0, kl_weight=0.0)
    learner.settings = only_adversarial
    learner._move_vae(batch, batch.noise[0], Step(optimizers))
    assert difference() < raised


# --- the networks ----------------------------------------------------------------------------------------------


def test_without_gamma_3_there_is_no_second_decoder_and_the_rest_is_equal() -> None:
    both, one = build(SMALL), build(replace(SMALL, gamma_3=0.0))
    names = set(both.state_dict()) - set(one.state_dict())
    assert names
    assert all(name.startswith("vae.decoders.1.") for name in names)


def test_the_papers_and_the_authors_networks() -> None:
    with torch.device("meta"):
        paper, code = build(MvaalSettings()), build(
            MvaalSettings(channels=(64, 128, 256, 512, 1024), critic_channels=(128, 256, 512, 256, 128))
        )  # fmt: skip
    shapes = {name: tuple(value.shape) for name, value in paper.state_dict().items()}
    assert shapes["vae.encoder.0.weight"] == (128, 1, 4, 4)
    assert shapes["vae.encoder.13.weight"] == (128, 1024 * 8 * 8)  # mean and log variance of 64 latents
    assert shapes["vae.decoders.1.0.weight"] == (1024 * 8 * 8, 64)
    assert [shapes[f"critic.layers.{n}.weight"] for n in (0, 3, 6)] == [(512, 64), (512, 512), (1, 512)]
    shapes = {name: tuple(value.shape) for name, value in code.state_dict().items()}
    assert shapes["vae.decoders.0.0.weight"] == (1024 * 4 * 4, 64)
    widths = [shapes[f"vae.decoders.0.{n}.weight"][1] for n in (2, 5, 8, 11, 14)]
    assert widths == [512, 256, 128, 64, 32]
    assert shapes["vae.decoders.0.17.weight"] == (1, 32, 1, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_to_image_is_a_convolution(channels: int) -> None:
    layer, x = ToImage(5, channels, 1), torch.randn(2, 5, 3, 4)
    assert_close(layer(x), nn.functional.conv2d(x, layer.weight, layer.bias))


def _folded(three: TwoDecoderVae, one: TwoDecoderVae) -> None:
    """Give one channel what three have, with equal output rows."""
    state = {name: value.clone() for name, value in three.state_dict().items()}
    state["encoder.0.weight"] = state["encoder.0.weight"].sum(1, keepdim=True)
    for name in state:
        if state[name].shape[:1] == (3,) and name.startswith("decoders"):
            state[name] = state[name][:1]
    one.load_state_dict(state)


def test_one_channel_learns_what_three_equal_ones_learn() -> None:
    """Every weight after 20 steps of both networks, in float64."""
    settings = replace(SMALL, gray_channels=3)
    learners = _learner(settings), _learner(replace(settings, gray_channels=1))
    three, one = (learner.networks["vae"] for learner in learners)
    with torch.no_grad():
        for decoder in three.decoders:
            for parameter in decoder[-1].parameters():
                parameter.copy_(parameter[:1].expand_as(parameter).clone())
    _folded(three, one)
    learners[1].networks["critic"].load_state_dict(learners[0].networks["critic"].state_dict())
    start = three.encoder[0].weight.detach().clone()
    for learner in learners:
        learner.networks.double()
        step = Step(learner.configure_optimizers())
        for number in range(20):
            batch = learner.collate([number % 10, 3, 7], 0)
            images = tuple(image.double() for image in batch.images)
            learner.training_step(PairBatch(images, batch.noise.double(), batch.mix.double()), step)
    expected = TwoDecoderVae(16, (4, 8), 3).double()
    _folded(three, expected)
    assert float((three.encoder[0].weight.detach() - start).abs().max()) > 0.01
    for name, value in expected.state_dict().items():
        assert_close(one.state_dict()[name], value, rtol=1e-6, atol=1e-8, msg=lambda said, name=name: f"{name}: {said}")


def test_images_are_normalized_by_numbers_that_travel_with_the_weights() -> None:
    learner = _learner()
    vae, cases = learner.networks["vae"], [*learner.labelled, *learner.unlabelled]
    values = vae.normalized(mvaal.stacked(learner.read, cases, "auxiliary"), 1)
    assert_close(values.mean(), torch.tensor(0.0), rtol=0, atol=1e-4)
    assert_close(values.std(correction=0), torch.tensor(1.0), rtol=0, atol=1e-3)
    assert "statistics" in vae.state_dict()


def test_statistics_come_from_a_bounded_number_of_readable_images(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Reader(ModalReader):
        def image(self, case: Case, field: str = "image") -> Any:
            asked.append(case.id)
            if case.id == "common-000":
                raise UserError("damaged")
            return np.full((1, 2, 2), 4.0 if len(asked) % 2 else 2.0, np.float32)

    monkeypatch.setattr(mvaal, "_NORMALIZED_BY", 4)
    assert field_statistics(Reader(2), toy_cases("common", range(15)), "image") == pytest.approx(
        (8 / 3, (8 / 9) ** 0.5)
    )
    assert asked == ["common-000", "common-004", "common-008", "common-012"]


# --- batch norm's trap -----------------------------------------------------------------------------------------


def test_batch_norm_hides_a_shift_from_a_critic_fed_twice_but_not_from_one_fed_once() -> None:
    torch.manual_seed(0)
    labelled, unlabelled = torch.randn(64, 3) + 5.0, torch.randn(64, 3) - 5.0
    critic = Critic(3, (16,))
    hidden = critic.layers[:2]  # up to batch norm
    apart = hidden(labelled).mean(0) - hidden(unlabelled).mean(0)
    assert_close(apart, torch.zeros(16), rtol=0, atol=1e-5)
    first, second = hidden(torch.cat([labelled, unlabelled])).chunk(2)
    assert float((first.mean(0) - second.mean(0)).detach().abs().min()) > 1.0


def test_the_learner_feeds_both_kinds_at_once() -> None:
    learner = _learner()
    seen: list[tuple[str, int]] = []
    for name, network in learner.networks.items():
        network.register_forward_pre_hook(lambda module, inputs, name=name: seen.append((name, len(inputs[0]))))
    learner.training_step(learner.collate([0, 1, 2], 0), Step(learner.configure_optimizers()))
    assert seen == [("vae", 6), ("critic", 6), ("critic", 6), ("critic", 3)]  # the last one is the penalty's


# --- pairs and batches -----------------------------------------------------------------------------------------


def test_labelled_images_are_cycled_evenly_in_the_epochs_order() -> None:
    learner = _learner(labelled=3, unlabelled=9)
    order = learner.order(0, learner.seed)
    rounds = [sorted(learner._beside[i] for i in order[start : start + 3]) for start in (0, 3, 6)]
    assert rounds == [[0, 1, 2]] * 3
    first = dict(learner._beside)
    learner.begin_epoch(1)
    assert learner._beside != first
    learner.begin_epoch(0)
    assert learner._beside == first


def test_a_pair_is_the_same_beside_any_others() -> None:
    learner = _learner()
    whole, part = learner.collate([4, 2, 9], 0), learner.collate([2], 0)
    for field in (0, 1):
        assert torch.equal(part.images[field], whole.images[field][[1, 4]])
    assert torch.equal(part.noise, whole.noise[:, [1, 4]])
    assert torch.equal(part.mix, whole.mix[:, [1]])
    assert not torch.equal(part.noise[0], part.noise[1])


def test_halves_of_a_batch_give_the_gradients_of_the_whole() -> None:
    # what two workers do, each with its part of the totals over the count of both; batch norm frozen
    class Whole(Step):
        def mean(self, total: Tensor, count: Tensor | float) -> Tensor:
            return total / 6

        def update(self, name: str, *, max_norm: float | None = None) -> None:
            for group in self.optimizers[name].param_groups:
                for p in group["params"]:
                    gradients[name, id(p)] = gradients.get((name, id(p)), 0) + p.grad.clone()
                    p.grad = None

    learner = _learner(replace(SMALL, kl_reduction="sum", vae_steps=2, critic_steps=2))
    for module in learner.networks.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign,misc]
    step = Whole(learner.configure_optimizers())
    found = []
    for parts in ([[0, 1, 2, 3, 4, 5]], [[0, 4], [1, 2, 3, 5]]):
        gradients: dict[tuple[str, int], Any] = {}
        for part in parts:
            learner.training_step(learner.collate(part, 0), step)
        found.append(gradients)
    assert len(found[0]) == len(list(learner.networks.parameters()))
    for key, value in found[0].items():
        assert_close(found[1][key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("labelled", "unlabelled"), [(1, 9), (9, 1), (1, 1)])
def test_fewer_images_than_a_batch(labelled: int, unlabelled: int, tmp_path: Path) -> None:
    cases = toy_cases("common", range(labelled)), toy_cases("rare", range(unlabelled))
    assert run(functools.partial(MvaalLearner, SMALL, *cases), tmp_path)


# --- through the engine ----------------------------------------------------------------------------------------


def _make() -> Learner:
    return MvaalLearner(SMALL, toy_cases("common", range(5)), toy_cases("rare", range(10)))


def test_stopped_and_resumed_is_bit_identical(tmp_path: Path) -> None:
    assert run(_make, tmp_path / "whole")
    assert not run(_make, tmp_path / "parts", StopsAfter(4))  # in the second epoch
    assert run(_make, tmp_path / "parts")
    assert same(state_in(tmp_path / "whole"), state_in(tmp_path / "parts")) == []


def test_prepared_ahead_is_the_same(tmp_path: Path) -> None:
    run(_make, tmp_path / "between", loader_workers=0)
    run(_make, tmp_path / "ahead", loader_workers=1)
    assert same(state_in(tmp_path / "between"), state_in(tmp_path / "ahead")) == []


@pytest.mark.parametrize(
    "change",
    [
        {"gray_channels": 3},
        {"gamma_3": 0.0},
        {"adversarial": "bce"},
        {"sigmoid_critic": True, "kl_reduction": "sum", "decode": "mean", "critic_sees": "mean", "vae_steps": 2},
        {"critic_norm": "layer", "critic_steps": 3},
        {"critic_norm": "none", "critic_channels": (), "kl_reduction": "mean"},
    ],
    ids=lambda change: " ".join(change),
)
def test_every_variant_trains_in_half_precision_and_ranks(change: dict[str, Any], tmp_path: Path) -> None:
    settings = replace(SMALL, sampler_epochs=1, **change)
    cases = toy_cases("common", range(4)), toy_cases("rare", range(4))
    assert run(functools.partial(MvaalLearner, settings, *cases), tmp_path, precision="bf16")
    state = state_in(tmp_path)
    assert all(bool(torch.isfinite(v).all()) for v in state.values() if isinstance(v, Tensor) and v.is_floating_point())
    ranking = _rank(settings, tmp_path, SamplingRound(0, *cases, budget=2))
    assert len(ranking.picks) == 2
    assert ranking.scores is not None
    assert np.isfinite(ranking.scores).all()


def _rank(settings: MvaalSettings, folder: Path, view: SamplingRound) -> Any:
    weights = next((folder / "checkpoints" / "train").rglob("*.safetensors"))
    work = InProcessWorkbench(folder / "rank", quiet=True, tensorboard=False)
    return MvaalSampler(settings).rank(work, view, weights=weights, task=None, task_weights=None)  # type: ignore[arg-type]


# --- what it asks for ------------------------------------------------------------------------------------------

LEARNS = replace(
    SMALL, channels=(8, 16), latent=8, critic_channels=(32, 32), sampler_batch_size=8, sampler_epochs=12, gamma_1=0.1
)


def _trained(settings: MvaalSettings, view: SamplingRound, folder: Path) -> Any:
    work = InProcessWorkbench(folder, quiet=True, tensorboard=False)
    sampler = pickle.loads(pickle.dumps(MvaalSampler(settings)))
    fitted = sampler.train(work, view)
    return fitted, sampler.rank(work, view, weights=fitted.weights, task=None, task_weights=None)


def test_asks_for_the_kind_that_the_labelled_images_lack(tmp_path: Path) -> None:
    rare = toy_cases("rare", range(10))
    view = SamplingRound(3, toy_cases("common", range(20)), (*toy_cases("common", range(20, 80)), *rare), budget=10)
    fitted, ranking = _trained(LEARNS, view, tmp_path)
    assert (tmp_path / "checkpoints" / "sampler-003").is_dir()
    share = sum(name.startswith("rare") for name in ranking.picks) / 10
    assert share > 4 * 10 / 70  # of the pool one in seven
    assert ranking.scores.dtype == np.float32
    assert len(ranking.scores) == 70
    assert len(ranking.labelled_scores) == 20
    assert ranking.metrics["score_labelled"] > ranking.metrics["score_unlabelled"]
    assert fitted.metrics["auxiliary_error"] < 1.0  # less than normalized images vary


def test_picks_are_the_lowest_scores_and_equal_ones_go_by_id(tmp_path: Path) -> None:
    run(_make, tmp_path)
    same_image = ToyField("rare", 7)
    names = ("c", "a", "b", "d")
    twins = tuple(Case(name, name, {"image": same_image}) for name in names)
    view = SamplingRound(0, toy_cases("common", range(2)), (*twins, *toy_cases("common", range(40))), budget=3)
    ranking = _rank(SMALL, tmp_path, view)
    ids = [case.id for case in view.unlabelled]
    assert list(ranking.picks) == [name for _, name in sorted(zip(ranking.scores.tolist(), ids, strict=True))[:3]]
    only = _rank(SMALL, tmp_path, SamplingRound(0, view.labelled, twins, budget=3))
    assert only.picks == ("a", "b", "c")
    everything = _rank(SMALL, tmp_path, SamplingRound(0, view.labelled, twins, budget=99))
    assert everything.picks == ("a", "b", "c", "d")


def test_ranking_holds_a_batch_of_images_at_a_time() -> None:
    waiting, most = 0, 0

    class Counted(ModalReader):
        def image(self, case: Case, field: str = "image") -> Any:
            nonlocal waiting, most
            waiting += 1
            most = max(most, waiting)
            return np.zeros((1, 16, 16), np.float32)

    def scored(*_: object) -> None:
        nonlocal waiting
        waiting = 0

    networks = build(SMALL).eval().requires_grad_(False)
    networks["critic"].register_forward_hook(scored)
    cases = [Case(str(number), "p", {}) for number in range(300)]
    assert len(list(critic_scores(networks, Counted(16), cases))) == 300
    assert most == 32


def test_ranking_does_not_need_the_auxiliary_image_nor_change_the_mode_of_torch(tmp_path: Path) -> None:
    run(_make, tmp_path)
    bare = tuple(Case(c.id, c.patient, {"image": c.fields["image"]}) for c in toy_cases("rare", range(3)))
    assert len(_rank(SMALL, tmp_path, SamplingRound(0, bare, bare, budget=1)).picks) == 1
    networks = mvaal.load(SMALL, next((tmp_path / "checkpoints" / "train").rglob("*.safetensors")))
    scores = critic_scores(networks, reader(SMALL, None), bare)
    next(scores)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_an_empty_pool_is_an_empty_ranking(tmp_path: Path) -> None:
    view = SamplingRound(0, toy_cases("common", range(2)), (), budget=3)
    work = InProcessWorkbench(tmp_path, quiet=True, tensorboard=False)
    sampler = MvaalSampler(SMALL)
    assert sampler.train(work, view) is None
    assert sampler.rank(work, view, weights=None, task=None, task_weights=None).picks == ()  # type: ignore[arg-type]


# --- sentences for what cannot work ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sampler_size": 100, "channels": (4,) * 5}, r"multiple of 32.*got 100; try 128"),
        ({"gamma_3": -1.0}, r"gamma_3 must be 0 or more, got -1"),
        ({"sampler_batch_size": 0}, r"sampler_batch_size must be more than 0"),
        ({"channels": ()}, r"channels wants at least one number"),
        ({"adversarial": "bce", "sigmoid_critic": True}, r"leave sigmoid_critic off"),
    ],
)
def test_nonsense_is_refused_with_the_remedy(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MvaalSettings(**change)


def test_a_missing_auxiliary_image_is_named() -> None:
    (case,) = toy_cases("rare", range(1))
    bare = Case(case.id, case.patient, {"image": case.fields["image"]})
    with pytest.raises(UserError, match=r"case rare-000 has no field 'auxiliary'.*gamma_3 = 0"):
        MvaalLearner(SMALL, [case], [bare])
    MvaalLearner(replace(SMALL, gamma_3=0.0), [case], [bare])


def test_nothing_to_compare_with_is_told() -> None:
    with pytest.raises(UserError, match=r"at least one of each, got 0 and 1"):
        MvaalLearner(SMALL, [], toy_cases("rare", range(1)))


def test_weights_of_other_settings_are_refused(tmp_path: Path) -> None:
    run(_make, tmp_path)
    weights = next((tmp_path / "checkpoints" / "train").rglob("*.safetensors"))
    with pytest.raises(UserError, match="do not fit TwoDecoderVae"):
        mvaal.load(replace(SMALL, gamma_3=0.0), weights)


def test_a_3d_image_is_told(tmp_path: Path) -> None:
    class Solid(ToyField):
        def load(self) -> Volume:
            return Volume(np.zeros((1, 4, 4, 4), np.float32), np.eye(4), "solid.nii.gz")

    case = Case("solid", "p", {"image": Solid("rare", 0), "auxiliary": Solid("rare", 0)})
    learner = MvaalLearner(SMALL, toy_cases("common", range(1)), [*toy_cases("rare", range(1)), case])
    learner.begin_epoch(0)
    with pytest.raises(UserError, match=r"solid.nii.gz is 3D"):
        learner.collate([1], 0)
