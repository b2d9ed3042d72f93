"""The convolutional networks of published galaxy classifiers, layer by layer.

``custom-cnn-*``: five networks for Galaxy10 DECaLS; ``unam-cnn``: one for Galaxy10 SDSS;
``cavanagh-c1``, ``cavanagh-c2``: Cavanagh, Bekki & Groves 2021 (arXiv:2106.01571). Parameter
counts are equal to the published ones and are tested.

A published network has a fixed input; here its first fully connected layer takes whatever the
convolutions leave at another size, so the count changes with the size as it would in theirs.
"""

from collections.abc import Sequence

from torch import nn

from classify.networks.network import Network
from galaxies.errors import InputError

CUSTOM_LAYERS: dict[str, tuple[tuple[int, int], ...]] = {
    "custom-cnn-1": ((3, 5), (8, 5)),
    "custom-cnn-2": ((6, 5), (16, 5), (32, 5)),
    "custom-cnn-3": ((3, 5), (8, 3), (16, 5), (32, 3), (64, 5)),
    "custom-cnn-4": ((3, 5), (8, 3), (16, 5), (32, 3), (64, 5), (128, 3)),
}
"""(filters, kernel) of each convolution; published for 256 pixels and ten classes."""


def custom_cnn(name: str, channels: int, classes: int, size: int) -> Network:
    """`custom-cnn-1` to `custom-cnn-4`: padded convolutions, each halved, then 120-84-classes."""
    layers: list[nn.Module] = []
    inside, side = channels, size
    for filters, kernel in CUSTOM_LAYERS[name]:
        layers += [nn.Conv2d(inside, filters, kernel, padding="same"), nn.ReLU(), nn.MaxPool2d(2)]
        inside, side = filters, side // 2
    flat = _flat(name, inside, side, 2 ** len(CUSTOM_LAYERS[name]))
    layers += [nn.Flatten(), nn.Linear(flat, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()]
    return Network(nn.Sequential(*layers), nn.Linear(84, classes))


def custom_cnn_final(channels: int, classes: int, size: int, dropout: float = 0.5) -> Network:
    """`custom-cnn-final`: four convolutions of 32 to 256 filters, then 512-256-classes.

    Published for 64 pixels; its dropout rate is not, so it is free.
    """
    layers: list[nn.Module] = []
    inside, side = channels, size
    for filters in (32, 64, 128, 256):
        layers += [nn.Conv2d(inside, filters, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)]
        inside, side = filters, side // 2
    flat = _flat("custom-cnn-final", inside, side, 16)
    layers += [nn.Flatten(), nn.Linear(flat, 512), nn.ReLU(), nn.Dropout(dropout)]
    layers += [nn.Linear(512, 256), nn.ReLU(), nn.Dropout(dropout)]
    return Network(nn.Sequential(*layers), nn.Linear(256, classes))


def unam_cnn(channels: int, classes: int, size: int) -> Network:
    """`unam-cnn`: unpadded convolutions and two tanh layers, published for 69 pixels.

    Its L2 penalty of 1e-3 is an optimiser setting here: ``--weight-decay``.
    """
    layers: list[nn.Module] = [nn.Conv2d(channels, 64, 3), nn.ReLU()]
    inside, side = 64, size - 2
    for filters in (64, 128, 256):
        layers += [nn.Conv2d(inside, filters, 3), nn.ReLU(), nn.MaxPool2d(2)]
        inside, side = filters, (side - 2) // 2
    flat = _flat("unam-cnn", inside, side, 24)
    layers += [nn.Dropout(0.5), nn.Flatten(), nn.Linear(flat, 150), nn.Tanh(), nn.Dropout(0.3)]
    layers += [nn.Linear(150, 60), nn.Tanh(), nn.Dropout(0.3)]
    return Network(nn.Sequential(*layers), nn.Linear(60, classes))


def cavanagh_c1(channels: int, classes: int, size: int, *, normalise: bool = False) -> Network:
    """`cavanagh-c1`: two unpadded 5x5 convolutions, one pooling, 256-classes.

    ``normalise`` adds batch normalisation after each convolution, as one released file does
    (`cavanagh-c1-bn`).
    """
    layers: list[nn.Module] = []
    for inside, filters in ((channels, 32), (32, 64)):
        layers += [nn.Conv2d(inside, filters, 5), nn.ReLU()]
        layers += [nn.BatchNorm2d(filters)] if normalise else []
    side = (size - 8) // 2
    flat = _flat("cavanagh-c1", 64, side, 10)
    layers += [nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(flat, 256), nn.ReLU()]
    return Network(nn.Sequential(*layers), nn.Linear(256, classes))


def cavanagh_c2(
    channels: int, classes: int, size: int, *, normalise_second: bool = False
) -> Network:
    """`cavanagh-c2`: 7x7, twice 5x5 and 3x3 convolutions, three poolings, 256-256-classes.

    ``normalise_second`` adds the batch normalisation after the second convolution that one
    released file has (`cavanagh-c2-bn`).
    """
    layers: list[nn.Module] = [
        nn.Conv2d(channels, 32, 7), nn.ReLU(), nn.BatchNorm2d(32), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5), nn.ReLU(), *([nn.BatchNorm2d(64)] if normalise_second else []),
        nn.Conv2d(64, 64, 5), nn.ReLU(), nn.BatchNorm2d(64), nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3), nn.ReLU(), nn.BatchNorm2d(128), nn.MaxPool2d(2),
    ]  # fmt: skip
    side = (((size - 6) // 2 - 8) // 2 - 2) // 2
    flat = _flat("cavanagh-c2", 128, side, 38)
    layers += [nn.Flatten(), nn.Dropout(0.5), nn.Linear(flat, 256), nn.ReLU()]
    layers += [nn.Linear(256, 256), nn.ReLU()]
    return Network(nn.Sequential(*layers), nn.Linear(256, classes))


def layer_parameters(network: Network) -> Sequence[int]:
    """Parameters of each convolution and fully connected layer, in order, as tables print them."""
    return [
        sum(parameter.numel() for parameter in module.parameters())
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]


def _flat(name: str, channels: int, side: int, least: int) -> int:
    if side < 1:
        raise InputError(
            f"network {name!r} needs images of at least {least} pixels: its poolings leave nothing"
        )
    return channels * side * side
