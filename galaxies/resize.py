"""Central crop and antialiased resize of arrays, by the rule that image files follow."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from galaxies.device import cores
from galaxies.errors import InputError
from galaxies.image_set import BLOCK_BYTES, PixelStore


def crop_box(width: int, height: int, side: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the central square; an odd remainder goes right and down."""
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


@dataclass(frozen=True)
class CentreOfPixels:
    """A `PixelStore` of the central squares of another one, whose images need not be square."""

    store: PixelStore
    side: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, side, side)."""
        count, channels, _, _ = self.store.shape
        return count, channels, self.side, self.side

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the other store."""
        return self.store.dtype

    def read(self, rows: np.ndarray) -> torch.Tensor:
        """Central squares of ``rows``; of whole images only `BLOCK_BYTES` are held at a time."""
        whole_bytes = int(np.prod(self.store.shape[1:])) * self.dtype.itemsize
        step = max(1, BLOCK_BYTES // whole_bytes)
        squares = torch.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        for start in range(0, len(rows), step):
            whole = self.store.read(rows[start : start + step])
            squares[start : start + step] = crop_and_resize(whole, crop=self.side)
        return squares


def centre_of(store: PixelStore, crop: int | None) -> PixelStore:
    """The central squares of a store, so that what lies outside of them is never looked at.

    Raises
    ------
    InputError
        If the images are smaller than the crop.
    """
    height, width = store.shape[2:]
    if crop is None or crop == height == width:
        return store
    if min(height, width) < crop:
        raise InputError(f"images are {width}x{height}, smaller than --crop {crop}")
    return CentreOfPixels(store, crop)


def crop_and_resize(
    images: torch.Tensor, *, crop: int | None = None, size: int | None = None
) -> torch.Tensor:
    """Cut the central square and resize it with antialiasing (Pillow's bicubic, per channel).

    Parameters
    ----------
    images
        (N, C, H, W), uint8 or float32 (flux is not clipped).
    crop
        Side of the central square, in pixels; ``None`` keeps all.
    size
        Side after resizing; ``None`` keeps it.

    Returns
    -------
    torch.Tensor
        (N, C, size, size) of the same dtype.

    Raises
    ------
    InputError
        If the crop is larger than the images, or they are not square when they are resized.
    """
    count, channels, height, width = images.shape
    if crop is not None:
        if min(height, width) < crop:
            raise InputError(f"images are {width}x{height}, smaller than --crop {crop}")
        left, top, right, bottom = crop_box(width, height, crop)
        images = images[:, :, top:bottom, left:right]
    height, width = images.shape[2:]
    if size is None or (height, width) == (size, size):
        return images
    if height != width:
        raise InputError(f"images are {width}x{height}, not square; pass --crop to cut a square")
    planes = images.reshape(count * channels, height, width).numpy()
    resized = np.empty((len(planes), size, size), planes.dtype)

    def resize(rows: Sequence[int]) -> None:
        for row in rows:
            plane = Image.fromarray(planes[row])
            resized[row] = np.asarray(plane.resize((size, size), Image.Resampling.BICUBIC))

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(resize, np.array_split(np.arange(len(planes)), 4 * cores())))
    return torch.from_numpy(resized.reshape(count, channels, size, size))
