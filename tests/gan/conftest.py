"""A tiny run that trains in seconds, and the flags that make it so."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from galaxies.image_set import ImageSet
from gan.preparation import build_step, prepare
from gan.step import TrainingStep
from gan.training_config import TrainConfig

TINY: dict[str, Any] = {
    "classes": ("0",),
    "size": 32,
    "width": 0.05,
    "batch_size": 8,
    "steps": 12,
    "log_every": 4,
    "evaluate_every": 6,
    "evaluation_images": 16,
    "precision": "float32",
    "device": "cpu",
    "judge": "none",
}


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors gain nothing from threads, and sums keep their order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., TrainConfig]:
    def make(**changes: Any) -> TrainConfig:
        return TrainConfig(**{**TINY, **changes})

    return make


@pytest.fixture
def make_step(tiny_set: ImageSet) -> Callable[..., TrainingStep]:
    def make(device: str = "cpu", precision: torch.dtype = torch.float32, **changes: Any):
        config = TrainConfig(**{**TINY, **changes})
        preparation = prepare(config, tiny_set)
        return build_step(preparation, config, torch.device(device), precision)

    return make


@pytest.fixture(scope="session")
def few_held_out() -> Callable[[ImageSet, int, int], ImageSet]:
    """All but ``count`` validation images of a class become test images."""

    def make(images: ImageSet, index: int, count: int) -> ImageSet:
        assert images.split is not None
        split = np.array(images.split)
        rows = np.flatnonzero((images.labels == index) & (split == 1))
        split[rows[count:]] = 2
        return dataclasses.replace(images, split=split)

    return make
