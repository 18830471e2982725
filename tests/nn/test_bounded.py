"""Policies over a box against numerical integration and torch.distributions."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import AffineTransform, Beta, Independent, Normal, TanhTransform, TransformedDistribution
from torch.testing import assert_close

from medray.nn.bounded import POLICIES, BoundedBeta, BoundedPolicy, Box, Kind, SquashedGaussian

LOW, HIGH = (-4.0, 1.0), (4.0, 3.0)
BOX = Box(LOW, HIGH)
LINE = Box(LOW[:1], HIGH[:1])
LOGITS = torch.tensor([[0.3, -1.0, 1.2, 0.4], [2.0, 0.1, -0.5, -2.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)

both = pytest.mark.parametrize("kind", ["beta", "gaussian"])


def reference(kind: Kind, logits: Tensor) -> Independent:
    first, second = logits.chunk(2, -1)
    low, size = torch.tensor(LOW, dtype=torch.float64), torch.tensor(HIGH, dtype=torch.float64) - torch.tensor(LOW)
    if kind == "beta":
        inner = Beta(torch.log1p(first.exp()) + 1, torch.log1p(second.exp()) + 1)
        return Independent(TransformedDistribution(inner, AffineTransform(low, size)), 1)
    steps = [TanhTransform(), AffineTransform(low + size / 2, size / 2)]
    return Independent(TransformedDistribution(Normal(first, second.exp()), steps), 1)


def integral(policy: BoundedPolicy, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Of density times function over one action's interval, by the midpoint rule."""
    step = (HIGH[0] - LOW[0]) / 40_000
    x = torch.arange(LOW[0] + step / 2, HIGH[0], step, dtype=torch.float64)[:, None]
    return (policy.log_prob(x).exp() * function(x).reshape(-1)).sum() * step


@both
def test_density_on_the_box_is_that_of_torch_distributions(kind: Kind):
    actions = torch.tensor([[-3.9, 1.1], [0.0, 2.0], [3.5, 2.95]], dtype=torch.float64)
    found = POLICIES[kind].from_logits(LOGITS, BOX).log_prob(actions)
    assert_close(found, reference(kind, LOGITS).log_prob(actions))


@both
@pytest.mark.parametrize("logits", [(0.5, -0.2), (1.0, 0.2), (-1.0, -1.5)])
def test_density_integrates_to_one_and_entropy_and_divergence_agree(kind: Kind, logits: tuple[float, float]):
    policy, other = (
        POLICIES[kind].from_logits(torch.tensor([values], dtype=torch.float64), LINE) for values in (logits, (0.1, 0.1))
    )
    assert_close(integral(policy, torch.ones_like).item(), 1.0, atol=1e-4, rtol=0)
    entropy = integral(policy, lambda x: -policy.log_prob(x))
    assert_close(policy.box_entropy().item(), entropy.item(), atol=1e-4, rtol=0)
    assert_close(policy.entropy().item(), entropy.item() - torch.tensor(8.0).log().item(), atol=1e-4, rtol=0)
    divergence = integral(policy, lambda x: policy.log_prob(x) - other.log_prob(x))
    assert_close(policy.kl(other).item(), divergence.item(), atol=5e-4, rtol=0)


def test_the_cards_scale_of_entropy_and_spread():
    """axon_tracker.md: a fresh head, alpha = beta = 1 + log 2, has two Betas of -0.15 nats and 1.9 px together."""
    policy = BoundedBeta.from_logits(torch.zeros(1, 4), Box((-4, -4), (4, 4)))
    assert policy.entropy().item() == pytest.approx(-0.15, abs=0.01)
    assert 8 * policy.unit.stddev[0, 0].item() == pytest.approx(1.9, abs=0.05)
    assert policy.box_entropy().item() == pytest.approx(policy.entropy().item() + 2 * torch.tensor(8.0).log().item())


def test_deterministic_action_of_the_beta_is_its_mean_on_the_box():
    policy = BoundedBeta(torch.tensor([[3.0, 2.0]]), torch.tensor([[1.0, 2.0]]), BOX)
    assert_close(policy.deterministic, torch.tensor([[-4 + 8 * 0.75, 1 + 2 * 0.5]]))  # by hand


def test_deterministic_action_of_the_gaussian_is_its_median():
    policy = SquashedGaussian(torch.tensor([[0.0, 0.5]]), torch.ones(1, 2), BOX)
    assert_close(policy.deterministic, torch.tensor([[0.0, 2 + torch.tensor(0.5).tanh().item()]]))  # by hand
    torch.manual_seed(0)
    many = SquashedGaussian(torch.full((20_001, 2), 0.5), torch.ones(20_001, 2), BOX).sample()
    assert_close(many.median(0).values, policy.deterministic.new_tensor([1.8485, 2.4621]), atol=0.1, rtol=0)


@both
def test_samples_have_the_densitys_mean_and_stay_inside(kind: Kind):
    torch.manual_seed(0)
    policy = POLICIES[kind].from_logits(torch.tensor([[1.5, 0.3]], dtype=torch.float64), LINE)
    many = POLICIES[kind].from_logits(torch.tensor([[1.5, 0.3]], dtype=torch.float64).expand(40_000, 2), LINE).sample()
    assert_close(many.mean().item(), integral(policy, lambda x: x).item(), atol=0.05, rtol=0)
    assert (many > LOW[0]).all()
    assert (many < HIGH[0]).all()


@both
def test_log_density_stays_finite_on_the_edges_and_for_extreme_logits(kind: Kind):
    logits = torch.tensor([[60.0, -60.0, 60.0, -60.0]], requires_grad=True)
    policy = POLICIES[kind].from_logits(logits, BOX)
    total = policy.log_prob(torch.tensor([[-4.0, 3.0]])) + policy.entropy()
    total.sum().backward()
    assert torch.isfinite(total).all()
    assert torch.isfinite(logits.grad).all()


@both
def test_gradients_of_entropy_and_density(kind: Kind):
    def terms(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        policy = POLICIES[kind].from_logits(logits, BOX)
        other = POLICIES[kind].from_logits(torch.zeros_like(logits), BOX)
        return policy.entropy(), policy.log_prob(torch.full((3, 2), 1.5, dtype=torch.float64)), policy.kl(other)

    assert torch.autograd.gradcheck(terms, LOGITS.clone().requires_grad_())


@pytest.mark.parametrize(("low", "high"), [((0.0,), (0.0,)), ((0.0,), (float("inf"),)), ((0.0, 1.0), (2.0,))])
def test_a_box_without_volume_is_refused(low: tuple[float, ...], high: tuple[float, ...]):
    with pytest.raises(ValueError, match="finite bounds"):
        Box(low, high)
