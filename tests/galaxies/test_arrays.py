"""Arrays as other programs write them: byte orders, half precision, labels of many kinds."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from galaxies.errors import InputError
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
@pytest.mark.parametrize("dtype", [">f4", "<f4", ">f2", "<f2", ">f8", "<f8"])
def test_flux_of_either_byte_order_and_any_precision(tmp_path, rng, ending, dtype):
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


@pytest.mark.parametrize("ending", [".h5", ".npz"])
def test_labels_that_are_names(tmp_path, ending):
    names = np.array([b"spiral", b"merger", b"merger", "étoile".encode()])
    image_set = stored(tmp_path / f"in{ending}", np.zeros((4, 8, 8, 3), np.uint8), names)
    assert image_set.class_names == ("merger", "spiral", "étoile")
    assert image_set.labels.tolist() == [1, 0, 0, 2]


def test_names_of_classes_as_a_dataset(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["images"], file["ans"] = np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 1, 0]
        file["class_names"] = np.array([b"ring", b"bar"])
    assert open_image_set(tmp_path / "in.h5").class_names == ("ring", "bar")
    with h5py.File(tmp_path / "in.h5", "a") as file:
        del file["ans"]
        file["ans"] = np.array([b"bar", b"ring", b"ring", b"bar"])
    assert open_image_set(tmp_path / "in.h5").labels.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("ending", [".h5", ".npz"])
@pytest.mark.parametrize(
    ("images", "labels"), [("image", "label"), ("X", "y"), ("data", "target"), ("arr_0", "arr_1")]
)
def test_other_names_of_images_and_labels(tmp_path, rng, ending, images, labels):
    pixels = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    arrays = {images: pixels, labels: np.array([0, 1, 1, 0])}
    path = tmp_path / f"in{ending}"
    if ending == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values
    image_set = open_image_set(path)
    assert image_set.labels.tolist() == [0, 1, 1, 0]
    np.testing.assert_array_equal(image_set.pixels.numpy(), pixels.transpose(0, 3, 1, 2))


def test_positions_are_no_labels(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["images"] = np.zeros((4, 8, 8, 3), np.uint8)
        file["x"], file["y"] = np.arange(4), np.arange(4)
    with pytest.raises(InputError, match="no dataset 'ans' with the labels"):
        open_image_set(tmp_path / "in.h5")


@pytest.mark.parametrize("ending", [".h5", ".npz"])
def test_channels_that_stand_first(tmp_path, rng, ending):
    pixels = rng.integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    image_set = stored(tmp_path / f"in{ending}", pixels, np.array([0, 1, 1, 0]))
    assert image_set.shape == (3, 16, 16)
    np.testing.assert_array_equal(image_set.read(np.array([2, 0])).numpy(), pixels[[2, 0]])


def test_a_split_by_name_and_features_without_names(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["images"], file["ans"] = np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 1, 0]
        file["split"] = np.array([b"Train", b"val", b"test", b"training"])
        file["features"] = np.arange(4.0)
    image_set = open_image_set(tmp_path / "in.h5")
    assert image_set.split is not None
    assert image_set.split.tolist() == [0, 1, 2, 0]
    assert image_set.feature_names == ("feature_0",)
    assert image_set.features[:, 0].tolist() == [0, 1, 2, 3]


def test_sides_as_arrays_of_their_own(tmp_path, rng):
    train, val, test = (rng.integers(0, 256, (count, 8, 8), dtype=np.uint8) for count in (3, 2, 1))
    np.savez(  # as MedMNIST writes them
        tmp_path / "med.npz",
        train_images=train, val_images=val, test_images=test,
        train_labels=[[0], [1], [1]], val_labels=[[0], [1]], test_labels=[[0]],
    )  # fmt: skip
    med = open_image_set(tmp_path / "med.npz")
    assert med.split is not None
    assert med.split.tolist() == [0, 0, 0, 1, 1, 2]
    assert med.labels.tolist() == [0, 1, 1, 0, 1, 0]
    np.testing.assert_array_equal(med.pixels[:, 0].numpy(), np.concatenate([train, val, test]))
    np.savez(  # as Keras does
        tmp_path / "keras.npz", x_train=train, y_train=[0, 1, 1], x_test=test, y_test=[1]
    )
    keras = open_image_set(tmp_path / "keras.npz")
    assert keras.split is not None
    assert keras.split.tolist() == [0, 0, 0, 2]
    assert keras.labels.tolist() == [0, 1, 1, 1]
