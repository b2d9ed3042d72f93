"""`small`: a residual network for cut-outs of 32 to 128 pixels that trains on two CPU cores.

Pre-activation is not needed at this depth; the blocks are those of He et al. 2016
(arXiv:1512.03385) with max-blur-free average pooling as the only downsampling, which is
symmetric under flips, and global average pooling, so any size from 16 pixels works.
"""

import torch
import torch.nn.functional as F
from torch import nn

from classify.networks.network import Network
from galaxies.errors import InputError

WIDTHS = (16, 32, 64, 128)
SMALLEST_SIZE = 16


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, and the identity beside them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keep the shape (n, width, H, W)."""
        inside = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(inside)))


def _widen(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(inside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
    )


def small(channels: int, classes: int, size: int, dropout: float = 0.2) -> Network:
    """Build `small`; 0.48 million parameters at 3 channels.

    Raises
    ------
    InputError
        If ``size`` is below 16 pixels, where the fourth stage would be empty.
    """
    if size < SMALLEST_SIZE:
        raise InputError(f"network 'small' needs at least {SMALLEST_SIZE} pixels, got {size}")
    first, second, third, fourth = WIDTHS
    trunk = nn.Sequential(
        nn.Conv2d(channels, first, 3, padding=1, bias=False),  # (n, 16, H, W)
        nn.BatchNorm2d(first),
        nn.ReLU(),
        _widen(first, second),  # (n, 32, H/2, W/2)
        nn.AvgPool2d(2),
        ResidualBlock(second),  # (n, 32, H/4, W/4)
        _widen(second, third),
        ResidualBlock(third),  # (n, 64, H/8, W/8)
        _widen(third, fourth),  # (n, 128, H/16, W/16)
        ResidualBlock(fourth),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
    )
    return Network(trunk, nn.Linear(fourth, classes))
