"""Training images where they are read fastest: on the device, or in their store when too large."""

import numpy as np
import torch

from classify.free_memory import free_bytes
from galaxies.errors import InputError
from galaxies.image_set import ImageSet

sharers = 1
"""Processes that share the memory of the device, set by the pool that starts them."""


class PixelBank:
    """Pixels of the real images, followed by those of the synthetic ones.

    They stay uint8 (or flux) and live on the device when they take less than half of its free
    memory (of this process's share, where several have it); otherwise each batch is read from
    the store, so a set of any size trains.
    """

    def __init__(self, sets: list[ImageSet], device: torch.device) -> None:
        for other in sets[1:]:
            if other.shape != sets[0].shape:
                raise InputError(
                    f"synthetic images are {_shape(other)}, the training images {_shape(sets[0])}; "
                    "generate or pack them at the same size"
                )
            if other.store.dtype != sets[0].store.dtype or other.stretch != sets[0].stretch:
                raise InputError(
                    f"synthetic pixels are {other.store.dtype} ({other.stretch}), the training "
                    f"pixels {sets[0].store.dtype} ({sets[0].stretch}); write both alike"
                )
        self.sets = sets
        self.device = device
        self.starts = np.cumsum([0, *(len(part) for part in sets)])
        self.resident: torch.Tensor | None = None
        if sum(part.pixel_bytes for part in sets) < free_bytes(device) / (2 * sharers):
            self.resident = torch.cat([part.pixels for part in sets]).to(device)

    def read(self, rows: np.ndarray | torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) pixels on the device; ``rows`` on the device where the bank is resident."""
        if self.resident is not None:
            assert isinstance(rows, torch.Tensor)
            return self.resident[rows]
        wanted = rows.cpu().numpy() if isinstance(rows, torch.Tensor) else rows
        part = self.sets[0]
        pixels = torch.empty((len(wanted), *part.shape), dtype=part.store.dtype)
        for image_set, start in zip(self.sets, self.starts, strict=False):
            inside = (wanted >= start) & (wanted < start + len(image_set))
            if inside.any():
                pixels[torch.from_numpy(inside)] = image_set.read(wanted[inside] - start)
        return pixels.to(self.device)


def _shape(image_set: ImageSet) -> str:
    return f"{image_set.size}x{image_set.size}x{image_set.channels}"
