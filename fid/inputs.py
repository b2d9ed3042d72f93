"""Either side of a distance: images, features or statistics, from whatever the user has.

``SOURCE`` or ``SOURCE#class=NAME#split=train``: a flat folder of images, a zip of images, an
image set (packed HDF5, ``.npz``, folder per class, folder with a catalogue, ``simulated``), an
``.npy`` or ``.npz`` array of features, or saved statistics. The parts after ``#`` select classes
(``class`` may be repeated) and one side of a split, for sources that carry them.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fid.image_sources import ImageSource, LooseImages, SetImages
from fid.statistics import FeatureStatistics, checked_features
from fid.statistics_file import Origin, is_statistics_file, load_statistics
from galaxies.catalogue import CATALOGUE_NAME, PROVENANCE_NAME
from galaxies.errors import UNREADABLE, InputError
from galaxies.hdf5 import HDF5_ENDINGS
from galaxies.image_files import (
    BadImageError,
    Decoding,
    PixelsInFiles,
    decode_all,
    decode_image,
    is_image_file,
    is_picture_or_fits,
    list_image_files,
)
from galaxies.image_set import ImageSet
from galaxies.npz_shapes import array_shapes
from galaxies.sources import is_simulated, open_image_set


@dataclass(frozen=True)
class Selection:
    """A source and the part of it that is meant.

    Attributes
    ----------
    source : str
        Path, or ``simulated``.
    classes : tuple of str
        Names or indices; empty for all.
    split : str or None
        ``train``, ``validation`` or ``test``.
    """

    source: str
    classes: tuple[str, ...] = ()
    split: str | None = None

    @property
    def is_part(self) -> bool:
        """Whether only a part of the source is meant."""
        return bool(self.classes) or self.split is not None


@dataclass(frozen=True)
class FeatureArray:
    """(n, d) features that the user computed."""

    name: str
    features: np.ndarray


@dataclass(frozen=True)
class SavedStatistics:
    """Mean and covariance from a file."""

    name: str
    statistics: FeatureStatistics
    origin: Origin | None


Side = ImageSource | FeatureArray | SavedStatistics


@dataclass(frozen=True)
class ReadingRules:
    """How loose image files are found and decoded.

    Attributes
    ----------
    recursive : bool
        Take images of sub-folders too.
    skip_bad : bool
        Leave out files that cannot be decoded, and count them.
    decoding : Decoding
        Rules of single files; sizes may differ, each image is resized for the network.
    """

    recursive: bool = False
    skip_bad: bool = False
    decoding: Decoding = field(default_factory=Decoding)


def parse_selection(text: str) -> Selection:
    """Split ``SOURCE#class=NAME#split=SIDE``; a path that exists as it is stands for itself.

    Raises
    ------
    InputError
        If a part is neither ``class=`` nor ``split=``.
    """
    if "#" not in text or Path(text).exists():
        return Selection(text)
    source, *parts = text.split("#")
    classes: list[str] = []
    split: str | None = None
    for part in parts:
        key, _, value = part.partition("=")
        if key == "class" and value:
            classes.append(value)
        elif key == "split" and value and split is None:
            split = value
        else:
            raise InputError(
                f"{text}: {'#' + part!r} is not understood; write SOURCE#class=NAME or "
                "SOURCE#split=train, validation or test (class may be repeated)"
            )
    return Selection(source, tuple(classes), split)


def open_side(text: str, rules: ReadingRules | None = None) -> Side:
    """Open what the user typed; pixels and features are read when they are needed.

    Raises
    ------
    InputError
        One line that says what is wrong, where, and what to do.
    """
    rules = rules or ReadingRules()
    selection = parse_selection(text)
    path = Path(selection.source)
    if not is_simulated(selection.source) and not path.exists():
        raise InputError(f"{path} does not exist")
    if not selection.is_part:
        if path.suffix.lower() == ".npy" and (array := _load_array(path)) is not None:
            return FeatureArray(text, array)
        if path.suffix.lower() == ".npz" and (side := _open_npz(path, text)) is not None:
            return side
        if path.suffix.lower() == ".zip":
            return _open_zip(path, text, rules)
        if path.is_file() and is_image_file(path.name):
            raise InputError(f"{path} is one image; a distance compares folders or sets of images")
        if path.is_dir() and not (
            _is_set_folder(path) or (not rules.recursive and _is_folder_per_class(path))
        ):
            files = list_image_files(path, recursive=rules.recursive)
            return LooseImages(text, tuple(files), rules.decoding, rules.skip_bad)
    image_set, left_out = open_set(selection, rules)
    return SetImages(text, image_set, left_out)


def open_set(selection: Selection, rules: ReadingRules) -> tuple[ImageSet, tuple[str, ...]]:
    """The selected part of an image set, and what is wrong with each file that was left out."""
    path = Path(selection.source)
    known = (*HDF5_ENDINGS, ".npz", ".npy")
    if not is_simulated(selection.source) and path.is_file() and path.suffix.lower() not in known:
        raise InputError(
            f"{path} is neither an image set ({' '.join(known)}), nor a folder, a zip, "
            "an .npy array or saved statistics"
        )
    needs_labels = bool(selection.classes)  # a distance of whole sets does not ask what they show
    whole = open_image_set(selection.source, decoding=rules.decoding, labelled=needs_labels)
    part = whole
    if selection.split is not None:
        part = part.side(selection.split)
    if selection.classes:
        part = part.of_classes(selection.classes)
    if len(part) == 0:
        raise InputError(f"{selection.source} holds no image of {_named(selection)}")
    if rules.skip_bad and isinstance(whole.store, PixelsInFiles):
        return _usable(part, whole, whole.store)
    return part, ()


def _usable(
    part: ImageSet, whole: ImageSet, store: PixelsInFiles
) -> tuple[ImageSet, tuple[str, ...]]:
    """The images of a part whose files can be decoded, and what is wrong with the others."""
    paths = [store.paths[row] for row in np.flatnonzero(np.isin(whole.ids, part.ids))]
    bad = decode_all(paths, store.decoding, skip_bad=True, keep=lambda row, pixels: None)
    if not bad:
        return part, ()
    if len(bad) == len(paths):
        raise InputError(
            f"not one of {len(paths)} images can be used; the first: {_complaint(paths[0], store)}"
        )
    kept = np.setdiff1d(np.arange(len(paths)), bad)
    return part.select(kept), tuple(_complaint(paths[row], store) for row in bad)


def _complaint(path: Path, store: PixelsInFiles) -> str:
    try:
        decode_image(path, str(path), store.decoding)
    except BadImageError as error:
        return str(error)
    return str(path)


def _is_set_folder(folder: Path) -> bool:
    """A folder that says what it is; others are flat where they hold images themselves."""
    return (folder / CATALOGUE_NAME).is_file() or (folder / PROVENANCE_NAME).is_file()


def _is_folder_per_class(folder: Path) -> bool:
    """Images lie in two or more of its folders and not in itself: a set for every command."""
    entries = list(folder.iterdir())
    if any(is_image_file(entry.name) for entry in entries if entry.is_file()):
        return False
    folders = [entry for entry in entries if entry.is_dir()]
    holding = (any(is_picture_or_fits(f.name) for f in inner.iterdir()) for inner in folders)
    return sum(holding) > 1


def _load_array(path: Path) -> np.ndarray | None:
    """Features; ``None`` where they look like images."""
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is not a readable array ({error})") from None
    if array.ndim == 4 or (array.ndim == 3 and array.dtype == np.uint8):
        return None
    try:
        return checked_features(array)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _open_npz(path: Path, text: str) -> Side | None:
    """Statistics or one array of features; ``None`` where it looks like an image set."""
    shapes = array_shapes(path)
    if is_statistics_file(list(shapes)):
        statistics, origin = load_statistics(path)
        return SavedStatistics(text, statistics, origin)
    if any(len(shape) >= 3 for shape in shapes.values()):
        return None
    tables = [name for name, shape in shapes.items() if len(shape) == 2]
    if len(tables) != 1:
        raise InputError(
            f"{path} holds {', '.join(shapes) or 'nothing'}; one array (N, d) of features, "
            "saved statistics (mu, sigma) or images are needed"
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            features = arrays[tables[0]]
    except (*UNREADABLE, ValueError) as error:
        raise InputError(f"{path} is not a readable .npz file ({error})") from None
    try:
        return FeatureArray(text, checked_features(features))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _open_zip(path: Path, text: str, rules: ReadingRules) -> LooseImages:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(
                name
                for name in archive.namelist()
                if is_image_file(name) and not name.startswith("__MACOSX/")
            )
            others = len(archive.namelist()) - len(names)
    except UNREADABLE as error:
        raise InputError(f"{path} is not a readable zip file ({error})") from None
    if not names:
        raise InputError(f"{path} holds no image ({others} other entries)")
    return LooseImages(text, tuple(names), rules.decoding, rules.skip_bad, archive=path)


def _named(selection: Selection) -> str:
    parts: Sequence[str] = [f"class {name}" for name in selection.classes]
    split = f" in the {selection.split} split" if selection.split else ""
    return (", ".join(parts) or "any class") + split
