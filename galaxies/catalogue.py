"""What a folder says about its images before a pixel is read: classes, ids, split, features.

It says so by a CSV catalogue, by one sub-folder per class, or by such sub-folders below
``train``, ``validation`` and ``test``.
"""

import csv
import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from galaxies.arrays import SIDE_NAMES, groups_of_column
from galaxies.class_names import class_index, class_order
from galaxies.command_line import warn
from galaxies.errors import InputError
from galaxies.fits_images import FITS_ENDINGS, is_fits_file
from galaxies.image_files import IMAGE_ENDINGS, is_image_file, is_picture_or_fits
from galaxies.image_set import SPLITS
from galaxies.table_files import delimiter_of, numbers_or_text

CATALOGUE_NAME = "labels.csv"
"""A catalogue of this name inside a folder is used without being asked for."""

PROVENANCE_NAME = "provenance.json"
"""A file of this name inside a folder of images becomes the provenance of the set."""

_SPLIT_VALUES = SIDE_NAMES | {str(index): index for index in range(3)}
_NOT_CLASSES = ("__MACOSX",)
"""Folders that programs leave behind, never classes."""
_NOT_PICTURES = (".db", ".ini", ".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".html", ".yaml")
"""Endings of what lies beside pictures; files of any other ending may have been meant as some."""
_LARGEST_WHOLE_FLOAT32 = 2**24


@dataclass(frozen=True)
class CatalogueColumns:
    """Names of the columns of a CSV catalogue; any further numeric column is a feature."""

    file: str = "file"
    label: str = "class"
    group: str = "group"
    id: str = "id"
    split: str = "split"


@dataclass(frozen=True)
class Catalogue:
    """Rows of a catalogue.

    Attributes
    ----------
    paths : tuple of Path
        Image file of each of N rows.
    classes : tuple of str
        Class name of each row.
    ids : (N,) str
        Unique names, never absolute paths.
    split : (N,) int8 or None
        A published split.
    group : (N,) str or None
        What must not stand on two sides of a split.
    features : (N, F) float32
        Numeric columns, NaN where a field is empty.
    feature_names : tuple of str
        F names.
    class_names : tuple of str
        Every class, by number or letter, or in the order that ``provenance.json`` gives.
    provenance : dict
        What ``provenance.json`` says, if there is one.
    absent : tuple of str
        Files that the catalogue names and that do not exist; their rows are left out.
    """

    paths: tuple[Path, ...]
    classes: tuple[str, ...]
    ids: np.ndarray
    split: np.ndarray | None
    group: np.ndarray | None
    features: np.ndarray
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.class_names:
            object.__setattr__(self, "class_names", class_order(self.classes))

    def select(self, rows: np.ndarray) -> "Catalogue":
        """The given rows (int64), in that order; classes that lose all rows vanish."""
        classes = tuple(self.classes[row] for row in rows)
        return Catalogue(
            tuple(self.paths[row] for row in rows),
            classes,
            self.ids[rows],
            None if self.split is None else self.split[rows],
            None if self.group is None else self.group[rows],
            self.features[rows],
            self.feature_names,
            tuple(name for name in self.class_names if name in set(classes)),
            self.provenance,
            self.absent,
        )

    def without_classes(self, names: Sequence[str]) -> "Catalogue":
        """Leave classes out, given by name or index as `galaxies.class_names.class_index` does.

        Raises
        ------
        InputError
            If there is no such class, or none would be left.
        """
        excluded = {self.class_names[class_index(name, self.class_names)] for name in names}
        rest = np.array([name not in excluded for name in self.classes])
        if not rest.any():
            raise InputError("every class is excluded; nothing is left")
        return self.select(np.flatnonzero(rest))


def read_catalogue(
    folder: Path,
    labels: Path | None,
    columns: CatalogueColumns | None = None,
    *,
    skip_absent: bool = False,
) -> Catalogue:
    """Read what a folder says about its images: from a CSV, or from one sub-folder per class.

    Parameters
    ----------
    folder
        Holds the images.
    labels
        The CSV; default ``labels.csv`` inside the folder, where there is one.
    columns
        Names of its columns.
    skip_absent
        Leave out rows whose files do not exist, and name them in ``absent``.

    Raises
    ------
    InputError
        If there are no images, a column is missing, files are absent, or ids repeat.
    """
    if labels is None and (folder / CATALOGUE_NAME).is_file():
        labels = folder / CATALOGUE_NAME
    if labels is not None:
        return _catalogue_of_csv(folder, labels, columns or CatalogueColumns(), skip_absent)
    if columns is not None and columns != CatalogueColumns():
        raise InputError(f"{folder} has no {CATALOGUE_NAME} whose columns could be named")
    return _catalogue_of_subfolders(folder)


def _catalogue_of_subfolders(folder: Path) -> Catalogue:
    children = _subfolders(folder)
    sides = [child for child in children if child.name.lower() in SIDE_NAMES]
    by_side = len(sides) > 1 and sides == children and all(_subfolders(side) for side in sides)
    paths: list[Path] = []
    classes: list[str] = []
    split: list[int] = []
    empty: list[Path] = []
    nested = 0
    others: Counter[str] = Counter()
    parents = sides if by_side else [folder]
    children = [child for parent in parents for child in _subfolders(parent)]
    pictures = any(is_image_file(file.name) for child in children for file in child.iterdir())
    wanted = is_image_file if pictures else is_fits_file
    for parent in parents:
        for child in _subfolders(parent):
            files = sorted(f for f in child.iterdir() if wanted(f.name) and not f.is_dir())
            if not files:
                empty.append(child)
                continue
            _refuse_foreign_bytes(child)
            others.update(_endings_of_others(child, wanted))
            nested += sum(wanted(file.name) for file in child.rglob("*")) - len(files)
            paths += files
            classes += [child.name] * len(files)
            split += [SIDE_NAMES[parent.name.lower()] if by_side else 0] * len(files)
    here = sum(is_image_file(path.name) for path in folder.iterdir())
    if not paths:
        raise InputError(
            f"{folder} holds no sub-folder with images and no {CATALOGUE_NAME} "
            f"(found {here} images in the folder itself, {len(empty)} sub-folders without images"
            f"{_what_else(empty)}); make one sub-folder per class, or pass --labels FILE.csv"
        )
    if empty:
        names = [child.relative_to(folder).as_posix() for child in empty]
        raise InputError(
            f"{folder}: these sub-folders hold no image: {_listed(names)}{_what_else(empty)}; "
            "fill or remove them, or pass --labels FILE.csv"
        )
    if others:
        listed = ", ".join(f"{count} {ending}" for ending, count in others.most_common(5))
        endings = IMAGE_ENDINGS if pictures else FITS_ENDINGS
        warn(
            f"{folder}: left out {others.total()} files whose ending is not that of a picture: "
            f"{listed} (endings looked for: {' '.join(endings)})"
        )
    if here or nested:
        warn(
            f"{folder}: left out {here} images that stand in no sub-folder "
            f"and {nested} that stand deeper than one"
        )
    provenance = _read_provenance(folder)
    return Catalogue(
        tuple(paths),
        tuple(classes),
        np.array([path.relative_to(folder).as_posix() for path in paths]),
        np.array(split, dtype=np.int8) if by_side else None,
        None,
        np.zeros((len(paths), 0), np.float32),
        (),
        _published_order(provenance, classes),
        provenance,
    )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        child
        for child in folder.iterdir()
        if child.is_dir() and not child.name.startswith(".") and child.name not in _NOT_CLASSES
    )


def _refuse_foreign_bytes(folder: Path) -> None:
    """A class's name is written as UTF-8; a folder's may be any bytes."""
    try:
        folder.name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(folder.name).decode("utf-8", "backslashreplace")
        raise InputError(
            f"{folder.parent}: the name of the sub-folder {shown} is not UTF-8, and it becomes "
            "that of a class; rename it"
        ) from None


def _endings_of_others(folder: Path, wanted: Callable[[str], bool] = is_image_file) -> Counter[str]:
    """Endings of the files that are neither wanted nor what usually lies beside images."""
    return Counter(
        file.suffix.lower() or "without an ending"
        for file in folder.iterdir()
        if not file.name.startswith(".")
        and not wanted(file.name)
        and file.suffix.lower() not in _NOT_PICTURES
        and file.is_file()
    )


def _what_else(empty: Sequence[Path]) -> str:
    """What folders without pictures hold instead."""
    others = sum((_endings_of_others(child) for child in empty), Counter[str]())
    deeper = [child for folder in empty for child in _subfolders(folder)]
    deeper = [child for child in deeper if any(is_image_file(f.name) for f in child.iterdir())]
    said = ""
    if others:
        listed = ", ".join(f"{count} {ending}" for ending, count in others.most_common(5))
        said += f", but {listed} files, which are not read"
    if deeper:
        said += f", but images lie one level deeper, as in {deeper[0]}"
    return said


def _read_provenance(folder: Path) -> dict[str, Any]:
    path = folder / PROVENANCE_NAME
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); restore or remove it") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object; restore or remove it")
    return value


def _published_order(provenance: dict[str, Any], classes: Sequence[str]) -> tuple[str, ...]:
    """Class names as the set had them from which a folder was written, if it says so."""
    names = provenance.get("class_names")
    if isinstance(names, list) and set(classes) <= set(names):
        return tuple(str(name) for name in names)
    return ()


def _catalogue_of_csv(
    folder: Path, labels: Path, columns: CatalogueColumns, skip_absent: bool
) -> Catalogue:
    header, rows = _read_rows(labels)
    _refuse_missing_columns(labels, header, columns)
    for column in (columns.file, columns.label, columns.group, columns.id):
        lines = [number for number, row in enumerate(rows, 2) if not row.get(column, "-").strip()]
        if lines:
            raise InputError(f"{labels}: column {column!r} is empty on lines {_listed(lines)}")
    names = [row[columns.file].strip() for row in rows]
    found = _existing_files(folder, names, labels)
    absent = tuple(name for name, path in zip(names, found, strict=True) if path is None)
    if absent and (not skip_absent or len(absent) == len(names)):
        raise InputError(
            f"{labels} names {len(absent)} files that are not in {folder}, with or without an "
            f"ending such as {IMAGE_ENDINGS[1]}: {_listed(absent)}; "
            + (
                "correct the catalogue, or leave them out with: galaxy-set pack --skip-bad"
                if len(absent) < len(names)
                else "give the folder that these names are relative to, and the CSV by --labels"
            )
        )
    others = [name for name in header if name not in dataclasses.astuple(columns)]
    feature_names, features = _numeric_columns(rows, others, labels)
    features = features[[path is not None for path in found]]
    rows = [row for row, path in zip(rows, found, strict=True) if path is not None]
    paths = tuple(path for path in found if path is not None)
    if columns.id in header:
        ids = np.array([row[columns.id].strip() for row in rows])
    else:
        ids = np.array([_id_of_path(path, folder) for path in paths])
    different, times = np.unique(ids, return_counts=True)
    if (times > 1).any():
        raise InputError(
            f"{labels}: these ids stand in more than one row: {_listed(different[times > 1])}"
        )
    return Catalogue(
        paths,
        tuple(row[columns.label].strip() for row in rows),
        ids,
        _published_split([row[columns.split] for row in rows], labels)
        if columns.split in header
        else None,
        groups_of_column(np.array([row[columns.group].strip() for row in rows]), ids, columns.group)
        if columns.group in header
        else None,
        features,
        feature_names,
        provenance=_read_provenance(folder),
        absent=absent,
    )


def _existing_files(folder: Path, names: Sequence[str], labels: Path) -> list[Path | None]:
    """The file of each name; a name without an ending, such as 100008, finds 100008.jpg."""
    stems: dict[Path, dict[str, list[str]]] = {}

    def with_ending(path: Path) -> list[str]:
        if path.parent not in stems:  # one look at a folder, not nine at each file
            known: dict[str, list[str]] = {}
            if path.parent.is_dir():
                for file in sorted(path.parent.iterdir()):
                    if is_picture_or_fits(file.name):
                        stem = file.name.removesuffix(file.suffix)
                        if file.suffix in (".gz", ".fz"):  # .fits.gz is one ending
                            stem = Path(stem).stem
                        known.setdefault(stem, []).append(file.name)
            stems[path.parent] = known
        found = stems[path.parent].get(path.name, [])
        return [name for name in found if is_image_file(name)] or found

    paths: list[Path | None] = []
    for name in names:
        path = folder / name
        if not path.is_file() and "\\" in name:  # a catalogue from Windows
            path = folder / name.replace("\\", "/")
        if path.is_file():
            paths.append(path)
            continue
        found = with_ending(path)
        if len(found) > 1:
            raise InputError(
                f"{labels}: {name} may be {_listed(found)}; write the ending into the catalogue"
            )
        paths.append(path.with_name(found[0]) if found else None)
    return paths


def _read_rows(labels: Path) -> tuple[list[str], list[dict[str, str]]]:
    if not labels.is_file():
        raise InputError(f"{labels} does not exist (--labels)")
    try:
        with labels.open(newline="", encoding="utf-8-sig") as file:
            delimiter = delimiter_of(file.readline())
            file.seek(0)
            reader = csv.DictReader(file, strict=True, delimiter=delimiter)
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{labels} is not a CSV file in UTF-8 ({error})") from None
    if not header:
        raise InputError(f"{labels} is empty; a header with file and class is needed")
    if len(set(header)) != len(header):
        raise InputError(f"{labels} has columns of the same name: {', '.join(header)}")
    if not rows:
        raise InputError(f"{labels} has a header but no rows")
    uneven = [number for number, row in enumerate(rows, 2) if None in row.values() or None in row]
    if uneven:
        raise InputError(f"{labels}: lines {_listed(uneven)} have more or fewer fields than line 1")
    return header, rows


def _refuse_missing_columns(labels: Path, header: Sequence[str], columns: CatalogueColumns) -> None:
    asked_for = CatalogueColumns()
    for column, flag, needed in (
        (columns.file, "--file-column", True),
        (columns.label, "--class-column", True),
        (columns.group, "--group", columns.group != asked_for.group),
        (columns.id, "--id-column", columns.id != asked_for.id),
        (columns.split, "--split-column", columns.split != asked_for.split),
    ):
        if needed and column not in header:
            raise InputError(
                f"{labels} has no column {column!r} (found: {', '.join(header)}); "
                f"name it with {flag}"
            )


def _id_of_path(path: Path, folder: Path) -> str:
    """A path inside the folder as seen from it, one outside by its name alone."""
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    return path.name


def _numeric_columns(
    rows: Sequence[dict[str, str]], names: Sequence[str], labels: Path
) -> tuple[tuple[str, ...], np.ndarray]:
    """Columns of numbers; a missing one is NaN. Identifiers do not count.

    A column that holds numbers and text is left out with a warning.
    """
    kept, values = [], []
    for name in names:
        column = numbers_or_text([row[name] for row in rows])
        if column.dtype.kind != "f":
            _warn_of_numbers_among_text(column, name, labels)
            continue
        if np.isnan(column).all() or _is_identifier(column):
            continue
        kept.append(name)
        values.append(column.astype(np.float32))
    table = np.stack(values, axis=1) if values else np.zeros((len(rows), 0), np.float32)
    return tuple(kept), table


def _warn_of_numbers_among_text(column: np.ndarray, name: str, labels: Path) -> None:
    numeric = np.array([numbers_or_text([text]).dtype.kind == "f" for text in column])
    told = np.array([bool(text) for text in column])
    if not numeric.all() and (numeric & told).sum() * 2 > told.sum():
        row = int(np.flatnonzero(~numeric)[0])
        warn(
            f"{labels}: column {name!r} is no feature: line {row + 2} holds {str(column[row])!r}, "
            "which is no number"
        )


def _is_identifier(column: np.ndarray) -> bool:
    """Whole numbers that float32 cannot tell apart are names, not measurements."""
    known = column[np.isfinite(column)]
    whole = bool((known == np.rint(known)).all())
    return whole and np.abs(known).max(initial=0) > _LARGEST_WHOLE_FLOAT32


def _published_split(values: Sequence[str], labels: Path) -> np.ndarray:
    unknown = sorted({value for value in values if value.strip().lower() not in _SPLIT_VALUES})
    if unknown:
        raise InputError(
            f"{labels}: the split column holds {_listed(unknown)}; use {', '.join(SPLITS)}"
        )
    return np.array([_SPLIT_VALUES[value.strip().lower()] for value in values], dtype=np.int8)


def _listed(items: Sequence[object] | np.ndarray, most: int = 10) -> str:
    shown = ", ".join(str(item) for item in items[:most])
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")
