"""Augmentation: each operation does what its name says, and only that."""

import numpy as np
import pytest
import torch

from classify.augmentation import blur_by, five_crops, move, physical
from classify.mixing import cutmix, mixup


@pytest.fixture
def images(generator: torch.Generator) -> torch.Tensor:
    return torch.rand(6, 2, 20, 20, generator=generator) * 2 - 1


def still(count: int) -> dict[str, torch.Tensor]:
    zero = torch.zeros(count)
    return {"angle": zero, "shift_x": zero, "shift_y": zero, "zoom": torch.ones(count)}


def test_no_strength_changes_nothing(images: torch.Tensor, generator: torch.Generator) -> None:
    torch.testing.assert_close(physical(images, 0.0, generator), images, atol=2e-6, rtol=0)


def test_images_stay_in_range_and_change(images: torch.Tensor, generator: torch.Generator) -> None:
    changed = physical(images, 1.0, generator)
    assert changed.min() >= -1
    assert changed.max() <= 1
    assert ((changed - images).abs().amax(dim=(1, 2, 3)) > 1e-3).all()


def test_the_generator_decides(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    one = physical(images, 1.0, torch.Generator().manual_seed(3))
    torch.manual_seed(1)
    two = physical(images, 1.0, torch.Generator().manual_seed(3))
    assert torch.equal(one, two)


def test_a_quarter_turn_is_a_quarter_turn(images: torch.Tensor) -> None:
    angle = torch.full((6,), torch.pi / 2)
    turned = move(images, **(still(6) | {"angle": angle}))
    either = [torch.rot90(images, k, (2, 3)) for k in (1, 3)]
    assert min(float((turned - e).abs().max()) for e in either) < 1e-4


def test_a_shift_moves_light_to_the_right(images: torch.Tensor) -> None:
    shifted = move(images, **(still(6) | {"shift_x": torch.full((6,), 0.1)}))
    torch.testing.assert_close(shifted[..., 4:], images[..., 2:-2], atol=1e-4, rtol=0)


def test_a_zoom_enlarges() -> None:
    spot = torch.full((1, 1, 40, 40), -1.0)
    spot[..., 16:24, 16:24] = 1.0
    larger = move(spot, **(still(1) | {"zoom": torch.tensor([1.4])}))
    ratio = float(((larger + 1) / 2).sum() / ((spot + 1) / 2).sum())
    assert ratio == pytest.approx(1.4**2, rel=0.05)


def test_blur_is_a_gaussian_that_keeps_the_flux() -> None:
    spot = torch.zeros(2, 1, 21, 21)
    spot[..., 10, 10] = 1.0
    blurred = blur_by(spot, torch.tensor([1.0, 0.0]))
    assert float(blurred[0].sum()) == pytest.approx(1, abs=1e-5)
    assert float(blurred[0, 0, 10, 10]) == pytest.approx(1 / (2 * np.pi), rel=0.02)
    torch.testing.assert_close(blurred[1], spot[1])


def test_five_crops_are_the_corners_and_the_centre(generator: torch.Generator) -> None:
    image = torch.arange(36.0).reshape(1, 1, 6, 6)
    cut = five_crops(image.expand(200, 1, 6, 6), 4, generator)
    expected = {float(image[0, 0, r, c]) for r, c in ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))}
    assert set(cut[:, 0, 0, 0].tolist()) == expected
    assert torch.equal(five_crops(image, 4, None), image[..., 1:5, 1:5])


def test_mixup_mixes_images_and_labels_alike(generator: torch.Generator) -> None:
    labels = torch.eye(8)
    images = labels.view(8, 8, 1, 1).expand(8, 8, 4, 4)
    mixed, targets, mixing = mixup(images, labels, 0.8, generator)
    torch.testing.assert_close(mixing.of(labels[:, 3]), targets[:, 3])
    torch.testing.assert_close(mixed.mean(dim=(2, 3)), targets)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(8))
    assert ((targets > 0).sum(dim=1) > 1).any()


def test_cutmix_labels_are_the_area_that_is_seen(generator: torch.Generator) -> None:
    labels = torch.eye(8)
    images = labels.view(8, 8, 1, 1).expand(8, 8, 12, 12)
    mixed, targets, mixing = cutmix(images, labels, 1.0, generator)
    torch.testing.assert_close(mixing.of(labels[:, 3]), targets[:, 3])
    torch.testing.assert_close(mixed.mean(dim=(2, 3)), targets)
    assert set(mixed.unique().tolist()) == {0.0, 1.0}


def test_mixup_shares_follow_the_beta_distribution(generator: torch.Generator) -> None:
    labels = torch.stack([torch.ones(4000), torch.zeros(4000)], dim=1)
    labels[2000:] = labels[2000:].flip(1)
    images = labels.view(4000, 2, 1, 1)
    _, targets, _ = mixup(images, labels, 0.5, generator)
    shares = targets[:, 0][(targets[:, 0] > 0) & (targets[:, 0] < 1)]
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * 0.5 + 1)), rel=0.1)
