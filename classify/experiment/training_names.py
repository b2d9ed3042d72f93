"""What names the training of a unit: every field that shapes its numbers, and nothing else."""

import dataclasses
from typing import Any

import torch

from classify.training import autocast_dtype
from classify.training_config import TrainingConfig

LATER_FIELDS = {"synthetic_statistics": "shared"}
"""Fields that came after finished runs were stored, with the value those were made with: at that
value a field names no other training, so the runs are found again."""


def identity(config: TrainingConfig) -> dict[str, Any]:
    """The fields that tell one training from another, paths and the like as text."""
    return {
        key: value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
        for key, value in dataclasses.asdict(config).items()
        if LATER_FIELDS.get(key, ()) != value
    }


def with_own_precision(config: TrainingConfig, device: str) -> TrainingConfig:
    """``auto`` becomes ``bfloat16`` on a CPU with matrix units, where it gives other numbers.

    Elsewhere it stays: on a CPU it then means float32, on a GPU bfloat16.
    """
    if device != "cpu" or config.precision != "auto":
        return config
    if autocast_dtype(config, torch.device("cpu")) is None:
        return config
    return dataclasses.replace(config, precision="bfloat16")


def as_named(config: TrainingConfig, device: str) -> TrainingConfig:
    """``auto`` on a CPU as the unit's name means it, whatever this machine would choose."""
    if device != "cpu" or config.precision != "auto":
        return config
    return dataclasses.replace(config, precision="float32")
