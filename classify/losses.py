"""Losses over soft targets, one value per image, so that every image can carry its own weight.

``torch.nn.functional.cross_entropy`` with class weights divides by the sum of the weights in the
batch, so a batch with a rare image counts less for the others; here the batch mean is taken.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from classify.balance import log_prior
from classify.training_config import TrainingConfig

LossPerImage = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(n, K) float32 logits and (n, K) target probabilities to (n,) losses."""


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Minus the expected log probability, (n,)."""
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1)


def focal(logits: torch.Tensor, targets: torch.Tensor, gamma: float = 2.0) -> torch.Tensor:
    """Softmax focal loss, Lin et al. 2017 (arXiv:1708.02002): (1 - p)^gamma times -log p, (n,)."""
    log_probability = F.log_softmax(logits, dim=1)
    # 1 - p by expm1: (1 - p)^gamma has no gradient at p == 1 for gamma < 1 otherwise.
    complement = -torch.expm1(log_probability.clamp(max=-1e-7))
    return -(targets * complement**gamma * log_probability).sum(dim=1)


def logit_adjusted(
    logits: torch.Tensor, targets: torch.Tensor, prior: torch.Tensor, tau: float = 1.0
) -> torch.Tensor:
    """Cross-entropy of logits + tau log prior, Menon et al. 2021 (arXiv:2007.07314), eq. 10.

    With tau 1 this is the balanced softmax of Ren et al. 2020.
    """
    return cross_entropy(logits + tau * log_prior(prior).to(logits), targets)


def smooth_labels(targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Spread a share of each target over all classes, Szegedy et al. 2016."""
    return targets * (1 - smoothing) + smoothing / targets.shape[1]


def loss_for(config: TrainingConfig, weights: torch.Tensor, prior: torch.Tensor) -> LossPerImage:
    """Loss of a run: the configured one, on smoothed labels, weighted by class.

    Parameters
    ----------
    weights
        (K,) weight of each class, mean 1 over the images.
    prior
        (K,) class frequencies among the draws.
    """

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        per_image_weight = (targets * weights).sum(dim=1)
        if config.label_smoothing:
            targets = smooth_labels(targets, config.label_smoothing)
        if config.loss == "focal":
            value = focal(logits, targets, config.focal_gamma)
        elif config.loss == "logit-adjusted":
            value = logit_adjusted(logits, targets, prior, config.logit_adjustment_tau)
        else:
            value = cross_entropy(logits, targets)
        return value * per_image_weight

    return loss
