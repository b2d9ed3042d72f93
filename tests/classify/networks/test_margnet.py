"""MargNet and MargFormer: published parameter counts, shapes, and what each input does."""

import pytest
import torch

from classify.networks.margformer import margformer, margformer_small
from classify.networks.margnet import (
    MARGNET_DENSE,
    LogarithmicPool,
    dense_part,
    margnet,
    margnet_cnn,
    margnet_small,
    stack_head,
)
from classify.networks.network import count_parameters
from classify.tabular.margnet_training import fitted_stack
from galaxies.errors import InputError


def test_margnet_has_the_published_counts() -> None:
    cnn = margnet_cnn(5, 3, 32)
    assert count_parameters(cnn) == 25_543_783
    convolutions = [m for m in cnn.modules() if isinstance(m, torch.nn.Conv2d)]
    assert sum(count_parameters(m) for m in convolutions) == 1_683_556
    dense = [m for m in cnn.modules() if isinstance(m, torch.nn.Linear)]
    assert [m.in_features for m in dense] == [22_272, 1024, 1024]
    assert count_parameters(dense_part(24, 3, MARGNET_DENSE)) == 331_331
    assert count_parameters(stack_head(3)) == 103
    assert count_parameters(margnet(5, 3, 32, 24)) == 25_543_783 + 331_331 + 103


def test_margformer_has_the_published_counts() -> None:
    assert count_parameters(margformer(5, 3, 32, 24)) == 1_505_315
    assert count_parameters(margformer(5, 2, 32, 24)) == 1_505_250


def test_inception_keeps_height_and_width() -> None:
    assert margnet_cnn(3, 4, 16)(torch.zeros(2, 3, 16, 16)).shape == (2, 4)


@pytest.mark.parametrize("build", [margformer, margformer_small, margnet_small])
def test_both_inputs_matter(build: object, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    network = build(3, 4, 32, 7).eval()  # type: ignore[operator]
    images = torch.randn(5, 3, 32, 32, generator=generator)
    rows = torch.randn(5, 7, generator=generator)
    logits = network(images, rows)
    assert logits.shape == (5, 4)
    assert not torch.allclose(logits, network(images.flip(0), rows))
    assert not torch.allclose(logits, network(images, rows.flip(0)))


def test_a_row_and_its_image_stay_together(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    network = margformer_small(3, 4, 32, 7).eval()
    images = torch.randn(6, 3, 32, 32, generator=generator)
    rows = torch.randn(6, 7, generator=generator)
    torch.testing.assert_close(
        network(images, rows)[2:4], network(images[2:4], rows[2:4]), rtol=1e-4, atol=1e-5
    )


def test_gradients_reach_every_parameter(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    for network in (margformer_small(3, 4, 32, 7), margnet_small(3, 4, 32, 7)):
        images = torch.randn(8, 3, 32, 32, generator=generator)
        network(images, torch.randn(8, 7, generator=generator)).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(InputError, match="galaxy-set pack"):
        margformer(3, 4, 32, 0)
    with pytest.raises(InputError, match="multiple of 4"):
        margformer(3, 4, 30, 5)
    with pytest.raises(InputError, match="steps of 4"):
        margnet_cnn(3, 4, 128)
    with pytest.raises(ValueError, match="needs 7 features"):
        margnet_small(3, 4, 32, 7)(torch.zeros(1, 3, 32, 32))


def _parts(count: int, sharpness: tuple[float, float], seed: int) -> tuple[torch.Tensor, ...]:
    """Labels of six classes and what two parts say of them; 0 is noise, 3 nearly sure."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(6, (count,), generator=generator)
    truth = torch.nn.functional.one_hot(labels, 6).float()
    said = [
        torch.softmax(s * truth + torch.randn(count, 6, generator=generator), dim=1)
        for s in sharpness
    ]
    return labels, torch.cat(said, dim=1)


def test_the_pool_of_one_part_alone_is_that_part() -> None:
    _, said = _parts(50, (2.0, 1.0), 0)
    pool = LogarithmicPool()
    with torch.no_grad():
        pool.raw_weights.copy_(torch.tensor([0.5413248, -40.0]))  # softplus: 1 and 0
    torch.testing.assert_close(torch.softmax(pool(said), dim=1), said[:, :6], rtol=1e-4, atol=1e-6)
    assert count_parameters(pool) == 2


def test_the_pool_finds_what_independent_parts_are_worth() -> None:
    """With independent evidence Bayes multiplies; noise of unit variance makes the weights s."""
    labels, said = _parts(20_000, (2.0, 1.0), 1)
    pool = fitted_stack(LogarithmicPool(), said, labels, torch.ones(len(labels)), 0)
    assert isinstance(pool, LogarithmicPool)
    torch.testing.assert_close(pool.weights, torch.tensor([2.0, 1.0]), rtol=0.06, atol=0)


def test_a_few_images_that_are_all_right_do_not_make_the_pool_certain() -> None:
    labels = torch.arange(40) % 4
    right = torch.full((40, 4), 0.2)
    right[torch.arange(40), labels] = 0.4
    pool = fitted_stack(LogarithmicPool(), right.repeat(1, 2), labels, torch.ones(40), 0)
    said = torch.softmax(pool(right.repeat(1, 2)), dim=1).max(dim=1).values
    assert 0.4 < said.max() < 0.98


@pytest.mark.parametrize("sharpness", [(2.0, 0.0), (2.0, 1.0), (0.5, 3.0)])
def test_180_images_are_enough_for_the_pool_and_too_few_for_the_published_stack(
    sharpness: tuple[float, float],
) -> None:
    lost = {"pool": [], "stack": []}  # type: ignore[var-annotated]
    for seed in range(5):
        labels, said = _parts(180, sharpness, seed)
        new_labels, new = _parts(4000, sharpness, 100 + seed)
        best = max((new[:, p : p + 6].argmax(1) == new_labels).float().mean() for p in (0, 6))
        for name, head in (("pool", LogarithmicPool()), ("stack", stack_head(6))):
            fitted = fitted_stack(head, said, labels, torch.ones(180), seed)
            right = (fitted(new).argmax(1) == new_labels).float().mean()
            lost[name].append(float(best - right))
    assert sum(lost["pool"]) / 5 < 0.005  # never worse than its best part
    assert sum(lost["stack"]) > sum(lost["pool"]) + 5 * 0.01
