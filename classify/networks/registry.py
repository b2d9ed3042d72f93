"""Networks by name: `build` turns a specification into a network, always the same one."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from classify.determinism import isolated_randomness
from classify.networks.network import Network
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
    """

    name: str
    channels: int
    size: int
    classes: int
    dropout: float = 0.2
    mirror_permutation: tuple[int, ...] | None = None


Builder = Callable[[NetworkSpecification], Network]

_BUILDERS: dict[str, Builder] = {
    "small": lambda spec: small(spec.channels, spec.classes, spec.size, spec.dropout),
}


def names() -> tuple[str, ...]:
    """Names of the networks that need no further package, in the order of the table."""
    return tuple(_BUILDERS)


def describe() -> list[tuple[str, str]]:
    """Name of each network and what it is."""
    return [(name, "") for name in names()]


def build(specification: NetworkSpecification, seed: int = 0) -> Network:
    """Build a network with initial weights drawn from ``seed`` alone.

    Raises
    ------
    InputError
        If the name is unknown, or the architecture cannot take that size or channel count.
    """
    if specification.classes < 2:
        raise InputError(f"a classifier needs at least 2 classes, got {specification.classes}")
    if specification.name not in _BUILDERS:
        raise InputError(
            f"there is no network {specification.name!r}; choose from {', '.join(names())}"
        )
    with isolated_randomness(seed):
        network = _BUILDERS[specification.name](specification)
    return network.to(memory_format=torch.channels_last)
