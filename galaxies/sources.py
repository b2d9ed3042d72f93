"""Anything that holds labelled images, opened as an `ImageSet`.

A packed file or Galaxy10 HDF5, ``.npz``, one folder per class, a folder and a CSV catalogue, or
``simulated``, the embedded survey.
"""

import csv
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from galaxies.errors import InputError
from galaxies.hdf5 import HDF5_ENDINGS, ordinal_ids, read_hdf5
from galaxies.image_files import (
    Decoding,
    PixelsInFiles,
    decode_image,
    is_image_file,
    list_image_files,
    read_size,
)
from galaxies.image_set import SPLITS, ImageSet, PixelsInMemory

SIMULATED = "simulated"
"""The source name of the embedded simulated survey, the default of ``--data``."""

CATALOGUE_NAME = "labels.csv"
"""A catalogue of this name inside a folder is used without being asked for."""


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
    """Rows of a catalogue: what a source says about its images before any pixel is read."""

    paths: tuple[Path, ...]
    classes: tuple[str, ...]
    ids: np.ndarray
    split: np.ndarray | None
    group: np.ndarray | None
    features: np.ndarray
    feature_names: tuple[str, ...]


def open_image_set(
    source: str | Path,
    *,
    labels: Path | None = None,
    columns: CatalogueColumns | None = None,
    decoding: Decoding | None = None,
) -> ImageSet:
    """Open any source; pixels are read when they are needed.

    Parameters
    ----------
    source
        Packed ``.h5``, ``.npz``, folder per class, folder with a catalogue, or ``simulated``.
    labels
        CSV catalogue of a folder; default ``labels.csv`` inside it, where there is one.
    columns
        Names of the catalogue's columns.
    decoding
        Crop, size and channels of image files.

    Raises
    ------
    InputError
        One line that says what is wrong, where, and what to do.
    """
    if str(source) == SIMULATED:
        from galaxies.simulate import embedded_survey

        return embedded_survey()
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if path.is_dir():
        return _open_folder(path, labels, columns or CatalogueColumns(), decoding or Decoding())
    if path.suffix.lower() == ".npz":
        return _open_npz(path)
    if path.suffix.lower() in HDF5_ENDINGS:
        return read_hdf5(path)
    raise InputError(
        f"{path} is not an image set: give a folder, .npz or HDF5 ({' '.join(HDF5_ENDINGS)})"
    )


def read_catalogue(
    folder: Path, labels: Path | None, columns: CatalogueColumns | None = None
) -> Catalogue:
    """Read what a folder says about its images: from a CSV, or from one sub-folder per class."""
    if labels is None and (folder / CATALOGUE_NAME).is_file():
        labels = folder / CATALOGUE_NAME
    if labels is None:
        return _catalogue_of_subfolders(folder)
    return _catalogue_of_csv(folder, labels, columns or CatalogueColumns())


def _open_folder(
    folder: Path, labels: Path | None, columns: CatalogueColumns, decoding: Decoding
) -> ImageSet:
    catalogue = read_catalogue(folder, labels, columns)
    first = decode_image(catalogue.paths[0], str(catalogue.paths[0]), decoding)
    if decoding.size is None:
        _refuse_mixed_sizes(catalogue.paths, decoding)
    # Grey and colour may stand side by side; the colour ones decide.
    channels = first.shape[2]
    if decoding.channels is None:
        decoding = dataclasses.replace(decoding, channels=channels)
    shape = (len(catalogue.paths), channels, first.shape[0], first.shape[1])
    store = PixelsInFiles(catalogue.paths, decoding, shape)
    return image_set_of_catalogue(catalogue, store, source=str(folder))


def image_set_of_catalogue(catalogue: Catalogue, store: object, *, source: str) -> ImageSet:
    """Join a catalogue to its pixels; classes are numbered in alphabetical order."""
    class_names = tuple(sorted(set(catalogue.classes)))
    index = {name: position for position, name in enumerate(class_names)}
    return ImageSet(
        store=store,  # type: ignore[arg-type]
        labels=np.array([index[name] for name in catalogue.classes], dtype=np.int64),
        class_names=class_names,
        ids=catalogue.ids,
        split=catalogue.split,
        group=catalogue.group,
        features=catalogue.features,
        feature_names=catalogue.feature_names,
        provenance={"source": source},
    )


def _refuse_mixed_sizes(paths: Sequence[Path], decoding: Decoding) -> None:
    if decoding.crop is not None:
        return
    sizes: dict[tuple[int, int], int] = {}
    for path in paths:
        size = read_size(path)
        sizes[size] = sizes.get(size, 0) + 1
    if len(sizes) > 1:
        most = sorted(sizes.items(), key=lambda item: -item[1])[:5]
        listed = ", ".join(f"{w}x{h} ({count})" for (w, h), count in most)
        raise InputError(
            f"images have {len(sizes)} sizes: {listed}; "
            "pass --size (and --crop) to make them one size"
        )


def _catalogue_of_subfolders(folder: Path) -> Catalogue:
    paths: list[Path] = []
    classes: list[str] = []
    empty: list[str] = []
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.name.startswith("."):
            if not any(is_image_file(file.name) for file in child.iterdir()):
                empty.append(child.name)
                continue
            files = list_image_files(child)
            paths += files
            classes += [child.name] * len(files)
    if not paths:
        here = sum(is_image_file(path.name) for path in folder.iterdir())
        raise InputError(
            f"{folder} holds no sub-folder with images and no {CATALOGUE_NAME} "
            f"(found {here} images in the folder itself, {len(empty)} sub-folders without images); "
            "make one sub-folder per class, or pass --labels FILE.csv"
        )
    if empty:
        raise InputError(
            f"{folder}: these sub-folders hold no image: {', '.join(empty)}; "
            "fill or remove them, or pass --labels FILE.csv"
        )
    ids = [path.relative_to(folder).as_posix() for path in paths]
    return Catalogue(
        tuple(paths),
        tuple(classes),
        np.array(ids),
        None,
        None,
        np.zeros((len(paths), 0), np.float32),
        (),
    )


def _catalogue_of_csv(folder: Path, labels: Path, columns: CatalogueColumns) -> Catalogue:
    if not labels.is_file():
        raise InputError(f"{labels} does not exist (--labels)")
    try:
        with labels.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or [])
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{labels} is not a CSV file in UTF-8 ({error})") from None
    for needed, flag in ((columns.file, "--file-column"), (columns.label, "--class-column")):
        if needed not in header:
            raise InputError(
                f"{labels} has no column {needed!r} (found: {', '.join(header)}); "
                f"name it with {flag}"
            )
    if not rows:
        raise InputError(f"{labels} has a header but no rows")
    short = [number for number, row in enumerate(rows, 2) if None in row.values() or None in row]
    if short:
        raise InputError(f"{labels}: lines {_listed(short)} have more or fewer fields than line 1")
    paths = tuple(folder / row[columns.file] for row in rows)
    absent = [
        row[columns.file] for row, path in zip(rows, paths, strict=True) if not path.is_file()
    ]
    if absent:
        raise InputError(
            f"{labels} names {len(absent)} files that are not in {folder}: {_listed(absent)}"
        )
    ids = np.array([row[columns.id if columns.id in header else columns.file] for row in rows])
    repeated = [
        name for name, count in zip(*np.unique(ids, return_counts=True), strict=True) if count > 1
    ]
    if repeated:
        raise InputError(f"{labels}: these ids stand in more than one row: {_listed(repeated)}")
    used = {columns.file, columns.label, columns.group, columns.id, columns.split}
    feature_names, features = _numeric_columns(rows, [name for name in header if name not in used])
    return Catalogue(
        paths,
        tuple(row[columns.label] for row in rows),
        ids,
        _published_split([row[columns.split] for row in rows], labels)
        if columns.split in header
        else None,
        np.array([row[columns.group] for row in rows]) if columns.group in header else None,
        features,
        feature_names,
    )


def _numeric_columns(
    rows: Sequence[dict[str, str]], names: Sequence[str]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Columns whose every value is a number; an empty field is NaN. Identifiers do not count."""
    kept, values = [], []
    for name in names:
        texts = [row[name].strip() for row in rows]
        try:
            column = np.array([float(text) if text else np.nan for text in texts])
        except ValueError:
            continue
        # float32 cannot tell such whole numbers apart: an identifier, not a measurement.
        if np.isnan(column).all() or (np.nanmax(np.abs(column)) > 2**53):
            continue
        kept.append(name)
        values.append(column.astype(np.float32))
    table = np.stack(values, axis=1) if values else np.zeros((len(rows), 0), np.float32)
    return tuple(kept), table


def _published_split(values: Sequence[str], labels: Path) -> np.ndarray:
    known = {name: index for index, name in enumerate(SPLITS)}
    known |= {str(index): index for index in range(3)} | {"val": 1, "valid": 1}
    unknown = sorted({value for value in values if value.strip().lower() not in known})
    if unknown:
        raise InputError(
            f"{labels}: the split column holds {_listed(unknown)}; use {', '.join(SPLITS)}"
        )
    return np.array([known[value.strip().lower()] for value in values], dtype=np.int8)


def _open_npz(path: Path) -> ImageSet:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is not a readable .npz file ({error})") from None
    label_key = next((key for key in ("labels", "ans", "y") if key in found), None)
    image_key = next((key for key in ("images", "x") if key in found), None)
    if image_key is None or label_key is None:
        raise InputError(f"{path} needs arrays 'images' and 'labels' (found: {', '.join(found)})")
    images, labels = found[image_key], found[label_key]
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or len(images) != len(labels):
        raise InputError(
            f"{path}: images are {images.shape}, labels {labels.shape}; "
            "(N, H, W, C) and (N,) are needed"
        )
    if images.dtype != np.uint8:
        raise InputError(f"{path}: images are {images.dtype}; uint8 is needed")
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InputError(f"{path}: labels must be (N,) integers")
    if labels.min(initial=0) < 0:
        raise InputError(f"{path}: labels must not be negative")
    names = found.get("class_names")
    count = int(labels.max(initial=-1)) + 1
    split = found.get("split")
    group = found.get("group")
    return ImageSet(
        store=PixelsInMemory(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())),
        labels=labels.astype(np.int64),
        class_names=tuple(f"class {index}" for index in range(count))
        if names is None
        else tuple(str(name) for name in names),
        ids=found["ids"].astype(str) if "ids" in found else ordinal_ids(len(images)),
        split=None if split is None else split.astype(np.int8),
        group=None if group is None else group.astype(str),
        provenance={"source": str(path)},
    )


def _listed(items: Sequence[object], most: int = 10) -> str:
    shown = ", ".join(str(item) for item in items[:most])
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")
