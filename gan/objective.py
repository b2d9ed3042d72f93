"""What the two networks minimise: adversarial losses and their regularisers, on logits alone.

All losses are means over the batch, so the gradient averaged over processes is the gradient of
the whole batch.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gan.recipes import LossName


def discriminator_loss(name: LossName, real: Tensor, fake: Tensor) -> Tensor:
    """Scalar loss of the discriminator from logits (N,) of real and generated images.

    ``logistic`` is binary cross-entropy (Goodfellow et al. 2014); ``relativistic`` compares
    pairs of the same class (Jolicoeur-Martineau 2018, Huang et al. 2024).
    """
    if name == "relativistic":
        return F.softplus(fake - real).mean()
    if name == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(name: LossName, real: Tensor | None, fake: Tensor) -> Tensor:
    """Scalar non-saturating loss of the generator; ``relativistic`` needs the real logits."""
    if name == "relativistic":
        assert real is not None
        return F.softplus(real - fake).mean()
    if name == "hinge":
        return -fake.mean()
    return F.softplus(-fake).mean()


def gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Zero-centred penalty: mean over images of the squared gradient norm, R1 or R2.

    Parameters
    ----------
    logits
        (N,), computed from ``images``.
    images
        (N, C, H, W), requiring gradients.

    Notes
    -----
    Mescheder et al. 2018, arXiv:1801.04406, equation 9 without the factor gamma / 2.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3)).mean()


def lecam_penalty(real: Tensor, fake: Tensor, mean_real: Tensor, mean_fake: Tensor) -> Tensor:
    """Distance of the logits from the moving mean of the other side (arXiv:2104.03310, eq. 2)."""
    return F.relu(real - mean_fake).square().mean() + F.relu(mean_real - fake).square().mean()


def class_bound_penalty(tables: list[Tensor], weights: Tensor, iterations: int = 4) -> Tensor:
    """Weighted squared spectral norm of each class's row, reshaped to a near-square matrix.

    The group spectral regulariser (Rangwani et al. 2022, arXiv:2208.09932): rare classes
    explode their conditional parameters, which is how they collapse.

    Parameters
    ----------
    tables
        Each (classes, D).
    weights
        (classes,) larger for rarer classes.
    """
    total = weights.new_zeros(())
    for table in tables:
        classes, length = table.shape
        rows = max(side for side in range(1, int(length**0.5) + 1) if length % side == 0)
        matrices = table.float().view(classes, rows, length // rows)
        right = torch.ones_like(matrices[:, 0])
        for _ in range(iterations):
            left = F.normalize(torch.einsum("krc,kc->kr", matrices.detach(), right), dim=1)
            right = F.normalize(torch.einsum("krc,kr->kc", matrices.detach(), left), dim=1)
        norms = torch.einsum("kr,krc,kc->k", left, matrices, right)
        total = total + (weights * norms.square()).sum()
    return total


def rarity_weights(counts: Tensor, beta: float = 0.999) -> Tensor:
    """(classes,) weights 1 / effective number of images (Cui et al. 2019), mean one."""
    effective = (1 - beta ** counts.double().clamp_min(1)) / (1 - beta)
    weights = 1 / effective
    return (weights / weights.mean()).float()
