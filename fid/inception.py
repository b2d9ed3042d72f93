"""Inception v3 as FID uses it: the network of 2015, converted from TensorFlow.

Layout and names of the published weights (566 tensors, torchvision's names). It differs from
torchvision's network in two ways: average pools leave the padding out of the mean, and the last
block pools by the maximum, which its authors call a likely mistake that must be kept.

Two children compute the same function: `PublishedInception` in the order of the original,
`FoldedInception` about twice as fast.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from galaxies.errors import InputError

FEATURES = 2048
_EPSILON = 0.001

WEIGHTS_NAME = "pt_inception-2015-12-05-6726825d.pth"
WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
WEIGHTS_URL = (
    f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{WEIGHTS_NAME}"
)

ConvolutionShape = tuple[int, int, tuple[int, int], int, tuple[int, int]]
"""In channels, out channels, kernel, stride, padding."""

_STEM: dict[str, ConvolutionShape] = {
    "Conv2d_1a_3x3": (3, 32, (3, 3), 2, (0, 0)),
    "Conv2d_2a_3x3": (32, 32, (3, 3), 1, (0, 0)),
    "Conv2d_2b_3x3": (32, 64, (3, 3), 1, (1, 1)),
    "Conv2d_3b_1x1": (64, 80, (1, 1), 1, (0, 0)),
    "Conv2d_4a_3x3": (80, 192, (3, 3), 1, (0, 0)),
}
_BLOCKS_A = {"Mixed_5b": (192, 32), "Mixed_5c": (256, 64), "Mixed_5d": (288, 64)}
_BLOCKS_C = {"Mixed_6b": 128, "Mixed_6c": 160, "Mixed_6d": 160, "Mixed_6e": 192}
_BLOCKS_E = {"Mixed_7b": 1280, "Mixed_7c": 2048}

HEADS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_BLOCKS_A, ("branch1x1", "branch5x5_1", "branch3x3dbl_1", "branch_pool")),
    **dict.fromkeys(_BLOCKS_C, ("branch1x1", "branch7x7_1", "branch7x7dbl_1", "branch_pool")),
    "Mixed_7a": ("branch3x3_1", "branch7x7x3_1"),
    "Mixed_7b": ("branch1x1", "branch3x3_1", "branch3x3dbl_1", "branch_pool"),
    "Mixed_7c": ("branch1x1", "branch3x3_1", "branch3x3dbl_1"),
}
"""The 1x1 convolutions that read a block's input (after an average pool: ``branch_pool``)."""


def convolution_shapes() -> dict[str, ConvolutionShape]:
    """Every convolution of the network, by its name in the published weights."""
    shapes = dict(_STEM)

    def add(
        name: str,
        source: int,
        target: int,
        kernel: tuple[int, int] = (1, 1),
        *,
        halves: bool = False,
    ) -> None:
        """Padded to keep the size, or with stride 2 and no padding."""
        padding = (0, 0) if halves else (kernel[0] // 2, kernel[1] // 2)
        shapes[name] = (source, target, kernel, 2 if halves else 1, padding)

    for b, (source, pooled) in _BLOCKS_A.items():
        add(f"{b}.branch1x1", source, 64)
        add(f"{b}.branch5x5_1", source, 48)
        add(f"{b}.branch5x5_2", 48, 64, (5, 5))
        add(f"{b}.branch3x3dbl_1", source, 64)
        add(f"{b}.branch3x3dbl_2", 64, 96, (3, 3))
        add(f"{b}.branch3x3dbl_3", 96, 96, (3, 3))
        add(f"{b}.branch_pool", source, pooled)
    add("Mixed_6a.branch3x3", 288, 384, (3, 3), halves=True)
    add("Mixed_6a.branch3x3dbl_1", 288, 64)
    add("Mixed_6a.branch3x3dbl_2", 64, 96, (3, 3))
    add("Mixed_6a.branch3x3dbl_3", 96, 96, (3, 3), halves=True)
    for b, width in _BLOCKS_C.items():
        add(f"{b}.branch1x1", 768, 192)
        add(f"{b}.branch7x7_1", 768, width)
        add(f"{b}.branch7x7_2", width, width, (1, 7))
        add(f"{b}.branch7x7_3", width, 192, (7, 1))
        add(f"{b}.branch7x7dbl_1", 768, width)
        add(f"{b}.branch7x7dbl_2", width, width, (7, 1))
        add(f"{b}.branch7x7dbl_3", width, width, (1, 7))
        add(f"{b}.branch7x7dbl_4", width, width, (7, 1))
        add(f"{b}.branch7x7dbl_5", width, 192, (1, 7))
        add(f"{b}.branch_pool", 768, 192)
    add("Mixed_7a.branch3x3_1", 768, 192)
    add("Mixed_7a.branch3x3_2", 192, 320, (3, 3), halves=True)
    add("Mixed_7a.branch7x7x3_1", 768, 192)
    add("Mixed_7a.branch7x7x3_2", 192, 192, (1, 7))
    add("Mixed_7a.branch7x7x3_3", 192, 192, (7, 1))
    add("Mixed_7a.branch7x7x3_4", 192, 192, (3, 3), halves=True)
    for b, source in _BLOCKS_E.items():
        add(f"{b}.branch1x1", source, 320)
        add(f"{b}.branch3x3_1", source, 384)
        add(f"{b}.branch3x3_2a", 384, 384, (1, 3))
        add(f"{b}.branch3x3_2b", 384, 384, (3, 1))
        add(f"{b}.branch3x3dbl_1", source, 448)
        add(f"{b}.branch3x3dbl_2", 448, 384, (3, 3))
        add(f"{b}.branch3x3dbl_3a", 384, 384, (1, 3))
        add(f"{b}.branch3x3dbl_3b", 384, 384, (3, 1))
        add(f"{b}.branch_pool", source, 192)
    return shapes


class Inception(nn.Module):
    """The topology; its two children say how a convolution with its batch norm is computed."""

    _geometry: dict[str, tuple[int, tuple[int, int]]]

    def _layer(self, x: torch.Tensor, name: str) -> torch.Tensor:
        raise NotImplementedError

    def _heads(self, x: torch.Tensor, block: str, names: Sequence[str]) -> list[torch.Tensor]:
        """The 1x1 convolutions that read the block's input, ``branch_pool`` after its pool."""
        raise NotImplementedError

    def _chain(self, x: torch.Tensor, block: str, *names: str) -> torch.Tensor:
        for name in names:
            x = self._layer(x, f"{block}.{name}")
        return x

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, 299, 299) in about [-1, 1] to (n, 2048)."""
        x = self._layer(x, "Conv2d_1a_3x3")  # n x 32 x 149 x 149
        x = self._layer(x, "Conv2d_2a_3x3")  # n x 32 x 147 x 147
        x = self._layer(x, "Conv2d_2b_3x3")  # n x 64 x 147 x 147
        x = F.max_pool2d(x, 3, 2)  # n x 64 x 73 x 73
        x = self._layer(x, "Conv2d_3b_1x1")  # n x 80 x 73 x 73
        x = self._layer(x, "Conv2d_4a_3x3")  # n x 192 x 71 x 71
        x = F.max_pool2d(x, 3, 2)  # n x 192 x 35 x 35
        for block in _BLOCKS_A:
            x = self._block_a(x, block)  # n x 256, 288, 288 x 35 x 35
        x = self._block_b(x, "Mixed_6a")  # n x 768 x 17 x 17
        for block in _BLOCKS_C:
            x = self._block_c(x, block)  # n x 768 x 17 x 17
        x = self._block_d(x, "Mixed_7a")  # n x 1280 x 8 x 8
        for block in _BLOCKS_E:
            x = self._block_e(x, block)  # n x 2048 x 8 x 8
        return F.adaptive_avg_pool2d(x, 1).flatten(1)  # n x 2048

    def _block_a(self, x: torch.Tensor, block: str) -> torch.Tensor:
        one, five, three, pooled = self._heads(x, block, HEADS[block])
        five = self._chain(five, block, "branch5x5_2")
        three = self._chain(three, block, "branch3x3dbl_2", "branch3x3dbl_3")
        return torch.cat([one, five, three, pooled], dim=1)

    def _block_b(self, x: torch.Tensor, block: str) -> torch.Tensor:
        three = self._chain(x, block, "branch3x3")
        double = self._chain(x, block, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        return torch.cat([three, double, F.max_pool2d(x, 3, 2)], dim=1)

    def _block_c(self, x: torch.Tensor, block: str) -> torch.Tensor:
        one, seven, double, pooled = self._heads(x, block, HEADS[block])
        seven = self._chain(seven, block, "branch7x7_2", "branch7x7_3")
        double = self._chain(double, block, *(f"branch7x7dbl_{i}" for i in range(2, 6)))
        return torch.cat([one, seven, double, pooled], dim=1)

    def _block_d(self, x: torch.Tensor, block: str) -> torch.Tensor:
        three, seven = self._heads(x, block, HEADS[block])
        three = self._chain(three, block, "branch3x3_2")
        seven = self._chain(seven, block, *(f"branch7x7x3_{i}" for i in range(2, 5)))
        return torch.cat([three, seven, F.max_pool2d(x, 3, 2)], dim=1)

    def _block_e(self, x: torch.Tensor, block: str) -> torch.Tensor:
        one, three, double, *rest = self._heads(x, block, HEADS[block])
        # The last block pools by the maximum: kept, because the published numbers have it.
        pooled = rest[0] if rest else self._layer(F.max_pool2d(x, 3, 1, 1), f"{block}.branch_pool")
        double = self._layer(double, f"{block}.branch3x3dbl_2")
        pieces = [one]
        pieces += [self._layer(three, f"{block}.branch3x3_{end}") for end in ("2a", "2b")]
        pieces += [self._layer(double, f"{block}.branch3x3dbl_{end}") for end in ("3a", "3b")]
        return torch.cat([*pieces, pooled], dim=1)


class PublishedInception(Inception):
    """Convolution, batch norm, rectifier, one after the other, in the order of the original.

    Gives the features of pytorch-fid bit for bit on the same machine; twice as slow.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self._geometry = {}
        for name, shape in convolution_shapes().items():
            self._geometry[name] = shape[3:]
            for key, tensor in _checked_tensors(weights, name, shape).items():
                self.register_buffer(_flat(f"{name}.{key}"), tensor.to(torch.float32))

    def _layer(self, x: torch.Tensor, name: str) -> torch.Tensor:
        def of(key: str) -> torch.Tensor:
            return self.get_buffer(_flat(f"{name}.{key}"))

        stride, padding = self._geometry[name]
        x = F.conv2d(x, of("conv.weight"), None, stride, padding)
        x = F.batch_norm(
            x,
            of("bn.running_mean"),
            of("bn.running_var"),
            of("bn.weight"),
            of("bn.bias"),
            eps=_EPSILON,
        )
        return x.relu_()

    def _heads(self, x: torch.Tensor, block: str, names: Sequence[str]) -> list[torch.Tensor]:
        return [
            self._layer(_average_pool(x) if name == "branch_pool" else x, f"{block}.{name}")
            for name in names
        ]


class FoldedInception(Inception):
    """The same function, twice as fast.

    Batch norm is folded into the convolutions. The 1x1 convolutions that read the same input
    are one convolution; that includes the one after an average pool, because such a pool and a
    1x1 convolution commute. Features differ from the published order by rounding, about 1e-5.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self._geometry = {}
        self._widths: dict[str, list[int]] = {}
        joined = {f"{block}.{name}" for block, names in HEADS.items() for name in names}
        folded = {name: _fold(weights, name, shape) for name, shape in convolution_shapes().items()}
        for name, shape in convolution_shapes().items():
            if name not in joined:
                self._geometry[name] = shape[3:]
                self._keep(name, *folded[name])
        for block, names in HEADS.items():
            parts = [folded[f"{block}.{name}"] for name in names]
            self._geometry[block] = (1, (0, 0))
            self._widths[block] = [len(bias) for _, bias in parts]
            self._keep(block, torch.cat([k for k, _ in parts]), torch.cat([b for _, b in parts]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, 299, 299) in about [-1, 1] to (n, 2048)."""
        return super().forward(x.contiguous(memory_format=torch.channels_last))

    def _keep(self, name: str, kernel: torch.Tensor, bias: torch.Tensor) -> None:
        kernel = kernel.contiguous(memory_format=torch.channels_last)
        self.register_buffer(_flat(name) + "_kernel", kernel)
        self.register_buffer(_flat(name) + "_bias", bias)

    def _convolve(self, x: torch.Tensor, name: str) -> torch.Tensor:
        flat = _flat(name)
        kernel, bias = self.get_buffer(flat + "_kernel"), self.get_buffer(flat + "_bias")
        return F.conv2d(x, kernel, bias, *self._geometry[name])

    def _layer(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return self._convolve(x, name).relu_()

    def _heads(self, x: torch.Tensor, block: str, names: Sequence[str]) -> list[torch.Tensor]:
        heads = self._convolve(x, block).split(self._widths[block], dim=1)
        return [
            _average_pool(head).relu_() if name == "branch_pool" else head.relu()
            for name, head in zip(names, heads, strict=True)
        ]


def _average_pool(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _checked_tensors(
    weights: Mapping[str, torch.Tensor], name: str, shape: ConvolutionShape
) -> dict[str, torch.Tensor]:
    source, target, kernel_size, _, _ = shape
    expected: dict[str, tuple[int, ...]] = {
        "conv.weight": (target, source, *kernel_size),
        "bn.weight": (target,),
        "bn.bias": (target,),
        "bn.running_mean": (target,),
        "bn.running_var": (target,),
    }
    tensors = {}
    for key, wanted in expected.items():
        tensor = weights.get(f"{name}.{key}")
        if tensor is None or tuple(tensor.shape) != wanted:
            found = "is missing" if tensor is None else f"has shape {tuple(tensor.shape)}"
            raise InputError(
                f"not the FID variant of Inception: {name}.{key} {found}, {wanted} is needed"
            )
        tensors[key] = tensor
    return tensors


def check_layout(weights: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Return the weights.

    Raises
    ------
    InputError
        If they are not in the published layout: names the first tensor that is not.
    """
    for name, shape in convolution_shapes().items():
        _checked_tensors(weights, name, shape)
    return weights


def _fold(
    weights: Mapping[str, torch.Tensor], name: str, shape: ConvolutionShape
) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernel and bias of a convolution and its batch norm, in float64 before rounding once."""
    tensors = {
        key: tensor.to(torch.float64)
        for key, tensor in _checked_tensors(weights, name, shape).items()
    }
    scale = tensors["bn.weight"] / torch.sqrt(tensors["bn.running_var"] + _EPSILON)
    kernel = tensors["conv.weight"] * scale[:, None, None, None]
    bias = tensors["bn.bias"] - tensors["bn.running_mean"] * scale
    return kernel.to(torch.float32), bias.to(torch.float32)


def _flat(name: str) -> str:
    return name.replace(".", "_")
