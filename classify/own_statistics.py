"""Batch normalisation that sees real and synthetic images apart.

A generated image betrays itself by the statistics of its features (a smoother sky, less grain). In
a mixed batch these move the mean and variance by which real images are normalised, in training and,
through the running statistics, in evaluation. Normalised by their own statistics the synthetic
images lose that mark (Xie et al. 2020, arXiv:1911.09665, keep a second set of statistics for
adversarial images in the same way), and the running statistics are those of real images alone. It
takes synthetic images of every class: images of one class, normalised by themselves, lose what
makes them that class.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn


def forward_apart(
    network: nn.Module, inputs: Sequence[torch.Tensor], is_synthetic: torch.Tensor
) -> torch.Tensor:
    """Logits of a batch whose synthetic images are normalised by their own statistics.

    Parameters
    ----------
    network
        In training mode.
    inputs
        What the network takes, each (n, ...).
    is_synthetic
        (n,) bool on the CPU. A lone real or synthetic image has no statistics of its own and
        stays with the others.

    Returns
    -------
    torch.Tensor
        (n, K), in the order of the inputs.
    """
    made, real = is_synthetic.nonzero().flatten(), (~is_synthetic).nonzero().flatten()
    if len(made) < 2 or len(real) < 2:
        logits: torch.Tensor = network(*inputs)
        return logits
    device = inputs[0].device
    order = torch.cat([real, made])
    first = network(*(part[real.to(device)] for part in inputs))
    with _still_statistics(network):
        second = network(*(part[made.to(device)] for part in inputs))
    return torch.cat([first, second])[order.argsort().to(device)]


def has_batch_statistics(network: nn.Module) -> bool:
    """Whether a layer normalises by the statistics of its batch."""
    return any(keeps_statistics(module) for module in network.modules())


@contextlib.contextmanager
def _still_statistics(network: nn.Module) -> Iterator[None]:
    """Leave the running statistics as they are."""
    modules = [module for module in network.modules() if keeps_statistics(module)]
    before = [module.momentum for module in modules]
    try:
        for module in modules:
            module.momentum = 0.0  # type: ignore[assignment]
        yield
    finally:
        for module, momentum in zip(modules, before, strict=True):
            module.momentum = momentum


def keeps_statistics(module: nn.Module) -> bool:
    """Whether a layer normalises by its batch in training and by running statistics after it."""
    return hasattr(module, "momentum") and getattr(module, "running_mean", None) is not None
