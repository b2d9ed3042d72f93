"""Which images are drawn, and how much each class weighs: the answers to imbalance.

The plan of a run (which row stands in which batch) is drawn before it starts, from the seed
alone: two runs on the same images and with the same sampling see them in the same order.
"""

from dataclasses import dataclass

import numpy as np
import torch

from classify.determinism import numpy_generator_for
from classify.training_config import Balance
from galaxies.errors import InputError

EFFECTIVE_NUMBER_BETA = 0.999


def class_weights(
    counts: np.ndarray, balance: Balance, beta: float = EFFECTIVE_NUMBER_BETA
) -> np.ndarray:
    """Weight of each class in the loss, with mean 1 over the images.

    Parameters
    ----------
    counts
        (K,) training images per class; a class without images gets weight 0.
    balance
        ``class-weights``: 1/n. ``effective-number``: (1 - beta) / (1 - beta^n), Cui et al. 2019
        (arXiv:1901.05555). Anything else: 1 for every class.

    Returns
    -------
    (K,) float64 ndarray
    """
    counts = np.asarray(counts, dtype=np.float64)
    present = counts > 0
    raw = np.zeros_like(counts)
    if balance == "class-weights":
        raw[present] = 1 / counts[present]
    elif balance == "effective-number":
        raw[present] = (1 - beta) / (1 - beta ** counts[present])
    else:
        raw[present] = 1
    return raw * counts.sum() / (raw * counts).sum()


def adjust_logits(logits: torch.Tensor, prior: torch.Tensor, tau: float = 1.0) -> torch.Tensor:
    """Post-hoc logit adjustment, Menon et al. 2021 (arXiv:2007.07314), eq. 9.

    Parameters
    ----------
    logits
        (n, K) of a network trained on labels distributed as ``prior``.
    prior
        (K,) class frequencies; a class with none keeps its logit.
    tau
        1 aims at the balanced error, 0 changes nothing.
    """
    return logits - tau * log_prior(prior).to(logits)


def log_prior(prior: torch.Tensor) -> torch.Tensor:
    """Logarithm of class frequencies (K,), normalised; 0 for a class that never occurs."""
    share = prior.double() / prior.sum()
    return torch.where(share > 0, share.clamp_min(1e-300).log(), torch.zeros_like(share))


@dataclass(frozen=True)
class Plan:
    """Rows of each step, drawn in advance.

    Attributes
    ----------
    rows : (steps, batch) int32
        Index into the real images, followed by the synthetic ones.
    prior : (K,) float64
        Frequency of each class among the draws that the run intends.
    """

    rows: np.ndarray
    prior: np.ndarray


def plan_draws(
    labels: np.ndarray,
    classes: int,
    steps: int,
    batch_size: int,
    balance: Balance,
    seed: int,
    *,
    synthetic_labels: np.ndarray | None = None,
    synthetic_share: float | None = None,
    purpose: str = "draws",
) -> Plan:
    """Draw the rows of every step.

    Without balance the pool is walked in random permutations, each image once per walk. With
    ``sampling`` (or its square root) classes come in their stated shares and each class's images
    are walked in permutations.

    Parameters
    ----------
    labels, synthetic_labels
        (N,) and (M,) int64 class of each real and synthetic image; synthetic rows are numbered
        from N.
    synthetic_share
        Share of synthetic images in the draws of a class that has both kinds; ``None`` puts
        them into one pool with the real ones.
    """
    extra = np.zeros(0, np.int64) if synthetic_labels is None else np.asarray(synthetic_labels)
    everything = np.concatenate([labels, extra])
    is_synthetic = np.arange(len(everything)) >= len(labels)
    if len(everything) == 0:
        raise InputError("the training side holds no image")
    counts = np.bincount(everything, minlength=classes).astype(np.float64)
    draws = steps * batch_size
    random = numpy_generator_for(seed, purpose)
    exponent = {"sampling": 0.0, "sqrt-sampling": 0.5}.get(balance, 1.0)
    if exponent == 1.0 and synthetic_share is None:
        rows = _walk(np.arange(len(everything)), draws, random)
        return Plan(rows.reshape(steps, batch_size), counts / counts.sum())
    if exponent == 1.0:
        # A share of the draws of each class, in the class frequencies of the real images.
        counts = np.bincount(labels, minlength=classes).astype(np.float64)
    share = np.where(counts > 0, np.maximum(counts, 1e-9) ** exponent, 0)
    prior = share / share.sum()
    drawn_classes = _classes_in_shares(prior, draws, random)
    rows = np.empty(draws, np.int32)
    for label in np.flatnonzero(prior):
        places = np.flatnonzero(drawn_classes == label)
        real = np.flatnonzero((everything == label) & ~is_synthetic)
        fake = np.flatnonzero((everything == label) & is_synthetic)
        # One stream of random numbers per class: the synthetic images of one class do not
        # change the order in which another class is seen.
        own = numpy_generator_for(seed, f"{purpose}/class", int(label))
        if synthetic_share is None or not len(real) or not len(fake):
            rows[places] = _walk(np.concatenate([real, fake]), len(places), own)
            continue
        from_fake = own.random(len(places)) < synthetic_share
        rows[places[~from_fake]] = _walk(real, int((~from_fake).sum()), own)
        rows[places[from_fake]] = _walk(fake, int(from_fake.sum()), own)
    return Plan(rows.reshape(steps, batch_size), prior)


def _walk(pool: np.ndarray, draws: int, random: np.random.Generator) -> np.ndarray:
    """So many members of ``pool``, walked in one random permutation after another."""
    walks = -(-draws // max(1, len(pool)))
    order = [random.permutation(pool) for _ in range(walks)]
    return np.concatenate([*order, np.zeros(0, np.int64)])[:draws].astype(np.int32)


def _classes_in_shares(prior: np.ndarray, draws: int, random: np.random.Generator) -> np.ndarray:
    """Class of each draw: exact shares (largest remainder), shuffled."""
    exact = prior * draws
    whole = np.floor(exact).astype(np.int64)
    rest = draws - whole.sum()
    whole[np.argsort(-(exact - whole), kind="stable")[:rest]] += 1
    return random.permutation(np.repeat(np.arange(len(prior)), whole))
