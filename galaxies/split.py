"""Train, validation and test: stratified by class, whole groups on one side, the same by seed.

Without groups the counts are rounded as scikit-learn's ``StratifiedShuffleSplit`` rounds them
(largest remainder), so supports agree with published 80/20 splits. With groups the counts come
as near to the fractions as whole groups allow.
"""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from galaxies.allocation import joined_units, split_groups, split_labels
from galaxies.arrays import as_strings, groups_of_column, image_name, label_name
from galaxies.atomic import whole_file
from galaxies.command_line import warn
from galaxies.errors import InputError
from galaxies.hdf5 import HDF5_ENDINGS, read_hdf5, write_columns
from galaxies.hdf5_file import writable_hdf5
from galaxies.image_set import SPLITS, ImageSet

__all__ = [
    "DEFAULT_FRACTIONS",
    "split_groups",
    "split_labels",
    "split_rest",
    "split_set",
    "store_split",
    "with_split",
]

DEFAULT_FRACTIONS = (0.6, 0.15, 0.25)

_TEST = SPLITS.index("test")


def with_split(image_set: ImageSet) -> ImageSet:
    """Keep a stored split; otherwise make the default one with seed 0, and say so."""
    if image_set.split is not None:
        return image_set
    by_group = "" if image_set.group is None else ", whole groups on one side"
    warn(
        "the set has no split; using the default one (train {}, validation {}, test {}, seed 0{}); "
        "store one with: galaxy-set split SET.h5".format(*DEFAULT_FRACTIONS, by_group)
    )
    return split_set(image_set)


def split_set(
    image_set: ImageSet,
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    seed: int = 0,
) -> ImageSet:
    """Give every image a side; a stored split is replaced.

    Parameters
    ----------
    image_set
        Its ``group``, where it has one, is honoured: no group stands on two sides.
    fractions
        Of train, validation and test, summing to 1; validation or test may be 0.
    seed
        The same seed, labels and groups give the same split.

    Returns
    -------
    ImageSet
        The same images with ``split`` and a note in ``provenance["split"]``.

    Raises
    ------
    InputError
        If a class cannot stand on every side that has a fraction: says which and why.
    """
    fractions = _checked_fractions(fractions)
    arguments = (image_set.labels, image_set.class_names, fractions, np.random.default_rng(seed))
    if image_set.group is None:
        split = split_labels(*arguments)
    else:
        split = split_groups(*arguments, image_set.group)
    note = {
        "fractions": list(fractions),
        "seed": seed,
        "grouped": image_set.group is not None,
    }
    return dataclasses.replace(
        image_set, split=split, provenance=image_set.provenance | {"split": note}
    )


def split_rest(
    image_set: ImageSet, fractions: Sequence[float] = DEFAULT_FRACTIONS, seed: int = 0
) -> ImageSet:
    """Keep a published test side and split the rest into train and validation.

    Raises
    ------
    InputError
        If there is no test side to keep, or a group stands on it and on the rest.
    """
    train, validation, _ = _checked_fractions(fractions)
    if image_set.split is None or not (image_set.split == _TEST).any():
        raise InputError("the set holds no test side to keep; leave out --keep-test")
    rest = np.flatnonzero(image_set.split != _TEST)
    if image_set.group is not None:
        shared = set(image_set.group[rest]) & set(image_set.group[image_set.split == _TEST])
        if shared:
            raise InputError(
                f"{len(shared)} groups (or duplicates) stand on the test side and on the rest, "
                f"such as {min(shared)}; split anew without --keep-test"
            )
    share = train / (train + validation)
    parts = split_set(image_set.select(rest), (share, 1 - share, 0), seed)
    split = image_set.split.copy()
    assert parts.split is not None
    split[rest] = parts.split
    note = parts.provenance["split"] | {"kept_test": True}
    return dataclasses.replace(
        image_set, split=split, provenance=image_set.provenance | {"split": note}
    )


def store_split(
    path: Path,
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    *,
    seed: int = 0,
    group: str | None = None,
    keep_test: bool = False,
    duplicates_together: bool = False,
    overwrite: bool = False,
) -> ImageSet:
    """Split a packed file and store the split in it; a crash leaves the file as it was.

    Parameters
    ----------
    path
        Packed HDF5 file.
    fractions, seed
        See `split_set`.
    group
        Column whose equal values stay together: the group column the file was packed with, a
        feature, or a dataset (N,) of the file. ``None`` honours the file's groups, if any.
    keep_test
        Keep the test side that the file holds, and split the rest into train and validation in
        the proportion of their fractions.
    duplicates_together
        Keep exact and near duplicates on one side, as if they were a group.
    overwrite
        Replace a split that the file holds.

    Returns
    -------
    ImageSet
        The set as the file now holds it.

    Raises
    ------
    InputError
        If the file is not a packed set, is split already, or cannot be split so.
    """
    if path.is_dir() or (path.exists() and path.suffix.lower() not in HDF5_ENDINGS):
        raise InputError(
            f"{path} is not an HDF5 file, which a split is stored in; pack it first with: "
            f"galaxy-set pack {path} OUT.h5"
        )
    image_set = read_hdf5(path)
    if not len(image_set):
        raise InputError(f"{path} holds no image")
    if image_set.split is not None and not overwrite and not keep_test:
        raise InputError(f"{path} holds a split already; pass --overwrite to replace it")
    kept_group = image_set.group
    if group is not None:
        named = read_column(path, image_set, group)
        if kept_group is None:
            kept_group = named
            image_set = dataclasses.replace(image_set, group=named)
        else:  # what the file holds counts as well, and stays in it
            joined = joined_units(kept_group, named).astype(str)
            image_set = dataclasses.replace(image_set, group=joined)
    if duplicates_together:
        from galaxies.duplicates import duplicate_groups, leaks

        together = duplicate_groups(image_set, leaks(image_set).pairs)
        image_set = dataclasses.replace(image_set, group=together)
    if keep_test:
        image_set = split_rest(image_set, fractions, seed)
    else:
        image_set = split_set(image_set, fractions, seed)
    image_set = dataclasses.replace(image_set, group=kept_group)
    with whole_file(path, overwrite=True) as temporary:
        shutil.copyfile(path, temporary)
        with writable_hdf5(temporary, "r+") as file:
            write_columns(file, image_set)
    return read_hdf5(path)


def read_column(path: Path, image_set: ImageSet, name: str) -> np.ndarray:
    """Return (N,) str: a column of a packed file by the name that its catalogue gave it.

    Raises
    ------
    InputError
        If there is no such column; lists those that exist.
    """
    packed_as = image_set.provenance.get("packed", {}).get("group_column")
    if image_set.group is not None and name in ("group", packed_as):
        return image_set.group
    if name in image_set.feature_names:
        values = image_set.features[:, image_set.feature_names.index(name)].astype(str)
        return groups_of_column(values, image_set.ids, name)
    with h5py.File(path, "r") as file:
        columns = [
            key
            for key, values in file.items()
            if isinstance(values, h5py.Dataset)
            and values.shape == (len(image_set),)
            and key not in ("ids", "split", label_name(file, image_name(file) or ""))
        ]
        if name in columns:
            return groups_of_column(as_strings(file[name][:]), image_set.ids, name)
    group_column = [packed_as or "group"] if image_set.group is not None else []
    known = dict.fromkeys([*group_column, *image_set.feature_names, *columns])
    raise InputError(
        f"{path} has no column {name!r} to group by; it has: {', '.join(known) or 'none'} "
        "(a column of a CSV is kept with: galaxy-set pack --group COLUMN)"
    )


def _checked_fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
    listed = " ".join(f"{value:g}" for value in fractions)
    if len(fractions) != 3:
        raise InputError(f"three fractions are needed (train validation test), got {listed}")
    train, validation, test = (float(value) for value in fractions)
    if not all(0 <= value <= 1 for value in (train, validation, test)) or train == 0:
        raise InputError(f"fractions must lie in 0 to 1, and train above 0, got {listed}")
    if abs(train + validation + test - 1) > 1e-6:
        raise InputError(f"fractions must sum to 1, {listed} sum to {sum(fractions):g}")
    return train, validation, test
