"""What ``galaxy-set info`` says of a source: classes, sizes, duplicates, and what would leak."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from galaxies.catalogue import Catalogue, CatalogueColumns, read_catalogue
from galaxies.duplicates import LeakReport, Pair, leaks
from galaxies.errors import InputError
from galaxies.hdf5 import PixelsInHdf5, PixelWriter
from galaxies.hdf5_file import writable_hdf5
from galaxies.image_files import (
    Decoding,
    Header,
    channels_of,
    decode_all,
    holds_flux,
    read_headers,
)
from galaxies.image_set import SPLITS, ImageSet
from galaxies.likeness import SIDE
from galaxies.resize import crop_and_resize
from galaxies.sources import image_set_of_catalogue, is_simulated, open_image_set
from galaxies.split import DEFAULT_FRACTIONS

FEWEST_TO_TEST = 20
"""Below so many test images the 95 % interval of a recall is wider than 40 points (Wilson)."""

MOST_NAMED = 20
"""Unreadable images that a problem names; all of them are in the description."""


@dataclass(frozen=True)
class Description:
    """A source as people and programs read it.

    Attributes
    ----------
    source : str
    images, channels : int
    sizes : dict
        ``WIDTHxHEIGHT`` to the number of images.
    dtype : str
    classes : dict
        Class name to the number of images.
    split : dict or None
        Side to class name to the number of images.
    groups : int or None
    features : tuple of str
    mirror_pairs : tuple of (str, str)
    generator : dict or None
        Provenance of a synthetic set.
    exact_duplicates : list of [str, str]
        Ids of pairs.
    near_duplicates : list of [str, str] or None
        Ids of pairs; ``None`` where they were not looked for.
    unreadable : list of str
        Images that cannot be used, and files that a catalogue names and that do not exist.
    problems : list of str
        One sentence each.
    """

    source: str
    images: int
    channels: int
    sizes: dict[str, int]
    dtype: str
    classes: dict[str, int]
    split: dict[str, dict[str, int]] | None
    groups: int | None
    features: tuple[str, ...]
    mirror_pairs: tuple[tuple[str, str], ...]
    generator: dict[str, Any] | None
    exact_duplicates: list[tuple[str, str]]
    near_duplicates: list[tuple[str, str]] | None
    unreadable: list[str]
    problems: list[str]

    def lines(self) -> Iterator[str]:
        """The description for people, a line per fact."""
        sizes = ", ".join(f"{size} ({count})" for size, count in self.sizes.items())
        yield f"{self.source}: {self.images} images, {self.channels} channels, {self.dtype}"
        yield f"sizes: {sizes}"
        width = max(len(name) for name in self.classes)
        sides = self.split or {}
        heading = "".join(f"{side:>12}" for side in sides)
        yield f"{'class':{width}} {'images':>8}{heading}"
        for name, count in self.classes.items():
            row = "".join(f"{counts[name]:>12}" for counts in sides.values())
            yield f"{name:{width}} {count:>8}{row}"
        if self.groups is not None:
            yield f"groups: {self.groups}"
        if self.features:
            yield f"features: {', '.join(self.features)}"
        for left, right in self.mirror_pairs:
            yield f"a mirror turns {left} and {right} into each other"
        if self.generator is not None:
            yield f"made by the generator {self.generator.get('checkpoint', 'unknown')}"
        yield f"exact duplicates: {_pairs_text(self.exact_duplicates)}"
        near = self.near_duplicates
        yield f"near duplicates: {'not looked for' if near is None else _pairs_text(near)}"
        for problem in self.problems:
            yield f"problem: {problem}"
        if not self.problems:
            yield "no problem found"


def describe(
    source: str,
    *,
    labels: Path | None = None,
    columns: CatalogueColumns | None = None,
    near: bool = True,
    progress: bool = True,
) -> Description:
    """Describe any source; unreadable images and mixed sizes are reported, not refused.

    Raises
    ------
    InputError
        If the source cannot be opened at all.
    """
    if not is_simulated(source) and Path(source).is_dir():
        catalogue = read_catalogue(Path(source), labels, columns, skip_absent=True)
        return _describe_folder(source, catalogue, near, progress)
    if columns is not None and columns != CatalogueColumns():
        raise InputError(f"{source} has no CSV catalogue whose columns could be named")
    image_set = open_image_set(source, labels=labels)
    if not len(image_set):
        raise InputError(f"{source} holds no image")
    sizes = {f"{image_set.size}x{image_set.size}": len(image_set)}
    report = leaks(image_set, near=near, progress=progress)
    return _describe(source, image_set, sizes, [], report, near)


def _describe_folder(source: str, catalogue: Catalogue, near: bool, progress: bool) -> Description:
    headers = read_headers(catalogue.paths)
    sizes = Counter(f"{h.width}x{h.height}" for h in headers if isinstance(h, Header))
    channels = channels_of(catalogue.paths, headers)
    # Images of any size are compared as squares of one size, kept on disk.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.h5"
        with writable_hdf5(path) as file:
            dtype = torch.float32 if holds_flux(catalogue.paths) else torch.uint8
            writer = PixelWriter(file, len(catalogue.paths), dtype)

            def keep(_: int, pixels: np.ndarray) -> None:
                square = min(pixels.shape[:2])
                image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
                writer.add(crop_and_resize(image, crop=square, size=SIDE))

            bad = decode_all(
                catalogue.paths,
                Decoding(channels=channels, scale_16_bit=True),
                keep=keep,
                progress=progress,
                skip_bad=True,
            )
            if len(bad) == len(catalogue.paths):
                raise InputError(f"{source}: not one of {len(bad)} images can be read")
            store = PixelsInHdf5(path, writer.finish(), dtype)
        good = catalogue.select(np.setdiff1d(np.arange(len(catalogue.paths)), bad))
        image_set = image_set_of_catalogue(good, store, source=source)
        report = leaks(image_set, near=near, progress=progress)
    unreadable = [str(catalogue.paths[row]) for row in bad] + list(catalogue.absent)
    return _describe(source, image_set, dict(sizes.most_common()), unreadable, report, near)


def _describe(
    source: str,
    image_set: ImageSet,
    sizes: dict[str, int],
    unreadable: list[str],
    report: LeakReport,
    near: bool,
) -> Description:
    names = image_set.class_names
    split = None
    if image_set.split is not None:
        split = {
            side: dict(
                zip(
                    names,
                    np.bincount(
                        image_set.labels[image_set.split == index], minlength=len(names)
                    ).tolist(),
                    strict=True,
                )
            )
            for index, side in enumerate(SPLITS)
        }
    problems = [*_problems(image_set, sizes, unreadable, split), *report.problems]
    return Description(
        source=source,
        images=len(image_set),
        channels=image_set.channels,
        sizes=sizes,
        dtype=str(image_set.store.dtype).removeprefix("torch."),
        classes=dict(zip(names, image_set.counts().tolist(), strict=True)),
        split=split,
        groups=None if image_set.group is None else len(np.unique(image_set.group)),
        features=image_set.feature_names,
        mirror_pairs=image_set.mirror_pairs or (),
        generator=image_set.provenance.get("generator"),
        exact_duplicates=_ids_of(image_set, report.exact),
        near_duplicates=_ids_of(image_set, report.near) if near else None,
        unreadable=unreadable,
        problems=problems,
    )


def _problems(
    image_set: ImageSet,
    sizes: dict[str, int],
    unreadable: list[str],
    split: dict[str, dict[str, int]] | None,
) -> Iterator[str]:
    if unreadable:
        counted = "1 image is" if len(unreadable) == 1 else f"{len(unreadable)} images are"
        named = ", ".join(unreadable[:MOST_NAMED])
        if len(unreadable) > MOST_NAMED:
            named += f" and {len(unreadable) - MOST_NAMED} more"
        yield (
            f"{counted} absent or cannot be read: {named}; "
            "leave them out with: galaxy-set pack --skip-bad"
        )
    if len(sizes) > 1:
        yield f"images have {len(sizes)} sizes; make them one with: galaxy-set pack --size"
    empty = [
        name
        for name, count in zip(image_set.class_names, image_set.counts(), strict=True)
        if not count
    ]
    if empty:
        yield f"classes without an image: {', '.join(empty)}"
    if split is None:
        tested = dict(zip(image_set.class_names, image_set.counts().tolist(), strict=True))
        few = {
            name: count
            for name, count in tested.items()
            if 0 < count * DEFAULT_FRACTIONS[2] < FEWEST_TO_TEST
        }
        where = f"images, of which the default split tests {DEFAULT_FRACTIONS[2]:.0%}"
    else:
        few = {n: count for n, count in split["test"].items() if count < FEWEST_TO_TEST}
        where = "test images"
    if image_set.store.dtype == torch.float32 and image_set.stretch is None:
        yield "flux (float32) without a stretch; galaxy-set pack SOURCE SET.h5 measures one"
    if few and not image_set.is_synthetic:
        listed = ", ".join(f"{name} ({count} {where})" for name, count in few.items())
        yield f"classes too small to test: {listed}; below {FEWEST_TO_TEST} a recall says little"


def _ids_of(image_set: ImageSet, pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    return [(str(image_set.ids[pair.first]), str(image_set.ids[pair.second])) for pair in pairs]


def _pairs_text(pairs: Sequence[tuple[str, str]], most: int = 5) -> str:
    if not pairs:
        return "none"
    shown = "; ".join(f"{left} = {right}" for left, right in pairs[:most])
    return f"{len(pairs)} ({shown}{' ...' if len(pairs) > most else ''})"
