"""Pixels between storage and network: uint8 or float32 flux on one side, [-1, 1] on the other.

`to_network` and `to_storage` are the only places where a pixel changes its scale.
"""

from dataclasses import dataclass

import numpy as np
import torch

from galaxies.errors import InputError


@dataclass(frozen=True)
class Stretch:
    """How float32 flux maps to [0, 1]: ``asinh((flux - black) / softening)`` over its range.

    Attributes
    ----------
    black, white : float
        Flux (in the set's unit) that becomes 0 and 1; what lies outside is clipped.
    softening : float
        Flux where the stretch turns from linear to logarithmic (Lupton et al. 2004).
    """

    black: float
    white: float
    softening: float

    def __post_init__(self) -> None:
        if not self.white > self.black or not self.softening > 0:
            raise InputError(f"a stretch needs white > black and softening > 0, got {self}")

    def describe(self) -> str:
        """In words, for a line of output."""
        return (
            f"flux from {self.black:.4g} (black) to {self.white:.4g} (white), "
            f"linear up to {self.softening:.4g} above black"
        )

    def compress(self, flux: torch.Tensor) -> torch.Tensor:
        """Flux to [0, 1]."""
        span = float(np.arcsinh((self.white - self.black) / self.softening))
        return (torch.asinh((flux - self.black) / self.softening) / span).clamp(0, 1)

    def expand(self, unit: torch.Tensor) -> torch.Tensor:
        """[0, 1] to flux; the inverse of `compress` inside the range."""
        span = float(np.arcsinh((self.white - self.black) / self.softening))
        return torch.sinh(unit * span) * self.softening + self.black


def to_network(images: torch.Tensor, stretch: Stretch | None = None) -> torch.Tensor:
    """Stored pixels (uint8, or float32 flux with its stretch) to float32 in [-1, 1]."""
    if images.dtype == torch.uint8:
        return images.to(torch.float32).mul_(2 / 255).sub_(1)
    if stretch is None:
        raise InputError(
            "flux (float32) without a stretch: nothing says which flux is black and which is "
            "white; galaxy-set pack SOURCE SET.h5 measures a stretch, or takes one by --stretch"
        )
    return stretch.compress(images.to(torch.float32)).mul_(2).sub_(1)


def to_storage(images: torch.Tensor, stretch: Stretch | None = None) -> torch.Tensor:
    """Network output in [-1, 1] to uint8 (rounded, clipped), or to flux by a stretch."""
    unit = images.to(torch.float32).add(1).div_(2).clamp_(0, 1)
    if stretch is None:
        return unit.mul_(255).round_().to(torch.uint8)
    return stretch.expand(unit)
