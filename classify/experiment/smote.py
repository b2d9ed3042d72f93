"""SMOTE in feature space: new examples of a class between its neighbours, for the head alone.

Interpolating pixels of two galaxies gives a ghost, not a galaxy; between the features that a
trained trunk computes a straight line makes sense. The trunk stays, a new head is trained on the
features of the real images (under all eight symmetries) and of the interpolated ones.

N. V. Chawla et al. (2002), J. Artif. Intell. Res. 16, 321.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from classify.balance import plan_draws
from classify.determinism import derived_seed, isolated_randomness, numpy_generator_for
from classify.networks.registry import build
from classify.optimisation import make_optimiser, schedule_factor, set_learning_rate
from classify.training import TrainedClassifier
from galaxies.image_set import ImageSet
from galaxies.symmetry import SYMMETRIES, apply_symmetry, mirror_labels

NEIGHBOURS = 5


def interpolate(features: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Draw ``count`` points between members and one of their nearest neighbours each.

    Parameters
    ----------
    features : (n, d) float
        Of one class; a class of one image is repeated.
    count
        Points to draw.

    Returns
    -------
    (count, d) float32
    """
    if len(features) == 1:
        return np.repeat(features, count, axis=0).astype(np.float32)
    squares = (features**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * features @ features.T
    np.fill_diagonal(distances, np.inf)
    neighbours = np.argsort(distances, axis=1)[:, : min(NEIGHBOURS, len(features) - 1)]
    start = random.integers(0, len(features), count)
    end = neighbours[start, random.integers(0, neighbours.shape[1], count)]
    share = random.random((count, 1))
    return (features[start] + share * (features[end] - features[start])).astype(np.float32)


def retrain_head_with_smote(
    classifier: TrainedClassifier,
    train: ImageSet,
    class_index: int,
    *,
    count: int,
    seed: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> dict[str, Any]:
    """Replace the head of ``classifier`` by one trained on balanced, SMOTE-enlarged features.

    Parameters
    ----------
    count
        Points to add per symmetry of the square, so that the dose counts images.

    Returns
    -------
    dict
        What was done, for the unit's metrics.
    """
    device = classifier.device
    permutation = train.mirror_permutation()
    pixels, labels = train.pixels, torch.from_numpy(train.labels)
    random = numpy_generator_for(seed, "smote")
    features, targets, extra = [], [], []
    for element in range(SYMMETRIES):
        elements = torch.full((len(pixels),), element)
        turned = classifier.features(apply_symmetry(pixels, elements)).numpy()
        names = mirror_labels(labels, elements, permutation).numpy()
        features.append(turned)
        targets.append(names)
        extra.append(interpolate(turned[names == class_index], count, random))
    real_labels = np.concatenate(targets)
    added = np.concatenate(extra)
    table = torch.from_numpy(np.concatenate([*features, added])).to(device)
    everything = torch.from_numpy(
        np.concatenate([real_labels, np.full(len(added), class_index)])
    ).to(device)
    plan = plan_draws(
        real_labels,
        len(train.class_names),
        steps,
        batch_size,
        "sampling",
        seed,
        synthetic_labels=np.full(len(added), class_index),
        purpose="smote draws",
    )
    fresh = build(classifier.specification, derived_seed(seed, "smote head"))
    head = classifier.network.head
    head.load_state_dict(fresh.head.state_dict())
    head.requires_grad_(True).train()
    optimiser = make_optimiser([(list(head.parameters()), 1.0)], learning_rate, 0.0)
    rows = torch.from_numpy(plan.rows.astype(np.int64)).to(device)
    with isolated_randomness(derived_seed(seed, "smote dropout"), device), torch.enable_grad():
        for step in range(steps):
            set_learning_rate(optimiser, learning_rate * schedule_factor("cosine", step, steps))
            loss = F.cross_entropy(head(table[rows[step]]), everything[rows[step]])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    head.eval()
    return {"count": count, "points": len(added), "head_steps": steps}
