"""Approximate posteriors of the last layer, kept as samples of its weights.

A network is a fixed map to features and a linear layer; being uncertain about that layer alone
is cheap, and repairs most of the overconfidence far from the training data (Kristiadi et al.
2020, arXiv:2002.10118). A posterior is kept as S weight matrices, so that a checkpoint predicts
the same numbers wherever it is loaded.
"""

import math

import numpy as np
import torch
from torch import nn

SAMPLES = 64
PRIOR_PRECISIONS = tuple(float(p) for p in np.logspace(-3, 3, 25))


def laplace_samples(
    head: nn.Linear,
    features: torch.Tensor,
    labels: torch.Tensor,
    generator: torch.Generator,
    samples: int = SAMPLES,
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, float]:
    """Laplace approximation with the full generalised Gauss-Newton matrix of the last layer.

    The posterior is N(w*, (H + tau I)^-1), H the sum over rows of (diag p - p p^T) (x) f f^T;
    tau maximises the Laplace evidence (MacKay 1992; Daxberger et al. 2021, arXiv:2106.14806).

    Parameters
    ----------
    head
        Trained last layer, (K, d) weights and (K,) biases.
    features : (n, d)
        Its training inputs.
    labels : (n,) int64
    weights : (n,) or None
        What each row counts in the loss that the layer was trained on, mean 1.

    Returns
    -------
    (samples, K, d + 1) float32, float
        Weights, the bias last, and the prior precision tau.
    """
    with torch.no_grad():
        mode = torch.cat([head.weight, head.bias[:, None]], dim=1).double()
        inputs = with_ones(features).double()
        logits = inputs @ mode.T
        counted = torch.ones(len(inputs)) if weights is None else weights
        hessian = _gauss_newton(torch.softmax(logits, dim=1), inputs, counted.double())
        log_losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        fit = -float((counted * log_losses).sum())
        values, vectors = torch.linalg.eigh(hessian)
        values = values.clamp_min(0)
        tau = max(PRIOR_PRECISIONS, key=lambda t: _evidence(fit, mode, values, t))
        scale = (values + tau).rsqrt()
        noise = torch.randn(samples, len(values), generator=generator, dtype=torch.float64)
        drawn = mode.reshape(-1) + (noise * scale) @ vectors.T
    return drawn.reshape(samples, *mode.shape).float(), tau


def _gauss_newton(
    probabilities: torch.Tensor, inputs: torch.Tensor, counted: torch.Tensor
) -> torch.Tensor:
    """(K d, K d) sum over rows, ``counted`` times each, of (diag p - p p^T) (x) f f^T."""
    classes, width = probabilities.shape[1], inputs.shape[1]
    matrix = torch.zeros(classes, width, classes, width, dtype=torch.float64)
    for a in range(classes):
        for b in range(a, classes):
            same = probabilities[:, a] if a == b else torch.zeros_like(probabilities[:, a])
            weight = same - probabilities[:, a] * probabilities[:, b]
            block = (inputs * (counted * weight)[:, None]).T @ inputs
            matrix[a, :, b] = block
            matrix[b, :, a] = block.T
    return matrix.reshape(classes * width, classes * width)


def _evidence(fit: float, mode: torch.Tensor, values: torch.Tensor, tau: float) -> float:
    """Log evidence up to a constant, of prior precision tau."""
    return (
        fit
        - 0.5 * tau * float((mode**2).sum())
        + 0.5 * mode.numel() * math.log(tau)
        - 0.5 * float((values + tau).log().sum())
    )


def variational_samples(
    head: nn.Linear,
    features: torch.Tensor,
    labels: torch.Tensor,
    generator: torch.Generator,
    *,
    steps: int = 1500,
    batch: int = 512,
    prior_std: float = 1.0,
    samples: int = SAMPLES,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean-field Gaussian last layer by Bayes by Backprop, Blundell et al. 2015.

    Starts at the trained layer and maximises the evidence lower bound on its training inputs,
    with the local reparameterisation of Kingma et al. 2015: noise is added to the logits.
    ``weights`` are as in `laplace_samples`.

    Returns
    -------
    (samples, K, d + 1) float32
    """
    inputs = with_ones(features)
    counted = torch.ones(len(inputs)) if weights is None else weights.float()
    mean = torch.cat([head.weight, head.bias[:, None]], dim=1).detach().clone().requires_grad_()
    log_std = torch.full_like(mean, math.log(0.02)).requires_grad_()
    optimiser = torch.optim.Adam([mean, log_std], lr=5e-3)
    for _ in range(steps):
        rows = torch.randint(len(inputs), (min(batch, len(inputs)),), generator=generator)
        variance = (2 * log_std).exp()
        centre = inputs[rows] @ mean.T
        spread = (inputs[rows] ** 2 @ variance.T).clamp_min(1e-12).sqrt()
        noise = torch.randn(centre.shape, generator=generator)
        losses = nn.functional.cross_entropy(
            centre + spread * noise, labels[rows], reduction="none"
        )
        log_loss = (counted[rows] * losses).mean()
        divergence = (
            (variance + mean**2) / prior_std**2 - 1 - 2 * log_std + 2 * math.log(prior_std)
        ).sum() / 2
        loss = log_loss + divergence / len(inputs)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        noise = torch.randn(samples, *mean.shape, generator=generator)
        return mean + log_std.exp() * noise


def mean_probabilities(weights: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """(n, K) float64 mean over samples of softmax(weights . features)."""
    logits = torch.einsum("nd,skd->snk", with_ones(features).double(), weights.double())
    return torch.softmax(logits, dim=2).mean(dim=0)


def with_ones(features: torch.Tensor) -> torch.Tensor:
    """(n, d) to (n, d + 1): the input of the bias."""
    return torch.cat([features, torch.ones(len(features), 1, dtype=features.dtype)], dim=1)
