"""A table of sources: features, classes, a split, and where each column came from or went.

What an `ImageSet` is to images, a `Table` is to photometry alone: the same names for the same
things, so the same split, metrics and experiment serve both.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from galaxies.allocation import joined_units, split_groups, split_labels
from galaxies.arrays import groups_of_column
from galaxies.class_names import class_index, class_order
from galaxies.command_line import warn
from galaxies.errors import InputError
from galaxies.hdf5 import ordinal_ids
from galaxies.image_set import SPLITS
from galaxies.split import DEFAULT_FRACTIONS
from galaxies.table_columns import (
    CLASS_COLUMNS,
    colours,
    mark_missing,
    values_of_one_class,
    why_left_out,
)
from galaxies.table_files import Columns, read_columns

ID_COLUMNS = ("id", "objid", "source_id", "object_id", "specobjid", "obj_ID")

HOLDS_NO_VALUE = "holds no value"
"""Why `read_table` leaves out a column in which no row has a value."""


@dataclass(frozen=True)
class TableColumns:
    """Which columns play which part; ``None`` finds one by its name.

    Attributes
    ----------
    label, id, group, split : str or None
    features : tuple of str
        Only these; empty means every numeric column that is a measurement.
    exclude : tuple of str
        Never these.
    allow : tuple of str
        Use these although they give the class away, name a row or a place.
    colours : bool
        Add differences of neighbouring magnitudes.
    """

    label: str | None = None
    id: str | None = None
    group: str | None = None
    split: str | None = None
    features: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    colours: bool = False


@dataclass(frozen=True)
class Table:
    """Labelled rows of numbers.

    Attributes
    ----------
    features : (N, F) float64
        NaN where nothing was measured.
    feature_names : tuple of str
    labels : (N,) int64 or None
        Class index; ``None`` where the table has no classes.
    class_names : tuple of str
    ids : (N,) str
    split : (N,) int8 or None
        0 train, 1 validation, 2 test.
    group : (N,) str or None
        Rows of one group never stand on two sides of a split.
    provenance : dict
        Source, its sha256, columns left out and why, missing values per column.
    """

    features: np.ndarray
    feature_names: tuple[str, ...]
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    ids: np.ndarray
    split: np.ndarray | None = None
    group: np.ndarray | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("labels", "ids", "split", "group"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self.features):
                raise InputError(f"{len(self.features)} rows but {len(column)} {name}")
        if self.features.shape[1] != len(self.feature_names):
            raise InputError(
                f"{self.features.shape[1]} feature columns, {len(self.feature_names)} names"
            )

    def __len__(self) -> int:
        return len(self.features)

    @property
    def known_labels(self) -> np.ndarray:
        """(N,) int64 labels.

        Raises
        ------
        InputError
            If the table has no classes.
        """
        if self.labels is None:
            raise InputError("the table has no column of classes; name one with --class-column")
        return self.labels

    def counts(self) -> np.ndarray:
        """Return (classes,) int64: rows per class."""
        return np.bincount(self.known_labels, minlength=len(self.class_names))

    def column(self, name: str) -> np.ndarray:
        """(N,) values of one feature."""
        if name not in self.feature_names:
            raise InputError(
                f"there is no column {name!r}; the features are: {', '.join(self.feature_names)}"
            )
        return self.features[:, self.feature_names.index(name)]

    def select(self, rows: np.ndarray) -> "Table":
        """The given rows (int64 or bool), in that order."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)

        def of(column: np.ndarray | None) -> np.ndarray | None:
            return None if column is None else column[rows]

        return dataclasses.replace(
            self,
            features=self.features[rows],
            labels=of(self.labels),
            ids=self.ids[rows],
            split=of(self.split),
            group=of(self.group),
        )

    def side(self, name: str) -> "Table":
        """The rows of one side of the split: ``train``, ``validation`` or ``test``."""
        if name not in SPLITS:
            raise InputError(f"there is no split {name!r}; choose from {', '.join(SPLITS)}")
        if self.split is None:
            raise InputError("the table is not split yet")
        rows = np.flatnonzero(self.split == SPLITS.index(name))
        if len(rows) == 0:
            raise InputError(f"the {name} side of the split holds no row")
        return self.select(rows)

    def without_classes(self, names: Sequence[str]) -> "Table":
        """Leave classes out, given by name or index as `galaxies.class_names.class_index` does.

        The others are numbered anew, in their order.
        """
        dropped = {class_index(name, self.class_names) for name in names}
        kept = [k for k in range(len(self.class_names)) if k not in dropped]
        if not kept:
            raise InputError("every class is left out; nothing remains")
        number = np.full(len(self.class_names), -1)
        number[kept] = np.arange(len(kept))
        rest = self.select(np.isin(self.known_labels, kept))
        return dataclasses.replace(
            rest,
            labels=number[rest.known_labels],
            class_names=tuple(self.class_names[k] for k in kept),
        )

    def fingerprint(self) -> str:
        """Sha256 over features, labels and names; the order of the rows counts."""
        digest = hashlib.sha256(repr((self.feature_names, self.class_names)).encode())
        digest.update(np.ascontiguousarray(self.features).tobytes())
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels).tobytes())
        return digest.hexdigest()


def split_table(
    table: Table, fractions: Sequence[float] = DEFAULT_FRACTIONS, seed: int = 0
) -> Table:
    """Give every row a side: stratified by class, whole groups and identical rows together."""
    parts = (float(fractions[0]), float(fractions[1]), float(fractions[2]))
    if len(fractions) != 3 or min(parts) < 0 or abs(sum(parts) - 1) > 1e-6:
        raise InputError(f"fractions of train, validation and test must sum to 1, got {fractions}")
    rng = np.random.default_rng(seed)
    labels = table.known_labels
    units = row_units(table)
    whole = len(np.unique(units))
    groups = table.group
    if groups is None or whole < len(np.unique(groups)):
        groups = units.astype(str) if whole < len(table) else None
    if groups is None:
        split = split_labels(labels, table.class_names, parts, rng, noun="rows")
    else:
        split = split_groups(labels, table.class_names, parts, rng, groups)
    return dataclasses.replace(table, split=split)


def identical_rows(table: Table) -> np.ndarray:
    """(N,) int64 number of each distinct row of features: equal where rows are copies."""
    # Rows as bytes: NaN equals NaN there, so copies with missing values are found too.
    same_bits = np.where(np.isnan(table.features), np.nan, table.features + 0.0)
    rows = np.ascontiguousarray(same_bits).view(f"V{8 * same_bits.shape[1]}").reshape(-1)
    return np.unique(rows, return_inverse=True)[1].reshape(-1).astype(np.int64)


def row_units(table: Table) -> np.ndarray:
    """(N,) int64 number of what may not be parted: a group with the copies of its rows."""
    copies = identical_rows(table)
    return copies if table.group is None else joined_units(table.group, copies)


def with_table_split(table: Table) -> Table:
    """Keep a published split; otherwise make the default one with seed 0, and say so."""
    if table.split is not None:
        return table
    warn(
        "the table has no split; using the default one (train {}, validation {}, test {}, "
        "seed 0)".format(*DEFAULT_FRACTIONS)
    )
    return split_table(table)


def read_table(
    path: Path | str, columns: TableColumns | None = None, *, labelled: bool = True
) -> Table:
    """Read a table and decide which of its columns are features.

    Columns that give the class away, name a row, or say where it lies are left out, named in
    ``provenance["left_out"]`` and on stderr.

    Parameters
    ----------
    path
        CSV, Parquet, FITS table or .npz.
    labelled
        Whether a column of classes is needed; else one is read only where it was named.

    Raises
    ------
    InputError
        If a named column does not exist, is no number, or gives the class away and was not
        allowed; if no feature is left.
    """
    path, wanted = Path(path), columns or TableColumns()
    raw = read_columns(path)
    for flag, names in (
        ("--columns", wanted.features),
        ("--exclude-column", wanted.exclude),
        ("--allow-column", wanted.allow),
        ("--class-column", (wanted.label,)),
        ("--id-column", (wanted.id,)),
        ("--group-column", (wanted.group,)),
        ("--split-column", (wanted.split,)),
    ):
        absent = [name for name in names if name is not None and name not in raw]
        if absent:
            raise InputError(
                f"{path} has no column {', '.join(map(repr, absent))} ({flag}); it has: "
                f"{', '.join(raw)}"
            )
    label_column = wanted.label or next((name for name in CLASS_COLUMNS if name in raw), None)
    if labelled and label_column is None:
        raise InputError(
            f"{path} has no column of classes (looked for {', '.join(CLASS_COLUMNS)}); name it "
            "with --class-column"
        )
    id_column = wanted.id or _unique_id(raw)
    split_column = wanted.split or ("split" if "split" in raw else None)
    group_column = wanted.group or ("group" if "group" in raw else None)
    parts = {label_column, split_column, group_column, wanted.id} - set(wanted.allow)
    numeric, left_out = _choose_features(path, raw, parts, wanted)
    marked, missing = mark_missing(numeric)
    if wanted.colours:
        built = colours(marked)
        if not built:
            raise InputError(
                f"{path}: no two magnitudes of one system were found to build colours from "
                f"(columns: {', '.join(marked)})"
            )
        marked |= {name: values for name, values in built.items() if name not in marked}
    empty = [name for name, values in marked.items() if np.isnan(values).all()]
    left_out |= dict.fromkeys(empty, HOLDS_NO_VALUE)
    names = tuple(name for name in marked if name not in empty)
    if not names:
        raise InputError(f"{path}: no feature is left ({_in_words(left_out)})")
    if left_out:
        warn(f"{path}: left out {_in_words(left_out)}; force one with --allow-column COLUMN")
    read_labels = label_column is not None and (labelled or wanted.label is not None)
    labels, class_names = _labels(path, raw, str(label_column)) if read_labels else (None, ())
    features = np.stack([marked[name] for name in names], axis=1)
    if labels is not None:
        warn_of_values_of_one_class(path, features, names, labels, "--exclude-column")
    ids = _as_names(raw[id_column]) if id_column else ordinal_ids(len(next(iter(raw.values()))))
    return Table(
        features=features,
        feature_names=names,
        labels=labels,
        class_names=class_names,
        ids=ids,
        split=_sides(path, raw[split_column]) if split_column else None,
        group=groups_of_column(_as_names(raw[group_column]), ids, group_column)
        if group_column
        else None,
        provenance={
            "source": str(path),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "left_out": left_out,
            "missing": missing,
            "class_column": label_column,
            "id_column": id_column,
            "colours": wanted.colours,
            "measured": list(numeric),
        },
    )


def warn_of_values_of_one_class(
    path: Path | str, features: np.ndarray, names: Sequence[str], labels: np.ndarray, flag: str
) -> None:
    """Warn of columns that `values_of_one_class` finds; ``flag`` leaves a column out."""
    telling = values_of_one_class(features, names, labels)
    if telling:
        warn(
            f"{path}: each value of {', '.join(telling)} occurs in one class only; if such a "
            f"column was made from the classes it gives them away, leave it out with {flag} COLUMN"
        )


def _choose_features(
    path: Path, raw: Columns, parts: set[str | None], wanted: TableColumns
) -> tuple[Columns, dict[str, str]]:
    numeric: Columns = {}
    left_out: dict[str, str] = {}
    names = tuple(raw)
    for name in wanted.features or names:
        if name in wanted.exclude or (name in parts and name not in wanted.allow):
            continue
        reason = None if name in wanted.allow else why_left_out(name, names)
        if raw[name].dtype.kind != "f":
            if wanted.features:
                raise InputError(f"{path}: column {name!r} holds text, a feature holds numbers")
            reason = reason or "text"
        if reason and wanted.features:
            raise InputError(
                f"{path}: column {name!r} is no feature: {reason}; "
                f"force it with --allow-column {name}"
            )
        if reason:
            left_out[name] = reason
        else:
            numeric[name] = raw[name]
    return numeric, left_out


def _labels(path: Path, raw: Columns, column: str) -> tuple[np.ndarray, tuple[str, ...]]:
    texts = _as_names(raw[column])
    blank = np.flatnonzero((texts == "") | (texts == "nan"))
    if len(blank):
        rows = "1 row" if len(blank) == 1 else f"{len(blank)} rows"
        raise InputError(
            f"{path}: column {column!r} is empty in {rows} (the first is row {blank[0] + 1}); "
            "leave them out, or name another --class-column"
        )
    class_names = class_order(texts.tolist())
    if len(class_names) > max(50, len(texts) // 10):
        raise InputError(
            f"{path}: column {column!r} holds {len(class_names)} different values; that is no "
            "class; name another with --class-column"
        )
    index = {name: position for position, name in enumerate(class_names)}
    return np.array([index[str(text)] for text in texts], dtype=np.int64), class_names


def _unique_id(raw: Columns) -> str | None:
    by_small_letters = {name.lower(): name for name in raw}
    for wanted in ID_COLUMNS:
        name = by_small_letters.get(wanted.lower())
        if name is not None and len(np.unique(raw[name])) == len(raw[name]):
            return name
    return None


def _as_names(values: np.ndarray) -> np.ndarray:
    """Text of each value; whole numbers without a decimal point."""
    if values.dtype.kind != "f":
        return values.astype(str)
    whole = np.isfinite(values) & (values == np.rint(values))
    return np.array(
        [str(int(v)) if w else repr(float(v)) for v, w in zip(values, whole, strict=True)]
    )


def _sides(path: Path, values: np.ndarray) -> np.ndarray:
    known = {name: k for k, name in enumerate(SPLITS)} | {str(k): k for k in range(3)} | {"val": 1}
    texts = [str(text).lower() for text in _as_names(values)]
    unknown = sorted(set(texts) - set(known))
    if unknown:
        raise InputError(f"{path}: the split column holds {', '.join(unknown[:5])}; "
                         f"use {', '.join(SPLITS)}")  # fmt: skip
    return np.array([known[text] for text in texts], dtype=np.int8)


def _in_words(left_out: dict[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())
