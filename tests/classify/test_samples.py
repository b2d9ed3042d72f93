"""Images that stay with a checkpoint: a few of each class, none that was learnt from."""

from pathlib import Path

import numpy as np

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


def test_without_held_out_images_there_are_none(tmp_path: Path) -> None:
    write_samples(None, tmp_path)
    assert read_samples(tmp_path) is None
