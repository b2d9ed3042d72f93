"""What this process serves: choices made once, networks loaded once for every visitor."""

import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli import ClassifyAppConfig
from app.uploads import MEBIBYTE, Limits
from galaxies.errors import InputError

if TYPE_CHECKING:
    from classify.generation import LoadedGenerator
    from classify.service import ClassifierService
    from galaxies.image_set import ImageSet

MOST_SAMPLES = 24

_choices: list[ClassifyAppConfig] = []
_loading = threading.RLock()

computing = threading.Lock()
"""Held while a network computes. Explaining an image hooks into the network that all share, and
the other cores are not idle: they decode uploads and draw pages."""


def use(config: ClassifyAppConfig) -> None:
    """Serve these choices from now on; forgets what was loaded for others."""
    _choices[:] = [config]
    for loader in (
        _load_classifier, _load_examples, _load_generator, _load_samples, _load_card, _load_figures
    ):  # fmt: skip
        loader.cache_clear()


def load_all() -> None:
    """Read all that a visit needs of the checkpoint's folder.

    It may be trained anew or removed while it is served, and what is read later would belong to
    another network: rows of nearest images, for one, would be those of other pictures.
    """
    for read in (classifier, examples, samples, card, figures):
        read()


def choices() -> ClassifyAppConfig:
    """The choices that this process serves."""
    if not _choices:
        raise RuntimeError("served.use() comes first")
    return _choices[0]


def limits() -> Limits:
    """Bounds of one request, the same at the page and at the endpoint."""
    config = choices()
    return Limits(upload_bytes=config.upload_limit_mb * MEBIBYTE, files=config.max_images)


def classifier() -> "ClassifierService":
    """The classifier, loaded by whoever asks first."""
    with _loading:
        return _load_classifier(choices().checkpoint, choices().device)


def generator(checkpoint: Path) -> "LoadedGenerator":
    """One of the generators named at the start."""
    with _loading:
        return _load_generator(checkpoint, choices().device)


def samples() -> "ImageSet | None":
    """Held-out images of the checkpoint to try without a file of one's own."""
    with _loading:
        return _load_samples(choices().checkpoint)


def examples() -> "ImageSet | None":
    """The training images that the checkpoint keeps, in memory: every explanation reads some."""
    with _loading:
        return _load_examples(choices().checkpoint, choices().device)


def card() -> str:
    """The card of the checkpoint in Markdown, empty where there is none."""
    with _loading:
        return _load_card(choices().checkpoint, choices().device)


def figures() -> tuple[tuple[str, bytes], ...]:
    """Names (without the ending) and bytes of the pictures that training left."""
    with _loading:
        return _load_figures(choices().checkpoint)


def sample_files(folder: Path) -> list[Path]:
    """Image files of a folder of samples, at most `MOST_SAMPLES`, sorted by name."""
    from galaxies.fits_images import is_fits_file
    from galaxies.image_files import is_image_file

    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of images (--samples)")
    paths = sorted(
        path for path in folder.iterdir() if is_image_file(path.name) or is_fits_file(path.name)
    )
    if not paths:
        raise InputError(f"{folder} holds no image (--samples)")
    return paths[:MOST_SAMPLES]


@cache
def _load_classifier(checkpoint: Path, device: str) -> "ClassifierService":
    from classify.service import load_service

    return load_service(checkpoint, device)


@cache
def _load_examples(checkpoint: Path, device: str) -> "ImageSet | None":
    kept = _load_classifier(checkpoint, device).reference.examples
    return None if kept is None else kept.in_memory()


@cache
def _load_generator(checkpoint: Path, device: str) -> "LoadedGenerator":
    from classify.generation import load_generator

    return load_generator(checkpoint, device)


@cache
def _load_samples(checkpoint: Path) -> "ImageSet | None":
    from classify.samples import read_samples

    kept = read_samples(checkpoint)
    return None if kept is None else kept.in_memory()


@cache
def _load_card(checkpoint: Path, device: str) -> str:
    return _load_classifier(checkpoint, device).card


@cache
def _load_figures(checkpoint: Path) -> tuple[tuple[str, bytes], ...]:
    paths = sorted((checkpoint / "plots").glob("*.png"))
    return tuple((path.stem, path.read_bytes()) for path in paths)
