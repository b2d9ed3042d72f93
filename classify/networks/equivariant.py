"""`small-d4`: a network that knows that galaxies have no up.

Every feature map exists in eight versions, one per symmetry of the square; a symmetry of the
image permutes them (Cohen & Welling 2016, arXiv:1602.07576). Averaging over the four rotations
of each handedness leaves two feature vectors, of the image and of its mirror image, which a
reflection swaps. One shared head reads both: what it says of the mirror image counts for the
mirror class, so f(mirror x) is f(x) with clockwise and anticlockwise swapped, exactly and
untrained. Classes without a mirror twin come out invariant.

A group convolution is an ordinary one whose kernel is built from a smaller one at each step:
the cost of a step is that of an ordinary network of the same number of maps, the parameters are
an eighth.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from classify.networks.network import Network
from galaxies.errors import InputError
from galaxies.symmetry import INVERSE, SYMMETRIES, apply_symmetry, is_mirrored

WIDTHS = (3, 6, 12, 24)
"""Maps per symmetry in each stage; eight times as many are computed."""
SMALLEST_SIZE = 16


def composition_table() -> torch.Tensor:
    """(8, 8) int64: ``table[g, h]`` is the symmetry that applies h first, then g."""
    probe = torch.arange(9.0).reshape(1, 1, 3, 3)
    one = [apply_symmetry(probe, torch.tensor([g])) for g in range(SYMMETRIES)]
    table = torch.empty(SYMMETRIES, SYMMETRIES, dtype=torch.int64)
    for g in range(SYMMETRIES):
        for h in range(SYMMETRIES):
            both = apply_symmetry(one[h], torch.tensor([g]))
            table[g, h] = next(k for k in range(SYMMETRIES) if torch.equal(one[k], both))
    return table


class LiftingConvolution(nn.Module):
    """Image (n, C, H, W) to maps on the group (n, 8 * width, H, W)."""

    def __init__(self, channels: int, width: int, kernel: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, channels, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve with the kernels under all symmetries; g of map w is channel g * width + w."""
        bank = _turned(self.weight.repeat(SYMMETRIES, 1, 1, 1))
        return F.conv2d(x, bank, padding=self.weight.shape[-1] // 2)


class GroupConvolution(nn.Module):
    """Maps on the group to maps on the group, (n, 8 * inside, H, W) to (n, 8 * width, H, W)."""

    def __init__(self, inside: int, width: int, kernel: int = 3) -> None:
        super().__init__()
        # weight[w, h * inside + i]: from map i at relative symmetry h to map w.
        self.weight = nn.Parameter(torch.empty(width, SYMMETRIES * inside, kernel, kernel))
        nn.init.normal_(self.weight, std=math.sqrt(2 / (SYMMETRIES * inside * kernel**2)))
        table = composition_table()
        # Output symmetry g reads input symmetry h through the weight of g^-1 h.
        self.register_buffer("relative", table[INVERSE], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve with the kernel bank of all symmetries."""
        width, maps, kernel, _ = self.weight.shape
        of_symmetry = self.weight.reshape(width, SYMMETRIES, -1, kernel, kernel)
        relative = self.relative
        assert isinstance(relative, torch.Tensor)
        # Every weight is read eight times: the gradient of indexing would add them up in the order
        # in which threads happen to come, that of index_select in one order.
        bank = of_symmetry.index_select(1, relative.flatten())
        bank = bank.unflatten(1, relative.shape).transpose(0, 1)
        bank = bank.reshape(-1, maps, kernel, kernel)
        return F.conv2d(x, _turned(bank), padding=kernel // 2)


class GroupNorm(nn.Module):
    """Batch normalisation whose scale and offset are shared by the eight versions of a map.

    In training each version is normalised by its own batch statistics, which one fast kernel
    does; a batch under random symmetries makes them alike. In evaluation all versions share the
    mean and the whole variance of the eight, so the network is exactly equivariant then.
    """

    def __init__(self, width: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.running_mean: torch.Tensor
        self.running_var: torch.Tensor
        self.register_buffer("running_mean", torch.zeros(SYMMETRIES * width))
        self.register_buffer("running_var", torch.ones(SYMMETRIES * width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keep the shape (n, 8 * width, H, W)."""
        mean, variance = self.running_mean, self.running_var
        if not self.training:
            means = mean.reshape(SYMMETRIES, -1)
            within = variance.reshape(SYMMETRIES, -1).mean(dim=0)
            mean = means.mean(dim=0).repeat(SYMMETRIES)
            variance = (within + means.var(dim=0, correction=0)).repeat(SYMMETRIES)
        return F.batch_norm(
            x,
            mean,
            variance,
            self.weight.repeat(SYMMETRIES),
            self.bias.repeat(SYMMETRIES),
            self.training,
            self.momentum,
            self.epsilon,
        )


class SymmetricHalving(nn.Module):
    """Mean of 2x2 pixels; at an odd size the windows overlap, so a mirror image stays one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, maps, H, W) to (n, maps, ceil(H/2), ceil(W/2))."""
        height, width = x.shape[-2:]
        if height % 2 == 0 and width % 2 == 0:
            return F.avg_pool2d(x, 2)
        return F.adaptive_avg_pool2d(x, ((height + 1) // 2, (width + 1) // 2))


class GroupResidualBlock(nn.Module):
    """Two group convolutions and the identity beside them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = GroupConvolution(width, width), GroupNorm(width)
        self.conv2, self.norm2 = GroupConvolution(width, width), GroupNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keep the shape."""
        inside = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(inside)))


class HandednessPooling(nn.Module):
    """Mean over positions and rotations: (n, 8 * width, H, W) to (n, 2 * width).

    The first half belongs to the image, the second to its mirror image.
    """

    def __init__(self) -> None:
        super().__init__()
        mirrored = is_mirrored(torch.arange(SYMMETRIES)).float()
        weights = torch.stack([1 - mirrored, mirrored]) / (SYMMETRIES / 2)
        self.weights: torch.Tensor
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool."""
        versions = x.reshape(len(x), SYMMETRIES, -1, *x.shape[-2:]).mean(dim=(3, 4))
        return torch.einsum("hs,nsw->nhw", self.weights.to(versions.dtype), versions).flatten(1)


class PairedDropout(nn.Module):
    """Dropout that drops a feature of the image and of its mirror image together."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(share)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 2 * width)."""
        own, mirror = x.chunk(2, dim=1)
        mask = self.dropout(torch.ones_like(own))
        return torch.cat([own * mask, mirror * mask], dim=1)


class MirrorHead(nn.Module):
    """Logits (n, K) of class k: the head's k of the image and its mirror class's of the mirror."""

    def __init__(self, width: int, classes: int, permutation: tuple[int, ...]) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)
        self.register_buffer("permutation", torch.tensor(permutation), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, 2 * width) to (n, K)."""
        own, mirror = features.chunk(2, dim=1)
        assert isinstance(self.permutation, torch.Tensor)
        return (self.linear(own) + self.linear(mirror).index_select(1, self.permutation)) / 2


def small_d4(
    channels: int,
    classes: int,
    size: int,
    dropout: float = 0.2,
    permutation: tuple[int, ...] | None = None,
    widths: tuple[int, ...] = WIDTHS,
) -> Network:
    """Build `small-d4`; ``permutation`` (K,) is the class of the mirror image of each class."""
    if size < SMALLEST_SIZE:
        raise InputError(f"network 'small-d4' needs at least {SMALLEST_SIZE} pixels, got {size}")
    first, second, third, fourth = widths
    trunk = nn.Sequential(
        LiftingConvolution(channels, first),  # (n, 8 * 3, H, W)
        GroupNorm(first),
        nn.ReLU(),
        _widen(first, second),  # H/2
        SymmetricHalving(),
        GroupResidualBlock(second),  # H/4
        _widen(second, third),
        GroupResidualBlock(third),  # H/8
        _widen(third, fourth),
        GroupResidualBlock(fourth),  # H/16
        HandednessPooling(),
        PairedDropout(dropout),
    )
    return Network(trunk, MirrorHead(fourth, classes, permutation or tuple(range(classes))))


def _widen(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        SymmetricHalving(), GroupConvolution(inside, outside), GroupNorm(outside), nn.ReLU()
    )


def _turned(bank: torch.Tensor) -> torch.Tensor:
    """Kernels (8 * w, i, k, k) with the eighth of symmetry g turned by g, all at once."""
    elements = torch.arange(SYMMETRIES, device=bank.device)
    return apply_symmetry(bank, elements.repeat_interleave(len(bank) // SYMMETRIES))
