"""Splits: the published supports, groups, small classes, and what a file keeps."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from galaxies.allocation import side_counts
from galaxies.catalogue import CatalogueColumns
from galaxies.errors import InputError
from galaxies.hdf5 import read_hdf5, write_hdf5
from galaxies.sources import open_image_set
from galaxies.split import split_groups, split_labels, split_rest, split_set, store_split

DECALS_COUNTS = np.array([1081, 1853, 2645, 2027, 334, 2043, 1829, 2628, 1423, 1873])
DECALS_SUPPORTS = [216, 371, 529, 405, 67, 409, 366, 526, 284, 375]


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_eighty_twenty_of_decals_has_the_published_supports(seed):
    labels = np.repeat(np.arange(10), DECALS_COUNTS)
    rng = np.random.default_rng(seed)
    names = tuple("abcdefghij")
    split = split_labels(labels, names, (0.8, 0.0, 0.2), rng)
    assert np.bincount(labels[split == 2]).tolist() == DECALS_SUPPORTS
    assert not (split == 1).any()


def test_rounding_agrees_with_scikit_learn():
    from sklearn.model_selection import StratifiedShuffleSplit

    labels = np.repeat(np.arange(10), DECALS_COUNTS)
    splitter = StratifiedShuffleSplit(1, test_size=0.25, random_state=3)
    _, test = next(splitter.split(labels, labels))
    ours = side_counts(DECALS_COUNTS, (0.6, 0.15, 0.25))
    assert ours[:, 2].tolist() == np.bincount(labels[test]).tolist()


@given(
    counts=st.lists(st.integers(3, 500), min_size=1, max_size=12),
    parts=st.tuples(*[st.integers(1, 20)] * 3),
)
def test_sides_add_up_and_none_is_empty(counts, parts):
    counts = np.array(counts)
    fractions = tuple(part / sum(parts) for part in parts)
    table = side_counts(counts, fractions)
    assert (table.sum(axis=1) == counts).all()
    assert (table >= 1).all()
    exact = np.outer(counts, fractions)
    # Largest remainder moves a count by less than one per rounding, and a class of three or four
    # may give one more to a side that would be empty.
    assert np.abs(table - exact).max() < 3


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 25)), min_size=60, max_size=200),
    st.integers(0, 5),
)
@settings(max_examples=30, deadline=None)
def test_no_group_stands_on_two_sides(items, seed):
    labels, groups = np.array(items).T
    assume(all(len(set(groups[labels == label])) >= 3 for label in np.unique(labels)))
    rng = np.random.default_rng(seed)
    try:
        split = split_groups(labels, ("a", "b", "c"), (0.6, 0.15, 0.25), rng, groups)
    except InputError:  # small sets may have no such split, and that is said
        return
    for group in np.unique(groups):
        assert len(set(split[groups == group])) == 1
    for label in np.unique(labels):
        assert set(split[labels == label]) == {0, 1, 2}


def test_grouped_split_comes_near_to_the_fractions(rng):
    groups = rng.integers(0, 60, 3000)
    labels = (rng.random(3000) < 0.2 + 0.1 * (groups % 3)).astype(int)
    split = split_groups(labels, ("a", "b"), (0.6, 0.15, 0.25), rng, groups)
    for label in (0, 1):
        shares = np.bincount(split[labels == label], minlength=3) / (labels == label).sum()
        assert np.abs(shares - [0.6, 0.15, 0.25]).max() < 0.03


def test_many_groups_are_split_in_seconds(rng):
    groups = rng.integers(0, 8000, 20000)
    split = split_groups(
        rng.integers(0, 10, 20000), tuple("abcdefghij"), (0.6, 0.15, 0.25), rng, groups
    )
    assert np.abs(np.bincount(split) / 20000 - [0.6, 0.15, 0.25]).max() < 0.01


def test_same_seed_same_split_and_other_seed_another(tiny_set):
    first, again, other = (split_set(tiny_set, seed=seed).split for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_a_class_too_small_for_every_side_is_named(tiny_set):
    rows = np.concatenate([np.flatnonzero(tiny_set.labels != 0), [0, 1]])
    small = tiny_set.select(rows)
    with pytest.raises(InputError, match=rf"class '{tiny_set.class_names[0]}' has 2 images, too"):
        split_set(small)
    assert (np.bincount(split_set(small, (0.5, 0, 0.5)).split, minlength=3) > 0).sum() == 2


def test_a_class_in_too_few_groups_is_named(tiny_set):
    group = np.where(tiny_set.labels == 1, "one", tiny_set.ids)
    grouped = dataclasses.replace(tiny_set, group=group)
    with pytest.raises(InputError, match="stands in 1 group, too few for 3 sides"):
        split_set(grouped)


@pytest.mark.parametrize(
    ("fractions", "complaint"),
    [
        ((0.5, 0.2, 0.2), "sum to 0.9"),
        ((0.0, 0.5, 0.5), "train above 0"),
        ((1.2, -0.1, -0.1), "0 to 1"),
        ((0.5, 0.5), "three fractions"),
    ],
)
def test_wrong_fractions_are_refused(tiny_set, fractions, complaint):
    with pytest.raises(InputError, match=complaint):
        split_set(tiny_set, fractions)


def test_stored_split_is_replaced_only_when_asked(tiny_set, tmp_path):
    path = tmp_path / "set.h5"
    write_hdf5(dataclasses.replace(tiny_set, split=None), path)
    stored = store_split(path, seed=5)
    assert (stored.split == split_set(tiny_set, seed=5).split).all()
    with pytest.raises(InputError, match="holds a split already; pass --overwrite"):
        store_split(path, seed=6)
    again = store_split(path, seed=6, overwrite=True)
    assert (again.split != stored.split).any()
    assert (again.pixels == tiny_set.pixels).all()


def test_other_columns_of_the_file_survive(tiny_set, tmp_path):
    path = tmp_path / "set.h5"
    write_hdf5(dataclasses.replace(tiny_set, split=None), path)
    with h5py.File(path, "a") as file:
        file["redshift"] = np.linspace(0, 1, len(tiny_set))
        file["plate"] = np.arange(len(tiny_set)) // 4
    split = store_split(path, group="plate").split
    assert all(len(set(split[row : row + 4])) == 1 for row in range(0, len(split), 4))
    with h5py.File(path) as file:
        assert file["redshift"].shape == (len(tiny_set),)
    with pytest.raises(InputError, match=r"no column 'field' to group by; it has: .*plate"):
        store_split(path, group="field", overwrite=True)


def test_published_test_side_is_kept(tiny_set, tmp_path):
    published = np.where(tiny_set.split == 2, 2, 0).astype(np.int8)
    path = tmp_path / "set.h5"
    write_hdf5(dataclasses.replace(tiny_set, split=published), path)
    stored = store_split(path, (0.8, 0.2, 0.0), keep_test=True)
    assert ((stored.split == 2) == (published == 2)).all()
    assert (stored.split == 1).sum() == round(0.2 * (published == 0).sum())
    with pytest.raises(InputError, match="no test side to keep"):
        split_rest(dataclasses.replace(tiny_set, split=None))


def test_a_crash_leaves_the_old_file(tiny_set, tmp_path, monkeypatch):
    path = tmp_path / "set.h5"
    write_hdf5(dataclasses.replace(tiny_set, split=None), path)
    before = path.read_bytes()

    def crash(*_: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr("galaxies.split.write_columns", crash)
    with pytest.raises(RuntimeError):
        store_split(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["set.h5"]
    assert read_hdf5(path).split is None


def test_fields_that_stay_together_share_no_cut_outs(real_data):
    """Files of aries are named EXPOSURE_ROW_COLUMN_NUMBER; nearer than 64 pixels they overlap."""
    folder = real_data("data/aries")
    whole = open_image_set(folder, columns=CatalogueColumns(group="field"))

    def overlapping(image_set):
        places = [Path(name).stem.rsplit("_", 3) for name in image_set.ids]
        exposures = np.array([place[0] for place in places])
        position = np.array([[int(value) for value in place[1:3]] for place in places])
        train, test = image_set.split == 0, image_set.split == 2
        found = 0
        for exposure in np.unique(exposures):
            here = exposures == exposure
            gaps = np.abs(position[here & test][:, None] - position[here & train][None])
            found += int((gaps.max(axis=2) < 64).any(axis=1).sum()) if gaps.size else 0
        return found, int(test.sum())

    assert overlapping(split_set(whole, (0.8, 0, 0.2), seed=0))[0] == 0
    careless, count = overlapping(
        split_set(dataclasses.replace(whole, group=None), (0.8, 0, 0.2), seed=0)
    )
    assert careless > 0.4 * count


def test_an_image_without_a_group_is_a_group_of_its_own(tmp_path, galaxy_set):
    count = 60
    night = np.where(np.arange(count) < 40, np.nan, np.arange(count) // 5)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["images"] = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones(
            (1, 8, 8, 1), np.uint8
        )
        file["ans"] = np.arange(count) % 2
        file["night"] = night
    status, _, error = galaxy_set("split", tmp_path / "s.h5", "--group", "night")
    assert status == 0, error
    assert "column 'night' is empty in 40 rows; each of them is a group of its own" in error
    packed = read_hdf5(tmp_path / "s.h5")
    assert len(set(packed.split[:40])) == 3
    for value in np.unique(night[40:]):
        assert len(set(packed.split[night == value])) == 1
