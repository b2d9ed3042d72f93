"""Selecting from a set, and what a set refuses to be."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

import galaxies
from galaxies.errors import InputError
from galaxies.image_set import PixelsInMemory


def test_selection_keeps_columns_aligned(tiny_set, rng):
    rows = rng.permutation(120)[:30]
    part = tiny_set.select(rows).select(np.arange(29, -1, -1))
    assert (part.labels == tiny_set.labels[rows[::-1]]).all()
    assert (part.ids == tiny_set.ids[rows[::-1]]).all()
    assert torch.equal(part.pixels, tiny_set.pixels[rows[::-1].copy()])


def test_sides_part_the_set(tiny_set):
    sides = [set(tiny_set.side(name).ids) for name in ("train", "validation", "test")]
    assert sum(map(len, sides)) == 120
    assert set.union(*sides) == set(tiny_set.ids)


def test_an_unsplit_set_and_an_empty_side_say_so(tiny_set):
    with pytest.raises(InputError, match="no split yet; make one with: galaxy-set split"):
        dataclasses.replace(tiny_set, split=None).side("test")
    with pytest.raises(
        InputError, match=r"validation side of the split of .* holds no image; give"
    ):
        dataclasses.replace(tiny_set, split=np.zeros(120, np.int8)).side("validation")


def test_classes_by_name_or_index(tiny_set):
    name = tiny_set.class_names[1]
    assert tiny_set.class_index(name) == tiny_set.class_index("1") == tiny_set.class_index(1) == 1
    for wrong in ("nothing", "7", -1):
        with pytest.raises(
            InputError, match=f"no class .*; the classes are: 0 {tiny_set.class_names[0]}"
        ):
            tiny_set.class_index(wrong)


def test_leaving_a_class_out_numbers_the_others_anew(tiny_set):
    rest = tiny_set.without_classes([tiny_set.class_names[0]])
    assert rest.class_names == tiny_set.class_names[1:]
    assert rest.counts().tolist() == tiny_set.counts().tolist()[1:]


def test_fingerprints_tell_pixels_shape_and_dtype_apart(tiny_set):
    prints = tiny_set.fingerprints()
    assert len(set(prints)) == 120
    changed = tiny_set.pixels.clone()
    changed[5, 0, 0, 0] ^= 1
    other = dataclasses.replace(tiny_set, store=PixelsInMemory(changed)).fingerprints()
    assert np.flatnonzero(prints != other).tolist() == [5]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"labels": np.full(120, 9)}, "labels run from 9 to 9, but there are 3 class names"),
        ({"labels": np.zeros(7, int)}, "120 images but 7 labels"),
        ({"class_names": ("a", "a", "b")}, "class names repeat"),
        ({"split": np.full(120, 5)}, "values other than"),
        ({"features": np.zeros((120, 2), np.float32)}, "2 feature columns, 0 names"),
        ({"store": PixelsInMemory(torch.zeros(120, 11, 4, 4).byte())}, "11 channels"),
        ({"store": PixelsInMemory(torch.zeros(120, 3, 4, 5).byte())}, "4x5; square"),
        ({"store": PixelsInMemory(torch.zeros(120, 3, 4, 4).double())}, "float64"),
    ],
)
def test_nonsense_is_refused(tiny_set, change, complaint):
    with pytest.raises(InputError, match=complaint):
        dataclasses.replace(tiny_set, **change)


def test_flux_that_is_no_number_is_refused_where_it_is_read(tiny_set):
    pixels = torch.rand(120, 1, 8, 8)
    pixels[17, 0, 2, 2] = torch.inf
    flux = dataclasses.replace(tiny_set, store=PixelsInMemory(pixels))
    assert flux.read(np.arange(17)).shape == (17, 1, 8, 8)
    for reading in (lambda: flux.read(np.arange(10, 20)), lambda: flux.pixels):
        with pytest.raises(InputError, match=f"NaN or infinite, such as {flux.ids[17]}"):
            reading()


def test_the_room_shows_its_image_set_and_loads_it_when_asked() -> None:
    code = "import galaxies, sys; assert 'torch' not in sys.modules; print(galaxies.ImageSet)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "galaxies.image_set.ImageSet" in told.stdout
    with pytest.raises(AttributeError, match="no attribute 'ImageSets'"):
        galaxies.ImageSets  # noqa: B018
