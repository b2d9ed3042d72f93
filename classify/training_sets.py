"""The sets of a run: whether they fit each other, and how much each image counts."""

import numpy as np

from classify.training_config import TrainingConfig
from galaxies.errors import InputError
from galaxies.image_set import ImageSet


def loss_weights(
    train: ImageSet,
    synthetic: ImageSet | None,
    config: TrainingConfig,
    image_weights: np.ndarray | None,
    synthetic_weights: np.ndarray | None,
) -> np.ndarray:
    """(N + M,) weight of each real and synthetic image in the loss."""
    parts = []
    for image_set, given, default in (
        (train, image_weights, 1.0),
        (synthetic, synthetic_weights, config.synthetic_weight),
    ):
        if image_set is None:
            continue
        values = np.full(len(image_set), default) if given is None else np.asarray(given)
        if values.shape != (len(image_set),):
            raise InputError(f"{len(image_set)} images but weights of shape {values.shape}")
        parts.append(values)
    return np.concatenate(parts)


def refuse_unlike(train: ImageSet, validation: ImageSet | None, synthetic: ImageSet | None) -> None:
    """Raise `InputError` unless the sets have the same classes, two of them with images."""
    for name, other in (("validation", validation), ("synthetic", synthetic)):
        if other is not None and other.class_names != train.class_names:
            raise InputError(
                f"the {name} set has classes {', '.join(other.class_names)}; "
                f"the training set has {', '.join(train.class_names)}"
            )
    if (train.counts() > 0).sum() < 2:
        raise InputError("a classifier needs training images of at least 2 classes")
