"""Augmentation in flux space: the sky stays the sky, flux is scaled, nothing else changes."""

import pytest
import torch

from gan.augmentation import DRAWS, augment, sky_level

ALL = ("translation", "rotation", "scale", "flux", "saturation")
SKY = torch.tensor([-0.9, -0.8, -0.7])


@pytest.fixture
def stars(generator) -> torch.Tensor:
    """Eight images: sky, and a bright blob off the centre."""
    images = SKY.view(1, 3, 1, 1).repeat(8, 1, 32, 32)
    images[:, :, 14:17, 17:20] += torch.rand(8, 3, 3, 3, generator=generator)
    return images


def draws_of(value: float, count: int = 8) -> torch.Tensor:
    """Every operation on (gates 0), every signed number the same."""
    draws = torch.full((count, DRAWS), value)
    draws[:, :5] = 0
    return draws


def test_probability_zero_changes_nothing(stars, generator):
    draws = torch.rand(8, DRAWS, generator=generator)
    same = augment(stars, draws, torch.tensor(0.0), ALL, SKY)
    torch.testing.assert_close(same, stars, rtol=0, atol=1e-5)


def test_no_operation_returns_the_images_themselves(stars):
    assert augment(stars, draws_of(0.9), torch.tensor(1.0), (), SKY) is stars


@pytest.mark.parametrize("name", ALL)
def test_the_sky_stays_where_it_is(name, stars):
    empty = SKY.view(1, 3, 1, 1).expand(8, 3, 32, 32)
    out = augment(empty, draws_of(0.83), torch.tensor(1.0), (name,), SKY)
    torch.testing.assert_close(out, empty, rtol=0, atol=1e-6)


def test_translation_moves_whole_pixels_and_fills_with_sky(stars):
    out = augment(stars, draws_of(0.99), torch.tensor(1.0), ("translation",), SKY)
    torch.testing.assert_close(out[:, :, :28, :28], stars[:, :, 4:, 4:], rtol=0, atol=1e-5)
    torch.testing.assert_close(
        out[:, :, 29:], SKY.view(1, 3, 1, 1).expand(8, 3, 3, 32), rtol=0, atol=1e-5
    )


def test_flux_scales_above_the_sky(stars):
    out = augment(stars, draws_of(1.0), torch.tensor(1.0), ("flux",), SKY)
    level = SKY.view(1, 3, 1, 1)
    torch.testing.assert_close(out - level, 1.3 * (stars - level))


def test_saturation_keeps_the_mean_over_channels(stars):
    out = augment(stars, draws_of(0.9), torch.tensor(1.0), ("saturation",), SKY)
    level = SKY.view(1, 3, 1, 1)
    torch.testing.assert_close((out - level).mean(1), (stars - level).mean(1))
    assert (out - stars).abs().max() > 0.01


def test_rotation_by_half_a_turn_is_two_flips(stars):
    draws = draws_of(0.5)
    draws[:, 7] = 1.0  # angle pi
    out = augment(stars, draws, torch.tensor(1.0), ("rotation",), SKY)
    torch.testing.assert_close(out, stars.flip(-1, -2), rtol=0, atol=1e-4)


def test_each_image_has_its_own_draws(stars, generator):
    draws = torch.rand(8, DRAWS, generator=generator)
    draws[:, :5] = 0
    out = augment(stars[:1].expand(8, -1, -1, -1), draws, torch.tensor(1.0), ALL, SKY)
    gaps = torch.cdist(out.flatten(1), out.flatten(1)) + torch.eye(8) * 99
    assert gaps.min() > 0.1


def test_gradients_reach_the_images(stars):
    stars.requires_grad_()
    augment(stars, draws_of(0.7), torch.tensor(1.0), ALL, SKY).sum().backward()
    assert stars.grad.abs().sum() > 0


def test_sky_level_is_the_median_of_the_border(stars):
    stars[0, :, 0, 0] = 1.0
    torch.testing.assert_close(sky_level(stars), SKY)
