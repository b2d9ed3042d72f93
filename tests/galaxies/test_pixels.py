"""Pixels to the network and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from galaxies.errors import InputError
from galaxies.pixels import Stretch, to_network, to_storage

EVERY_BYTE = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)


def test_bytes_survive_the_round_trip():
    network = to_network(EVERY_BYTE)
    assert network.min() == -1
    assert network.max() == 1
    assert torch.equal(to_storage(network), EVERY_BYTE)


def test_what_lies_outside_is_clipped_and_the_rest_rounded():
    assert to_storage(torch.tensor([-3.0, 3.0, 2 * 100.4 / 255 - 1])).tolist() == [0, 255, 100]


@given(
    black=st.floats(-10, 10),
    span=st.floats(0.1, 1000),
    softening=st.floats(0.01, 100),
    where=st.lists(st.floats(0, 1), min_size=1, max_size=10),
)
def test_flux_inside_the_range_survives(black, span, softening, where):
    stretch = Stretch(black, black + span, softening)
    flux = black + span * torch.tensor(where, dtype=torch.float32)
    back = to_storage(to_network(flux, stretch), stretch)
    # asinh loses relative precision where the slope is steepest: near black for a strong stretch
    assert torch.allclose(back, flux, atol=2e-4 * span + 1e-4 * abs(black), rtol=1e-3)


def test_asinh_is_the_published_formula():
    stretch = Stretch(black=1.0, white=101.0, softening=10.0)
    got = to_network(torch.tensor([1.0, 11.0, 101.0]), stretch)
    expected = 2 * torch.asinh(torch.tensor([0.0, 1.0, 10.0])) / torch.asinh(torch.tensor(10.0)) - 1
    assert torch.allclose(got, expected, atol=1e-6)


def test_flux_without_a_stretch_and_a_senseless_stretch_are_refused():
    with pytest.raises(InputError, match="without a stretch"):
        to_network(torch.zeros(1, dtype=torch.float32))
    with pytest.raises(InputError, match="white > black"):
        Stretch(black=1, white=1, softening=1)
