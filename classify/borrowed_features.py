"""Table rows for generated images: borrowed from real ones of the same class that look alike.

A generator of images makes no photometry. Regression would give every generated source the mean
row of its looks, far too tidy; a donor's whole row (hot-deck imputation, Andridge & Little 2010)
keeps the scatter and the correlations of real photometry. Donors are training images of the same
class, near in measured brightness, colour, size and shape; the test side is never looked at.
"""

import dataclasses

import numpy as np

from classify.determinism import numpy_generator_for
from classify.tabular.feature_scaling import scaling_of
from fid.physics import measure
from galaxies.errors import InputError
from galaxies.image_set import ImageSet

DONORS = 5


def with_borrowed_features(
    synthetic: ImageSet, train: ImageSet, seed: int = 0, donors: int = DONORS
) -> ImageSet:
    """Give each synthetic image the features of one of its nearest real images of its class.

    Parameters
    ----------
    synthetic
        Images whose own features are ignored.
    train
        Real training images with features.
    donors
        One of so many nearest is drawn.

    Raises
    ------
    InputError
        If a synthetic class has no real image to borrow from.
    """
    real_looks, made_looks = looks_of(train), looks_of(synthetic)
    scaling = scaling_of(real_looks)
    real_looks, made_looks = scaling(real_looks), scaling(made_looks)
    rng = numpy_generator_for(seed, "borrowed features")
    features = np.empty((len(synthetic), train.features.shape[1]), np.float32)
    for k in np.unique(synthetic.labels).tolist():
        pool, wanted = np.flatnonzero(train.labels == k), np.flatnonzero(synthetic.labels == k)
        if not len(pool):
            raise InputError(
                f"class {train.class_names[k]!r} has no real training image to borrow features from"
            )
        distance = np.linalg.norm(made_looks[wanted, None] - real_looks[None, pool], axis=2)
        nearest = np.argsort(distance, axis=1, kind="stable")[:, :donors]
        chosen = nearest[np.arange(len(wanted)), rng.integers(0, nearest.shape[1], len(wanted))]
        features[wanted] = train.features[pool[chosen]]
    note = {"from": "nearest real training images of the class", "donors": donors, "seed": seed}
    return dataclasses.replace(
        synthetic,
        features=features,
        feature_names=train.feature_names,
        provenance=synthetic.provenance | {"borrowed_features": note},
    )


def looks_of(image_set: ImageSet) -> np.ndarray:
    """(N, d) float64 physical measurements of the images; NaN where nothing is to be measured."""
    parts = [measure(pixels).values for _, pixels in image_set.blocks()]
    return np.concatenate(parts).astype(np.float64)
