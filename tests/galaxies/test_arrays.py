"""Arrays as other programs write them: byte orders, half precision, labels of many kinds."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from galaxies.image_set import ImageSet
from galaxies.sources import open_image_set


def stored(path: Path, images: np.ndarray, labels: np.ndarray) -> ImageSet:
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["images"], file["ans"] = images, labels
    else:
        np.savez(path, images=images, labels=labels)
    return open_image_set(path)


@pytest.mark.parametrize("ending", [".h5", ".npz"])
@pytest.mark.parametrize("dtype", [">f4", "<f4", ">f2", "<f2"])
def test_flux_of_either_byte_order_and_half_precision(tmp_path, rng, ending, dtype):
    images = rng.normal(0, 5, (6, 8, 8, 2)).astype(dtype)
    image_set = stored(tmp_path / f"in{ending}", images, np.arange(6, dtype=">i8") % 3)
    assert image_set.labels.tolist() == [0, 1, 2, 0, 1, 2]
    rows = np.array([4, 1, 1])
    expected = images[rows].astype(np.float32).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(image_set.read(rows).numpy(), expected)


@pytest.mark.parametrize("ending", [".h5", ".npz"])
@pytest.mark.parametrize(
    "labels",
    [
        np.array([[1], [0], [1], [0]]),
        np.array([True, False, True, False]),
        np.array([1.0, 0.0, 1.0, 0.0]),
        np.array([[0, 1], [1, 0], [0, 1], [1, 0]]),
        np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], np.float32),
    ],
    ids=["column", "truth", "whole floats", "one-hot", "one-hot floats"],
)
def test_labels_of_many_kinds(tmp_path, ending, labels):
    image_set = stored(tmp_path / f"in{ending}", np.zeros((4, 8, 8, 3), np.uint8), labels)
    assert image_set.labels.tolist() == [1, 0, 1, 0]
    assert image_set.class_names == ("class 0", "class 1")
