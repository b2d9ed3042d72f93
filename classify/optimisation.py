"""AdamW over groups of parameters, and the learning rate of each step."""

import math
from typing import Any

import torch
from torch import nn

from classify.training_config import Schedule

WARM_UP_SHARE = 0.05


def schedule_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Factor of the peak learning rate at ``step`` (from 0) of ``steps``."""
    warm_up = max(1, round(WARM_UP_SHARE * steps))
    if step < warm_up and steps > 1:
        return (step + 1) / warm_up
    if schedule == "cosine":
        progress = (step - warm_up) / max(1, steps - warm_up)
        return 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "step":
        return 0.01 if step >= 0.85 * steps else 0.1 if step >= 0.6 * steps else 1.0
    return 1.0


def make_optimiser(
    groups: list[tuple[list[nn.Parameter], float]], learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) that decays matrices and kernels, not biases and norms.

    Parameters
    ----------
    groups
        Parameters and the factor of their learning rate.
    """
    settings: list[dict[str, Any]] = []
    for parameters, factor in groups:
        for decayed in (True, False):
            members = [p for p in parameters if p.requires_grad and (p.ndim > 1) == decayed]
            if members:
                settings.append(
                    {
                        "params": members,
                        "factor": factor,
                        "weight_decay": weight_decay if decayed else 0.0,
                    }
                )
    fused = all(p.is_cuda or p.device.type == "cpu" for g in settings for p in g["params"])
    return torch.optim.AdamW(settings, lr=learning_rate, fused=fused)


def set_learning_rate(optimiser: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the rate of every group, times the group's factor."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * group["factor"]
