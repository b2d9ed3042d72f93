"""Networks by name: `build` turns a specification into a network, always the same one."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from classify.determinism import isolated_randomness
from classify.networks import published
from classify.networks.equivariant import small_d4
from classify.networks.library import (
    TIMM,
    TORCHVISION,
    refuse_impossible_size,
    timm_network,
    torchvision_network,
)
from classify.networks.margformer import margformer, margformer_small
from classify.networks.margnet import margnet, margnet_cnn, margnet_small
from classify.networks.mobilenet_v1 import mobilenet
from classify.networks.network import Network
from classify.networks.pretrained import load_weights
from classify.networks.small import small
from galaxies.errors import InputError


@dataclass(frozen=True)
class NetworkSpecification:
    """All that the shape of a network depends on.

    Attributes
    ----------
    name : str
        One of `names`, or any timm name.
    channels, size, classes : int
        Input channels, side of the square input in pixels, number of logits.
    dropout : float
        Where the published architecture leaves it open.
    mirror_permutation : tuple of int or None
        Class of the mirror image of each class, for networks that use it; ``None`` is none.
    same_padding : bool
        TensorFlow's padding, which weights that come from there expect; timm networks only.
    table_columns : int
        Scaled features beside each image; 0 for a network that sees images alone.
    """

    name: str
    channels: int
    size: int
    classes: int
    dropout: float = 0.2
    mirror_permutation: tuple[int, ...] | None = None
    same_padding: bool = False
    table_columns: int = 0


Builder = Callable[[NetworkSpecification], Network]


@dataclass(frozen=True)
class Entry:
    """A network of our own.

    Attributes
    ----------
    build : callable
    words : str
        What it is, for the list.
    """

    build: Builder
    words: str


_OWN: dict[str, Entry] = {
    "small": Entry(
        lambda s: small(s.channels, s.classes, s.size, s.dropout),
        "residual, 0.5 million parameters, 16 pixels and more",
    ),
    "small-d4": Entry(
        lambda s: small_d4(s.channels, s.classes, s.size, s.dropout, s.mirror_permutation),
        "equivariant under the symmetries of the square, 16 pixels and more",
    ),
    **{
        name: Entry(
            lambda s: published.custom_cnn(s.name, s.channels, s.classes, s.size),
            f"{len(layers)} convolutions, published for Galaxy10 DECaLS at 256 pixels",
        )
        for name, layers in published.CUSTOM_LAYERS.items()
    },
    "custom-cnn-final": Entry(
        lambda s: published.custom_cnn_final(s.channels, s.classes, s.size, s.dropout),
        "4 convolutions, published for Galaxy10 DECaLS at 64 pixels",
    ),
    "unam-cnn": Entry(
        lambda s: published.unam_cnn(s.channels, s.classes, s.size),
        "published for Galaxy10 SDSS at 69 pixels",
    ),
    "cavanagh-c1": Entry(
        lambda s: published.cavanagh_c1(s.channels, s.classes, s.size),
        "Cavanagh et al. 2021, 100 pixels, 1 band",
    ),
    "cavanagh-c1-bn": Entry(
        lambda s: published.cavanagh_c1(s.channels, s.classes, s.size, normalise=True),
        "the same with batch normalisation",
    ),
    "cavanagh-c2": Entry(
        lambda s: published.cavanagh_c2(s.channels, s.classes, s.size),
        "Cavanagh et al. 2021, the deeper one, 100 pixels, 1 band",
    ),
    "cavanagh-c2-bn": Entry(
        lambda s: published.cavanagh_c2(s.channels, s.classes, s.size, normalise_second=True),
        "the same with one batch normalisation more",
    ),
    "mobilenet": Entry(
        lambda s: mobilenet(s.channels, s.classes, s.size, s.dropout),
        "MobileNet v1, 32 pixels and more",
    ),
    "margnet-cnn": Entry(
        lambda s: margnet_cnn(s.channels, s.classes, s.size),
        "MargNet's inception network, published for 5 bands of 32 pixels",
    ),
    "margnet": Entry(
        lambda s: margnet(s.channels, s.classes, s.size, s.table_columns),
        "MargNet: image and features, each alone, then stacked",
    ),
    "margnet-small": Entry(
        lambda s: margnet_small(s.channels, s.classes, s.size, s.table_columns, s.dropout),
        "the same plan with small and a dense network of 128-64",
    ),
    "margformer": Entry(
        lambda s: margformer(s.channels, s.classes, s.size, s.table_columns),
        "MargFormer: a transformer whose class token is the features",
    ),
    "margformer-small": Entry(
        lambda s: margformer_small(s.channels, s.classes, s.size, s.table_columns),
        "the same plan, 0.2 million parameters",
    ),
}


def names() -> tuple[str, ...]:
    """Names of the networks, without the many further ones of timm."""
    return (*_OWN, *TORCHVISION, *TIMM)


def is_library_name(name: str) -> bool:
    """Whether the network comes from torchvision or timm, whose weights expect ImageNet's scale."""
    return name not in _OWN


def describe() -> list[tuple[str, str]]:
    """Name of each network and what it is."""
    return [
        *((name, entry.words) for name, entry in _OWN.items()),
        *((name, f"torchvision {known[0]}") for name, known in TORCHVISION.items()),
        *((name, f"timm {known[0]} (extra timm)") for name, known in TIMM.items()),
        ("any timm name", "such as convnext_atto (extra timm)"),
    ]


def build(
    specification: NetworkSpecification,
    seed: int = 0,
    *,
    pretrained: dict[str, torch.Tensor] | None = None,
    pretrained_source: str = "",
) -> Network:
    """Build a network with initial weights drawn from ``seed`` alone.

    Parameters
    ----------
    pretrained
        Weights under the library's own names, loaded over the initial ones.
    pretrained_source
        Where they come from, for errors.

    Raises
    ------
    InputError
        If the name is unknown, the architecture cannot take that size or channel count, or the
        weights do not fit.
    """
    name = specification.name
    channels, classes, size = specification.channels, specification.classes, specification.size
    if classes < 2:
        raise InputError(f"a classifier needs at least 2 classes, got {classes}")
    if not 1 <= channels <= 10:
        raise InputError(f"1 to 10 channels are supported, got {channels}")
    if size < 1:
        raise InputError(f"images must have at least 1 pixel, got {size}")

    def load(network: nn.Module) -> None:
        if pretrained is not None:
            load_weights(network, pretrained, pretrained_source)

    with isolated_randomness(seed):
        if name in _OWN:
            network = _OWN[name].build(specification)
            load(network)
        elif name in TORCHVISION:
            network = torchvision_network(name, channels, classes, size, load)
        else:
            padding = {"pad_type": "same"} if specification.same_padding else {}
            network = timm_network(name, channels, classes, size, load, padding)
        if name not in _OWN:
            refuse_impossible_size(network, name, channels, size)
    return network.to(memory_format=torch.channels_last)
