"""An image set as one HDF5 file, readable as Galaxy10 by any program that reads Galaxy10.

``images`` (N, H, W, C), ``ans`` (N,); added here: ``ids``, ``split``, ``group``, ``features``,
``training_fingerprints``, ``training_ids`` and the attributes ``class_names``,
``feature_names``, ``mirror_pairs``, ``stretch``, ``schema_version``, ``provenance``. A plain
Galaxy10 file, without the additions, opens too.
"""

import dataclasses
import errno
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from galaxies.arrays import (
    IMAGE_NAMES,
    LABEL_NAMES,
    as_strings,
    channels_stand_first,
    decoded,
    features_of_array,
    groups_of_column,
    image_name,
    label_name,
    labels_and_names,
    native_dtype,
    split_of_array,
    unique_ids,
    unusable_dtype,
)
from galaxies.atomic import whole_file
from galaxies.eight_bits import to_eight_bits
from galaxies.errors import InputError
from galaxies.hdf5_file import writable_hdf5
from galaxies.image_set import ImageSet
from galaxies.pixels import Stretch
from galaxies.published import recognise_galaxy10, refuse_foreign_names
from galaxies.resize import centre_of

SCHEMA_VERSION = 1
HDF5_ENDINGS = (".h5", ".hdf5", ".hdf")
UNLABELLED = "unlabelled"
"""The only class of a file without labels."""
_DTYPES = {"uint8": torch.uint8, "float32": torch.float32}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MOST_LISTED = 2000  # names in one attribute: it holds 64 kB, and each name takes 16 bytes
_CHUNK_BYTES = 2**18  # read whole when any image of it is wanted: a compromise of stream and draw


@dataclasses.dataclass(frozen=True)
class PixelsInHdf5:
    """A `PixelStore` over the ``images`` of an HDF5 file, opened anew by each read.

    Reads sort their rows, so chunks are visited in the order of the disk and once each.
    """

    path: Path
    shape: tuple[int, int, int, int]
    dtype: torch.dtype
    scale_16_bit: bool = False
    name: str = "images"
    channels_first: bool = False

    def read(self, rows: np.ndarray) -> torch.Tensor:
        """Read (n, C, H, W) pixels of ``rows``."""
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) == 0:
            return torch.empty((0, *self.shape[1:]), dtype=self.dtype)
        unique, inverse = np.unique(rows, return_inverse=True)
        try:
            with _open(self.path) as file:
                images = file[self.name]
                if unique[-1] - unique[0] + 1 == len(unique):
                    block = images[unique[0] : unique[-1] + 1]
                else:
                    block = _read_scattered(images, unique)
        except (KeyError, OSError, RuntimeError) as error:
            raise InputError(
                f"{self.path}: images are damaged ({error}); fetch or pack anew"
            ) from None
        if block.ndim == 3:
            block = block[..., None]
        if self.scale_16_bit:
            block = to_eight_bits(block)
        block = block.astype(_NAMES[self.dtype], copy=False)
        if len(unique) != len(rows) or not np.array_equal(unique, rows):
            block = block[inverse]
        if not self.channels_first:
            block = block.transpose(0, 3, 1, 2)
        return torch.from_numpy(np.ascontiguousarray(block))


def _read_scattered(images: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Read sorted rows chunk by chunk: far faster than a selection of single rows."""
    step = images.chunks[0] if images.chunks else 64
    pieces = []
    for chunk in np.unique(rows // step):
        start = chunk * step
        wanted = rows[(rows >= start) & (rows < start + step)] - start
        pieces.append(images[start : start + step][wanted])
    return np.concatenate(pieces)


def read_hdf5(
    path: Path, *, scale_16_bit: bool = False, crop: int | None = None, labelled: bool = True
) -> ImageSet:
    """Open an HDF5 image set or a plain Galaxy10 file; pixels stay on disk.

    Parameters
    ----------
    path
        The file.
    scale_16_bit
        Read uint16 images as ``value / 257``, rounded, instead of refusing them.
    crop
        Take the central squares of this side.
    labelled
        Whether labels are needed; else every image of a file without them is of the one class
        `UNLABELLED`.

    Raises
    ------
    InputError
        If the file is not HDF5, is cut short, has no images or labels, or its lengths differ.
    """
    try:
        with _open(path) as file:
            return _image_set_of(file, path, scale_16_bit, crop, labelled)
    except (KeyError, OSError, RuntimeError) as error:
        raise InputError(f"{path} is damaged ({error}); fetch or pack it anew") from None


def _image_set_of(
    file: h5py.File, path: Path, scale_16_bit: bool, crop: int | None, labelled: bool
) -> ImageSet:
    found = f"(found: {', '.join(file) or 'none'})"
    images_key = image_name(file)
    if images_key is None:
        raise InputError(
            f"{path} has no dataset 'images' {found}; also looked for: {', '.join(IMAGE_NAMES[1:])}"
        )
    label_key = label_name(file, images_key)
    if label_key is None and labelled:
        raise InputError(
            f"{path} has no dataset 'ans' with the labels {found}; also looked for: "
            f"{', '.join(LABEL_NAMES[1:-1])}"
        )
    _refuse_groups(file, path, images_key, label_key)
    images = file[images_key]
    if images.ndim not in (3, 4):
        raise InputError(f"{path}: images are {images.shape}; (N, H, W, C) is needed")
    first = channels_stand_first(images.shape)
    count, height, width = images.shape[:1] + images.shape[2:] if first else images.shape[:3]
    channels = 1 if images.ndim == 3 else images.shape[1 if first else 3]
    labels = np.zeros(count, np.int64)
    class_names: tuple[str, ...] | None = (UNLABELLED,)
    if label_key is not None:
        labels, class_names = labels_and_names(file[label_key][()], _class_names(file), str(path))
    if len(labels) != count:
        raise InputError(f"{path}: {count} images but {len(labels)} labels in {label_key!r}")
    recognised = recognise_galaxy10(height, labels, list(file)) if label_key else None
    if class_names is None:
        class_names = recognised.class_names if recognised else _numbered(labels)
    native = native_dtype(images.dtype)
    scaled = scale_16_bit and native == np.uint16
    dtype = torch.uint8 if scaled else _DTYPES.get(str(native))
    if dtype is None:
        raise InputError(f"{path}: {unusable_dtype(native)}")
    stretch = _attribute(file, "stretch")
    ids = _strings(file, "ids")
    ids = ordinal_ids(count) if ids is None else ids
    group = _strings(file, "group")
    try:
        refuse_foreign_names(class_names, recognised)
        shape = (count, channels, height, width)
        store = PixelsInHdf5(path, shape, dtype, scaled, images_key, first)
        features: np.ndarray = np.zeros((count, 0), np.float32)
        feature_names: tuple[str, ...] = ()
        if "features" in file:
            features, feature_names = features_of_array(
                file["features"][()], _attribute(file, "feature_names"), "features"
            )
        return ImageSet(
            store=centre_of(store, crop),
            labels=labels,
            class_names=tuple(class_names),
            ids=unique_ids(ids, "ids"),
            split=split_of_array(file["split"][()], "split") if "split" in file else None,
            group=groups_of_column(group, ids, "group")
            if group is not None and len(group) == len(ids)
            else group,
            features=features,
            feature_names=feature_names,
            mirror_pairs=_pairs(_attribute(file, "mirror_pairs")) if label_key else None,
            stretch=Stretch(**stretch) if stretch else None,
            provenance=dict(_attribute(file, "provenance") or {"source": str(path)}),
            training_fingerprints=_strings(file, "training_fingerprints", empty=True),
            training_ids=_strings(file, "training_ids", empty=True),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: a dataset or attribute has a wrong type: {reason}") from None


def write_hdf5(image_set: ImageSet, path: Path, *, overwrite: bool = False) -> None:
    """Write a set as one HDF5 file, block by block, so that no set is too large."""
    with whole_file(path, overwrite=overwrite) as temporary, writable_hdf5(temporary) as file:
        write_pixels(
            file, image_set.store.shape, image_set.store.dtype, (b for _, b in image_set.blocks())
        )
        write_columns(file, image_set)


def write_pixels(
    file: h5py.File,
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    blocks: Iterable[torch.Tensor],
) -> None:
    """Create ``images`` (N, H, W, C) of ``shape`` (N, C, H, W) and fill it from ``blocks``."""
    writer = PixelWriter(file, shape[0], dtype)
    for block in blocks:
        writer.add(block)
    if shape[0] == 0:
        file.create_dataset("images", (0, *shape[2:], shape[1]), dtype=_NAMES[dtype])
    else:
        writer.finish()


class PixelWriter:
    """Fills ``images`` (N, H, W, C) of an open file, chunk by chunk, as images arrive.

    Parameters
    ----------
    file
        Open for writing.
    most
        Upper bound of the number of images.
    dtype
        uint8 or float32.
    """

    def __init__(self, file: h5py.File, most: int, dtype: torch.dtype) -> None:
        self._file = file
        self._most = most
        self._dtype = dtype
        self._dataset: h5py.Dataset | None = None
        self._waiting: list[np.ndarray] = []
        self._waiting_count = 0
        self._written = 0

    def add(self, images: torch.Tensor) -> None:
        """Append (n, C, H, W) images; whole chunks are written, the rest waits."""
        self._waiting.append(images.permute(0, 2, 3, 1).numpy())
        self._waiting_count += len(images)
        chunk = self._open_dataset(images).chunks[0]
        if self._waiting_count >= chunk:
            self._write(self._waiting_count - self._waiting_count % chunk)

    def finish(self) -> tuple[int, int, int, int]:
        """Write what waits, cut the dataset to what arrived, and return its shape (N, C, H, W)."""
        if self._dataset is None:
            raise InputError("there is no image to write")
        if self._waiting_count:
            self._write(self._waiting_count)
        self._dataset.resize(self._written, axis=0)
        count, height, width, channels = self._dataset.shape
        return count, channels, height, width

    def _open_dataset(self, images: torch.Tensor) -> h5py.Dataset:
        if self._dataset is None:
            channels, height, width = images.shape[1:]
            image_bytes = max(1, channels * height * width * self._dtype.itemsize)
            self._dataset = self._file.create_dataset(
                "images",
                (self._most, height, width, channels),
                maxshape=(self._most, height, width, channels),
                dtype=_NAMES[self._dtype],
                chunks=(
                    max(1, min(self._most, _CHUNK_BYTES // image_bytes)),
                    *images.shape[2:],
                    channels,
                ),
                compression="gzip",
                compression_opts=1,
            )
        return self._dataset

    def _write(self, count: int) -> None:
        assert self._dataset is not None
        images = np.concatenate(self._waiting)
        self._dataset[self._written : self._written + count] = images[:count]
        self._written += count
        self._waiting = [images[count:]] if count < len(images) else []
        self._waiting_count = len(images) - count


def write_columns(file: h5py.File, image_set: ImageSet) -> None:
    """Write everything of a set but its pixels, replacing what is there."""
    columns: dict[str, np.ndarray | None] = {
        "ans": image_set.labels.astype(np.int64),
        "ids": _as_utf8(image_set.ids),
        "split": None if image_set.split is None else image_set.split.astype(np.int8),
        "group": None if image_set.group is None else _as_utf8(image_set.group),
        "features": image_set.features.astype(np.float32) if image_set.feature_names else None,
        "training_fingerprints": _as_utf8(image_set.training_fingerprints)
        if len(image_set.training_fingerprints)
        else None,
        "training_ids": _as_utf8(image_set.training_ids) if len(image_set.training_ids) else None,
    }
    for name, values in columns.items():
        if name in file:
            del file[name]
        if values is not None:
            if values.dtype.kind == "S":  # said to be UTF-8, so that ``asstr()`` reads it
                values = values.astype(h5py.string_dtype("utf-8", values.dtype.itemsize))
            file.create_dataset(name, data=values)
    file.attrs["class_names"] = _attribute_of_names(image_set.class_names)
    if image_set.feature_names:
        names = _attribute_of_names(image_set.feature_names)
        file.attrs["feature_names"] = names
        file["features"].attrs["names"] = names
    attributes: dict[str, Any] = {
        "mirror_pairs": image_set.mirror_pairs,
        "provenance": image_set.provenance,
        "stretch": dataclasses.asdict(image_set.stretch) if image_set.stretch else None,
    }
    file.attrs["schema_version"] = SCHEMA_VERSION
    for name, value in attributes.items():
        text = json.dumps(value, ensure_ascii=False)
        # A path in the history need not be UTF-8.
        file.attrs[name] = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def ordinal_ids(count: int, prefix: str = "row") -> np.ndarray:
    """Ids for a source that has none, such as ``row-000000``."""
    return np.array([f"{prefix}-{index:06d}" for index in range(count)], dtype=str)


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        if isinstance(error, PermissionError) or error.errno in (errno.EACCES, errno.EPERM):
            raise InputError(f"{path} cannot be read: permission denied") from None
        if isinstance(error, BlockingIOError) or error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
            raise InputError(f"{path} is being written by another program; try again") from None
        reason = "is cut short" if "truncated" in str(error) else "is not an HDF5 file"
        raise InputError(f"{path} {reason}; fetch or pack it anew") from None


def _numbered(labels: np.ndarray) -> tuple[str, ...]:
    return tuple(f"class {index}" for index in range(int(labels.max(initial=-1)) + 1))


def _refuse_groups(file: h5py.File, path: Path, images: str, labels: str | None) -> None:
    for name in (images, labels, "split", "ids", "group", "features", "class_names"):
        if name and name in file and not isinstance(file[name], h5py.Dataset):
            raise InputError(f"{path}: {name!r} is a group of datasets; a dataset is needed")


def _attribute(file: h5py.File, name: str) -> Any:
    """An array of strings as a list of them, or the value of a JSON text."""
    value = file.attrs.get(name)
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        return [decoded(item) for item in value]
    text = decoded(value)
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise InputError(f"{file.filename}: attribute {name!r} is not JSON: {text[:60]}") from None


def _attribute_of_names(names: Sequence[str]) -> list[str] | str:
    """A list; of very many names, which HDF5 takes in no attribute as one, a JSON text."""
    return list(names) if len(names) <= _MOST_LISTED else json.dumps(names, ensure_ascii=False)


def _pairs(value: Any) -> tuple[tuple[str, str], ...] | None:
    return None if value is None else tuple((left, right) for left, right in value)


def _strings(file: h5py.File, name: str, *, empty: bool = False) -> Any:
    if name not in file:
        return np.zeros(0, dtype="U1") if empty else None
    return as_strings(file[name][()])


def _class_names(file: h5py.File) -> tuple[str, ...] | None:
    """From the attribute, or from a dataset of that name."""
    names = _attribute(file, "class_names")
    if names is None and "class_names" in file:
        names = as_strings(file["class_names"][()]).tolist()
    return None if names is None else tuple(names)


def _as_utf8(values: np.ndarray) -> np.ndarray:
    if not len(values):
        return np.zeros(0, dtype="S1")
    # A file name need not be UTF-8; its bytes stay as they are, and `decoded` reads them again.
    return np.char.encode(values.astype(str), "utf-8", "surrogateescape")
