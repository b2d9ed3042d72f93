"""The eight symmetries form the group of the square, and labels follow reflections."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from galaxies.errors import InputError
from galaxies.symmetry import (
    INVERSE,
    all_symmetries,
    apply_symmetry,
    default_mirror_pairs,
    is_mirrored,
    mirror_labels,
    mirror_permutation,
    random_symmetries,
)

IMAGE = torch.arange(25).reshape(1, 1, 5, 5)
ELEMENTS = st.integers(0, 7)


def turned(image: torch.Tensor, element: int) -> torch.Tensor:
    return apply_symmetry(image, torch.full((len(image),), element))


def test_the_eight_images_differ():
    versions = {tuple(version.flatten().tolist()) for version in all_symmetries(IMAGE)}
    assert len(versions) == 8


@given(ELEMENTS, ELEMENTS)
def test_two_in_a_row_are_one_and_parities_add(first, second):
    both = turned(turned(IMAGE, first), second)
    matching = [element for element in range(8) if torch.equal(turned(IMAGE, element), both)]
    assert len(matching) == 1
    parity = is_mirrored(torch.tensor([first, second, matching[0]]))
    assert bool(parity[0] ^ parity[1]) == bool(parity[2])


@given(ELEMENTS)
def test_inverse_undoes(element):
    assert torch.equal(turned(turned(IMAGE, element), int(INVERSE[element])), IMAGE)


def test_four_are_rotations_and_four_reflections():
    rotations = [torch.rot90(IMAGE, k, (-2, -1)) for k in range(4)]
    for element in range(8):
        is_rotation = any(torch.equal(turned(IMAGE, element), r) for r in rotations)
        assert is_rotation == (not is_mirrored(torch.tensor(element)))


def test_each_image_gets_its_own(generator):
    images = torch.randn(64, 3, 6, 6, generator=generator)
    elements = random_symmetries(64, generator)
    together = apply_symmetry(images, elements)
    for image, element, result in zip(images, elements, together, strict=True):
        assert torch.equal(turned(image[None], int(element))[0], result)
    assert set(elements.tolist()) == set(range(8))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), ELEMENTS)
def test_labels_swap_exactly_under_reflections(labels, element):
    names = ("disc", "clockwise", "anticlockwise", "merger")
    permutation = mirror_permutation(names, default_mirror_pairs(names))
    assert permutation.tolist() == [0, 2, 1, 3]
    before = torch.tensor(labels)
    elements = torch.full_like(before, element)
    after = mirror_labels(before, elements, permutation)
    swap = {1: 2, 2: 1}
    mirrored = bool(is_mirrored(torch.tensor(element)))
    assert after.tolist() == [swap.get(x, x) if mirrored else x for x in labels]
    assert torch.equal(mirror_labels(after, INVERSE[elements], permutation), before)


def test_default_pairs_are_found_in_longer_names():
    names = ("spiral_anticlockwise", "bar", "spiral_clockwise", "counterclockwise arms")
    assert default_mirror_pairs(names) == (("spiral_clockwise", "spiral_anticlockwise"),)


@pytest.mark.parametrize(
    ("clockwise", "anticlockwise"),
    [
        ("Spiral Clockwise", "Spiral Anticlockwise"),
        ("spiral-clockwise", "spiral-anti-clockwise"),
        ("CW", "ACW"),
        ("spiral_cw", "spiral_ccw"),
        ("SpiralClockwise", "SpiralCounterClockwise"),
        ("clockwise spiral", "Counter clockwise spiral"),
    ],
)
def test_default_pairs_however_they_are_written(clockwise, anticlockwise):
    names = ("merger", anticlockwise, "scwx", clockwise)
    assert default_mirror_pairs(names) == ((clockwise, anticlockwise),)


def test_wrong_pairs_are_refused():
    with pytest.raises(InputError, match="names class 'x'; the classes are a, b"):
        mirror_permutation(("a", "b"), (("a", "x"),))
    with pytest.raises(InputError, match="two mirror pairs"):
        mirror_permutation(("a", "b", "c"), (("a", "b"), ("b", "c")))
    with pytest.raises(InputError, match="square"):
        turned(torch.zeros(1, 1, 4, 5), 1)
