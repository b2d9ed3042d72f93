"""The table row beside each image: which columns a joint network sees, and in which scale."""

from dataclasses import dataclass

import numpy as np

from classify.tabular.feature_scaling import FeatureScaling, scaling_of
from galaxies.command_line import warn
from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from galaxies.table_columns import mark_missing, why_left_out

JOINT_NETWORKS = ("margnet", "margnet-small", "margformer", "margformer-small")
"""Networks that need features beside the images."""
STACKED_NETWORKS = ("margnet", "margnet-small")
"""Joint networks that are trained in parts and then stacked."""


@dataclass(frozen=True)
class JointFeatures:
    """What turns the features of a set into input of a network.

    Attributes
    ----------
    names : tuple of str
        Columns that are used, in order.
    scaling : FeatureScaling
        Measured on the training images.
    """

    names: tuple[str, ...]
    scaling: FeatureScaling

    def __call__(self, image_set: ImageSet) -> np.ndarray:
        """(N, scaling.outputs) float32 rows of a set; found by name.

        Raises
        ------
        InputError
            If the set lacks a column.
        """
        return self.scaling(columns_of(image_set, self.names))


def joint_features_of(train: ImageSet) -> JointFeatures:
    """Choose and measure the features of a training set.

    Columns that give the class away (a redshift, a plate) are left out, unless they were allowed
    by name when the table was joined to the images.

    Raises
    ------
    InputError
        If none is left.
    """
    allowed = set(train.provenance.get("joined_table", {}).get("allowed", ()))
    reasons = {
        name: reason
        for name in train.feature_names
        if name not in allowed and (reason := why_left_out(name, train.feature_names)) is not None
    }
    names = tuple(name for name in train.feature_names if name not in reasons)
    if reasons:
        listed = ", ".join(f"{name} ({reason})" for name, reason in reasons.items())
        warn(f"features left out: {listed}")
    if not names:
        raise InputError(
            "the set has no features beside its images; join a table with: "
            "galaxy-set pack SOURCE OUT.h5 --table TABLE --table-id COLUMN"
        )
    return JointFeatures(names, scaling_of(columns_of(train, names)))


def columns_of(image_set: ImageSet, names: tuple[str, ...]) -> np.ndarray:
    """(N, len(names)) float64 features by name; codes for "not measured" become NaN."""
    absent = [name for name in names if name not in image_set.feature_names]
    if absent:
        raise InputError(
            f"the set lacks the features {', '.join(absent)}, which this network needs beside "
            "each image; join a table with galaxy-set pack --table"
        )
    table = {
        name: image_set.features[:, image_set.feature_names.index(name)].astype(np.float64)
        for name in names
    }
    marked, _ = mark_missing(table)
    return np.stack([marked[name] for name in names], axis=1)
