"""Any source to one HDF5 file, block by block, so that no set is too large for memory."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from tqdm import tqdm

from galaxies.atomic import refuse_existing, whole_file
from galaxies.catalogue import CatalogueColumns, read_catalogue
from galaxies.command_line import warn
from galaxies.eight_bits import dark_after_scaling
from galaxies.errors import InputError
from galaxies.hdf5 import HDF5_ENDINGS, PixelsInHdf5, PixelWriter, read_hdf5, write_columns
from galaxies.hdf5_file import writable_hdf5
from galaxies.image_files import (
    Decoding,
    Header,
    PixelsInFiles,
    channels_of,
    decode_all,
    holds_flux,
    read_headers,
)
from galaxies.image_set import BLOCK_BYTES, ImageSet, images_with_finite_pixels
from galaxies.pixels import Stretch
from galaxies.resize import crop_and_resize
from galaxies.sources import image_set_of_catalogue, is_simulated, open_image_set
from galaxies.split import read_column
from galaxies.survey_stretch import survey_stretch
from galaxies.table_join import TableJoin

FEWEST_IMAGES = 2
"""A class with fewer images can be neither trained on and tested, nor split."""


@dataclass(frozen=True)
class Packed:
    """What `pack` wrote: the set, opened from its file, and the images that were left out."""

    image_set: ImageSet
    skipped: tuple[str, ...]
    excluded: int


def pack(
    source: str | Path,
    out: Path,
    *,
    size: int,
    crop: int | None = None,
    labels: Path | None = None,
    columns: CatalogueColumns | None = None,
    exclude: Sequence[str] = (),
    skip_bad: bool = False,
    scale_16_bit: bool = False,
    stretch: Stretch | None = None,
    mirror: tuple[str, str] | None = None,
    joined: TableJoin | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Packed:
    """Crop, resize and write a source as one HDF5 file; the file is whole or absent.

    Parameters
    ----------
    source
        Anything that `galaxies.sources.open_image_set` opens.
    out
        HDF5 file to write.
    size
        Side of the written images in pixels.
    crop
        Side of the central square that is kept before resizing.
    labels, columns
        CSV catalogue of a folder, and the names of its columns.
    exclude
        Names of classes to leave out; their images are not read.
    skip_bad
        Leave out images that cannot be decoded, or whose flux is NaN or infinite somewhere,
        instead of refusing the source.
    scale_16_bit
        Divide 16-bit values by 257 instead of refusing them.
    stretch
        How float32 flux becomes network input; default that of the source, and where it has
        none, `survey_stretch` of the packed images.
    mirror
        Two classes that a mirror turns into each other, beside those that their names tell.
    joined
        Table whose features are added to the images of the same names.
    overwrite
        Replace ``out``.
    progress
        Show a bar on stderr.

    Raises
    ------
    InputError
        One line that says what is wrong, where, and what to do.
    """
    _refuse_output(out, overwrite=overwrite)
    decoding = Decoding(crop=crop, size=size, scale_16_bit=scale_16_bit)
    arguments = (out, decoding, exclude, mirror, joined, overwrite, progress)
    if not is_simulated(source) and Path(source).is_dir():
        return _pack_folder(Path(source), labels, columns, skip_bad, stretch, *arguments)
    group = columns.group if columns is not None else CatalogueColumns().group
    if columns is not None and columns != CatalogueColumns(group=group):
        raise InputError(f"{source} has no CSV catalogue whose columns could be named")
    if out.exists() and Path(source).exists() and out.samefile(source):
        raise InputError(f"{out} is the source itself; choose another name")
    image_set = open_image_set(source, labels=labels, columns=columns, decoding=decoding)
    if stretch is not None and image_set.store.dtype != torch.float32:
        raise InputError(f"--stretch is for flux (float32), and {source} holds 8-bit pictures")
    if stretch is not None:
        image_set = dataclasses.replace(image_set, stretch=stretch)
    if group != CatalogueColumns().group:
        if Path(source).suffix.lower() not in HDF5_ENDINGS:
            raise InputError(
                f"{source} has no column {group!r}; --group is for catalogues and HDF5"
            )
        image_set = dataclasses.replace(
            image_set, group=read_column(Path(source), image_set, group)
        )
    return _pack_arrays(image_set, str(source), group, skip_bad, *arguments)


def _pack_folder(
    folder: Path,
    labels: Path | None,
    columns: CatalogueColumns | None,
    skip_bad: bool,
    stretch: Stretch | None,
    out: Path,
    decoding: Decoding,
    exclude: Sequence[str],
    mirror: tuple[str, str] | None,
    joined: TableJoin | None,
    overwrite: bool,
    progress: bool,
) -> Packed:
    catalogue = read_catalogue(folder, labels, columns, skip_absent=skip_bad)
    everything = len(catalogue.paths)
    flux = holds_flux(catalogue.paths)
    if stretch is not None and not flux:
        raise InputError(f"--stretch is for flux (float32), and {folder} holds 8-bit pictures")
    catalogue = catalogue.without_classes(exclude) if exclude else catalogue
    counts = _refuse_small_classes(catalogue.classes, catalogue.class_names)
    if joined is not None:
        joined.rows_of(catalogue.ids)  # refuses before a pixel is read
    headers = read_headers(catalogue.paths)
    channels = channels_of(catalogue.paths, headers)
    grey = sum(isinstance(header, Header) and header.channels < channels for header in headers)
    if grey and not flux:
        warn(f"{grey} of {len(headers)} images are grey among colour ones; they become colour")
    decoding = dataclasses.replace(decoding, channels=channels)
    with whole_file(out, overwrite=overwrite) as temporary, writable_hdf5(temporary) as file:
        dtype = torch.float32 if flux else torch.uint8
        writer = PixelWriter(file, len(catalogue.paths), dtype)
        brightest = 0

        def keep(_: int, pixels: np.ndarray) -> None:
            nonlocal brightest
            brightest = max(brightest, int(pixels.max()))
            writer.add(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None])

        skipped = decode_all(
            catalogue.paths, decoding, skip_bad=skip_bad, progress=progress, keep=keep
        )
        if not flux:
            _warn_of_dark_images(brightest, decoding)
        left_out = tuple(str(catalogue.paths[row]) for row in skipped)
        catalogue = catalogue.select(np.setdiff1d(np.arange(len(catalogue.paths)), skipped))
        _refuse_emptied_classes(counts, catalogue.classes, len(left_out))
        left_out += catalogue.absent
        store = PixelsInHdf5(temporary, writer.finish(), dtype)
        packed = image_set_of_catalogue(catalogue, store, source=str(folder))
        if flux:
            if stretch is None:
                files = PixelsInFiles(catalogue.paths, decoding, store.shape, dtype)
                stretch = survey_stretch(dataclasses.replace(packed, store=files))
            packed = dataclasses.replace(packed, stretch=stretch)
        packed = _with_mirror(packed if joined is None else joined.onto(packed), mirror)
        note = _note(decoding, exclude, None if columns is None else columns.group) | {
            "skipped": len(left_out)
        }
        write_columns(file, _with_note(packed, note))
    return Packed(read_hdf5(out), left_out, everything - len(headers))


def _pack_arrays(
    image_set: ImageSet,
    source: str,
    group: str,
    skip_bad: bool,
    out: Path,
    decoding: Decoding,
    exclude: Sequence[str],
    mirror: tuple[str, str] | None,
    joined: TableJoin | None,
    overwrite: bool,
    progress: bool,
) -> Packed:
    everything = len(image_set)
    if not everything:
        raise InputError(f"{source} holds no image")
    if exclude:
        image_set = image_set.without_classes(exclude)
    names = [image_set.class_names[label] for label in image_set.labels]
    counts = _refuse_small_classes(names, image_set.class_names)
    image_set = _with_mirror(image_set, mirror)
    if joined is not None:
        image_set = joined.onto(image_set)
    with (
        whole_file(out, overwrite=overwrite) as temporary,
        writable_hdf5(temporary) as file,
        tqdm(
            total=len(image_set), desc="pack", unit="image", disable=not progress, leave=False
        ) as bar,
    ):
        kept = _rows_with_finite_pixels(image_set, bar, skip_bad=skip_bad)
        left_out = tuple(image_set.ids[np.setdiff1d(np.arange(len(image_set)), kept)].tolist())
        excluded = everything - len(image_set)
        image_set = image_set.select(kept) if left_out else image_set
        classes = [image_set.class_names[label] for label in image_set.labels]
        _refuse_emptied_classes(counts, classes, len(left_out))
        writer = PixelWriter(file, len(image_set), image_set.store.dtype)
        brightest = 0
        for _, block in image_set.blocks():
            brightest = max(brightest, int(block.max()))
            writer.add(crop_and_resize(block, crop=decoding.crop, size=decoding.size))
            bar.update(len(block))
        bar.close()  # warnings follow, on lines of their own
        if image_set.store.dtype == torch.uint8:
            _warn_of_dark_images(brightest, decoding)
        provenance = {"source": source} | image_set.provenance
        store = PixelsInHdf5(temporary, writer.finish(), image_set.store.dtype)
        packed = dataclasses.replace(image_set, store=store, provenance=provenance)
        if image_set.store.dtype == torch.float32 and image_set.stretch is None:
            measured = survey_stretch(image_set, crop=decoding.crop, size=decoding.size)
            packed = dataclasses.replace(packed, stretch=measured)
        note = _note(decoding, exclude, group) | {"skipped": len(left_out)}
        write_columns(file, _with_note(packed, note))
    return Packed(read_hdf5(out), left_out, excluded)


def _warn_of_dark_images(brightest: int, decoding: Decoding) -> None:
    said = dark_after_scaling(brightest) if decoding.scale_16_bit else None
    if said:
        warn(said)


def _with_mirror(image_set: ImageSet, mirror: tuple[str, str] | None) -> ImageSet:
    if mirror is None or mirror in (image_set.mirror_pairs or ()):
        return image_set
    for name in mirror:
        image_set.class_index(name)  # names the classes that there are
    pairs = (*(image_set.mirror_pairs or ()), mirror)
    mirrored = dataclasses.replace(image_set, mirror_pairs=pairs)
    mirrored.mirror_permutation()  # refuses a class in two pairs
    return mirrored


def _rows_with_finite_pixels(
    image_set: ImageSet, bar: "tqdm[NoReturn]", *, skip_bad: bool
) -> np.ndarray:
    """Rows whose flux is finite; all of an 8-bit set, without reading it.

    Raises
    ------
    InputError
        If there are others and ``skip_bad`` is false.
    """
    everything = np.arange(len(image_set))
    if image_set.store.dtype == torch.uint8:
        return everything
    bar.total += len(image_set)
    good = []
    for rows in np.array_split(everything, max(1, image_set.pixel_bytes // BLOCK_BYTES)):
        good.append(rows[images_with_finite_pixels(image_set.store.read(rows))])
        bar.update(len(rows))
    kept = np.concatenate(good)
    if len(kept) < len(everything) and not skip_bad:
        first = image_set.ids[np.setdiff1d(everything, kept)[0]]
        raise InputError(
            f"{len(everything) - len(kept)} of {len(everything)} images hold pixels that are NaN "
            f"or infinite, such as {first}; --skip-bad leaves them out"
        )
    return kept


def _note(decoding: Decoding, exclude: Sequence[str], group: str | None) -> dict[str, Any]:
    """What pack did, for the provenance of the set that it writes."""
    return {
        "size": decoding.size,
        "crop": decoding.crop,
        "excluded": list(exclude),
        "scaled_16_bit": decoding.scale_16_bit,
        "group_column": group,
    }


def _with_note(image_set: ImageSet, note: dict[str, Any]) -> ImageSet:
    return dataclasses.replace(image_set, provenance=image_set.provenance | {"packed": note})


def _refuse_output(out: Path, *, overwrite: bool) -> None:
    if out.suffix.lower() not in HDF5_ENDINGS:
        raise InputError(f"{out} should end in {' or '.join(HDF5_ENDINGS)}")
    refuse_existing(out, overwrite=overwrite)


def _refuse_small_classes(classes: Sequence[str], class_names: Sequence[str]) -> Counter[str]:
    """Images per class that has any; classes without an image are only warned of."""
    counts = Counter(classes)
    _refuse_few(counts)
    empty = [name for name in class_names if name not in counts]
    if empty:
        warn(f"classes without an image: {', '.join(empty)}")
    return counts


def _refuse_emptied_classes(before: Counter[str], classes: Sequence[str], skipped: int) -> None:
    """Refuse what bad images have made too small, or have emptied."""
    left = Counter(classes)
    _refuse_few({name: left[name] for name in before}, f" without the {skipped} bad images")


def _refuse_few(counts: Mapping[str, int], without: str = "") -> None:
    small = [f"{name!r} ({count})" for name, count in counts.items() if count < FEWEST_IMAGES]
    if small:
        raise InputError(
            f"classes with fewer than {FEWEST_IMAGES} images{without}: {', '.join(small)}; "
            "add images, or leave the class out with --exclude CLASS"
        )
