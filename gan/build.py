"""Networks from the parts of a recipe, initialised from an explicit random generator."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gan.networks import DcganDiscriminator, DcganGenerator, initialise_dcgan
from gan.recipes import Parts
from gan.spectral_norm import add_spectral_norm
from gan.tail_networks import ResidualDiscriminator, StyleGenerator, initialise_tail


class Generator(Protocol):
    """What every generator offers beside being a module."""

    latent: int
    noise_length: int

    def class_tables(self) -> list[Tensor]:
        """(classes, D) parameters that belong to one class each."""
        ...


@dataclass(frozen=True)
class NetworkShape:
    """What fixes the shape of both networks, beside the parts of the recipe."""

    classes: int
    channels: int
    size: int
    width: float

    def as_json(self) -> dict[str, Any]:
        """Fields by name."""
        return dict(self.__dict__)


def build_generator(shape: NetworkShape, parts: Parts, generator: torch.Generator) -> nn.Module:
    """The generator of a recipe, initialised; the global random state stays as it is."""
    arguments = (shape.classes, shape.channels, shape.size, shape.width, parts)
    network: nn.Module
    with torch.random.fork_rng(devices=[]):  # constructors of layers draw from it
        if parts.generator == "style":
            network = StyleGenerator(*arguments)
            initialise_tail(network, generator)
        else:
            network = DcganGenerator(*arguments)
            initialise_dcgan(network, generator)
    return network.to(memory_format=torch.channels_last)


def build_discriminator(shape: NetworkShape, parts: Parts, generator: torch.Generator) -> nn.Module:
    """The discriminator of a recipe, initialised; the global random state stays as it is."""
    arguments = (shape.classes, shape.channels, shape.size, shape.width, parts)
    network: nn.Module
    with torch.random.fork_rng(devices=[]):
        if parts.discriminator == "residual":
            network = ResidualDiscriminator(*arguments)
            initialise_tail(network, generator)
        else:
            network = DcganDiscriminator(*arguments)
            initialise_dcgan(network, generator)
        if parts.spectral_norm:
            # Its power iterations start from the global state.
            torch.default_generator.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            add_spectral_norm(network)
    return network.to(memory_format=torch.channels_last)


def parameter_count(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
