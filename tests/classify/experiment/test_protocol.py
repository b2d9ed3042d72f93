import dataclasses

import numpy as np
import pytest

from classify.experiment.protocol import (
    cross_fitting_folds,
    data_digest,
    image_units,
    keep_real,
    move_border,
    stored_fold,
)
from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from galaxies.pixels import Stretch


def _units(image_set: ImageSet) -> np.ndarray:
    return image_units(image_set, image_set.fingerprints())


def test_every_image_is_tested_once_by_folds_that_did_not_see_it(blobs: ImageSet) -> None:
    folds = cross_fitting_folds(blobs, _units(blobs), 4, seed=0)
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested) == list(range(len(blobs)))
    for fold in folds:
        sides = [set(fold.train), set(fold.validation), set(fold.test)]
        assert sum(map(len, sides)) == len(set.union(*sides)) == len(blobs)
        counts = [np.bincount(blobs.labels[list(side)], minlength=3) for side in sides]
        assert counts[2].tolist() == [10, 30, 20]
        assert counts[1].tolist() == [6, 18, 12]


def test_groups_and_duplicates_stay_whole(blobs: ImageSet) -> None:
    groups = np.array([f"field-{row // 3}" for row in range(len(blobs))])
    grouped = dataclasses.replace(blobs, group=groups)
    units = _units(grouped)
    twins = grouped.select(np.r_[np.arange(len(grouped)), 0])
    twins = dataclasses.replace(
        twins, ids=np.r_[grouped.ids, ["twin"]], group=np.r_[groups, ["elsewhere"]]
    )
    merged = _units(twins)
    assert merged[-1] == merged[0]
    assert len(np.unique(units)) == len(np.unique(groups))
    for fold in cross_fitting_folds(twins, merged, 4, seed=1):
        for side in (fold.train, fold.validation, fold.test):
            others = np.setdiff1d(np.arange(len(twins)), side)
            assert not set(merged[side]) & set(merged[others])


def test_the_border_moves_only_inside_the_validation_side(blobs: ImageSet) -> None:
    fold = stored_fold(blobs)
    units = _units(blobs)
    borders = [move_border(fold, blobs, units, repeat, seed=0) for repeat in range(6)]
    for train, validation in borders:
        assert set(fold.train) <= set(train)
        assert set(validation) <= set(fold.validation)
        assert not set(train) & set(validation)
        assert set(train) | set(validation) == set(fold.train) | set(fold.validation)
        assert len(validation) == pytest.approx(2 / 3 * len(fold.validation), abs=3)
        assert np.bincount(blobs.labels[validation], minlength=3).min() >= 3
    assert len({tuple(validation) for _, validation in borders}) == 6
    again = move_border(fold, blobs, units, 3, seed=0)
    np.testing.assert_array_equal(again[1], borders[3][1])


def test_a_class_with_few_validation_images_keeps_them(blobs: ImageSet) -> None:
    fold = stored_fold(blobs)
    rare = np.flatnonzero(blobs.labels[fold.validation] == 0)[:3]
    common = np.flatnonzero(blobs.labels[fold.validation] != 0)
    small = dataclasses.replace(fold, validation=fold.validation[np.sort(np.r_[rare, common])])
    _, validation = move_border(small, blobs, _units(blobs), 0, seed=0)
    assert (blobs.labels[validation] == 0).sum() == 3


def test_kept_images_are_nested_and_the_rest_is_held_back(blobs: ImageSet) -> None:
    fold = stored_fold(blobs)
    few, more = (keep_real(fold, blobs, 0, keep, seed=0) for keep in (5, 12))
    own = {keep: set(f.train[blobs.labels[f.train] == 0]) for keep, f in ((5, few), (12, more))}
    assert own[5] < own[12]
    assert len(own[5]) == 5
    assert (blobs.labels[few.held_back] == 0).all()
    assert set(few.held_back) | set(few.train) == set(fold.train)
    with pytest.raises(InputError, match="fewer than the 500 to keep"):
        keep_real(fold, blobs, 0, 500, seed=0)


def test_a_class_too_small_for_the_folds_is_refused_by_name(blobs: ImageSet) -> None:
    with pytest.raises(InputError, match=r"class rare has 40 independent images .* at least 50"):
        cross_fitting_folds(blobs, _units(blobs), 25, seed=0)


def test_a_border_never_parts_copies_even_of_different_classes(blobs: ImageSet) -> None:
    units = _units(blobs)
    fold = stored_fold(blobs)
    rows = fold.validation
    others = rows[blobs.labels[rows] != blobs.labels[rows[0]]]
    units[others[:6]] = units[rows[:6]]  # pairs of copies with different labels
    for repeat in range(5):
        train, validation = move_border(fold, blobs, units, repeat, seed=0)
        assert not np.isin(units[train], units[validation]).any()
        assert len(validation) < len(rows)


def test_folds_with_a_few_copies_are_as_even_as_without(blobs: ImageSet) -> None:
    units = _units(blobs)
    units[1::10] = units[0::10]
    folds = cross_fitting_folds(blobs, units, 4, seed=0)
    for fold in folds:
        assert not np.isin(units[fold.train], units[fold.test]).any()
        assert np.abs(np.bincount(blobs.labels[fold.test]) - [10, 30, 20]).max() <= 1
    tested = np.concatenate([fold.test for fold in folds])
    assert np.array_equal(np.sort(tested), np.arange(len(blobs)))


def test_the_digest_knows_pixels_labels_and_classes(blobs: ImageSet) -> None:
    prints = blobs.fingerprints()
    first = data_digest(blobs, prints)
    assert data_digest(blobs, prints) == first
    other = dataclasses.replace(blobs, class_names=("a", "b", "c"))
    assert data_digest(other, prints) != first
    labels = blobs.labels.copy()
    labels[0] = 1
    assert data_digest(dataclasses.replace(blobs, labels=labels), prints) != first
    assert data_digest(blobs, prints[::-1]) != first


def test_the_digest_knows_features_and_the_stretch_of_flux(blobs: ImageSet) -> None:
    prints = blobs.fingerprints()
    table = np.arange(len(blobs), dtype=np.float32)[:, None]
    kinds = {
        "plain": blobs,
        "features": dataclasses.replace(blobs, features=table, feature_names=("g",)),
        "other values": dataclasses.replace(blobs, features=table + 1, feature_names=("g",)),
        "other name": dataclasses.replace(blobs, features=table, feature_names=("r",)),
        "stretch": dataclasses.replace(blobs, stretch=Stretch(0, 1, 1)),
        "other stretch": dataclasses.replace(blobs, stretch=Stretch(0, 2, 1)),
    }
    assert len({data_digest(images, prints) for images in kinds.values()}) == len(kinds)


def test_the_border_of_a_limited_class_stays(blobs: ImageSet) -> None:
    """With 6 kept images, 9 once trained: a third of the validation side joined them."""
    fold = keep_real(stored_fold(blobs), blobs, 0, 6, seed=0)
    for repeat in range(4):
        train, validation = move_border(fold, blobs, _units(blobs), repeat, seed=0, limited=0)
        assert (blobs.labels[train] == 0).sum() == 6
        assert len(train) > len(fold.train)
        assert set(train) | set(validation) == set(fold.train) | set(fold.validation)


def test_one_duplicate_pair_in_each_of_many_classes(blobs: ImageSet) -> None:
    """Enough pairs for the folds, but no class has one for each."""
    pairs = np.concatenate([np.flatnonzero(blobs.labels == label)[:4] for label in range(3)])
    units = _units(blobs)
    units[pairs[1::2]] = units[pairs[::2]]
    folds = cross_fitting_folds(blobs, units, 5, seed=0)
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested) == list(range(len(blobs)))
    for fold in folds:
        inside = np.isin(units, units[fold.test])
        assert inside.sum() == len(fold.test)
        assert np.bincount(blobs.labels[fold.test], minlength=3).min() >= 6
