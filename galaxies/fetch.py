"""Published image sets by name: downloaded, checked, given their class names, written as a set."""

import dataclasses
import gzip
import os
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch

from galaxies.atomic import refuse_existing, whole_file
from galaxies.download import download, wrong_hash
from galaxies.errors import InputError
from galaxies.hdf5 import HDF5_ENDINGS, PixelsInHdf5, PixelWriter, read_hdf5, write_columns
from galaxies.hdf5_file import writable_hdf5
from galaxies.image_set import SPLITS, ImageSet
from galaxies.published import PublishedSet, published_set, recognise_galaxy10

__all__ = ["cache_folder", "download", "fetch"]


def cache_folder() -> Path:
    """Folder for downloads and the simulated survey; ``GALAXY_AUGMENT_CACHE`` moves it."""
    named = os.environ.get("GALAXY_AUGMENT_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "galaxy-augment"


def fetch(
    name: str,
    out: Path,
    *,
    files: Sequence[Path] = (),
    overwrite: bool = False,
    progress: bool = True,
) -> ImageSet:
    """Download a published set and write it as one HDF5 file with its class names.

    Parameters
    ----------
    name
        One of `galaxies.published.PUBLISHED_SETS`.
    out
        HDF5 file to write.
    files
        The published files, downloaded elsewhere, in place of the network; still checked.
    overwrite
        Replace ``out``.
    progress
        Show bars on stderr.

    Returns
    -------
    ImageSet
        Opened from ``out``. A canonical train and test split is kept.

    Raises
    ------
    InputError
        If the name is unknown, the network cannot be reached, a hash differs, or the file holds
        another set.
    """
    published = published_set(name)
    if out.suffix.lower() not in HDF5_ENDINGS:
        raise InputError(f"{out} should end in {' or '.join(HDF5_ENDINGS)}")
    refuse_existing(out, overwrite=overwrite)
    sources = _checked(files, published) if files else _downloaded(published, progress)
    with tempfile.TemporaryDirectory(dir=_existing_parent(out), prefix=".fetch-") as scratch:
        plain = [_unpacked(source, Path(scratch)) for source in sources]
        parts = [read_hdf5(path) for path in plain]
        for path, part in zip(plain, parts, strict=True):
            _refuse_other_set(path, part, published)
        _write(parts, plain, published, out, overwrite=overwrite)
    return read_hdf5(out)


def _downloaded(published: PublishedSet, progress: bool) -> list[Path]:
    folder = cache_folder() / "downloads" / published.name
    return [
        download(file.url, folder / file.name, sha256=file.sha256, md5=file.md5, progress=progress)
        for file in published.files
    ]


def _checked(files: Sequence[Path], published: PublishedSet) -> list[Path]:
    if len(files) != len(published.files):
        raise InputError(
            f"{published.name} consists of {len(published.files)} files "
            f"({', '.join(file.url for file in published.files)}), got {len(files)} by --file"
        )
    for path, file in zip(files, published.files, strict=True):
        if not path.is_file():
            raise InputError(f"{path} does not exist (--file)")
        wrong = wrong_hash(path, file.sha256, file.md5)
        if wrong is not None:
            raise InputError(f"{path} is not {file.name} of {published.name}: {wrong}")
    return list(files)


def _unpacked(source: Path, scratch: Path) -> Path:
    """The file itself, or what a ``.gz`` holds."""
    if source.suffix != ".gz":
        return source
    plain = scratch / source.stem
    try:
        with gzip.open(source) as packed, plain.open("wb") as file:
            shutil.copyfileobj(packed, file, 2**20)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{source} is not a whole .gz file ({error}); fetch it anew") from None
    return plain


def _refuse_other_set(path: Path, part: ImageSet, published: PublishedSet) -> None:
    """The hash has been checked; this tells sets apart whose file was replaced by its publisher."""
    with h5py.File(path, "r") as file:
        recognised = recognise_galaxy10(part.size, part.labels, list(file))
    classes = len(published.class_names)
    if (
        part.size != published.size
        or part.labels.max(initial=0) >= classes
        or (recognised is not None and recognised is not published)
    ):
        found = recognised.name if recognised else f"{part.size}x{part.size} images"
        raise InputError(
            f"{path} is not {published.name}: it holds {found}, "
            f"not {published.size}x{published.size} images of {classes} classes"
        )


def _write(
    parts: Sequence[ImageSet],
    paths: Sequence[Path],
    published: PublishedSet,
    out: Path,
    *,
    overwrite: bool,
) -> None:
    sides = [file.side for file in published.files]
    split = None
    if all(sides):
        split = np.concatenate(
            [
                np.full(len(part), SPLITS.index(str(side)), np.int8)
                for part, side in zip(parts, sides, strict=True)
            ]
        )
    ids = [
        f"{published.name}-{side or 'row'}-{row:06d}"
        for part, side in zip(parts, sides, strict=True)
        for row in range(len(part))
    ]
    with whole_file(out, overwrite=overwrite) as temporary, writable_hdf5(temporary) as file:
        writer = PixelWriter(file, sum(len(part) for part in parts), torch.uint8)
        for part in parts:
            for _, block in part.blocks():
                writer.add(block)
        image_set = dataclasses.replace(
            parts[0],
            store=PixelsInHdf5(temporary, writer.finish(), torch.uint8),
            labels=np.concatenate([part.labels for part in parts]),
            class_names=published.class_names,
            ids=np.array(ids),
            split=split,
            mirror_pairs=None,
            features=np.zeros((0, 0), np.float32),
            provenance={
                "source": published.name,
                "published": {
                    "files": [dataclasses.asdict(file) for file in published.files],
                    "citation": published.citation,
                },
            },
        )
        write_columns(file, image_set)
        for column in published.columns:
            with h5py.File(paths[0], "r") as original:
                if column in original and original[column].shape == (len(ids),):
                    file.create_dataset(column, data=original[column][:])


def _existing_parent(path: Path) -> Path:
    """Nearest folder above ``path`` that exists: scratch space on the disk that is written."""
    parent = path.absolute().parent
    while not parent.is_dir():
        parent = parent.parent
    return parent
