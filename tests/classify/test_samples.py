"""Images that stay with a checkpoint: a few of each class, none that was learnt from."""

from pathlib import Path

import numpy as np
from PIL import Image

from classify.samples import choose_samples, read_samples, write_samples
from galaxies.image_set import ImageSet


def test_two_of_each_class_and_always_the_same(tiny_set: ImageSet, tmp_path: Path) -> None:
    held_out = tiny_set.side("validation")
    write_samples(held_out, tmp_path)
    samples = read_samples(tmp_path)
    assert samples is not None
    assert samples.counts().tolist() == [2, 2, 2]
    assert set(samples.ids) <= set(held_out.ids)
    assert np.array_equal(samples.fingerprints(), choose_samples(held_out).fingerprints())
    with Image.open(tmp_path / "samples" / "validation.png") as picture:
        assert picture.width > picture.height  # six images in a row
    # Where earlier checkpoints have them.
    (tmp_path / "samples" / "validation.h5").rename(tmp_path / "samples.h5")
    earlier = read_samples(tmp_path)
    assert earlier is not None
    assert np.array_equal(samples.ids, earlier.ids)


def test_without_held_out_images_there_are_none(tmp_path: Path) -> None:
    write_samples(None, tmp_path)
    assert read_samples(tmp_path) is None
