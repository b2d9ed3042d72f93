"""Where in an image a network found its class: Grad-CAM, Selvaraju et al. 2017 (1610.02391)."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.hooks import RemovableHandle

from classify.classifier import TrainedClassifier
from galaxies.errors import InputError


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
        If the network has no feature map with extent.
    """
    network = classifier.network.eval()
    images = classifier.network_input(pixels)
    layer = last_spatial_layer(network.trunk, images[:1])
    kept: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _input, output: kept.append(output))
    try:
        with torch.enable_grad():
            # The gradient starts at the input, so frozen weights are no hindrance.
            logits = network(images.detach().requires_grad_(True))
            chosen = (
                logits.argmax(dim=1)
                if classes is None
                else torch.as_tensor(classes, device=logits.device)
            )
            activation = kept[-1]
            (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), activation)
    finally:
        handle.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    evidence = F.relu((weights * activation).sum(dim=1, keepdim=True)).detach()
    evidence = F.interpolate(evidence, images.shape[-2:], mode="bilinear", align_corners=False)
    peak = evidence.amax(dim=(2, 3), keepdim=True)
    return (evidence / peak.clamp_min(1e-12))[:, 0].cpu().numpy()


def last_spatial_layer(trunk: nn.Module, images: torch.Tensor) -> nn.Module:
    """The leaf that is run last among those whose output still has height and width."""
    found: list[nn.Module] = []
    handles: list[RemovableHandle] = []

    def remember(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and min(output.shape[-2:]) > 1:
            found.append(module)

    for module in trunk.modules():
        if not any(True for _ in module.children()):
            handles.append(module.register_forward_hook(remember))
    try:
        with torch.no_grad():
            trunk(images)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise InputError("this network has no feature map with extent, so Grad-CAM shows nothing")
    return found[-1]
