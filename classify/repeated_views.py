"""One network asked several times: under the eight symmetries, or with dropout left on."""

import numpy as np
import torch
from torch import nn

from classify.classifier import TrainedClassifier
from classify.determinism import derived_seed, isolated_randomness
from classify.ensemble import Ensemble
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

    Normalisation layers stay in evaluation mode. A network without dropout gives the same answer
    every time.
    """
    network = classifier.network
    drops = [m for m in network.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
    draws = []
    evaluate = network.eval
    for sample in range(samples):
        with isolated_randomness(derived_seed(seed, "dropout sample", sample), classifier.device):
            evaluate()
            for drop in drops:
                drop.train()
            try:
                draws.append(_logits_as_they_are(classifier, images))
            finally:
                evaluate()
    return torch.stack([classifier.probabilities_of(logits) for logits in draws])


def _logits_as_they_are(
    classifier: TrainedClassifier, images: ImageSet | torch.Tensor
) -> torch.Tensor:
    """Logits without switching the network to evaluation mode first."""
    classifier.refuse_other_images(images)
    parts = []
    step = 256
    for start in range(0, len(images), step):
        rows = np.arange(start, min(start + step, len(images)))
        pixels = images.read(rows) if isinstance(images, ImageSet) else images[rows]
        with torch.no_grad():
            parts.append(classifier.network(classifier.network_input(pixels)).float().cpu())
    return torch.cat(parts)


def disagreement(draws: torch.Tensor) -> np.ndarray:
    """Mutual information (n,), nats, of (samples, n, K) probabilities: what more data would settle.

    The entropy of the mean minus the mean of the entropies (Houlsby et al. 2011).
    """
    return (_entropy(draws.mean(dim=0)) - _entropy(draws).mean(dim=0)).clamp_min(0).numpy()


def _entropy(probabilities: torch.Tensor) -> torch.Tensor:
    return -(probabilities * probabilities.clamp_min(1e-300).log()).sum(dim=-1)
