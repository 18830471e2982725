"""CSS-Net's parts: dense blocks, substitution in the Fourier domain, losses and their factors."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from medray.learner import Step, SumCount
from medray.systems.shoulder.css_building import make_head, make_networks, make_segmenter
from medray.systems.shoulder.css_config import VARIANTS, CssConfig
from medray.systems.shoulder.css_features import SpectrumFeatures, vgg_content_loss
from medray.systems.shoulder.css_losses import (
    LossWeights,
    absence_loss,
    classification_loss,
    identity_loss,
    segmentation_loss,
)
from medray.systems.shoulder.css_networks import BlockShape, DenseBlock
from medray.systems.shoulder.css_presets import SMALL
from medray.systems.shoulder.css_released import ReleasedBlock
from medray.systems.shoulder.css_substitution import (
    ComplexNet,
    MagnitudeNet,
    composite,
    content_loss,
    from_spectrum,
    tendon_instead,
    to_spectrum,
)
from medray.systems.shoulder.css_translator import Translator, judging_loss, make_judge


def test_a_dense_block_sees_as_far_as_its_dilations_add_up() -> None:
    block = DenseBlock(16, 16, BlockShape(16, (1, 2, 4, 8))).double()
    for module in block.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.eps = 1e9  # leaves next to no coupling through the statistics
    image = torch.zeros(1, 16, 41, 41, dtype=torch.float64).requires_grad_()
    found = torch.autograd.grad(block(image + 1)[0, :, 20, 20].sum(), image)[0].abs().sum((0, 1))
    seen = torch.nonzero(found > 1e-3 * found.max())
    assert int((seen - 20).abs().max()) <= 1 + 2 + 4 + 8


@pytest.mark.parametrize("network", [MagnitudeNet, ComplexNet])
def test_a_spectrum_comes_back_and_a_fresh_net_changes_nothing(network: type[torch.nn.Module]) -> None:
    region = torch.rand(2, 1, 12, 10)
    assert_close(from_spectrum(to_spectrum(region)), region)
    assert_close(from_spectrum(network()(to_spectrum(region))), region)
    assert_close(to_spectrum(torch.ones(1, 1, 4, 4))[0, :, 0, 0], torch.tensor([4.0, 0.0]))  # 16 / sqrt(16)


def test_nothing_in_nothing_out_before_training() -> None:
    for network in (MagnitudeNet(), ComplexNet()):
        assert float(identity_loss(from_spectrum(network(torch.zeros(1, 2, 8, 8))))) == 0.0
    assert float(identity_loss(torch.full((1, 1, 2, 2), -0.5))) == pytest.approx(2.0)


def test_the_composite_replaces_the_tear_alone_and_stays_an_image() -> None:
    images, tear = torch.full((1, 1, 2, 2), 0.8), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    made = composite(images, tear, torch.tensor([[[[0.3, 0.5], [0.0, -0.1]]]]))
    assert_close(made, torch.tensor([[[[0.3, 1.0], [0.8, 0.7]]]]))
    assert tendon_instead(torch.tensor([0, 1, 2])).tolist() == [0, 1, 1]


def test_the_content_loss_forgets_the_place_and_the_size_of_a_region() -> None:
    small, large = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    small[..., 2:4, 2:4], large[..., 9:11, 8:10] = 0.5, 0.5
    four = torch.tensor([4])
    assert float(content_loss(to_spectrum(small), to_spectrum(large), four, four)) == pytest.approx(0.0, abs=1e-9)
    bright = content_loss(to_spectrum(2 * small), to_spectrum(large), four, four)
    assert float(bright) > 1e-3


def _trained(network: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize(("network", "same"), [(MagnitudeNet, True), (ComplexNet, False)])
def test_what_magnitudes_become_does_not_depend_on_the_place(network: type[torch.nn.Module], same: bool) -> None:
    net, region = _trained(network()), torch.zeros(1, 1, 16, 16)
    region[..., 3:6, 4:6] = 0.8
    moved = region.roll((5, 7), (2, 3))
    here, there = from_spectrum(net(to_spectrum(region))), from_spectrum(net(to_spectrum(moved)))
    assert not torch.allclose(here, region, atol=1e-2)
    assert torch.allclose(here.roll((5, 7), (2, 3)), there, atol=1e-4) == same


@pytest.mark.parametrize("kind", [MagnitudeNet, ComplexNet])
def test_substitution_learns_to_darken_a_bright_gap(kind: type[torch.nn.Module]) -> None:
    torch.manual_seed(0)
    images = torch.full((4, 1, 32, 32), 0.5)
    labels = torch.zeros(4, 32, 32, dtype=torch.int64)
    labels[:, 10:14, 4:28] = 1
    for number in range(4):
        labels[number, 10:14, 8 + 3 * number : 13 + 3 * number] = 2
    tear, tendon = (labels == 2).float()[:, None], (labels == 1).float()[:, None]
    images = torch.where(tear > 0, 0.9, torch.where(tendon > 0, 0.15, images))
    network = kind()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    sizes = tear.flatten(1).sum(1), tendon.flatten(1).sum(1)
    for _ in range(60):
        spectra = network(to_spectrum(images * tear))
        loss = content_loss(spectra, to_spectrum(images * tendon), *sizes).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    made = composite(images, tear, from_spectrum(network(to_spectrum(images * tear)))).detach()
    assert float((made * tear).sum() / tear.sum()) < 0.6  # 0.9 before


def test_losses_by_hand() -> None:
    even = torch.zeros(1, 2)
    assert float(classification_loss(even, torch.tensor([1]))) == pytest.approx(math.log(2))
    assert float(absence_loss(even)) == pytest.approx(0.5)
    assert float(absence_loss(torch.tensor([[20.0, 0.0]]))) == pytest.approx(0.0, abs=1e-6)
    logits = torch.zeros(1, 3, 2, 2)
    labels = torch.zeros(1, 2, 2, dtype=torch.int64)
    assert float(segmentation_loss(logits, labels)) == pytest.approx(4 * math.log(3))  # table 2's sum over pixels
    assert float(segmentation_loss(logits, labels, "mean")) == pytest.approx(math.log(3))


def test_factors_start_as_printed_and_come_to_rest_at_the_reciprocal_of_their_loss() -> None:
    weights = LossWeights((1.0, 1.0, 1.0, 0.01, 1.0), trainable=True)
    losses = {"segmentation_loss": SumCount(torch.tensor(6.0), 3.0), "identity_loss": SumCount(torch.tensor(8.0), 2.0)}
    total = weights.total(losses, Step({}))
    assert float(total) == pytest.approx(2.0 + 0.01 * 4.0 + math.log(100))
    total.backward()
    assert weights.log_scale.grad is not None
    # d/ds of exp(-s) L + s: 1 - alpha L, and nothing for losses that are not there
    assert_close(weights.log_scale.grad, torch.tensor([0.0, -1.0, 0.0, 1 - 0.04, 0.0]))
    fixed = LossWeights((1.0, 1.0, 1.0, 0.01, 1.0), trainable=False)
    assert float(fixed.total(losses, Step({}))) == pytest.approx(2.04)


def test_a_loss_without_images_is_nothing_and_no_nan() -> None:
    total = LossWeights((1.0,) * 5, trainable=True).total({"content_loss": SumCount(torch.zeros(()), 0.0)}, Step({}))
    assert float(total) == 0.0


def test_the_released_block_returns_an_eighth_of_its_width() -> None:
    block = ReleasedBlock(16, 64)
    assert block(torch.zeros(1, 16, 32, 32)).shape == (1, 8, 32, 32)
    dilations = {m.dilation[0] for m in block.stages.modules() if isinstance(m, torch.nn.Conv2d)}
    assert dilations == {6}


def test_the_signed_content_has_no_lower_bound_and_the_squared_one_is_zero_on_equals() -> None:
    features = SpectrumFeatures()
    ours, theirs = torch.randn(1, 2, 32, 32), torch.randn(1, 2, 32, 32)
    assert float(vgg_content_loss(features, theirs, theirs, signed=False)) == 0.0
    assert float(vgg_content_loss(features, 1e4 * ours, theirs, signed=True)) < -1.0
    assert float(vgg_content_loss(features, ours, theirs, signed=False)) > 0.0


def test_the_translator_paints_inside_the_tear_only_and_a_judge_without_examples_says_nothing() -> None:
    images, tear = torch.rand(2, 1, 32, 32), torch.zeros(2, 1, 32, 32)
    tear[:, :, 4:8, 4:8] = 1
    made = Translator(8)(images, tear)
    assert_close(made * (1 - tear), images * (1 - tear))
    assert not torch.equal(made * tear, images * tear)
    none = judging_loss(make_judge(8), images, torch.zeros(2, 32, 32, dtype=torch.int64), images[:0], tear[:0])
    assert float(none.count) == 0.0


@pytest.mark.parametrize("network", ["dense", "released", "unet", "deeplabv3plus"])
def test_segmenters_start_at_the_shares_of_the_classes(network: str) -> None:
    alone = {"classify": False, "substitute": "none"} if network in ("unet", "deeplabv3plus") else {}
    config = CssConfig(**{**SMALL, "network": network, **alone})  # type: ignore[arg-type]
    found = make_segmenter(config)(torch.rand(1, 1, 64, 64)).softmax(1).mean((0, 2, 3))
    assert found.shape == (3,)
    assert float(found[0]) > 0.9
    if not alone:
        features = make_segmenter(config).get_submodule("encoder")(torch.rand(2, 1, 64, 64))
        assert make_head(config)(features).shape == (2, 2)


def test_every_variant_has_the_networks_of_its_parts() -> None:
    def names(variant: str) -> set[str]:
        return set(make_networks(CssConfig(**{**SMALL, **VARIANTS[variant].config})))  # type: ignore[arg-type]

    assert names("css_net") == {"segmenter", "classifier", "substitution", "weights"}
    assert names("seg") == {"segmenter", "weights"}
    assert names("seg_sl") == {"segmenter", "substitution", "weights"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"widths": (16, 20)}, "multiples of 16"),
        ({"size_px": 66}, "multiple of"),
        ({"network": "unet"}, "trained alone"),
        ({"num_folds": 5, "fold": 5}, "fold below it"),
        ({"alphas": (1, 1, 1, 0, 1)}, "above 0"),
        ({"augment": "classifier", "classify": False}, "needs a classifier"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        CssConfig(**changes)  # type: ignore[arg-type]
