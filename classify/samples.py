"""A few held-out images that stay with a classifier, so that a page has something to show.

They come from the validation side: the network has not learnt from them, and the test side is
read once, elsewhere.
"""

from pathlib import Path

import numpy as np

from classify.determinism import numpy_generator_for
from galaxies.hdf5 import read_hdf5, write_hdf5
from galaxies.image_set import ImageSet
from galaxies.pixels import to_network
from gan.pictures import grid, save_picture

SAMPLES = "samples"
IMAGES, PICTURE = "validation.h5", "validation.png"
EARLIER = "samples.h5"  # where checkpoints made before have them
COLUMNS = 8
PER_CLASS = 2
MOST = 24


def choose_samples(held_out: ImageSet, seed: int = 0) -> ImageSet:
    """Up to two images of each class, at most 24, drawn at random."""
    random = numpy_generator_for(seed, "samples")
    rows: list[int] = []
    for label in range(len(held_out.class_names)):
        rows += random.permutation(np.flatnonzero(held_out.labels == label))[:PER_CLASS].tolist()
    return held_out.select(np.array(sorted(rows[:MOST]), dtype=np.int64)).in_memory()


def write_samples(held_out: ImageSet | None, folder: Path) -> None:
    """Write into an existing checkpoint folder; without held-out images there is no file."""
    if held_out is None or not len(held_out):
        return
    chosen = choose_samples(held_out)
    (folder / SAMPLES).mkdir(exist_ok=True)
    write_hdf5(chosen, folder / SAMPLES / IMAGES)
    shown = to_network(chosen.pixels, chosen.stretch)
    save_picture(grid(shown, COLUMNS), folder / SAMPLES / PICTURE)


def read_samples(folder: Path) -> ImageSet | None:
    """The samples of a checkpoint, or ``None`` where it has none."""
    for path in (folder / SAMPLES / IMAGES, folder / EARLIER):
        if path.is_file():
            return read_hdf5(path)
    return None
