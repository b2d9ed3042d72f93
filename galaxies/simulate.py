"""The embedded default: an imbalanced survey simulated with GalSim, offline, byte for byte.

Every image has its own random stream, spawned from the seed by its position, so the bytes depend
neither on the number of workers nor on their order.
"""

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from galaxies.atomic import refuse_existing
from galaxies.device import cores
from galaxies.errors import InputError
from galaxies.hdf5 import read_hdf5, write_hdf5
from galaxies.image_set import ImageSet, PixelsInMemory
from galaxies.split import split_set

CLASS_SHARES = {
    "disturbed": 0.03,
    "elliptical": 0.36,
    "spiral_clockwise": 0.18,
    "spiral_anticlockwise": 0.18,
    "edge_on": 0.16,
    "merger": 0.09,
}
"""Class names in the order of their indices, and the share of each."""

DEFAULT_COUNT = 3000
DEFAULT_SIZE = 64

_VERSION = 1  # of the simulation; a new one makes new bytes and a new cached file
_BATCH = 32
_FEWEST_OF_A_CLASS = 3  # one for each side of a split


def simulate_survey(
    count: int = DEFAULT_COUNT,
    *,
    size: int = DEFAULT_SIZE,
    seed: int = 0,
    workers: int = 0,
    progress: bool = True,
) -> ImageSet:
    """Simulate a survey with its split and its photometry.

    Parameters
    ----------
    count
        Number of images, at least 100.
    size
        Side of the images in pixels, 32 to 256; the field is 25.6 arcseconds wide in any case.
    seed
        The same seed gives the same bytes, whatever the number of workers.
    workers
        Processes; 0 takes one per core.
    progress
        Show a bar on stderr.

    Returns
    -------
    ImageSet
        (count, 3, size, size) uint8 in memory, classes as in `CLASS_SHARES`, split, features
        `galaxies.observation.FEATURES`, clockwise and anticlockwise spirals as mirror pair.
    """
    if count < 100:
        raise InputError(f"--count must be at least 100 (the rare class is 3 %), got {count}")
    if not 32 <= size <= 256:
        raise InputError(f"--size must lie in 32 to 256, got {size}")
    if seed < 0:
        raise InputError(f"--seed must not be negative, got {seed}")
    try:
        import galsim  # noqa: F401
    except ImportError:
        raise InputError("simulating needs GalSim; install it with: pip install galsim") from None
    order, *streams = np.random.SeedSequence(seed).spawn(count + 1)
    labels = np.repeat(np.arange(len(CLASS_SHARES)), class_counts(count))
    labels = np.random.default_rng(order).permutation(labels)
    images, features = _render_all(labels, streams, size, workers, progress)
    from galaxies.observation import FEATURES

    image_set = ImageSet(
        store=PixelsInMemory(torch.from_numpy(images)),
        labels=labels.astype(np.int64),
        class_names=tuple(CLASS_SHARES),
        ids=np.array([f"simulated-{seed}-{index:06d}" for index in range(count)]),
        features=features,
        feature_names=FEATURES,
        mirror_pairs=(("spiral_clockwise", "spiral_anticlockwise"),),
        provenance={
            "source": "simulated",
            "simulation": {"version": _VERSION, "count": count, "size": size, "seed": seed},
        },
    )
    return split_set(image_set, seed=seed)


def embedded_survey() -> ImageSet:
    """The survey that ``simulated`` names: 3,000 images of 64x64, made once and then cached."""
    from galaxies.fetch import cache_folder

    name = f"simulated-{DEFAULT_COUNT}x{DEFAULT_SIZE}-version-{_VERSION}.h5"
    path = cache_folder() / name
    if not path.exists():
        # A second process may make the same file meanwhile: the same bytes, renamed when whole.
        write_hdf5(simulate_survey(), path, overwrite=True)
    return read_hdf5(path)


def write_survey(
    out: Path, *, count: int, size: int, seed: int, overwrite: bool = False, progress: bool = True
) -> ImageSet:
    """Simulate a survey into one HDF5 file and open it."""
    refuse_existing(out, overwrite=overwrite)
    survey = simulate_survey(count, size=size, seed=seed, progress=progress)
    write_hdf5(survey, out, overwrite=overwrite)
    return read_hdf5(out)


def class_counts(count: int) -> np.ndarray:
    """Return (classes,) int64: images per class, rounded by largest remainder."""
    exact = np.array(list(CLASS_SHARES.values())) * count
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(-(exact - counts), kind="stable")[: count - counts.sum()]] += 1
    missing = np.maximum(_FEWEST_OF_A_CLASS - counts, 0)
    counts += missing
    counts[np.argmax(counts)] -= missing.sum()
    return counts


def _render_all(
    labels: np.ndarray,
    streams: list[np.random.SeedSequence],
    size: int,
    workers: int,
    progress: bool,
) -> tuple[np.ndarray, np.ndarray]:
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    from galaxies.observation import FEATURES
    from galaxies.rendering import render_batch

    names = tuple(CLASS_SHARES)
    images = np.empty((len(labels), 3, size, size), np.uint8)
    features = np.empty((len(labels), len(FEATURES)), np.float32)
    batches = [range(i, min(i + _BATCH, len(labels))) for i in range(0, len(labels), _BATCH)]
    pool = Parallel(n_jobs=workers or cores(), return_as="generator", max_nbytes=None)
    tasks = (
        delayed(render_batch)([names[labels[i]] for i in batch], [streams[i] for i in batch], size)
        for batch in batches
    )
    try:
        with tqdm(
            total=len(labels), desc="simulate", unit="image", disable=not progress, leave=False
        ) as bar:
            for batch, (pictures, photometry) in zip(batches, pool(tasks), strict=True):
                images[batch.start : batch.stop] = pictures
                features[batch.start : batch.stop] = photometry
                bar.update(len(batch))
    finally:
        # Idle workers would stay for minutes beside the training that follows.
        get_reusable_executor().shutdown(wait=True)
    return images, features
