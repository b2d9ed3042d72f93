"""How stored pixels become network input: the step in which published FIDs differ most.

With one set of weights and images, four well-known programs give four numbers, because each
resizes in another way. A recipe is that choice with a name, and every number carries it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from galaxies.errors import InputError

INCEPTION_SIDE = 299

Resize = Callable[[torch.Tensor, int], torch.Tensor]
"""(n, 3, H, W) float32 in [0, 255] and a side to (n, 3, side, side) float32 in [0, 255]."""


@dataclass(frozen=True)
class Recipe:
    """One published way from pixels to the network.

    Attributes
    ----------
    name : str
        What a user types and what every number carries.
    resize : Resize
        To the network's side.
    signed : bool
        ``(x - 128) / 128`` as TensorFlow's graph does; otherwise ``2 x / 255 - 1``.
    description : str
        For the report.
    """

    name: str
    resize: Resize
    signed: bool
    description: str

    def __call__(self, images: torch.Tensor, side: int = INCEPTION_SIDE) -> torch.Tensor:
        """(n, 3, H, W) uint8 to (n, 3, side, side) float32, about [-1, 1]."""
        if not self.signed:
            # Scaled before resizing, in the order of the original, so that not a bit differs.
            unit = images.to(torch.float32).div_(255)
            return self.resize(unit, side).mul_(2).sub_(1)
        return self.resize(images.to(torch.float32), side).sub_(128).div_(128)


def _bilinear(images: torch.Tensor, side: int) -> torch.Tensor:
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)


def _bilinear_antialiased(images: torch.Tensor, side: int) -> torch.Tensor:
    return F.interpolate(
        images, size=(side, side), mode="bilinear", align_corners=False, antialias=True
    )


def _tensorflow_bilinear(images: torch.Tensor, side: int) -> torch.Tensor:
    return _by_matrices(images, side, _tensorflow_weights)


def _pillow_bicubic(images: torch.Tensor, side: int) -> torch.Tensor:
    return _by_matrices(images, side, _pillow_bicubic_weights).clamp_(0, 255)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "pytorch-fid",
            _bilinear,
            False,
            "bilinear without antialiasing, half-pixel centres, 2x-1 (pytorch-fid 0.3.0)",
        ),
        Recipe(
            "torch-fidelity",
            _tensorflow_bilinear,
            True,
            "TensorFlow 1 bilinear without half-pixel centres, (x-128)/128 "
            "(the original FID, torch-fidelity 0.4.0)",
        ),
        Recipe(
            "clean-fid",
            _pillow_bicubic,
            True,
            "Pillow's antialiased bicubic per channel in float, (x-128)/128 (clean-fid 0.1.35)",
        ),
        Recipe(
            "torchmetrics",
            _bilinear_antialiased,
            True,
            "bilinear with antialiasing, (x-128)/128 (torchmetrics 1.9)",
        ),
    )
}
"""The named recipes."""


def recipe_named(name: str) -> Recipe:
    """Look a recipe up.

    Raises
    ------
    InputError
        If there is none of that name; lists those that exist.
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise InputError(f"there is no recipe {name!r}; choose from {', '.join(RECIPES)}") from None


def to_three_channels(
    images: torch.Tensor, bands: tuple[int, int, int] | None = None
) -> torch.Tensor:
    """(n, C, H, W) to (n, 3, H, W) by `channel_rule`, or by three named bands (uint8 in and out).

    Raises
    ------
    InputError
        If a named band does not exist.
    """
    channels = images.shape[1]
    if bands is not None:
        if not all(0 <= band < channels for band in bands):
            raise InputError(
                f"--bands {' '.join(map(str, bands))}: the images have channels 0 to {channels - 1}"
            )
        return images[:, list(bands)]
    if channels == 3:
        return images
    if channels == 1:
        return images.expand(-1, 3, -1, -1)
    if channels == 2:
        middle = images.to(torch.float32).mean(dim=1, keepdim=True).round_().to(images.dtype)
        return torch.cat([images[:, :1], middle, images[:, 1:]], dim=1)
    groups = [
        images[:, indices[0] : indices[-1] + 1].to(torch.float32).mean(dim=1, keepdim=True)
        for indices in np.array_split(np.arange(channels), 3)
    ]
    return torch.cat(groups, dim=1).round_().to(images.dtype)


def channel_rule(channels: int, bands: tuple[int, int, int] | None = None) -> str:
    """Say what `to_three_channels` does to images of so many channels."""
    if bands is not None:
        return f"channels {', '.join(map(str, bands))} of {channels} as red, green, blue"
    if channels == 3:
        return "three channels as they are"
    if channels == 1:
        return "the one channel repeated three times"
    if channels == 2:
        return "the first channel, the mean of both, the second"
    parts = [f"{part[0]}-{part[-1]}" for part in np.array_split(np.arange(channels), 3)]
    return f"{channels} channels averaged in three groups: {', '.join(parts)}"


def _by_matrices(
    images: torch.Tensor, side: int, weights: Callable[[int, int], np.ndarray]
) -> torch.Tensor:
    """Separable resize as two matrix products: (side, H) @ image @ (W, side)."""
    height, width = images.shape[-2:]
    rows = torch.from_numpy(weights(height, side)).to(images)
    columns = torch.from_numpy(weights(width, side)).to(images)
    return torch.matmul(rows, torch.matmul(images, columns.T))


@lru_cache(maxsize=32)
def _tensorflow_weights(source: int, target: int) -> np.ndarray:
    """(target, source) float32: output pixel i stands at i * source / target, without a half."""
    position = np.arange(target, dtype=np.float32) * np.float32(source / target)
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, source - 1)
    fraction = position - low
    matrix = np.zeros((target, source), np.float32)
    index = np.arange(target)
    np.add.at(matrix, (index, low), 1 - fraction)
    np.add.at(matrix, (index, high), fraction)
    return matrix


@lru_cache(maxsize=32)
def _pillow_bicubic_weights(source: int, target: int) -> np.ndarray:
    """(target, source) float32: Keys' cubic, a = -1/2, widened by the reduction (Pillow)."""
    scale = source / target
    stretch = max(scale, 1.0)
    support = 2 * stretch
    matrix = np.zeros((target, source))
    for index in range(target):
        centre = (index + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), source)
        weights = _keys_cubic((np.arange(first, last) - centre + 0.5) / stretch)
        matrix[index, first:last] = weights / weights.sum()
    return matrix.astype(np.float32)


def _keys_cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
