import pytest
import torch
from torch.testing import assert_close

from medray.nn.sample_dropout import seed_dropout
from medray.systems.shoulder.vrn_networks import VoxceptionDownsample, VoxceptionUnit, make_network

KINDS = {"width": 8, "activation": "elu", "dropout": 0.5, "num_classes": 5}


@pytest.fixture
def volumes():
    return torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_unit_whose_last_convolutions_are_zero_changes_nothing():
    unit = VoxceptionUnit(8, "elu").eval()
    for convolution in (unit.bottleneck[-1][-1], unit.plain[-1][-1]):
        torch.nn.init.zeros_(convolution.weight)
    x = torch.randn(1, 8, 4, 4, 4)
    assert_close(unit(x), x)


def test_a_unit_sees_two_voxels_far_and_no_further():
    unit = VoxceptionUnit(8, "relu").eval()
    x = torch.randn(1, 8, 9, 9, 9, requires_grad=True)
    unit(x)[0, :, 4, 4, 4].sum().backward()
    seen = x.grad[0].abs().sum(dim=0).nonzero()
    assert int((seen - 4).abs().max()) == 2


@pytest.mark.parametrize(("side", "half"), [(8, 4), (9, 5)])
def test_downsampling_halves_and_rounds_up(side, half):
    found = VoxceptionDownsample(8, 16, "elu")(torch.randn(1, 8, side, side, side))
    assert found.shape == (1, 16, half, half, half)


@pytest.mark.parametrize(
    ("arch", "blocks", "shape"),
    [("vrn", 2, (32, 4, 4, 4)), ("vrn", 4, (128, 1, 1, 1)), ("resnet2d", 2, (64, 2, 16, 2)),
     ("resnet10_3d", 2, (64, 2, 2, 2))],
)  # fmt: skip
def test_last_maps(volumes, arch, blocks, shape):
    network = make_network(arch, blocks=blocks, **KINDS).eval()
    assert network.trunk(volumes).shape[1:] == shape
    assert network(volumes).shape == (2, 5)


def test_the_papers_network_has_the_counted_weights():
    network = make_network("vrn", blocks=2, width=32, activation="elu", dropout=0.5, num_classes=5)
    weights = sum(p.numel() for p in network.parameters() if p.dim() > 1)
    assert 0.3e6 < weights < 0.5e6  # the card counts about 0.4 million


def test_logits_are_the_mean_of_the_weighted_map(volumes):
    network = make_network("vrn", blocks=2, **KINDS).eval()
    features = network.trunk(volumes)
    evidence = torch.einsum("bkxyz,lk->blxyz", features, network.head.weight)
    assert_close(evidence.mean(dim=(2, 3, 4)) + network.head.bias, network(volumes))


def test_the_mean_over_slices_of_logits_is_what_the_2d_network_says(volumes):
    network = make_network("resnet2d", blocks=2, **KINDS).eval()
    slices = [network.trunk.trunk(volumes[:, :, :, y]).mean(dim=(2, 3)) for y in range(16)]
    assert_close(torch.stack([network.head(one) for one in slices]).mean(dim=0), network(volumes))


@pytest.mark.parametrize("size", [16, 18])
def test_a_map_lies_on_the_voxels_it_came_from(size):
    network = make_network("vrn", blocks=2, **KINDS).eval()
    count = -(-size // 4)
    features = torch.zeros(1, 32, count, count, count)
    features[0, 0, 2, 1, 1] = 1.0
    heat = network.attention(features, torch.eye(32)[:1], (size,) * 3)[0]
    assert heat.shape == (size,) * 3
    assert float(heat.max()) == 1.0
    places = (heat == 1.0).nonzero().float().mean(dim=0)  # voxels 8 to 11, 4 to 7 and 4 to 7
    assert_close(places, torch.tensor([9.5, 5.5, 5.5]))


def test_without_evidence_the_map_is_zero():
    network = make_network("vrn", blocks=2, **KINDS)
    heat = network.attention(torch.ones(1, 32, 4, 4, 4), -torch.ones(1, 32), (16, 16, 16))
    assert not heat.any()


def test_a_volumes_dropout_does_not_depend_on_the_batch(volumes):
    network = make_network("vrn", blocks=2, **KINDS).eval()
    network.dropout.train()
    seed_dropout(network, torch.tensor([5, 6]))
    together = network(volumes)
    seed_dropout(network, torch.tensor([6]))
    assert_close(network(volumes[1:]), together[1:], atol=1e-5, rtol=1e-4)
