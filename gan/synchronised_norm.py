"""Batch norm over the batch of all processes, on any device.

`torch.nn.SyncBatchNorm` runs on CUDA alone. Here the two moments are averaged by a
differentiable ``all_reduce``, so that N processes with a part of the batch each compute what
one process computes with the whole batch.
"""

import torch
from torch import Tensor, distributed, nn


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, with the statistics of the whole batch of all processes."""

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        if not (self.training and is_distributed()):
            return super().forward(features)
        values = features.float()
        moments = torch.stack([values.mean(dim=(0, 2, 3)), values.square().mean(dim=(0, 2, 3))])
        mean, square = average_over_processes(moments).unbind()
        variance = (square - mean.square()).clamp_min(0)
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            count = features.shape[0] * features.shape[2] * features.shape[3]
            count *= distributed.get_world_size()
            momentum = self.momentum if self.momentum is not None else 0.1
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), momentum)
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        normed = values * scale[:, None, None] + shift[:, None, None]
        return normed.to(features.dtype)


def is_distributed() -> bool:
    """Whether several processes train together."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


class _Average(torch.autograd.Function):
    """Mean over processes; the gradient of a mean of means is the mean of the gradients."""

    @staticmethod
    def forward(context: object, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total / distributed.get_world_size()

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        return _Average.apply(gradient)


def average_over_processes(values: Tensor) -> Tensor:
    """Mean of ``values`` over the processes, differentiable."""
    if not is_distributed():
        return values
    result: Tensor = _Average.apply(values)
    return result
