"""Differentiable augmentation of what the discriminator sees, in flux space.

Zhao et al. 2020 (arXiv:2006.10738) augment real and generated images alike, so that a
discriminator cannot memorise a small set. Theirs shifts brightness by adding and fills with mid
grey. Here the sky is the origin: brightness and colour scale the flux above the sky, and what
moves in from outside is sky. A galaxy has no up, so any rotation is a legal image and cannot
leak; scale and flux stay within the scatter of distances.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from gan.recipes import AugmentationName

DRAWS = 14
"""Uniform numbers that one augmented image takes."""

GEOMETRIC: frozenset[str] = frozenset({"translation", "rotation", "scale"})
TRANSLATION = 1 / 8  # largest shift, as a share of the side
SCALE = 0.25  # largest exponent of two
FLUX = 0.3
SATURATION = 0.4


def augment(
    images: Tensor,
    draws: Tensor,
    probability: Tensor,
    names: tuple[AugmentationName, ...],
    sky: Tensor,
) -> Tensor:
    """Augment each image by its own draws; each named operation with ``probability``.

    Parameters
    ----------
    images
        (N, C, H, H) float in [-1, 1].
    draws
        (N, DRAWS) uniform in [0, 1).
    probability
        One for each image, (N,), or one for all.
    names
        Operations to use; without any the images come back as they are.
    sky
        (C,) level of the sky in [-1, 1].

    Returns
    -------
    Tensor
        (N, C, H, H), differentiable once in ``images``.
    """
    if not names:
        return images
    gates = draws[:, :5] < probability.view(-1, 1)
    signed = draws[:, 5:] * 2 - 1
    level = sky.view(1, -1, 1, 1)
    flux = images - level
    moves = GEOMETRIC & set(names)
    if moves:
        grid = _sampling_grid(flux, gates, signed, moves)
        flux = F.grid_sample(flux, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if "flux" in names:
        factor = torch.where(gates[:, 3], 1 + FLUX * signed[:, 4], 1.0)
        flux = flux * factor.view(-1, 1, 1, 1)
    if "saturation" in names and images.shape[1] > 1:
        factor = torch.where(gates[:, 4], 1 + SATURATION * signed[:, 5], 1.0).view(-1, 1, 1, 1)
        grey = flux.mean(dim=1, keepdim=True)
        flux = grey + (flux - grey) * factor
    return flux + level


def _sampling_grid(flux: Tensor, gates: Tensor, signed: Tensor, moves: frozenset[str]) -> Tensor:
    """(N, H, H, 2) places to sample from, in the [-1, 1] coordinates of `F.grid_sample`."""
    side = flux.shape[-1]
    zero = torch.zeros_like(signed[:, 0])
    angle = torch.where(gates[:, 1], math.pi * signed[:, 2], zero) if "rotation" in moves else zero
    exponent = torch.where(gates[:, 2], SCALE * signed[:, 3], zero) if "scale" in moves else zero
    zoom = torch.exp2(exponent)
    shift = torch.zeros_like(signed[:, :2])
    if "translation" in moves:
        # Whole pixels: a translation alone must not blur.
        pixels = torch.round(signed[:, :2] * (TRANSLATION * side))
        shift = torch.where(gates[:, :1], pixels * (2 / side), shift)
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    line = (torch.arange(side, device=flux.device, dtype=flux.dtype) * 2 + 1) / side - 1
    x, y = line.view(1, 1, -1), line.view(1, -1, 1)
    cosine, sine = cosine.view(-1, 1, 1), sine.view(-1, 1, 1)
    across = cosine * x - sine * y + shift[:, 0].view(-1, 1, 1)
    down = sine * x + cosine * y + shift[:, 1].view(-1, 1, 1)
    return torch.stack([across, down], dim=-1)


def sky_level(images: Tensor) -> Tensor:
    """(C,) float level of the sky: the median over the border pixels of (N, C, H, W) images."""
    border = torch.cat(
        [images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]], dim=2
    )
    return border.transpose(0, 1).reshape(images.shape[1], -1).float().median(dim=1).values
