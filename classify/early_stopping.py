"""The weights that are kept are the weights that were scored, bit for bit."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from classify.training_config import BestBy
from galaxies.image_set import ImageSet


@dataclass(frozen=True)
class ValidationScore:
    """What one look at the validation side found.

    Attributes
    ----------
    recall : (K,) float64
        NaN for a class without validation images.
    balanced_accuracy : float
        Mean recall over the classes that have images.
    loss : float
        Cross-entropy, averaged within each class first, so that no class hides.
    accuracy : float
        Share of right answers.
    """

    recall: np.ndarray
    balanced_accuracy: float
    loss: float
    accuracy: float

    def as_log(self) -> dict[str, Any]:
        """JSON-able entry of the log; a recall that does not exist is null."""
        return {
            "validation_loss": self.loss,
            "validation_accuracy": self.accuracy,
            "validation_balanced_accuracy": self.balanced_accuracy,
            "validation_recall": [None if np.isnan(r) else float(r) for r in self.recall],
        }


def score_validation(logits: torch.Tensor, validation: ImageSet) -> ValidationScore:
    """Score (n, K) logits against the labels of the set."""
    return score_logits(logits, validation.labels)


def score_logits(logits: torch.Tensor, truth: np.ndarray) -> ValidationScore:
    """Score (n, K) logits against (n,) int64 labels."""
    labels = torch.from_numpy(truth)
    classes = logits.shape[1]
    losses = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none").numpy()
    right = (logits.argmax(dim=1) == labels).numpy()
    counts = np.bincount(truth, minlength=classes)
    present = counts > 0
    recall = np.full(classes, np.nan)
    hits = np.bincount(truth, weights=right, minlength=classes)
    sums = np.bincount(truth, weights=losses, minlength=classes)
    recall[present] = hits[present] / counts[present]
    return ValidationScore(
        recall=recall,
        balanced_accuracy=float(recall[present].mean()),
        loss=float((sums[present] / counts[present]).mean()),
        accuracy=float(right.mean()),
    )


class BestWeights:
    """A copy of the best weights seen so far.

    ``state_dict`` returns views of living tensors; keeping it without a copy is the classical
    mistake that makes "restoring the best" do nothing.
    """

    def __init__(self, by: BestBy) -> None:
        self.by = by
        self.step = 0
        self.score: dict[str, Any] | None = None
        self.looks_since = 0
        self.state: dict[str, torch.Tensor] | None = None
        self._key: tuple[float, ...] | None = None

    def look(self, step: int, score: ValidationScore | None, network: nn.Module) -> None:
        """Keep the weights if they are better than all before; the earlier wins a tie."""
        key = self._key_of(step, score)
        if self._key is not None and key <= self._key:
            self.looks_since += 1
            return
        self._key, self.step, self.looks_since = key, step, 0
        self.score = None if score is None else score.as_log()
        self.state = {
            name: tensor.detach().clone() for name, tensor in network.state_dict().items()
        }

    def restore(self, network: nn.Module) -> None:
        """Load the kept weights, if any."""
        if self.state is not None:
            network.load_state_dict(self.state)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs."""
        return {
            "by": self.by,
            "step": self.step,
            "score": self.score,
            "looks_since": self.looks_since,
            "state": self.state,
            "key": self._key,
        }

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.by, self.step, self.score = values["by"], values["step"], values["score"]
        self.looks_since, self.state = values["looks_since"], values["state"]
        self._key = values["key"] if values["key"] is None else tuple(values["key"])

    def _key_of(self, step: int, score: ValidationScore | None) -> tuple[float, ...]:
        if self.by == "last" or score is None:
            return (float(step),)
        # NaN is smaller than nothing and greater than nothing: it must not pass for the best.
        low_loss = -score.loss if math.isfinite(score.loss) else -math.inf
        return (low_loss,) if self.by == "loss" else (score.balanced_accuracy, low_loss)
