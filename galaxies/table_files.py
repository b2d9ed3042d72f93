"""Columns of a CSV, Parquet, FITS or .npz table, by name: numbers as float64, the rest as text."""

import csv
import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from galaxies.errors import UNREADABLE, InputError
from galaxies.npz_shapes import array_shapes

CSV_ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
PARQUET_ENDINGS = (".parquet", ".pq")
FITS_ENDINGS = (".fits", ".fit", ".fits.gz")
TABLE_ENDINGS = (*CSV_ENDINGS, *PARQUET_ENDINGS, *FITS_ENDINGS, ".npz")

FEATURE_KEYS = ("features", "X")
"""Names under which an .npz file may hold (N, F) features."""

Columns = dict[str, np.ndarray]
"""Name -> (N,) float64 or (N,) str, in the order of the file."""


def is_table_file(path: str | Path) -> bool:
    """Whether ``path`` is a file that holds a table; an .npz with an array of images is none."""
    path = Path(path)
    if not path.is_file() or not path.name.lower().endswith(TABLE_ENDINGS):
        return False
    if path.suffix.lower() != ".npz":
        return True
    try:
        shapes = array_shapes(path)
    except InputError:
        return False
    return "images" not in shapes and all(len(shape) < 3 for shape in shapes.values())


def read_columns(path: Path) -> Columns:
    """Read every column of a table.

    Raises
    ------
    InputError
        If the file is missing, of another kind, damaged, or empty, or names repeat.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; a table is one of {', '.join(TABLE_ENDINGS)}")
    name = path.name.lower()
    if name.endswith(CSV_ENDINGS):
        columns = _read_csv(path, "\t" if ".tsv" in name else None)
    elif name.endswith(PARQUET_ENDINGS):
        columns = _read_parquet(path)
    elif name.endswith(FITS_ENDINGS):
        columns = _read_fits(path)
    elif name.endswith(".npz"):
        columns = _read_npz(path)
    else:
        raise InputError(f"{path} is no table; one of {', '.join(TABLE_ENDINGS)} is needed")
    if not columns or not len(next(iter(columns.values()))):
        raise InputError(f"{path} holds no rows")
    return columns


def _read_csv(path: Path, delimiter: str | None) -> Columns:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rt", newline="", encoding="utf-8-sig") as file:
            delimiter = delimiter or delimiter_of(file.readline())
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = [row for row in reader if row]
    except (UnicodeDecodeError, csv.Error, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not a table of text in UTF-8 ({error})") from None
    _refuse_repeated(path, header)
    uneven = [number for number, row in enumerate(rows, 2) if len(row) != len(header)]
    if uneven:
        listed = ", ".join(map(str, uneven[:10]))
        raise InputError(
            f"{path}: rows {listed} have more or fewer fields than the {len(header)} of line 1"
        )
    return {
        name: numbers_or_text([row[place] for row in rows]) for place, name in enumerate(header)
    }


def delimiter_of(header: str) -> str:
    """What parts the fields of a CSV header into most: a comma, a semicolon or a tab."""

    def fields(delimiter: str) -> int:
        try:
            return len(next(csv.reader([header], delimiter=delimiter), []))
        except csv.Error:
            return 0

    return max((",", ";", "\t"), key=fields)


def numbers_or_text(values: Sequence[str]) -> np.ndarray:
    """(N,) float64 where every value that is there is a number, (N,) str otherwise.

    An empty field, ``nan``, ``null``, ``na``, ``none`` and ``--`` are missing. Digits that begin
    with 0, such as 007, and those with ``_`` between them are names: as numbers two of them
    could be one.
    """
    stripped = [value.strip() for value in values]
    if any("_" in v or (len(v) > 1 and v[0] == "0" and v.isdigit()) for v in stripped):
        return np.array(stripped, dtype=str)
    missing = {"", "nan", "null", "na", "n/a", "none", "--", "masked"}
    try:
        numbers = np.array([np.nan if v.lower() in missing else float(v) for v in stripped])
    except ValueError:
        return np.array(stripped, dtype=str)
    if any(len(v) > 15 and v.lstrip("+-").isdigit() for v in stripped):
        return np.array(stripped, dtype=str)  # an identifier: float64 would make two of them equal
    return numbers


def _read_parquet(path: Path) -> Columns:
    try:
        from pyarrow import parquet
        from pyarrow.lib import ArrowException
    except ImportError:
        raise InputError(
            f"{path}: reading Parquet needs pyarrow; install galaxy-augment[tables]"
        ) from None
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file ({error})") from None
    _refuse_repeated(path, table.column_names)
    return {
        name: _column(table[name].to_numpy(), f"{path}: column {name!r}")
        for name in table.column_names
        if name != "__index_level_0__"
    }


def _read_fits(path: Path) -> Columns:
    try:
        from astropy.io import fits
    except ImportError:
        raise InputError(
            f"{path}: reading FITS needs astropy; install galaxy-augment[tables]"
        ) from None
    try:
        with fits.open(path) as units:
            tables = [unit for unit in units if isinstance(unit, fits.BinTableHDU | fits.TableHDU)]
            if not tables:
                raise InputError(
                    f"{path} holds no table (it has {len(units)} header units, none of them a "
                    "table); images belong into HDF5 or .npz as float32, for galaxy-set pack"
                )
            data = tables[0].data
            columns: Columns = {}
            for name in data.names:
                values = np.asarray(data[name])
                if values.ndim == 1:
                    columns[name] = _column(values, f"{path}: column {name!r}")
                elif values.ndim == 2:  # SDSS keeps five bands in one column of five
                    letters = "ugriz" if values.shape[1] == 5 else None
                    for place in range(values.shape[1]):
                        part = letters[place] if letters else str(place)
                        columns[f"{name}_{part}"] = _column(values[:, place], f"{path}: {name!r}")
            return columns
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise InputError(f"{path} is not a readable FITS table ({error})") from None


def _read_npz(path: Path) -> Columns:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (*UNREADABLE, ValueError) as error:
        raise InputError(f"{path} is not a readable .npz file ({error})") from None
    class_names = found.pop("class_names", None)
    names = found.pop("feature_names", None)
    columns: Columns = {}
    for key, values in found.items():
        if values.ndim == 2 and key in FEATURE_KEYS:
            width = values.shape[1]
            if names is not None and len(names) != width:
                raise InputError(f"{path}: {width} feature columns, {len(names)} feature_names")
            digits = len(str(width - 1))
            called = (
                [f"feature_{place:0{digits}d}" for place in range(width)]
                if names is None
                else [str(name) for name in names]
            )
            columns |= {
                name: _column(values[:, i], f"{path}: {name}") for i, name in enumerate(called)
            }
        elif values.ndim == 1 and key in ("labels", "y", "ans") and values.dtype.kind in "iu":
            columns["class"] = _class_texts(values, class_names, f"{path}: array {key!r}")
        elif values.ndim == 1:
            columns[key] = _column(values, f"{path}: array {key!r}")
        else:
            raise InputError(
                f"{path}: array {key!r} is {values.shape}; columns are (N,), features (N, F)"
            )
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{path}: columns differ in length: {lengths}")
    return columns


def _class_texts(labels: np.ndarray, class_names: np.ndarray | None, where: str) -> np.ndarray:
    if class_names is None:
        return np.array([f"class {label}" for label in labels])
    outside = labels[(labels < 0) | (labels >= len(class_names))]
    if len(outside):
        raise InputError(
            f"{where} holds {outside[0]}, but there are {len(class_names)} class_names"
        )
    return _column(class_names, f"{where}: class_names").astype(str)[labels]


def _column(values: np.ndarray, where: str) -> np.ndarray:
    """Native float64 or text."""
    if np.ma.isMaskedArray(values):
        values = values.filled(np.nan) if values.dtype.kind == "f" else values.filled()
    if values.dtype.kind in "iu" and np.abs(values.astype(np.float64)).max(initial=0) > 2**53:
        return values.astype(str)  # an identifier: float64 would make two of them equal
    if values.dtype.kind in "iuf":
        return values.astype(np.float64)
    if values.dtype.kind == "b":
        return values.astype(np.float64)
    if values.dtype.kind in "mM":
        return values.astype(str)  # a date is no measurement of the source
    if values.dtype.kind == "S":
        return np.char.strip(np.char.decode(values, "utf-8"))
    if values.dtype.kind in "UO":
        return np.array(["" if v is None else str(v).strip() for v in values], dtype=str)
    raise InputError(f"{where} holds {values.dtype}, which is neither number nor text")


def _refuse_repeated(path: Path, names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if repeated:
        raise InputError(f"{path} has several columns named {', '.join(map(repr, repeated))}")
