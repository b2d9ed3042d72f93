"""Where in an image a network found its class: Grad-CAM, Selvaraju et al. 2017 (1610.02391)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from classify.classifier import TrainedClassifier
from galaxies.errors import InputError

BATCH = 16
"""Images at once: every layer keeps what it needs for the gradient."""


@dataclass(frozen=True)
class FeatureMap:
    """Where a network makes a feature map.

    Attributes
    ----------
    module : nn.Module
        A layer.
    call : int
        Which of its runs within one pass makes the map, from 0; a layer may be used repeatedly.
    channel_axis : int
        1 for (n, C, H, W), 3 for (n, H, W, C).
    """

    module: nn.Module
    call: int
    channel_axis: int


def grad_cam(
    classifier: TrainedClassifier, pixels: torch.Tensor, classes: np.ndarray | None = None
) -> np.ndarray:
    """Map of evidence for one class per image.

    The last feature map of the trunk that still has extent is weighted by the mean gradient of
    the class's logit, summed over channels, and cut below zero.

    Parameters
    ----------
    pixels
        (n, C, H, W) stored pixels.
    classes
        (n,) class to explain; default the predicted one.

    Returns
    -------
    (n, H', W') float32 ndarray in [0, 1]
        Of the size that the network sees; all zero where nothing speaks for the class.

    Raises
    ------
    InputError
        If the network has no feature map with extent, or works on tokens at the end.
    """
    network = classifier.network.eval()
    place = last_feature_map(network.trunk, classifier.network_input(pixels[:1]))
    maps = []
    for start in range(0, len(pixels), BATCH):
        rows = slice(start, start + BATCH)
        images = classifier.network_input(pixels[rows])
        maps.append(_maps(network, place, images, None if classes is None else classes[rows]))
    return np.concatenate(maps)


def _maps(
    network: nn.Module, place: FeatureMap, images: torch.Tensor, classes: np.ndarray | None
) -> np.ndarray:
    kept: list[torch.Tensor] = []

    def keep(_module: nn.Module, output: torch.Tensor) -> None:
        kept.append(output)

    with _watched([place.module], keep), torch.enable_grad():
        # The gradient starts at the input, so frozen weights are no hindrance.
        logits = network(images.detach().requires_grad_(True))
        chosen = (
            logits.argmax(dim=1)
            if classes is None
            else torch.as_tensor(classes, device=logits.device)
        )
        activation = kept[place.call]
        (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), activation)
    activation = activation.detach().movedim(place.channel_axis, 1)
    weights = gradient.movedim(place.channel_axis, 1).mean(dim=(2, 3), keepdim=True)
    evidence = F.relu((weights * activation).sum(dim=1, keepdim=True))
    evidence = F.interpolate(evidence, images.shape[-2:], mode="bilinear", align_corners=False)
    peak = evidence.amax(dim=(2, 3), keepdim=True)
    return (evidence / peak.clamp_min(1e-12))[:, 0].cpu().numpy()


def last_feature_map(trunk: nn.Module, images: torch.Tensor) -> FeatureMap:
    """The map that is made last among those that still have height and width.

    Parameters
    ----------
    images : (1, C, H, H)
        Network input.

    Raises
    ------
    InputError
        If there is none, or if tokens, whose places nothing tells, follow it.
    """
    found: FeatureMap | None = None
    calls: dict[nn.Module, int] = {}
    leads_to_tokens = False

    def look(module: nn.Module, output: torch.Tensor) -> None:
        nonlocal found, leads_to_tokens
        call = calls[module] = calls.get(module, -1) + 1
        axis = _channel_axis(module, output)
        if axis is not None:
            found, leads_to_tokens = FeatureMap(module, call, axis), False
        elif output.ndim == 3 and output.shape[1] > 1:
            leads_to_tokens = True

    with _watched(_layers(trunk), look), torch.no_grad():
        trunk(images)
    if found is None or leads_to_tokens:
        raise InputError(
            "this network ends in tokens and not in a feature map, so Grad-CAM shows nothing"
            if leads_to_tokens
            else "this network has no feature map with extent, so Grad-CAM shows nothing"
        )
    return found


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Leaves outside of attention, whose (heads, tokens) look like a feature map."""
    children = list(module.named_children())
    if not children:
        yield module
    for name, child in children:
        words = f"{name} {type(child).__name__}".lower()
        if "attn" not in words and "attention" not in words:
            yield from _layers(child)


def _channel_axis(module: nn.Module, output: torch.Tensor) -> int | None:
    """Axis of the channels of one square image's feature map, or ``None`` if it is no such map.

    Images are square, so the two equal sides are height and width. Where the channels are as many,
    only a layer that is defined for one order tells.
    """
    if output.ndim != 4 or len(output) != 1:
        return None
    _, first, second, third = output.shape
    if first == second == third:
        convolutional = nn.modules.conv._ConvNd | nn.modules.batchnorm._BatchNorm
        return 1 if first > 1 and isinstance(module, convolutional) else None
    if second == third > 1:
        return 1
    return 3 if first == second > 1 else None


@contextmanager
def _watched(
    modules: Iterator[nn.Module] | list[nn.Module],
    look: Callable[[nn.Module, torch.Tensor], None],
) -> Iterator[None]:
    """Show every tensor that the modules put out to ``look``."""

    def show(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            look(module, output)

    handles = [module.register_forward_hook(show) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
