"""The HDF5 form keeps everything, and reads any rows in any order."""

import dataclasses

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galaxies.hdf5 import read_hdf5, write_hdf5
from galaxies.image_set import ImageSet, PixelsInMemory
from galaxies.pixels import Stretch


@pytest.fixture(scope="module")
def rich_set() -> ImageSet:
    rng = np.random.default_rng(2)
    return ImageSet(
        store=PixelsInMemory(torch.from_numpy(rng.normal(0, 5, (50, 2, 9, 9)).astype(np.float32))),
        labels=rng.integers(0, 3, 50),
        class_names=("ellíptica", "clockwise", "anticlockwise"),
        ids=np.array([f"星{index}" for index in range(50)]),
        split=rng.integers(0, 3, 50).astype(np.int8),
        group=np.array([f"feld {index % 4}" for index in range(50)]),
        features=rng.normal(0, 1, (50, 2)).astype(np.float32),
        feature_names=("größe", "u-g"),
        stretch=Stretch(-1.5, 20, 3),
        provenance={"generator": {"seed": 3}, "text": "é" * 90_000},
        training_fingerprints=np.array(["a" * 32, "b" * 32]),
        training_ids=np.array(["x", "yy"]),
    )


@pytest.fixture(scope="module")
def rich_path(rich_set, tmp_path_factory):
    path = tmp_path_factory.mktemp("rich") / "rich.h5"
    write_hdf5(rich_set, path)
    return path


def test_other_readers_see_text_as_text(rich_set, rich_path):
    with h5py.File(rich_path) as file:
        for name, values in (("ids", rich_set.ids), ("group", rich_set.group)):
            assert file[name].asstr()[:].tolist() == values.tolist()


def test_everything_survives(rich_set, rich_path):
    again = read_hdf5(rich_path)
    for field in dataclasses.fields(ImageSet):
        if field.name == "store":
            assert torch.equal(again.pixels, rich_set.pixels)
            continue
        left, right = getattr(again, field.name), getattr(rich_set, field.name)
        equal = np.array_equal(left, right) if isinstance(left, np.ndarray) else left == right
        assert equal, field.name
    assert again.mirror_pairs == (("clockwise", "anticlockwise"),)
    assert (again.fingerprints() == rich_set.fingerprints()).all()


@given(st.lists(st.integers(0, 49), max_size=60))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rows_in_any_order_and_repeated(rich_set, rich_path, rows):
    chosen = np.array(rows, dtype=np.int64)
    assert torch.equal(read_hdf5(rich_path).read(chosen), rich_set.read(chosen))


def test_rows_scattered_over_many_chunks(tmp_path, rng):
    images = rng.integers(0, 255, (200, 8, 8, 1), dtype=np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=images, chunks=(7, 8, 8, 1))
        file["ans"] = np.zeros(200, int)
    rows = rng.permutation(200)[:60]
    got = read_hdf5(tmp_path / "a.h5").read(rows)
    assert (got.permute(0, 2, 3, 1).numpy() == images[rows]).all()


def test_a_plain_galaxy10_file_opens(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = np.arange(5 * 16 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
        file["ans"] = np.array([0, 1, 2, 1, 0], dtype=np.uint8)
    image_set = read_hdf5(tmp_path / "a.h5")
    assert image_set.class_names == ("class 0", "class 1", "class 2")
    assert image_set.split is None
    assert image_set.ids[3] == "row-000003"


def test_grey_without_a_channel_axis_opens(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = np.zeros((4, 6, 6), np.uint8)
        file["labels"] = np.array([0, 0, 1, 1])
    assert read_hdf5(tmp_path / "a.h5").shape == (1, 6, 6)


def test_writing_over_the_file_that_is_read(rich_path, rich_set, tmp_path):
    path = tmp_path / "copy.h5"
    write_hdf5(read_hdf5(rich_path), path)
    write_hdf5(read_hdf5(path).select(np.arange(49, -1, -1)), path, overwrite=True)
    assert torch.equal(read_hdf5(path).pixels, rich_set.pixels.flip(0))


def test_an_empty_selection_is_written_and_read(rich_set, tmp_path):
    write_hdf5(rich_set.select(np.zeros(0, np.int64)), tmp_path / "none.h5")
    assert len(read_hdf5(tmp_path / "none.h5")) == 0


def test_thousands_of_class_names(tmp_path):
    """More than an attribute of HDF5 holds as a list."""
    names = tuple(f"class of objects number {index}" for index in range(5000))
    whole = ImageSet(
        store=PixelsInMemory(torch.zeros((3, 1, 4, 4), dtype=torch.uint8)),
        labels=np.array([0, 1, 4999]),
        class_names=names,
        ids=np.array(["a", "b", "c"]),
    )
    write_hdf5(whole, tmp_path / "a.h5")
    assert read_hdf5(tmp_path / "a.h5").class_names == names
