"""Losses and regularisers against closed forms."""

import math

import pytest
import torch

from gan.objective import (
    class_bound_penalty,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    lecam_penalty,
    rarity_weights,
)

REAL, FAKE = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 1.0])


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def test_logistic_is_binary_cross_entropy():
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    expected = bce(REAL, torch.ones(2)) + bce(FAKE, torch.zeros(2))
    assert discriminator_loss("logistic", REAL, FAKE).item() == pytest.approx(expected.item())
    assert generator_loss("logistic", None, FAKE).item() == pytest.approx(
        bce(FAKE, torch.ones(2)).item()
    )


def test_a_blind_discriminator_loses_two_log_two():
    zeros = torch.zeros(5)
    assert discriminator_loss("logistic", zeros, zeros).item() == pytest.approx(2 * math.log(2))


def test_relativistic_compares_pairs():
    expected = (softplus(-3.0) + softplus(1.0)) / 2
    assert discriminator_loss("relativistic", REAL, FAKE).item() == pytest.approx(expected)
    expected = (softplus(3.0) + softplus(-1.0)) / 2
    assert generator_loss("relativistic", REAL, FAKE).item() == pytest.approx(expected)


def test_hinge():
    assert discriminator_loss("hinge", REAL, FAKE).item() == pytest.approx(0.5 + 1.0)
    assert generator_loss("hinge", None, FAKE).item() == pytest.approx(0.0)


def test_gradient_penalty_of_a_quadratic(generator):
    images = torch.randn(3, 2, 4, 4, generator=generator, requires_grad=True)
    logits = images.square().sum(dim=(1, 2, 3)) * 0.5  # its gradient is the image
    expected = images.detach().square().sum(dim=(1, 2, 3)).mean()
    penalty = gradient_penalty(logits, images)
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-6)
    penalty.backward()  # and d/dx of mean |x|^2 is 2 x / 3
    torch.testing.assert_close(images.grad, 2 * images.detach() / 3)


def test_lecam():
    value = lecam_penalty(REAL, FAKE, torch.tensor(0.5), torch.tensor(0.0))
    expected = (4.0 + 0.0) / 2 + (1.5**2 + 0.0) / 2
    assert value.item() == pytest.approx(expected)


def test_class_bound_is_the_spectral_norm(generator):
    table = torch.randn(2, 12, generator=generator, requires_grad=True)
    weights = torch.tensor([1.0, 3.0])
    exact = torch.linalg.matrix_norm(table.detach().view(2, 3, 4), ord=2).square()
    value = class_bound_penalty([table], weights, iterations=50)
    assert value.item() == pytest.approx((weights * exact).sum().item(), rel=1e-4)
    value.backward()
    assert table.grad.abs().sum() > 0


def test_rare_classes_weigh_more():
    weights = rarity_weights(torch.tensor([50, 5000]))
    assert weights[0] > weights[1]
    assert weights.mean().item() == pytest.approx(1.0)
    effective = (1 - 0.999**50) / (1 - 0.999**5000)
    assert (weights[1] / weights[0]).item() == pytest.approx(effective, rel=1e-4)
