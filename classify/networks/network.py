"""What every classifier network here is: a trunk that ends in a feature vector, and a head."""

import torch
from torch import nn


class Network(nn.Module):
    """A trunk (images to features) and a head (features to logits).

    The seam lets any network serve as a feature extractor, have its head trained alone, and
    explain itself, whatever library its trunk comes from.

    Parameters
    ----------
    trunk
        (n, C, H, W) float32 to (n, d).
    head
        (n, d) to (n, classes) logits.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) network input to (n, d) penultimate features."""
        return self.trunk(images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) network input to (n, classes) logits."""
        return self.head(self.features(images))


def count_parameters(network: nn.Module) -> int:
    """Number of all parameters; running statistics do not count."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_trainable_parameters(network: nn.Module) -> int:
    """Number of the parameters that training changes."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
