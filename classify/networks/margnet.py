"""MargNet: a convolutional network for cut-outs, a dense one for photometry, and a stack.

Chaini et al. 2023 (MNRAS 518, 3123, arXiv:2210.15297). Published are the numbers of parameters
for cut-outs of 32x32 in five bands, 24 features and three classes: 25,543,783 of the
convolutional network (1,683,556 of them in the convolutions, the rest in two linear layers of
1024 units after 22,272 flattened numbers, and the output), 331,331 of the dense network, 103 of
the stack (6-10-3).

Inferred: the wiring of the inception blocks. They are those of Pasquet et al. 2019
(arXiv:1806.06607): a direct 1x1 convolution, 1x1 then 3x3, 1x1 then 5x5 (not in the last block),
and 1x1 then pooling, joined. Pasquet's own widths give 98,112 parameters too many; those below
are the only ones that reproduce both published counts with at most three changes to the widths
of his blocks. Of his three poolings the first is left out, because these cut-outs have half the
side of his: 22,272 = 8 x 8 x 348. Activations are rectified linear except after the two dense
layers, which are linear as published.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from classify.networks.joint import JointNetwork
from classify.networks.network import Network
from classify.networks.small import SMALLEST_SIZE, small
from galaxies.errors import InputError

STEM = 64
BLOCKS = ((92, 92), (64, 92), (92, 92), (92, 92), (92, 128))
"""Channels of the 1x1 reductions and of the outputs of each inception block."""
POOLED_AFTER = (1, 3)
DENSE_UNITS = 1024
MARGNET_DENSE = (1024, 256, 128, 64, 32)
SMALL_DENSE = (128, 64)
DROPOUT = 0.25
STACK_UNITS = 10
SMALLEST_PROBABILITY = 1e-6


class Inception(nn.Module):
    """One inception block: (n, inputs, H, W) to (n, width, H, W)."""

    def __init__(self, inputs: int, reduced: int, outputs: int, *, with_five: bool) -> None:
        super().__init__()
        self.direct = nn.Conv2d(inputs, outputs, 1)
        self.reduce_three = nn.Conv2d(inputs, reduced, 1)
        self.three = nn.Conv2d(reduced, outputs, 3, padding=1)
        self.reduce_five = nn.Conv2d(inputs, reduced, 1) if with_five else None
        self.five = nn.Conv2d(reduced, outputs, 5, padding=2) if with_five else None
        self.reduce_pooled = nn.Conv2d(inputs, reduced, 1)
        self.width = (3 if with_five else 2) * outputs + reduced

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keep H and W."""
        branches = [F.relu(self.direct(x)), F.relu(self.three(F.relu(self.reduce_three(x))))]
        if self.reduce_five is not None and self.five is not None:
            branches.append(F.relu(self.five(F.relu(self.reduce_five(x)))))
        pooled = F.avg_pool2d(F.pad(F.relu(self.reduce_pooled(x)), (0, 1, 0, 1)), 2, stride=1)
        return torch.cat([*branches, pooled], dim=1)


def margnet_cnn(channels: int, classes: int, size: int) -> Network:
    """The convolutional network; 25,543,783 parameters for 5 channels, 3 classes, 32 pixels.

    Raises
    ------
    InputError
        If the side is not a multiple of 4, or above 64 (the first dense layer would hold more
        than 90 million numbers).
    """
    if size % 4 or not 8 <= size <= 64:
        raise InputError(f"margnet-cnn takes sides of 8 to 64 pixels in steps of 4, got {size}")
    layers: list[nn.Module] = [nn.Conv2d(channels, STEM, 5, padding=2), nn.ReLU()]
    width = STEM
    for place, (reduced, outputs) in enumerate(BLOCKS):
        block = Inception(width, reduced, outputs, with_five=place < len(BLOCKS) - 1)
        layers.append(block)
        width = block.width
        if place in POOLED_AFTER:
            layers.append(nn.AvgPool2d(2))
    flat = width * (size // 4) ** 2
    layers += [
        nn.Flatten(),  # (n, 22272) at 32 pixels
        nn.Linear(flat, DENSE_UNITS),
        nn.Linear(DENSE_UNITS, DENSE_UNITS),
    ]
    return Network(nn.Sequential(*layers), nn.Linear(DENSE_UNITS, classes))


def dense_part(inputs: int, classes: int, widths: tuple[int, ...]) -> Network:
    """The dense network; 331,331 parameters for 24 features and 3 classes."""
    layers: list[nn.Module] = []
    for before, after in pairwise((inputs, *widths)):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(DROPOUT)]
    return Network(nn.Sequential(*layers), nn.Linear(widths[-1], classes))


class BothParts(nn.Module):
    """Probabilities of the image part and of the table part, side by side: (n, 2 K)."""

    def __init__(self, image_part: Network, table_part: Network) -> None:
        super().__init__()
        self.image_part = image_part
        self.table_part = table_part

    def forward(self, images: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) and (n, F) to (n, 2 K)."""
        of_image = torch.softmax(self.image_part(images).float(), dim=1)
        of_table = torch.softmax(self.table_part(table).float(), dim=1)
        return torch.cat([of_image, of_table], dim=1)


def stack_head(classes: int) -> nn.Sequential:
    """Two probabilities per class to logits; 103 parameters for 3 classes."""
    return nn.Sequential(
        nn.Linear(2 * classes, STACK_UNITS), nn.ReLU(), nn.Linear(STACK_UNITS, classes)
    )


class LogarithmicPool(nn.Module):
    """Two probabilities per class to logits: ``a log p_image + b log p_table``, a and b above 0.

    Two parameters, so that a few dozen images are enough to fit them (Genest & Zidek 1986); the
    published stack has hundreds and follows the noise of so few. At (1, 0) and (0, 1) it is
    either part alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.raw_weights = nn.Parameter(torch.zeros(2))

    @property
    def weights(self) -> torch.Tensor:
        """(2,) a and b."""
        return F.softplus(self.raw_weights)

    def forward(self, probabilities: torch.Tensor) -> torch.Tensor:
        """(n, 2 K) probabilities of the image part and of the table part to (n, K) logits."""
        of_parts = probabilities.clamp_min(SMALLEST_PROBABILITY).log().unflatten(1, (2, -1))
        return (self.weights[:, None] * of_parts).sum(dim=1)


def margnet(channels: int, classes: int, size: int, table_columns: int) -> JointNetwork:
    """Both published parts and the stack; trained by `classify.tabular.margnet_training`."""
    _need_columns("margnet", table_columns)
    parts = BothParts(
        margnet_cnn(channels, classes, size), dense_part(table_columns, classes, MARGNET_DENSE)
    )
    return JointNetwork(parts, stack_head(classes), table_columns)


def margnet_small(
    channels: int, classes: int, size: int, table_columns: int, dropout: float = 0.2
) -> JointNetwork:
    """MargNet's plan with `small` for the images, a dense network of 128-64 and a stack of two
    numbers, for sets of thousands; about 0.5 million parameters.
    """
    _need_columns("margnet-small", table_columns)
    if size < SMALLEST_SIZE:
        raise InputError(f"margnet-small needs at least {SMALLEST_SIZE} pixels, got {size}")
    parts = BothParts(
        small(channels, classes, size, dropout), dense_part(table_columns, classes, SMALL_DENSE)
    )
    return JointNetwork(parts, LogarithmicPool(), table_columns)


def _need_columns(name: str, table_columns: int) -> None:
    if table_columns < 1:
        raise InputError(
            f"{name} needs features beside the images; join a table with: "
            "galaxy-set pack SOURCE OUT.h5 --table TABLE --table-id COLUMN"
        )
