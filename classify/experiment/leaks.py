"""What would make a test image known before it is tested."""

from dataclasses import dataclass

import numpy as np

from galaxies.duplicates import duplicate_groups, leaks
from galaxies.image_set import ImageSet


@dataclass(frozen=True)
class LeakCheck:
    """The leak checks of ``galaxy-set info``, as an experiment uses them.

    Attributes
    ----------
    crossing : tuple of str
        What stands on two sides of the stored split, one sentence each; empty for folds.
    units : (N,) int64
        Number of the unit that folds and borders keep whole: a group, with the duplicates of its
        images.
    """

    crossing: tuple[str, ...]
    units: np.ndarray


def check_leaks(image_set: ImageSet, *, folds: int, progress: bool = True) -> LeakCheck:
    """Look for groups and for exact and near duplicates that cross the split.

    Parameters
    ----------
    folds
        With folds the stored split is not used; the folds keep groups and duplicates whole.
    """
    report = leaks(image_set, progress=progress)
    names = duplicate_groups(image_set, report.pairs)
    units = np.unique(names, return_inverse=True)[1].astype(np.int64)
    crossing = []
    if not folds and report.crossing_groups:
        crossing.append(
            f"{len(report.crossing_groups)} groups stand on several sides of the split, such as "
            f"{report.crossing_groups[0]}"
        )
    if not folds and report.crossing_pairs:
        pair = report.crossing_pairs[0]
        exact = sum(pair.exact for pair in report.crossing_pairs)
        crossing.append(
            f"{len(report.crossing_pairs)} pairs of duplicates ({exact} exact) stand on two sides "
            f"of the split, such as {image_set.ids[pair.first]} and {image_set.ids[pair.second]}"
        )
    return LeakCheck(tuple(crossing), units)
