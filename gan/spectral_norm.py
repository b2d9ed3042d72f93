"""Spectral norm (Miyato et al. 2018, arXiv:1802.05957) that stays in float32 under autocast.

On CUDA PyTorch's own multiplies in the type of autocast, so that in bfloat16 the norm has eight
bits, and the layers are bounded by something else than one.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

FIRST_ITERATIONS = 15


class SpectralNorm(nn.Module):
    """Divide a weight (O, ...) by its largest singular value, found by one power iteration a call.

    State and numbers are those of `torch.nn.utils.parametrizations.spectral_norm` in float32.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        rows, columns = matrix.shape
        self.register_buffer("_u", F.normalize(matrix.new_empty(rows).normal_(), dim=0))
        self.register_buffer("_v", F.normalize(matrix.new_empty(columns).normal_(), dim=0))
        self._iterate(matrix, FIRST_ITERATIONS)

    @torch.no_grad()
    def _iterate(self, matrix: Tensor, iterations: int) -> None:
        for _ in range(iterations):
            # In place: a captured graph and the state of a run hold these tensors.
            F.normalize(torch.mv(matrix, self._v), dim=0, out=self._u)
            F.normalize(torch.mv(matrix.t(), self._u), dim=0, out=self._v)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight over its norm, in its own shape."""
        with torch.autocast(weight.device.type, enabled=False):
            matrix = weight.flatten(1)
            if self.training:
                self._iterate(matrix, 1)
            # Two passes before one gradient: the second must not move what the first one used.
            u, v = self._u.clone(), self._v.clone()
            return weight / torch.vdot(u, torch.mv(matrix, v))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What a weight that is assigned becomes: itself."""
        return weight


def add_spectral_norm(network: nn.Module) -> None:
    """Every convolution, linear layer and embedding; draws from the global random state."""
    layers = (nn.Conv2d, nn.Linear, nn.Embedding)
    for module in [module for module in network.modules() if isinstance(module, layers)]:
        parametrize.register_parametrization(module, "weight", SpectralNorm(module.weight))
