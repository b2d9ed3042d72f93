"""Dropout left on after training, with masks that do not depend on what stands in a batch.

One draw is one thinned network (Gal & Ghahramani 2016, arXiv:1506.02142), and every image is shown
to the same one. An image's answer is therefore the same alone, in a batch and in a shard.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from classify.determinism import generator_for

_WHOLE_MAPS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)

Hook = Callable[[nn.Module, object, torch.Tensor], torch.Tensor]


def dropout_layers(network: nn.Module) -> list[nn.Module]:
    """The layers that drop something in training."""
    kinds = (nn.Dropout, *_WHOLE_MAPS)
    return [m for m in network.modules() if isinstance(m, kinds) and m.p > 0]


@contextlib.contextmanager
def thinned(network: nn.Module, seed: int, draw: int) -> Iterator[None]:
    """Leave dropout on inside the block, in a network that is in evaluation mode.

    Parameters
    ----------
    seed, draw
        The same two give the same masks, on every device.
    """
    handles = [
        layer.register_forward_hook(_dropping(layer, seed, f"dropout mask of layer {place}", draw))
        for place, layer in enumerate(dropout_layers(network))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _dropping(layer: nn.Module, seed: int, purpose: str, draw: int) -> Hook:
    """Forward hook that drops the same places of every image."""
    share = layer.p
    assert isinstance(share, float | int)

    def drop(_layer: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        shape = list(output.shape[1:])
        if isinstance(layer, _WHOLE_MAPS):
            shape[1:] = [1] * len(shape[1:])
        stays = torch.rand(shape, generator=generator_for(seed, purpose, draw)) >= share
        # Where everything is dropped there is nothing to make up for.
        return output * (stays / max(1 - share, 1e-12)).to(output)

    return drop
