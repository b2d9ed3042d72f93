"""Pretrained weights: from a file, or from the hub, into a library's network before it is cut."""

import hashlib
import json
import re
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from classify.networks.library import TORCHVISION, import_timm, timm_name
from classify.normalisation import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Normalisation,
    normalisation_of_unit_scale,
)
from classify.training_config import TrainingConfig
from galaxies.errors import InputError
from galaxies.pixels import Stretch

HUB = "imagenet"
"""The value of ``--weights`` that means the hub."""

_OF_DENSE_LAYER = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
_OF_BODY = "trunk.body."
_TENSORFLOW_CLASSES = 1001
"""Heads of TensorFlow's ImageNet networks have one class more, the background."""


@dataclass(frozen=True)
class Pretrained:
    """Weights under their library's names, and what they expect.

    Attributes
    ----------
    state : dict
    source : str
    from_tensorflow : bool
        Padding ``same`` and pixels from -1 to 1, told by a head of 1001 classes.
    of_checkpoint : Normalisation or None
        Where the weights are those of a checkpoint of classify-train.
    """

    state: dict[str, torch.Tensor]
    source: str
    from_tensorflow: bool
    of_checkpoint: Normalisation | None = None

    def normalisation(
        self, model: str, channels: int, stretch: Stretch | None, *, from_library: bool
    ) -> Normalisation | None:
        """Scale of the pixels that the weights were trained on; ``None`` where nothing tells it.

        Parameters
        ----------
        channels, stretch
            Of the images to come. Other channels take the mean over those of the weights.
        from_library
            Whether the network is one of torchvision or timm.
        """
        if self.of_checkpoint is not None:
            mean = _for_channels(self.of_checkpoint.mean, channels)
            return Normalisation(mean, _for_channels(self.of_checkpoint.std, channels), stretch)
        if not from_library:
            return None
        if self.from_tensorflow:
            return Normalisation((0.0,) * channels, (1.0,) * channels, stretch)
        mean, std = library_scale(model)
        return normalisation_of_unit_scale(mean, std, channels, stretch)


def pretrained_weights(config: TrainingConfig, size: int | None = None) -> Pretrained | None:
    """What ``--weights`` names, or ``None``.

    Parameters
    ----------
    size
        Side of the images that the network will see, in pixels, for networks of the hub that are
        built for one size.
    """
    if config.weights is None:
        return None
    if config.weights == HUB:
        return Pretrained(hub_weights(config.model, size), f"the hub's {config.model}", False)
    state = _with_names_of_today(read_weights(Path(config.weights)))
    heads = [len(tensor) for name, tensor in state.items() if _is_head_bias(name)]
    scale, same_padding = _checkpoint_beside(Path(config.weights)) or (None, False)
    return Pretrained(state, config.weights, _TENSORFLOW_CLASSES in heads or same_padding, scale)


def _checkpoint_beside(weights: Path) -> tuple[Normalisation, bool] | None:
    """Normalisation and padding that the ``config.json`` of a checkpoint gives its weights."""
    try:
        description = json.loads((weights.parent / "config.json").read_text(encoding="utf-8"))
        digest = description["weights_sha256"]
        scale = description["normalisation"]
        found = Normalisation(tuple(scale["mean"]), tuple(scale["std"]))
        same_padding = bool(description["network"].get("same_padding", False))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not one of ours
    if hashlib.sha256(weights.read_bytes()).hexdigest() != digest:
        return None
    return found, same_padding


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def library_scale(model: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per colour, of pixels in [0, 1], that a library's weights expect."""
    if model in TORCHVISION:
        return IMAGENET_MEAN, IMAGENET_STD
    timm = import_timm()
    known = timm_name(model)
    expected = timm.models.get_pretrained_cfg(known)
    if expected is None:
        return IMAGENET_MEAN, IMAGENET_STD
    return tuple(expected.mean), tuple(expected.std)


def _is_head_bias(name: str) -> bool:
    return name in ("classifier.bias", "head.bias", "fc.bias", "head.fc.bias")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a ``.safetensors`` file, or of a ``.pth`` file of tensors alone.

    Raises
    ------
    InputError
        If the file is absent, damaged, or holds more than tensors (which could run code).
    """
    import pickle

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"{path} does not exist (--weights)")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} holds no readable weights ({reason})") from None
    if isinstance(values, dict) and isinstance(values.get("state_dict"), dict):
        values = values["state_dict"]
    if not isinstance(values, dict) or not all(
        isinstance(value, torch.Tensor) for value in values.values()
    ):
        raise InputError(f"{path} holds no dictionary of tensors")
    return values


def load_weights(network: nn.Module, weights: dict[str, torch.Tensor], source: str) -> list[str]:
    """Load weights by name; the head may have other classes, the first layer other channels.

    A first convolution for three colours is folded to other channels by its mean over colours,
    scaled so that a grey image gives the same activations. Everything else must fit.

    Returns
    -------
    list of str
        Names of the head's tensors, if its classes differ: they start at zero.

    Raises
    ------
    InputError
        If anything but the head is missing or has another shape: the file belongs to another
        network.
    """
    own = network.state_dict()
    head = _head_names(network)
    weights = _under_names_of_library(weights, own, head)
    chosen: dict[str, torch.Tensor] = {}
    wrong: list[str] = []
    fresh: list[str] = []
    for name, tensor in own.items():
        given = weights.get(name)
        if given is not None and given.shape == tensor.shape:
            chosen[name] = given
        elif given is not None and _is_first_convolution(given, tensor):
            mean = given.mean(dim=1, keepdim=True) * (given.shape[1] / tensor.shape[1])
            chosen[name] = mean.expand_as(tensor).clone()
        elif name not in head and not name.endswith("num_batches_tracked"):
            wrong.append(name)
    if wrong:
        raise InputError(
            f"{source} does not fit the network: {len(wrong)} of its {len(own)} tensors are "
            f"missing or have another shape, first {wrong[0]}; choose the --model that the "
            "weights were made for"
        )
    for name in head - set(chosen):
        # A head that starts at zero asks nothing of features whose scale is not known yet.
        if name in own:
            chosen[name] = torch.zeros_like(own[name])
            fresh.append(name)
    network.load_state_dict(chosen, strict=False)
    return sorted(fresh)


def _with_names_of_today(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """State whose dense layers are named as torchvision names them now.

    Its files of DenseNet are older than the rule that no name in a module holds a point.
    """
    return {_OF_DENSE_LAYER.sub(r"\1\2", name): tensor for name, tensor in state.items()}


def hub_weights(name: str, size: int | None = None) -> dict[str, torch.Tensor]:
    """ImageNet weights of a network by name, from the hub (needs a connection or a cache).

    Parameters
    ----------
    size
        As in `pretrained_weights`; timm resamples what belongs to places, such as the position
        embedding of a transformer.

    Raises
    ------
    InputError
        If they cannot be had: says to give a file.
    """
    try:
        if name in TORCHVISION:
            import torchvision

            builder = TORCHVISION[name][0]
            chosen = torchvision.models.get_model_weights(builder).DEFAULT
            return _with_names_of_today(
                dict(chosen.get_state_dict(progress=False, check_hash=True))
            )
        timm = import_timm()
        known = timm_name(name)
        of_size = {} if size is None else {"img_size": size}
        try:
            network = timm.create_model(known, pretrained=True, **of_size)
        except TypeError:  # convolutional networks take any size and no argument for it
            network = timm.create_model(known, pretrained=True)
        return dict(network.state_dict())
    except InputError:
        raise
    except Exception as error:  # the hub's client raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"ImageNet weights of {name} cannot be fetched ({reason}); give them as --weights FILE"
        ) from None


def _head_names(network: nn.Module) -> set[str]:
    last = ""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            last = name
    return {f"{last}.weight", f"{last}.bias"}


def _under_names_of_library(
    weights: dict[str, torch.Tensor], own: Container[str], head: set[str]
) -> dict[str, torch.Tensor]:
    """Weights of a checkpoint of ours, where its network was cut from a library's ``own``."""
    if not any(name.startswith(_OF_BODY) and name not in own for name in weights):
        return weights
    of_head = {f"head.{name.rpartition('.')[2]}": name for name in head}
    return {
        of_head.get(name, name.removeprefix(_OF_BODY)): tensor for name, tensor in weights.items()
    }


def _is_first_convolution(given: torch.Tensor, own: torch.Tensor) -> bool:
    same_but_channels = given.shape[0] == own.shape[0] and given.shape[2:] == own.shape[2:]
    return given.ndim == 4 and given.shape[1] == 3 and same_but_channels
