"""The eight symmetries of the square, exact (no resampling), and the classes that they swap.

A galaxy has no up, so a rotated or mirrored image is as good an image as the first. But a
mirror turns a clockwise spiral into an anticlockwise one: a class may have a mirror twin, and
a reflection must then change the label too.

A symmetry is an integer from 0 to 7, three bits applied in this order: bit 0 flips left and
right, bit 1 flips up and down, bit 2 transposes. Each bit is a reflection (determinant -1), so
a symmetry mirrors the image when an odd number of bits is set.
"""

import re
from collections.abc import Sequence

import numpy as np
import torch

from galaxies.errors import InputError

SYMMETRIES = 8

INVERSE = torch.tensor([0, 1, 2, 3, 4, 6, 5, 7])
"""(8,) int64: the symmetry that undoes each symmetry."""


def apply_symmetry(images: torch.Tensor, elements: torch.Tensor) -> torch.Tensor:
    """Apply one symmetry to each image, without resampling and without a host synchronisation.

    Parameters
    ----------
    images
        (N, C, H, H), any dtype.
    elements
        (N,) int64 on the same device, each 0 to 7.
    """
    if images.shape[-1] != images.shape[-2]:
        raise InputError(
            f"symmetries need square images, got {images.shape[-2]}x{images.shape[-1]}"
        )
    bits = elements.view(-1, 1, 1, 1)
    images = torch.where((bits & 1).bool(), images.flip(-1), images)
    images = torch.where((bits & 2).bool(), images.flip(-2), images)
    return torch.where((bits & 4).bool(), images.transpose(-1, -2), images)


def all_symmetries(images: torch.Tensor) -> torch.Tensor:
    """Return (8, N, C, H, H): the images under every symmetry."""
    count = len(images)
    return torch.stack(
        [
            apply_symmetry(images, torch.full((count,), element, device=images.device))
            for element in range(SYMMETRIES)
        ]
    )


def random_symmetries(
    count: int, generator: torch.Generator, device: torch.device | None = None
) -> torch.Tensor:
    """Draw (count,) int64 symmetries uniformly; ``generator`` must live on ``device``."""
    return torch.randint(SYMMETRIES, (count,), generator=generator, device=device)


def is_mirrored(elements: torch.Tensor) -> torch.Tensor:
    """Whether each symmetry (any shape, int64) mirrors: the parity of its three reflections."""
    return ((elements ^ (elements >> 1) ^ (elements >> 2)) & 1).bool()


def mirror_labels(
    labels: torch.Tensor, elements: torch.Tensor, permutation: torch.Tensor
) -> torch.Tensor:
    """Return the labels (N,) after the symmetries: mirrored images take their twin's class.

    ``permutation`` is (classes,) int64, from `mirror_permutation`, on the labels' device.
    """
    return torch.where(is_mirrored(elements), permutation[labels], labels)


def mirror_permutation(
    class_names: Sequence[str], mirror_pairs: Sequence[tuple[str, str]]
) -> torch.Tensor:
    """Return (classes,) int64: the class of a mirrored image of each class.

    Raises
    ------
    InputError
        If a pair names a class that does not exist, or a class has two twins.
    """
    index = {name: position for position, name in enumerate(class_names)}
    permutation = np.arange(len(class_names))
    for left, right in mirror_pairs:
        for name in (left, right):
            if name not in index:
                raise InputError(
                    f"mirror pair names class {name!r}; the classes are {', '.join(class_names)}"
                )
            if permutation[index[name]] != index[name]:
                raise InputError(f"class {name!r} stands in two mirror pairs")
        permutation[index[left]], permutation[index[right]] = index[right], index[left]
    return torch.from_numpy(permutation)


_ANTICLOCKWISE = re.compile(r"(anti|counter)[\s_-]*clockwise|(?<![a-z])(acw|ccw)(?![a-z])")
_CLOCKWISE = re.compile(r"clockwise|(?<![a-z])cw(?![a-z])")


def default_mirror_pairs(class_names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of names that differ only in clockwise (cw) against anticlockwise (acw, ccw).

    In capital or small letters, with blanks, underscores or hyphens.
    """
    clockwise: dict[str, str] = {}
    anticlockwise: dict[str, str] = {}
    for name in class_names:
        rest, found = _ANTICLOCKWISE.subn("*", name.lower())
        if found:
            anticlockwise.setdefault(rest, name)
            continue
        rest, found = _CLOCKWISE.subn("*", name.lower())
        if found:
            clockwise.setdefault(rest, name)
    return tuple(
        (clockwise[rest], name) for rest, name in anticlockwise.items() if rest in clockwise
    )
