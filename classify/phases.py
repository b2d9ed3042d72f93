"""The stretches of a training run: which images are drawn, and how they are weighed."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch

from classify.balance import class_weights, plan_draws
from classify.losses import LossPerImage, loss_for
from classify.training_config import TrainingConfig


@dataclass(frozen=True)
class Phase:
    """A stretch of steps with one plan, one loss, and one set of trained parameters.

    Attributes
    ----------
    first, last : int
        Steps first <= step < last.
    rows : (last - first, batch) int32
        Rows of the pixel bank.
    loss : callable
        See `classify.losses.LossPerImage`.
    head_only : bool
        The second stage of cRT: a new head on a frozen trunk.
    """

    first: int
    last: int
    rows: np.ndarray
    loss: LossPerImage
    head_only: bool


def plan_phases(
    labels: np.ndarray,
    synthetic_labels: np.ndarray | None,
    config: TrainingConfig,
    permutation: np.ndarray,
    device: torch.device,
) -> list[Phase]:
    """The phases of a run, in order; they cover all its steps.

    Parameters
    ----------
    labels, synthetic_labels
        (N,) and (M,) int64 class of each real and synthetic image.
    permutation
        (K,) class of the mirror image of each class.
    device
        Where the losses are computed.
    """
    classes = len(permutation)
    head_from = config.steps - config.retrain_head_steps
    real_from = config.steps
    if synthetic_labels is not None:
        real_from = round(config.synthetic_until * config.steps)

    def seen(counts: np.ndarray) -> np.ndarray:
        """(K,) how often: with symmetries half of the images of a class come mirrored."""
        return (counts + counts[permutation]) / 2 if config.symmetries else counts

    phases = []
    edges = sorted({0, head_from, real_from, config.steps})
    for first, last in itertools.pairwise(edges):
        head_only = first >= head_from
        extra = synthetic_labels if first < real_from else None
        plan = plan_draws(
            labels,
            classes,
            last - first,
            config.batch_size,
            "sampling" if head_only else config.balance,
            config.seed,
            synthetic_labels=extra,
            synthetic_share=config.synthetic_share,
            purpose=f"draws from step {first}",
        )
        # With a share the draws follow the real images, however many others there are.
        counts = np.bincount(labels, minlength=classes)
        if extra is not None and config.synthetic_share is None:
            counts = counts + np.bincount(extra, minlength=classes)
        balance = "none" if head_only else config.balance
        weights = torch.from_numpy(class_weights(seen(counts), balance)).float().to(device)
        prior = torch.from_numpy(seen(plan.prior)).to(device)
        phases.append(Phase(first, last, plan.rows, loss_for(config, weights, prior), head_only))
    return phases
