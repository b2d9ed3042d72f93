"""The images that an arm adds: generated, filtered, of every class, or noisy copies."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classify.determinism import numpy_generator_for
from galaxies.errors import InputError
from galaxies.image_set import ImageSet, PixelsInMemory

PLACEBO_NOISE = 0.02
"""Standard deviation of the placebo's noise, of the range 0 to 1."""

CANDIDATES_PER_KEPT = 4
"""A filter chooses among so many times the images that it keeps."""

COPY_QUANTILE = 0.05
"""A generated image nearer to a training image than this quantile of the distances of
validation images to training images counts as a copy; the filter drops it."""


def at_equal_dose(real: np.ndarray, index: int, count: int) -> np.ndarray:
    """(K,) images to add to (K,) ``real`` ones, where class ``index`` gets ``count``."""
    counts = np.rint(count / real[index] * real).astype(int)
    counts[index] = count
    return counts


def generate_images(
    path: Path, class_name: str, count: int, seed: int, device: torch.device
) -> ImageSet:
    """Generated images of a class, from a checkpoint or from a synthetic set.

    A synthetic set is drawn from without replacement.

    Raises
    ------
    InputError
        If the set holds fewer images of the class than the dose needs.
    """
    from gan.synthetic_set import generate_set

    if is_checkpoint(path):
        return generate_set(path, (class_name,), count, seed, device=device)
    from galaxies.sources import open_image_set

    own = open_image_set(path).of_classes([class_name])
    if len(own) < count:
        raise InputError(
            f"{path} holds {len(own)} images of {class_name}, but an arm adds {count}; generate "
            "more or lower the dose"
        )
    rows = numpy_generator_for(seed, "synthetic set").permutation(len(own))[:count]
    return own.select(np.sort(rows)).in_memory()


def is_checkpoint(path: Path) -> bool:
    """Whether a path looks like a checkpoint of gan-train or a snapshot, not like a set."""
    from gan.checkpoint import run_and_step

    folder, _ = run_and_step(path)
    return folder.is_dir() and (folder / "config.json").is_file()


def joined(made: Sequence[ImageSet]) -> ImageSet:
    """Generated images of several classes as one set, without features."""
    return dataclasses.replace(
        made[0],
        store=PixelsInMemory(torch.cat([images.pixels for images in made])),
        labels=np.concatenate([images.labels for images in made]),
        ids=np.array([f"{n}/{name}" for n, i in enumerate(made) for name in i.ids]),
        split=None,
        group=None,
        features=np.zeros(0, np.float32),
        feature_names=(),
    )


def noisy_copies(own: ImageSet, count: int, random: np.random.Generator) -> ImageSet:
    """The placebo: ``count`` copies of real images, each as often as any other, with noise."""
    walks = [random.permutation(len(own)) for _ in range(-(-count // len(own)))]
    return _noisy(own.select(np.concatenate(walks)[:count]), random)


def filtered(
    candidates: ImageSet,
    probability: np.ndarray,
    count: int,
    keep_above: float,
    *,
    real: ImageSet,
    held_out: ImageSet,
) -> tuple[ImageSet, dict[str, Any]]:
    """``count`` candidates that look like the class and are no copies, and what was dropped.

    Parameters
    ----------
    probability
        (n,) of the class for each candidate, by a classifier of real images.
    keep_above
        Least probability of a likely image.
    real, held_out
        Images that the generator may have copied, and images of the class that it never saw.
    """
    from fid.nearest import nearest_under_symmetries

    distance = nearest_under_symmetries(_unit(candidates), _unit(real)).distance
    apart = nearest_under_symmetries(_unit(held_out), _unit(real)).distance
    copied = distance < np.quantile(apart, COPY_QUANTILE)
    likely = probability >= keep_above
    passed = np.flatnonzero(likely & ~copied)
    kept = passed[:count]
    if len(kept) < count:  # too few pass: the likeliest of the rest, and say so
        rest = np.setdiff1d(np.arange(len(candidates)), kept)
        order = np.lexsort((-probability[rest], copied[rest]))
        kept = np.concatenate((kept, rest[order][: count - len(kept)]))
    note = {
        "count": count,
        "candidates": len(candidates),
        "unlikely": int((~likely).sum()),
        "copies": int(copied.sum()),
        "passed": len(passed),
    }
    return candidates.select(np.sort(kept)), note


def _noisy(images: ImageSet, random: np.random.Generator) -> ImageSet:
    pixels = images.pixels
    noise = torch.from_numpy(random.normal(0, PLACEBO_NOISE, tuple(pixels.shape)).astype("f4"))
    if images.stretch is None:
        changed = (pixels.float() + 255 * noise).round_().clamp_(0, 255).to(torch.uint8)
    else:
        unit = images.stretch.compress(pixels) + noise
        changed = images.stretch.expand(unit.clamp_(0, 1))
    return dataclasses.replace(images, store=PixelsInMemory(changed))


def _unit(images: ImageSet) -> torch.Tensor:
    """Pixels as `fid.nearest` takes them: uint8, or flux compressed to [0, 1]."""
    return images.pixels if images.stretch is None else images.stretch.compress(images.pixels)
