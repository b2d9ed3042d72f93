"""Anything that holds labelled images, opened as an `ImageSet`.

A packed file or Galaxy10 HDF5, ``.npz``, one folder per class, a folder and a CSV catalogue, or
``simulated``, the embedded survey.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from galaxies.catalogue import Catalogue, CatalogueColumns, read_catalogue
from galaxies.errors import InputError
from galaxies.hdf5 import HDF5_ENDINGS, read_hdf5
from galaxies.image_files import (
    BadImageError,
    Decoding,
    Header,
    PixelsInFiles,
    channels_of,
    decode_image,
    holds_flux,
    read_headers,
)
from galaxies.image_set import ImageSet, PixelStore
from galaxies.npz import read_npz

SIMULATED = "simulated"
"""The source name of the embedded simulated survey, the default of ``--data``."""


def open_image_set(
    source: str | Path,
    *,
    labels: Path | None = None,
    columns: CatalogueColumns | None = None,
    decoding: Decoding | None = None,
    labelled: bool = True,
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
        Crop, size and channels of image files; of an array only ``scale_16_bit`` counts.
    labelled
        Whether a file must hold labels; without them all images are of the class `UNLABELLED`.

    Raises
    ------
    InputError
        One line that says what is wrong, where, and what to do.
    """
    if is_simulated(source):
        from galaxies.simulate import embedded_survey

        return embedded_survey()
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if path.is_dir():
        return _open_folder(path, labels, columns, decoding or Decoding())
    if labels is not None:
        raise InputError(f"{path} carries its own labels; --labels is for a folder of images")
    scale = decoding is not None and decoding.scale_16_bit
    crop = None if decoding is None else decoding.crop
    if path.suffix.lower() == ".npz" or (path.suffix.lower() == ".npy" and not labelled):
        return read_npz(path, scale_16_bit=scale, crop=crop, labelled=labelled)
    if path.suffix.lower() in HDF5_ENDINGS:
        return read_hdf5(path, scale_16_bit=scale, crop=crop, labelled=labelled)
    advice = {
        ".zip": "; unpack it first, and give the folder",
        ".npy": "; it holds no labels: store them beside the images with np.savez",
    }
    raise InputError(
        f"{path} is not an image set: give a folder, .npz or HDF5 ({' '.join(HDF5_ENDINGS)})"
        + advice.get(path.suffix.lower(), "")
    )


def is_simulated(source: str | Path) -> bool:
    """Whether a source is the embedded survey.

    Raises
    ------
    InputError
        If a file or folder of that name lies here too: either may be meant.
    """
    if str(source) != SIMULATED:
        return False
    if Path(SIMULATED).exists():
        raise InputError(
            f"{SIMULATED} is the embedded survey, and also a name in {Path.cwd()}: give that by "
            "its whole path, or rename it"
        )
    return True


def _open_folder(
    folder: Path, labels: Path | None, columns: CatalogueColumns | None, decoding: Decoding
) -> ImageSet:
    catalogue = read_catalogue(folder, labels, columns)
    headers = read_headers(catalogue.paths)
    if decoding.size is None and decoding.crop is None:
        refuse_mixed_sizes([header for header in headers if isinstance(header, Header)])
    if decoding.channels is None:
        channels = channels_of(catalogue.paths, headers)
        decoding = dataclasses.replace(decoding, channels=channels)
    first = _decode_first_good(catalogue.paths, decoding)
    shape = (len(catalogue.paths), first.shape[2], first.shape[0], first.shape[1])
    dtype = torch.float32 if holds_flux(catalogue.paths) else torch.uint8
    return image_set_of_catalogue(
        catalogue, PixelsInFiles(catalogue.paths, decoding, shape, dtype), source=str(folder)
    )


def image_set_of_catalogue(catalogue: Catalogue, store: PixelStore, *, source: str) -> ImageSet:
    """Join a catalogue to its pixels."""
    index = {name: position for position, name in enumerate(catalogue.class_names)}
    provenance = {"source": source} | catalogue.provenance
    prints = provenance.pop("training_fingerprints", [])
    training_ids = provenance.pop("training_ids", [])
    mirrors = provenance.pop("mirror_pairs", None)
    return ImageSet(
        store=store,
        labels=np.array([index[name] for name in catalogue.classes], dtype=np.int64),
        class_names=catalogue.class_names,
        ids=catalogue.ids,
        split=catalogue.split,
        group=catalogue.group,
        features=catalogue.features,
        feature_names=catalogue.feature_names,
        mirror_pairs=None
        if mirrors is None
        else tuple((left, right) for left, right in mirrors if {left, right} <= set(index)),
        provenance=provenance,
        training_fingerprints=np.array(prints, dtype=str),
        training_ids=np.array(training_ids, dtype=str),
    )


def refuse_mixed_sizes(headers: Sequence[Header]) -> None:
    """Raise `InputError` where images have more than one size, and list the sizes."""
    sizes: dict[tuple[int, int], int] = {}
    for header in headers:
        size = (header.width, header.height)
        sizes[size] = sizes.get(size, 0) + 1
    if len(sizes) > 1:
        most = sorted(sizes.items(), key=lambda item: -item[1])[:5]
        listed = ", ".join(f"{w}x{h} ({count})" for (w, h), count in most)
        raise InputError(
            f"images have {len(sizes)} sizes: {listed}; make them one size with: "
            "galaxy-set pack SOURCE OUT.h5 --size 64 (and --crop)"
        )


def _decode_first_good(paths: Sequence[Path], decoding: Decoding) -> np.ndarray:
    """The first image that decodes; which ones are bad is said when they are read."""
    first_error: BadImageError | None = None
    for path in paths:
        try:
            return decode_image(path, str(path), decoding)
        except BadImageError as error:
            first_error = first_error or error
    raise InputError(f"not one of {len(paths)} images can be used; the first: {first_error}")
