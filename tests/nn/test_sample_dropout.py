import pytest
import torch
from torch import nn
from torch.testing import assert_close

from medray.nn.sample_dropout import SampleDropout, seed_dropout


def test_a_samples_draws_do_not_depend_on_the_batch():
    layer = SampleDropout(0.5)
    x = torch.ones(3, 200)
    seed_dropout(layer, torch.tensor([7, 8, 9]))
    together = layer(x)
    seed_dropout(layer, torch.tensor([9]))
    assert_close(layer(x[2:]), together[2:])
    assert not torch.equal(together[0], together[1])


def test_what_stays_is_scaled_so_that_the_mean_does():
    layer = SampleDropout(0.75)
    seed_dropout(layer, torch.tensor([1]))
    found = layer(torch.ones(1, 20_000))
    assert set(found.unique().tolist()) == {0.0, 4.0}
    assert float(found.mean()) == pytest.approx(1.0, abs=0.03)


def test_layers_differ_and_evaluation_changes_nothing():
    network = nn.Sequential(SampleDropout(0.5), SampleDropout(0.5, 1))
    seed_dropout(network, torch.tensor([3]))
    x = torch.ones(1, 50)
    assert not torch.equal(network[0](x), network[1](x))
    assert_close(network.eval()(x), x)


def test_training_without_seeds_is_refused():
    with pytest.raises(RuntimeError, match="0 seeds for 2 samples"):
        SampleDropout(0.5)(torch.ones(2, 3))
