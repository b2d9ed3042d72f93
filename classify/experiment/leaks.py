"""What would make a test image known before it is tested."""

import numpy as np

from galaxies.image_set import SPLITS, ImageSet


def find_leaks(image_set: ImageSet, *, folds: int) -> list[str]:
    """Groups and duplicates that stand on two sides of the split, one sentence each.

    Parameters
    ----------
    folds
        With folds the stored split is not used; groups and exact duplicates are kept whole by
        the folds themselves.
    """
    if folds or image_set.split is None:
        return []
    found = []
    if image_set.group is not None:
        crossing = _crossing(image_set.group.astype(str), image_set.split)
        if len(crossing):
            found.append(f"{len(crossing)} groups stand on several sides, such as {crossing[0]}")
    prints = image_set.fingerprints()
    crossing = _crossing(prints, image_set.split)
    if len(crossing):
        rows = np.flatnonzero(prints == crossing[0])[:2]
        found.append(
            f"{len(crossing)} images stand on several sides as exact duplicates, such as "
            f"{image_set.ids[rows[0]]} ({SPLITS[image_set.split[rows[0]]]}) and "
            f"{image_set.ids[rows[1]]} ({SPLITS[image_set.split[rows[1]]]})"
        )
    return found


def _crossing(keys: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Keys that occur on more than one side."""
    names, place = np.unique(keys, return_inverse=True)
    sides = np.zeros((len(names), len(SPLITS)), dtype=bool)
    sides[place, split] = True
    return names[sides.sum(axis=1) > 1]
