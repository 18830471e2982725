"""The losses of a tree of labels: values by hand, agreement of the stable forms, and what naive ones do."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from medray.losses.hierarchical import Form, conditional_loss, log_probability, unconditional_loss

PARENTS = torch.tensor([-1, 0, 1, 2, 0])  # a chain of four, and a sibling below the root
ANCESTORS = torch.tensor(
    [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 0, 0, 0, 1]], dtype=torch.bool
)
STABLE: tuple[Form, ...] = ("powerset", "log1mexp")


def _random(scale: float, count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(count, 5, generator=generator)
    return logits, (torch.rand(count, 5, generator=generator) < 0.4).float()


def test_conditional_loss_counts_a_node_where_its_parent_is_there() -> None:
    labels = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    loss = conditional_loss(torch.zeros(2, 5), labels, PARENTS)
    # root, its two children and the child of the one that is there; of a normal image the root alone
    assert_close(loss, math.log(2) * torch.tensor([[1.0, 1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0, 0.0]]))


@pytest.mark.parametrize("form", [*STABLE, "naive"])
def test_values_at_zero_logits_by_hand(form: Form) -> None:
    p = torch.tensor([1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 4])
    zeros = torch.zeros(1, 5)
    assert_close(log_probability(zeros, ANCESTORS).exp()[0], p)
    assert_close(unconditional_loss(zeros, torch.ones(1, 5), ANCESTORS, form)[0], -p.log())
    assert_close(unconditional_loss(zeros, zeros, ANCESTORS, form)[0], -(1 - p).log())


def test_children_are_never_likelier_than_their_parents() -> None:
    logits, _ = _random(5.0)
    p = log_probability(logits, ANCESTORS)
    assert (p[:, 1:] <= p[:, PARENTS[1:]] + 1e-6).all()


@pytest.mark.parametrize("form", STABLE)
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_stable_forms_are_the_naive_one_in_double_precision(form: Form, scale: float) -> None:
    logits, labels = _random(scale)
    single, double = logits.requires_grad_(), logits.detach().double().requires_grad_()
    loss = unconditional_loss(single, labels, ANCESTORS, form)
    expected = unconditional_loss(double, labels.double(), ANCESTORS, "naive")
    assert_close(loss.double(), expected, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(loss.sum(), single)
    (reference,) = torch.autograd.grad(expected.sum(), double)
    assert_close(gradient.double(), reference, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("form", STABLE)
@pytest.mark.parametrize("value", [60.0, -60.0])
def test_large_logits_keep_value_and_gradient(form: Form, value: float) -> None:
    logits = torch.full((1, 5), value, requires_grad=True)
    loss = unconditional_loss(logits, torch.zeros(1, 5), ANCESTORS, form)
    depth = ANCESTORS.sum(dim=1).float()
    if value > 0:  # 1 - p is about |A| exp(-60)
        assert_close(loss[0], 60 - depth.log(), rtol=1e-5, atol=1e-4)
        (gradient,) = torch.autograd.grad(loss[0, 3], logits)
        assert_close(gradient[0], torch.tensor([0.25, 0.25, 0.25, 0.25, 0.0]), rtol=1e-3, atol=1e-4)
    else:  # p is about exp(-60 |A|), its cross entropy nothing
        assert loss.abs().max() < 1e-3
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert gradient.abs().max() < 1e-3


def test_powerset_keeps_logits_that_leave_float32() -> None:
    logits = torch.full((1, 5), 200.0, requires_grad=True)
    loss = unconditional_loss(logits, torch.zeros(1, 5), ANCESTORS, "powerset")
    assert_close(loss[0], 200 - ANCESTORS.sum(dim=1).float().log())
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.isfinite().all()


def test_naive_form_breaks_at_large_logits() -> None:
    logits = torch.full((1, 5), 60.0, requires_grad=True)
    loss = unconditional_loss(logits, torch.zeros(1, 5), ANCESTORS, "naive")
    assert loss.isinf().all()
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert not gradient.isfinite().all()


def test_maximum_is_right_where_one_subset_dominates_and_close_elsewhere() -> None:
    labels = torch.zeros(1, 5)
    apart = torch.tensor([[-20.0, -45.0, 30.0, 70.0, -30.0]])
    exact = unconditional_loss(apart, labels, ANCESTORS)
    assert_close(unconditional_loss(apart, labels, ANCESTORS, "max"), exact, atol=1e-4, rtol=1e-5)
    logits, labels = _random(2.0)
    gap = unconditional_loss(logits, labels, ANCESTORS, "max") - unconditional_loss(logits, labels, ANCESTORS)
    assert (gap >= -1e-4).all()  # the maximum is below the log-sum-exp, by log(15) at most
    assert gap.max() <= math.log(15) + 1e-4


def test_rescaled_factors_never_vanish() -> None:
    loss = unconditional_loss(torch.full((1, 5), -200.0), torch.ones(1, 5), ANCESTORS, "rescale")
    assert_close(loss[0], -ANCESTORS.sum(dim=1).float() * math.log(0.02))


def test_roots_alone_are_independent_labels() -> None:
    logits, labels = _random(3.0)
    expected = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    alone = torch.eye(5, dtype=torch.bool)
    for form in STABLE:
        assert_close(unconditional_loss(logits, labels, alone, form), expected, rtol=1e-4, atol=1e-5)
    assert_close(conditional_loss(logits, labels, torch.full((5,), -1)), expected)
