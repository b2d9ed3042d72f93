"""Mixup and CutMix on the device, with an explicit generator."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Mixing:
    """With which image of the batch each was mixed, and how much of the other is in it.

    Attributes
    ----------
    partner : (n,) int64
    share : (n,) float32
        Of the partner, from 0 to 1.
    """

    partner: torch.Tensor
    share: torch.Tensor

    def of(self, values: torch.Tensor) -> torch.Tensor:
        """(n,) values of the images, such as loss weights, mixed as the images were."""
        # In this form equal values stay what they are, bit for bit.
        return values + (values[self.partner] - values) * self.share


def mixup(
    images: torch.Tensor, targets: torch.Tensor, alpha: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, Mixing]:
    """Mix each image with another of the batch, Zhang et al. 2018 (arXiv:1710.09412).

    Parameters
    ----------
    images
        (n, C, H, W) float32.
    targets
        (n, K) probabilities, mixed in the same proportion.
    alpha
        Beta(alpha, alpha), one draw per image.
    """
    share = _beta(len(images), alpha, generator, images.device)
    partner = torch.randperm(len(images), generator=generator, device=images.device)
    of_images, of_targets = share.view(-1, 1, 1, 1), share.view(-1, 1)
    return (
        images * of_images + images[partner] * (1 - of_images),
        targets * of_targets + targets[partner] * (1 - of_targets),
        Mixing(partner, 1 - share),
    )


def cutmix(
    images: torch.Tensor, targets: torch.Tensor, alpha: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, Mixing]:
    """Paste a box of another image into each, Yun et al. 2019 (arXiv:1905.04899).

    The target is mixed by the area that the box truly covers. A box may hold nothing but sky:
    on small galaxies that mislabels images, so it is never a default.
    """
    count, _, height, width = images.shape
    device = images.device
    share = _beta(count, alpha, generator, device)
    partner = torch.randperm(count, generator=generator, device=device)
    half = (1 - share).sqrt() / 2
    row = torch.rand(count, generator=generator, device=device)
    column = torch.rand(count, generator=generator, device=device)
    inside_rows = _between(height, row - half, row + half, device)
    inside_columns = _between(width, column - half, column + half, device)
    box = inside_rows[:, :, None] & inside_columns[:, None, :]
    covered = box.float().mean(dim=(1, 2)).view(-1, 1)
    return (
        torch.where(box[:, None], images[partner], images),
        targets * (1 - covered) + targets[partner] * covered,
        Mixing(partner, covered[:, 0]),
    )


def _between(
    length: int, low: torch.Tensor, high: torch.Tensor, device: torch.device
) -> torch.Tensor:
    """(n, length) bool: pixel centres, in units of the side, between two bounds."""
    centres = (torch.arange(length, device=device) + 0.5) / length
    return (centres >= low[:, None]) & (centres < high[:, None])


def _beta(
    count: int, alpha: float, generator: torch.Generator, device: torch.device
) -> torch.Tensor:
    """(count,) draws of Beta(alpha, alpha), by the ratio of two gamma draws."""
    shape = torch.full((2, count), alpha, device=device)
    gamma = torch._standard_gamma(shape, generator=generator).clamp_min(1e-30)
    return gamma[0] / gamma.sum(dim=0)
