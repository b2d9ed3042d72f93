"""The dense network of MargNet and its training: early stopping that restores what it stopped at.

Chaini et al. 2023 (MNRAS 518, 3123, arXiv:2210.15297): 24 features through 1024-256-128-64-32
units to the classes, dropout .25; 331,331 parameters with 24 features and three classes. The
activation is rectified linear here (theirs is a sigmoid, which needs ten times the epochs for the
same loss), and dropout stands after every hidden layer; neither changes a count.
"""

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from classify.determinism import derived_seed, isolated_randomness, numpy_generator_for
from classify.early_stopping import BestWeights, score_logits
from classify.networks.network import Network
from classify.optimisation import make_optimiser, set_learning_rate

MARGNET_WIDTHS = (1024, 256, 128, 64, 32)
SMALL_WIDTHS = (128, 64)
WIDTHS = {"dense": MARGNET_WIDTHS, "dense-small": SMALL_WIDTHS}
_WARM_UP = 5  # epochs


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """How a dense network is trained.

    Attributes
    ----------
    widths : tuple of int
        Units of the hidden layers.
    dropout : float
        After every hidden layer.
    epochs, batch_size, learning_rate, weight_decay
        Of AdamW, with a warm-up of five epochs and then a constant rate.
    patience : int
        Epochs without a lower validation loss, averaged over classes, after which training stops;
        the weights of the lowest are restored.
    seed : int
    """

    widths: tuple[int, ...] = MARGNET_WIDTHS
    dropout: float = 0.25
    epochs: int = 200
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    patience: int = 30
    seed: int = 0


def dense_network(inputs: int, classes: int, widths: tuple[int, ...], dropout: float) -> Network:
    """Hidden layers as trunk, the last linear layer as head: (n, inputs) to (n, classes)."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)]
        inputs = width
    return Network(nn.Sequential(*layers), nn.Linear(inputs, classes))


@dataclass
class TrainedDense:
    """A dense network in evaluation mode, with the log of its training."""

    network: Network
    kept_epoch: int
    history: list[dict[str, Any]] = field(default_factory=list)


def train_dense(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray] | None,
    classes: int,
    config: DenseConfig,
    *,
    progress: bool = True,
) -> TrainedDense:
    """Train on scaled rows; the same seed on the same CPU gives the same bytes.

    Parameters
    ----------
    features : (n, F) float32
    labels : (n,) int64
    weights : (n,) float
        Weight of each row in the loss.
    validation
        Features and labels that choose the epoch; ``None`` keeps the last.
    """
    with isolated_randomness(derived_seed(config.seed, "dense network")):
        network = dense_network(features.shape[1], classes, config.widths, config.dropout)
    inputs = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
    targets, row_weights = torch.from_numpy(labels), torch.from_numpy(weights.astype(np.float32))
    optimiser = make_optimiser(
        [(list(network.parameters()), 1.0)], config.learning_rate, config.weight_decay
    )
    best = BestWeights("last" if validation is None else "loss")
    history: list[dict[str, Any]] = []
    bar = tqdm(total=config.epochs, desc="dense", unit="epoch", disable=not progress, leave=False)
    with bar, isolated_randomness(derived_seed(config.seed, "dropout")):
        for epoch in range(config.epochs):
            set_learning_rate(optimiser, config.learning_rate * min(1.0, (epoch + 1) / _WARM_UP))
            order = numpy_generator_for(config.seed, "rows", epoch).permutation(len(labels))
            total = 0.0
            network.train()
            for start in range(0, len(order), config.batch_size):
                rows = torch.from_numpy(order[start : start + config.batch_size])
                loss = nn.functional.cross_entropy(
                    network(inputs[rows]), targets[rows], reduction="none"
                )
                mean = (loss * row_weights[rows]).mean()
                optimiser.zero_grad(set_to_none=True)
                mean.backward()
                optimiser.step()
                total += float(mean.detach()) * len(rows)
            entry: dict[str, Any] = {"step": epoch + 1, "train_loss": total / len(order)}
            score = None
            if validation is not None:
                network.eval()
                score = score_logits(logits_of(network, validation[0]), validation[1])
                entry |= score.as_log()
                bar.set_postfix(loss=f"{score.loss:.3f}", recall=f"{score.balanced_accuracy:.3f}")
            best.look(epoch + 1, score, network)
            history.append(entry)
            bar.update()
            if validation is not None and best.looks_since >= config.patience:
                break
    best.restore(network)
    network.eval()
    return TrainedDense(network, best.step, history)


@torch.no_grad()
def logits_of(network: Network, features: np.ndarray, batch: int = 8192) -> torch.Tensor:
    """(n, K) float32 logits of scaled rows, in the mode the network is in."""
    parts = [
        network(torch.from_numpy(np.ascontiguousarray(features[i : i + batch], dtype=np.float32)))
        for i in range(0, len(features), batch)
    ]
    return torch.cat(parts)


@torch.no_grad()
def penultimate_of(network: Network, features: np.ndarray) -> torch.Tensor:
    """(n, d) float32 input of the last layer."""
    copied = copy.copy(network).eval()
    return copied.features(torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)))
