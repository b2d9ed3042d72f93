"""Which images train, choose and test in each fold and repeat; no generator sees a tested one.

Every fold has three sides. *Train* feeds generators and classifiers. *Validation* chooses
checkpoints, doses and thresholds; no generator sees it, because a threshold chosen on images
that a generator copied would be too low and favour that generator's arm. *Test* is read once.

Between repeats the border moves inside the images that no generator saw: each repeat keeps a
random part of the fold's validation side for choices (two thirds of each class, or more where
groups must stay whole) and trains on the rest as well.
"""

import hashlib
import warnings
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from classify.determinism import derived_seed, numpy_generator_for
from galaxies.allocation import joined_units
from galaxies.errors import InputError
from galaxies.image_set import ImageSet


class LabelledItems(Protocol):
    """What folds must know of images or of the rows of a table."""

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64 class index."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class."""

    @property
    def split(self) -> np.ndarray | None:
        """(N,) int8: 0 train, 1 validation, 2 test."""


VALIDATION_KEPT = 2 / 3
"""Share of the validation side that a repeat chooses on; the rest joins its training."""

FEWEST_TO_CHOOSE = 3
"""A class with fewer validation images (or groups) than this keeps them all for choosing."""

VALIDATION_SHARE = 0.2
"""Share of a fold's images outside its test side that becomes its validation side."""


@dataclass(frozen=True)
class Fold:
    """One division of the images.

    Attributes
    ----------
    index : int
    train, validation, test : (n,) int64
        Rows of the image set, sorted.
    held_back : (n,) int64
        Rows of the class that stand on no side: real images for ``real@dose``.
    """

    index: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    held_back: np.ndarray


def stored_fold(items: LabelledItems) -> Fold:
    """The one fold that is the set's own split."""
    if items.split is None:
        raise InputError("the set has no split yet; make one with: galaxy-set split SET.h5")
    train, validation, test = (np.flatnonzero(items.split == side) for side in range(3))
    return Fold(0, train, validation, test, np.zeros(0, np.int64))


def cross_fitting_folds(
    items: LabelledItems, units: np.ndarray, folds: int, seed: int, noun: str = "images"
) -> list[Fold]:
    """Divide all images into folds, stratified by class, so that each is tested once.

    Groups stay whole, and so do exact duplicates. Within the images outside a fold's test side
    a fifth becomes its validation side, by the same rules.

    Parameters
    ----------
    units
        (N,) from `image_units`.
    folds
        At least 2.
    noun
        What the items are called in an error.

    Raises
    ------
    InputError
        If some class has fewer images or groups than a fold needs.
    """
    _refuse_small_classes(items, units, folds, noun)
    test_fold = _stratified(items.labels, units, folds, derived_seed(seed, "folds"))
    result = []
    for index in range(folds):
        test = np.flatnonzero(test_fold == index)
        rest = np.flatnonzero(test_fold != index)
        inner = _stratified(
            items.labels[rest],
            units[rest],
            round(1 / VALIDATION_SHARE),
            derived_seed(seed, "validation", index),
        )
        validation, train = rest[inner == 0], rest[inner != 0]
        result.append(Fold(index, train, validation, test, np.zeros(0, np.int64)))
    return result


def keep_real(fold: Fold, items: LabelledItems, class_index: int, keep: int, seed: int) -> Fold:
    """Leave ``keep`` images of a class on the training side and hold the others back.

    The kept ones of a smaller ``keep`` are among those of a greater one.
    """
    own = fold.train[items.labels[fold.train] == class_index]
    if keep > len(own):
        raise InputError(
            f"fold {fold.index} has {len(own)} training items of "
            f"{items.class_names[class_index]}, fewer than the {keep} to keep"
        )
    order = numpy_generator_for(seed, "kept real images", fold.index).permutation(own)
    held_back = np.sort(order[keep:])
    train = np.setdiff1d(fold.train, held_back)
    return Fold(fold.index, train, fold.validation, fold.test, held_back)


def move_border(
    fold: Fold,
    items: LabelledItems,
    units: np.ndarray,
    repeat: int,
    seed: int,
    *,
    limited: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(training rows, validation rows) of one repeat, sorted; ``units`` from `image_units`.

    The border of the class ``limited`` stays: it trains on as many images as were kept.
    """
    random = numpy_generator_for(seed, f"border of fold {fold.index}", repeat)
    rows = fold.validation
    units = units[rows]
    labels = items.labels[rows]
    to_train = np.zeros(len(rows), dtype=bool)
    for label in np.unique(labels):
        own = np.unique(units[labels == label])
        movable = int(np.floor(len(own) * (1 - VALIDATION_KEPT) + 1e-9))
        if len(own) - movable < FEWEST_TO_CHOOSE:
            continue
        moved = random.permutation(own)[:movable]
        # A group that holds several classes follows the first of them that moves it.
        to_train |= np.isin(units, moved) & (labels == label)
    if limited is not None:
        to_train &= ~np.isin(units, units[labels == limited])
    if len(np.unique(units)) < len(units):
        to_train = _whole_groups(to_train, units, labels)
    train = np.sort(np.concatenate((fold.train, rows[to_train])))
    return train, rows[~to_train]


def rows_digest(rows: np.ndarray) -> str:
    """Short hash of a set of rows."""
    return hashlib.sha256(np.sort(rows).astype("<i8").tobytes()).hexdigest()[:16]


def data_digest(image_set: ImageSet, fingerprints: np.ndarray) -> str:
    """Hash of all that a run can learn from a set.

    Pixels, labels, class names, ids, groups; where a set has them also its features, those that
    were joined although they give the class away, and the stretch of its flux.
    """
    digest = hashlib.sha256()
    digest.update("\n".join(fingerprints.tolist()).encode())
    digest.update(image_set.labels.astype("<i8").tobytes())
    digest.update(repr((image_set.class_names, image_set.mirror_pairs)).encode())
    digest.update("\n".join(image_set.ids.astype(str).tolist()).encode())
    if image_set.group is not None:
        digest.update("\n".join(image_set.group.astype(str).tolist()).encode())
    if image_set.feature_names:
        allowed = image_set.provenance.get("joined_table", {}).get("allowed", [])
        digest.update(repr((image_set.feature_names, sorted(allowed))).encode())
        digest.update(image_set.features.astype("<f4").tobytes())
    if image_set.stretch is not None:
        digest.update(repr(image_set.stretch).encode())
    return digest.hexdigest()[:32]


def image_units(image_set: ImageSet, fingerprints: np.ndarray) -> np.ndarray:
    """(N,) int64 number of the unit that may not be parted: the group, or equal pixels."""
    groups = image_set.ids if image_set.group is None else image_set.group
    return joined_units(groups.astype(str), fingerprints)


def _stratified(labels: np.ndarray, units: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(n,) fold of each item: units whole, classes spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    random_state = seed % 2**32
    result = np.full(len(labels), -1)
    _, unit_of, members = np.unique(units, return_inverse=True, return_counts=True)
    shared = members[unit_of] > 1
    if not shared.any():
        splitter = StratifiedKFold(folds, shuffle=True, random_state=random_state)
        for index, (_, own) in enumerate(splitter.split(labels, labels)):
            result[own] = index
        return result
    random = np.random.default_rng(random_state)
    rows = np.flatnonzero(shared)
    # The splitter needs a class with a member for every fold.
    if len(np.unique(unit_of[rows])) < folds or np.bincount(labels[rows]).max() < folds:
        places = {unit: random.integers(folds) for unit in np.unique(unit_of[rows])}
        result[rows] = [places[unit] for unit in unit_of[rows]]
    else:  # its cost grows with the number of units, so it sees only those that need it
        grouped = StratifiedGroupKFold(folds, shuffle=True, random_state=random_state)
        with warnings.catch_warnings():  # most classes have few shared units, and that is fine
            warnings.filterwarnings("ignore", "The least populated class")
            sides = list(grouped.split(rows, labels[rows], unit_of[rows]))
        for index, (_, own) in enumerate(sides):
            result[rows[own]] = index
    for label in np.unique(labels[~shared]):
        counts = np.bincount(result[shared & (labels == label)], minlength=folds)
        for row in random.permutation(np.flatnonzero(~shared & (labels == label))):
            emptiest = random.permutation(np.flatnonzero(counts == counts.min()))[0]
            result[row] = emptiest
            counts[emptiest] += 1
    return result


def _refuse_small_classes(items: LabelledItems, units: np.ndarray, folds: int, noun: str) -> None:
    if folds < 2:
        raise InputError(f"--folds must be at least 2, got {folds}")
    for index, name in enumerate(items.class_names):
        own = len(np.unique(units[items.labels == index]))
        if 0 < own < 2 * folds:
            raise InputError(
                f"class {name} has {own} independent {noun} (groups and duplicates count once); "
                f"--folds {folds} needs at least {2 * folds}"
            )


def _whole_groups(to_train: np.ndarray, units: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Move whole groups, as long as every class keeps `FEWEST_TO_CHOOSE` images."""
    moved = np.zeros_like(to_train)
    for unit in np.unique(units[to_train]):
        trial = moved | (units == unit)
        left = np.bincount(labels[~trial], minlength=labels.max() + 1)
        present = np.bincount(labels, minlength=labels.max() + 1) > 0
        few = (left < FEWEST_TO_CHOOSE) & present
        if trial.mean() <= 1 - VALIDATION_KEPT + 0.05 and not few.any():
            moved = trial
    return moved
