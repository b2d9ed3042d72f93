"""The one place where a classifier's input is scaled; recorded in the checkpoint, applied once."""

from dataclasses import dataclass
from functools import lru_cache

import torch

from galaxies.image_set import ImageSet
from galaxies.pixels import Stretch, to_network

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel, in units of `galaxies.pixels.to_network`.

    Attributes
    ----------
    mean, std : tuple of float
        C values each, of pixels in [-1, 1].
    stretch : Stretch or None
        How float32 flux becomes [-1, 1]; ``None`` for uint8.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    stretch: Stretch | None = None

    def scale(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) stored pixels to float32 in [-1, 1], before the mean is taken off."""
        return to_network(pixels, self.stretch)

    def centre(self, scaled: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) float32 in [-1, 1] to network input of mean 0 and deviation 1."""
        mean = _on_device(self.mean, scaled.device)
        std = _on_device(self.std, scaled.device)
        return (scaled - mean) / std

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) stored pixels to network input."""
        return self.centre(self.scale(pixels))


@lru_cache(maxsize=64)
def _on_device(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """(1, C, 1, 1), copied to the device once: a copy per step would make the host wait."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1)


def normalisation_of(image_set: ImageSet) -> Normalisation:
    """Measure the training images, block by block, in float64.

    The mean over channels and pixels of uint8 images is exact, so it does not depend on the
    order of the blocks.
    """
    total = torch.zeros(image_set.channels, dtype=torch.float64)
    squares = torch.zeros_like(total)
    count = 0
    for _, block in image_set.blocks():
        scaled = to_network(block, image_set.stretch).double()
        total += scaled.sum(dim=(0, 2, 3))
        squares += scaled.square().sum(dim=(0, 2, 3))
        count += scaled.numel() // image_set.channels
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(1e-6).sqrt()
    return Normalisation(tuple(mean.tolist()), tuple(std.tolist()), image_set.stretch)


def normalisation_of_unit_scale(
    mean: tuple[float, ...], std: tuple[float, ...], channels: int, stretch: Stretch | None = None
) -> Normalisation:
    """Scale given for pixels in [0, 1]; grey and other bands take the mean of the three colours."""
    if channels != len(mean):
        mean = (sum(mean) / len(mean),) * channels
        std = (sum(std) / len(std),) * channels
    return Normalisation(
        tuple(2 * value - 1 for value in mean), tuple(2 * value for value in std), stretch
    )
