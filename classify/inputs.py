"""The images that ``classify-predict`` is given: files, folders, sets and patterns, in batches."""

import glob
import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from classify.reading import ImageReader
from galaxies.errors import InputError
from galaxies.fits_images import is_fits_file
from galaxies.hdf5 import HDF5_ENDINGS, UNLABELLED
from galaxies.image_files import is_image_file
from galaxies.image_set import ImageSet
from galaxies.sources import open_image_set

DECODING_THREADS = 4


@dataclass(frozen=True)
class Item:
    """One image before it is read: a file, or a row of a set."""

    name: str
    label: str | None
    path: Path | None = None
    image_set: ImageSet | None = None
    row: int = -1


@dataclass(frozen=True)
class Batch:
    """Some images, read.

    Attributes
    ----------
    items : list of Item
        Those that could be used.
    pixels : (n, C, H, W)
    bad : list of (Item, str)
        The others, with the reason.
    """

    items: list[Item]
    pixels: torch.Tensor
    bad: list[tuple[Item, str]]


def list_items(
    sources: Iterable[str],
    reader: ImageReader,
    *,
    side: str = "all",
    recursive: bool = False,
    labelled: bool = False,
) -> list[Item]:
    """Every image of every source, in the order given, without reading a pixel.

    Parameters
    ----------
    labelled
        Whether a set must hold labels.

    Raises
    ------
    InputError
        If a source does not exist, holds no image, or is a set of another size.
    """
    items: list[Item] = []
    for source in _expand(sources):
        path = Path(source)
        if not path.exists():
            raise InputError(f"{path} does not exist")
        if path.is_dir():
            items += _of_folder(path, recursive)
        elif path.suffix.lower() in (*HDF5_ENDINGS, ".npz"):
            items += _of_set(path, reader, side, labelled)
        elif is_image_file(path.name) or is_fits_file(path.name):
            items.append(Item(str(path), path.absolute().parent.name, path=path))
        else:
            raise InputError(f"{path} is neither an image, a FITS file nor a set")
    return items


def read_batches(items: list[Item], reader: ImageReader, batch_size: int) -> Iterator[Batch]:
    """Read items in batches; files are decoded by threads, rows of a set at once."""
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        for start in range(0, len(items), batch_size):
            part = items[start : start + batch_size]
            read: list[torch.Tensor | str] = []
            for _, run in itertools.groupby(part, key=lambda item: id(item.image_set)):
                together = list(run)
                image_set = together[0].image_set
                if image_set is not None:
                    read += _read_rows(image_set, np.array([item.row for item in together]))
                else:
                    read += list(pool.map(lambda item: _read_file(item, reader), together))
            good = [(i, r) for i, r in zip(part, read, strict=True) if isinstance(r, torch.Tensor)]
            bad = [(i, r) for i, r in zip(part, read, strict=True) if isinstance(r, str)]
            pixels = torch.stack([r for _, r in good]) if good else torch.zeros(0)
            yield Batch([item for item, _ in good], pixels, bad)


def _read_rows(image_set: ImageSet, rows: np.ndarray) -> list[torch.Tensor | str]:
    """Rows of a set, at once; one by one where some cannot be used (flux that is NaN)."""
    try:
        return list(image_set.read(rows))
    except InputError:
        read: list[torch.Tensor | str] = []
        for row in rows:
            try:
                read.append(image_set.read(row[None])[0])
            except InputError as error:
                read.append(str(error))
        return read


def _read_file(item: Item, reader: ImageReader) -> torch.Tensor | str:
    assert item.path is not None
    try:
        return reader.read(item.path, item.name)
    except InputError as error:
        return str(error)


def _expand(sources: Iterable[str]) -> Iterator[str]:
    for source in sources:
        if Path(source).exists() or not glob.has_magic(source):
            yield source
            continue
        found = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 (absolute patterns too)
        if not found:
            raise InputError(f"no file matches {source}")
        yield from found


def _of_folder(folder: Path, recursive: bool) -> list[Item]:
    below = sorted(path for path in folder.rglob("*") if path.is_file())
    images = [path for path in below if is_image_file(path.name) or is_fits_file(path.name)]
    here = images if recursive else [path for path in images if path.parent == folder]
    if not here:
        others = len(below) - len(images)
        raise InputError(
            f"{folder} holds no image itself, {len(images)} below, {others} other files"
            + ("; pass --recursive to take those below" if images else "")
        )
    return [Item(str(path), path.parent.name, path=path) for path in here]


def open_set(path: Path, *, labelled: bool) -> ImageSet:
    """An image set; a file may lack labels where none are needed."""
    return open_image_set(path, labelled=labelled)


def _of_set(path: Path, reader: ImageReader, side: str, labelled: bool) -> list[Item]:
    image_set = open_set(path, labelled=labelled)
    expected = (reader.channels, reader.size, reader.size)
    if image_set.shape != expected:
        advice = f"; pack the set anew with --size {reader.size}"
        if image_set.channels != reader.channels:
            advice = "; its bands are not those that were learnt"
        raise InputError(
            f"{path} holds images of {image_set.size}x{image_set.size} with "
            f"{image_set.channels} channels; this classifier takes {reader.size}x{reader.size} "
            f"with {reader.channels}{advice}"
        )
    if (image_set.stretch is not None) != reader.takes_flux:
        raise InputError(f"{path} and the classifier differ: one holds flux, the other uint8")
    if side != "all":
        image_set = image_set.side(side)
    names: list[str | None] = list(image_set.class_names)
    if image_set.class_names == (UNLABELLED,):
        names = [None]
    return [
        Item(str(name), names[label], image_set=image_set, row=row)
        for row, (name, label) in enumerate(zip(image_set.ids, image_set.labels, strict=True))
    ]
