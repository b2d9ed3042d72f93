"""Losses against closed forms."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from classify.balance import adjust_logits, class_weights, plan_draws
from classify.losses import cross_entropy, focal, logit_adjusted, loss_for, smooth_labels
from classify.training_config import TrainingConfig
from galaxies.errors import InputError


@pytest.fixture
def logits(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(40, 4, generator=generator)


@pytest.fixture
def labels(generator: torch.Generator) -> torch.Tensor:
    return torch.randint(4, (40,), generator=generator)


def test_cross_entropy_is_that_of_torch(logits: torch.Tensor, labels: torch.Tensor) -> None:
    expected = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, F.one_hot(labels, 4).float()), expected)


def test_label_smoothing_is_that_of_torch(logits: torch.Tensor, labels: torch.Tensor) -> None:
    targets = smooth_labels(F.one_hot(labels, 4).float(), 0.1)
    expected = F.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, targets), expected)


def test_focal_loss_of_a_known_probability() -> None:
    probability = 0.25
    logits = torch.tensor([[math.log(probability), math.log(1 - probability)]])
    target = torch.tensor([[1.0, 0.0]])
    expected = 0.75**2 * -math.log(0.25)
    assert focal(logits, target, 2.0).item() == pytest.approx(expected, rel=1e-6)
    assert focal(logits, target, 0.0).item() == pytest.approx(-math.log(0.25), rel=1e-6)


def test_focal_loss_has_a_gradient_at_certainty() -> None:
    logits = torch.tensor([[80.0, -80.0]], requires_grad=True)
    focal(logits, torch.tensor([[1.0, 0.0]]), 0.5).sum().backward()
    assert torch.isfinite(logits.grad).all()  # type: ignore[arg-type]


def test_logit_adjustment_is_the_balanced_softmax(
    logits: torch.Tensor, labels: torch.Tensor
) -> None:
    counts = torch.tensor([5.0, 10.0, 30.0, 55.0])
    weighted = counts * logits.exp()
    balanced_softmax = -(weighted / weighted.sum(1, keepdim=True)).log()[range(40), labels]
    ours = logit_adjusted(logits, F.one_hot(labels, 4).float(), counts, tau=1.0)
    torch.testing.assert_close(ours, balanced_softmax)


def test_post_hoc_adjustment_gives_the_posterior_under_equal_priors() -> None:
    likelihood = torch.tensor([[0.2, 0.5, 0.1]], dtype=torch.float64)
    prior = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    joint = (likelihood * prior).log()
    adjusted = torch.softmax(adjust_logits(joint, prior), dim=1)
    torch.testing.assert_close(adjusted, likelihood / likelihood.sum())
    assert torch.equal(adjust_logits(joint, prior, tau=0.0), joint)


def test_class_weights_have_mean_one_over_images() -> None:
    counts = np.array([10, 90, 0])
    for balance in ("class-weights", "effective-number", "none"):
        weights = class_weights(counts, balance)  # type: ignore[arg-type]
        assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
        assert weights[2] == 0
    inverse = class_weights(counts, "class-weights")
    assert inverse[0] / inverse[1] == pytest.approx(9)
    effective = class_weights(counts, "effective-number", beta=0.9)
    assert effective[0] / effective[1] == pytest.approx((1 - 0.9**90) / (1 - 0.9**10))


def test_weighted_loss_divides_by_images_not_by_weights() -> None:
    weights = torch.tensor([0.1, 0.1, 5.0])
    config = TrainingConfig(balance="class-weights")
    loss = loss_for(config, weights, torch.ones(3))
    logits, labels = torch.zeros(4, 3), torch.tensor([0, 0, 1, 2])
    ours = loss(logits, F.one_hot(labels, 3).float()).mean().item()
    assert ours == pytest.approx(math.log(3) * 5.3 / 4)
    assert ours != pytest.approx(F.cross_entropy(logits, labels, weight=weights).item(), rel=0.01)


def test_logit_adjusted_loss_on_balanced_draws_is_refused() -> None:
    with pytest.raises(InputError, match="--balance none"):
        TrainingConfig(loss="logit-adjusted", balance="sampling")


LABELS = np.repeat([0, 1, 2], [90, 9, 1])


def test_unbalanced_draws_see_each_image_once_per_walk() -> None:
    plan = plan_draws(LABELS, 3, 10, 10, "none", seed=0)
    assert sorted(plan.rows.ravel()) == list(range(100))
    np.testing.assert_allclose(plan.prior, [0.9, 0.09, 0.01])


def test_balanced_draws_have_equal_classes() -> None:
    plan = plan_draws(LABELS, 3, 30, 10, "sampling", seed=0)
    assert np.bincount(LABELS[plan.rows.ravel()]).tolist() == [100, 100, 100]


def test_square_root_draws() -> None:
    plan = plan_draws(LABELS, 3, 140, 10, "sqrt-sampling", seed=0)
    expected = np.sqrt([90, 9, 1]) / np.sqrt([90, 9, 1]).sum()
    np.testing.assert_allclose(plan.prior, expected)
    shares = np.bincount(LABELS[plan.rows.ravel()]) / 1400
    np.testing.assert_allclose(shares, expected, atol=1 / 1400)


def test_synthetic_share_is_that_of_the_draws_of_its_class() -> None:
    plan = plan_draws(
        LABELS, 3, 300, 10, "sampling", seed=0,
        synthetic_labels=np.full(500, 2), synthetic_share=0.25,
    )  # fmt: skip
    rows = plan.rows.ravel()
    everything = np.concatenate([LABELS, np.full(500, 2)])
    of_class = rows[everything[rows] == 2]
    assert len(of_class) == 1000
    assert (of_class >= 100).mean() == pytest.approx(0.25, abs=0.05)


def test_synthetic_images_do_not_change_the_draws_of_other_classes() -> None:
    plain = plan_draws(LABELS, 3, 30, 10, "sampling", seed=4).rows.ravel()
    mixed = plan_draws(
        LABELS, 3, 30, 10, "sampling", seed=4, synthetic_labels=np.full(50, 2)
    ).rows.ravel()
    np.testing.assert_array_equal(plain[LABELS[plain] < 2], mixed[LABELS[plain] < 2])


def test_draws_depend_on_the_seed() -> None:
    one, same, other = (plan_draws(LABELS, 3, 3, 10, "sampling", seed).rows for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
