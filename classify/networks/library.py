"""Well-known networks of torchvision and timm, cut at the seam between trunk and head."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from classify.networks.network import Network
from galaxies.errors import InputError

TORCHVISION: dict[str, tuple[str, int, int]] = {
    "vgg16": ("vgg16", 32, 138_357_544),
    "resnet50": ("resnet50", 1, 25_557_032),
    "mobilenetv2": ("mobilenet_v2", 1, 3_504_872),
    "densenet121": ("densenet121", 29, 7_978_856),
    "mobilenetv3-small": ("mobilenet_v3_small", 1, 2_542_856),
}
"""Name here -> torchvision name, least size in pixels, parameters at 3 channels, 1000 classes."""

TIMM: dict[str, tuple[str, int]] = {"efficientnetv2-b0": ("tf_efficientnetv2_b0", 7_139_704)}
"""Name here -> name in timm, parameters at 3 channels and 1000 classes."""


def timm_name(name: str) -> str:
    """The name in timm of one of `TIMM`, or of any other timm network."""
    return TIMM[name][0] if name in TIMM else name


class ChildrenAsBlocks(nn.Module):
    """A library's network without its last layer; knows its blocks for transfer learning."""

    def __init__(self, body: nn.Module, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.body = body
        # Not registered a second time: parameters belong to `body`.
        self._blocks = (blocks,)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) to (n, d)."""
        return self.body(images)

    def transfer_blocks(self) -> list[nn.Module]:
        """Blocks from input to output, each with parameters."""
        return [b for b in self._blocks[0] if any(True for _ in b.parameters())]


def torchvision_network(
    name: str, channels: int, classes: int, size: int, load: Callable[[nn.Module], None]
) -> Network:
    """Build one of `TORCHVISION`.

    Parameters
    ----------
    load
        Called with torchvision's own module before it is cut, to load pretrained weights by
        torchvision's own names.
    """
    import torchvision

    builder, least, _ = TORCHVISION[name]
    if size < least:
        raise InputError(f"network {name!r} needs at least {least} pixels, got {size}")
    network = getattr(torchvision.models, builder)(weights=None, num_classes=classes)
    if channels != 3:
        _replace_first_convolution(network, channels)
    load(network)
    if builder.startswith("resnet"):
        head, network.fc = network.fc, nn.Identity()
    elif builder.startswith("densenet"):
        head, network.classifier = network.classifier, nn.Identity()
    else:
        head = network.classifier[-1]
        network.classifier[-1] = nn.Identity()
    return Network(ChildrenAsBlocks(network, _blocks_of_torchvision(network, builder)), head)


def timm_network(
    name: str,
    channels: int,
    classes: int,
    size: int,
    load: Callable[[nn.Module], None],
    options: Mapping[str, Any],
) -> Network:
    """Build any timm network by its name there; ``load`` as in `torchvision_network`, and
    ``options`` of the network itself.

    Raises
    ------
    InputError
        If timm is not installed, knows no such network, or the network cannot take the size.
    """
    try:
        timm = import_timm()
    except InputError as error:
        if name in TIMM:
            raise
        raise InputError(
            f"there is no network {name!r} here (--list-models); if it is one of timm's, {error}"
        ) from None
    known = timm_name(name)
    if not timm.is_model(known):
        import difflib

        near = difflib.get_close_matches(known, timm.list_models(), 3)
        raise InputError(
            f"there is no network {name!r}, neither here (--list-models) nor in timm"
            + (f"; near to it: {', '.join(near)}" if near else "")
        )
    options = {"in_chans": channels, "num_classes": classes, **options}
    try:
        network = timm.create_model(known, **options, img_size=size)
    except TypeError:  # convolutional networks take any size and no argument for it
        try:
            network = timm.create_model(known, **options)
        except TypeError as error:
            raise InputError(f"network {name!r} of timm cannot be built ({error})") from None
    except (AssertionError, ValueError, RuntimeError) as error:
        raise InputError(f"network {name!r} cannot take {size} pixels ({error})") from None
    load(network)
    head = network.get_classifier()
    if not isinstance(head, nn.Linear):
        raise InputError(f"network {name!r} of timm has no linear head, so it cannot be cut")
    network.reset_classifier(0)
    blocks = _blocks_of_timm(network)
    return Network(ChildrenAsBlocks(network, blocks), head)


def import_timm() -> Any:
    """The timm package, or one line that says how to get it."""
    try:
        import timm
    except ImportError:
        raise InputError(
            "this network needs an extra: pip install 'galaxy-augment[timm]'"
        ) from None
    return timm


def is_timm_name(name: str) -> bool:
    """Whether timm is installed and knows the name."""
    try:
        import timm
    except ImportError:
        return False
    return bool(timm.is_model(name))


def refuse_impossible_size(network: Network, name: str, channels: int, size: int) -> None:
    """Try one blank image; a network that cannot take it says so instead of failing in training."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, channels, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"network {name!r} cannot take {size}x{size} images ({reason})") from None
    finally:
        network.train(was_training)


def _replace_first_convolution(network: nn.Module, channels: int) -> None:
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            fresh = nn.Conv2d(
                channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                bias=module.bias is not None,
            )
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, fresh)
            return
    raise InputError("this network has no convolution to take other channels")


def _blocks_of_torchvision(network: nn.Module, builder: str) -> list[nn.Module]:
    if builder.startswith("resnet"):
        names = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
        return [getattr(network, name) for name in names]
    features = network.features
    assert isinstance(features, nn.Module)
    blocks = list(features.children())
    classifier = network.classifier
    assert isinstance(classifier, nn.Module)
    if any(True for _ in classifier.parameters()):
        blocks.append(classifier)
    return blocks


def _blocks_of_timm(network: nn.Module) -> list[nn.Module]:
    """Top-level children, with the stages that timm keeps in ``blocks``, ``stages`` opened."""
    blocks: list[nn.Module] = []
    for child in network.children():
        if isinstance(child, (nn.Sequential, nn.ModuleList)):
            blocks += list(child.children())
        else:
            blocks.append(child)
    return blocks
