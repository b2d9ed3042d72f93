"""The equivariant network: symmetries change nothing but the classes that mirror."""

import pytest
import torch

from classify.networks.equivariant import GroupConvolution, composition_table, small_d4
from classify.networks.small import small
from galaxies.symmetry import apply_symmetry, is_mirrored

PERMUTATION = (0, 2, 1)


@pytest.mark.parametrize("size", [16, 33])
def test_every_symmetry_swaps_exactly_the_mirror_classes(size: int) -> None:
    torch.manual_seed(0)
    network = small_d4(2, 3, size, permutation=PERMUTATION).double()
    images = torch.randn(3, 2, size, size, dtype=torch.float64)
    network.train()(images)  # unequal running statistics
    network.eval()
    with torch.no_grad():
        plain = network(images)
        assert (plain[:, 1] - plain[:, 2]).abs().min() > 1e-6
        for element in range(8):
            turned = network(apply_symmetry(images, torch.full((3,), element)))
            mirrored = bool(is_mirrored(torch.tensor(element)))
            expected = plain[:, PERMUTATION] if mirrored else plain
            torch.testing.assert_close(turned, expected, rtol=1e-9, atol=1e-12)


def test_an_ordinary_network_is_not_equivariant() -> None:
    torch.manual_seed(0)
    network = small(2, 3, 32).eval()
    images = torch.randn(2, 2, 32, 32)
    with torch.no_grad():
        turned = network(apply_symmetry(images, torch.full((2,), 4)))
        assert (turned - network(images)).abs().max() > 1e-4


def test_compositions_form_a_group() -> None:
    table = composition_table()
    everything = list(range(8))
    for g in everything:
        assert sorted(table[g].tolist()) == everything
        assert sorted(table[:, g].tolist()) == everything
        assert table[0, g] == table[g, 0] == g
    assert all(
        table[table[a, b], c] == table[a, table[b, c]]
        for a in everything for b in everything for c in everything
    )  # fmt: skip
    assert not torch.equal(table, table.T)  # the square's symmetries do not commute


def test_the_gradient_has_the_same_bits_however_threads_come() -> None:
    """Each weight is read by eight symmetries, and the order of a sum decides its last bits."""
    layer = GroupConvolution(8, 8)
    x = torch.randn((16, 64, 16, 16), generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        gradients = []
        for _ in range(10):
            layer.weight.grad = None
            layer(x).square().sum().backward()
            assert layer.weight.grad is not None
            gradients.append(layer.weight.grad.clone())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
