"""One network asked several times: under the eight symmetries, or with dropout left on."""

import numpy as np
import torch

from classify.classifier import TrainedClassifier
from classify.dropout_masks import dropout_layers, thinned
from classify.ensemble import Ensemble
from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from galaxies.symmetry import SYMMETRIES, all_symmetries, is_mirrored, mirror_permutation

Classifier = TrainedClassifier | Ensemble


def symmetric_probabilities(classifier: Classifier, pixels: torch.Tensor) -> torch.Tensor:
    """Mean probabilities (n, K) over the eight symmetries.

    The answer to a mirrored view is turned back: its clockwise is our anticlockwise.
    """
    permutation = mirror_permutation(classifier.class_names, classifier.mirror_pairs)
    total = torch.zeros(len(pixels), len(classifier.class_names), dtype=torch.float64)
    for element, view in enumerate(all_symmetries(pixels)):
        probabilities = classifier.probabilities(view)
        if bool(is_mirrored(torch.tensor(element))):
            probabilities = probabilities[:, permutation]
        total += probabilities
    return total / SYMMETRIES


def dropout_samples(
    classifier: TrainedClassifier, images: ImageSet | torch.Tensor, samples: int, seed: int = 0
) -> torch.Tensor:
    """Probabilities (samples, n, K) with dropout on, Gal & Ghahramani 2016 (arXiv:1506.02142).

    Each sample is one thinned network that sees every image; see `classify.dropout_masks`.

    Raises
    ------
    InputError
        If the network drops nothing: every sample would be the same answer.
    """
    network = classifier.network
    if not dropout_layers(network):
        raise InputError(
            f"dropout samples need dropout, and this {classifier.specification.name} has none: all "
            "samples would agree, which says nothing of how sure it is"
        )
    draws = []
    for sample in range(samples):
        with thinned(network, seed, sample):
            draws.append(classifier.logits(images))
    return torch.stack([classifier.probabilities_of(logits) for logits in draws])


def disagreement(draws: torch.Tensor) -> np.ndarray:
    """Mutual information (n,), nats, of (samples, n, K) probabilities: what more data would settle.

    The entropy of the mean minus the mean of the entropies (Houlsby et al. 2011).
    """
    return (_entropy(draws.mean(dim=0)) - _entropy(draws).mean(dim=0)).clamp_min(0).numpy()


def _entropy(probabilities: torch.Tensor) -> torch.Tensor:
    return -(probabilities * probabilities.clamp_min(1e-300).log()).sum(dim=-1)
