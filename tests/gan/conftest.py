"""A tiny run that trains in seconds, and the flags that make it so."""

import dataclasses
from collections.abc import Callable
from typing import Any

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


def as_words(config: TrainConfig) -> list[str]:
    """The command line of a config."""
    words: list[str] = []
    default = TrainConfig()
    for field in dataclasses.fields(TrainConfig):
        value = getattr(config, field.name)
        if value == getattr(default, field.name):
            continue
        if field.name == "classes":
            for name in value:
                words += ["--class", name]
            continue
        flag = "--" + field.name.replace("_", "-")
        if field.name in ("resume", "overwrite", "dry_run", "json"):
            words.append(flag)
        elif isinstance(value, tuple):
            words += [flag, *map(str, value)]
        else:
            words += [flag, str(value)]
    return words
