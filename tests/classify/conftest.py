"""A small set and a trained checkpoint that the tests of this room share."""

import dataclasses
from pathlib import Path

import pytest
import torch

from classify.train import run as classify_train
from galaxies.hdf5 import write_hdf5
from galaxies.image_set import ImageSet, PixelsInMemory


@pytest.fixture(scope="session")
def little_set(tiny_set: ImageSet) -> ImageSet:
    """The tiny set at 16 pixels, whose provenance says how it was packed."""
    small = torch.nn.functional.avg_pool2d(tiny_set.pixels.float(), 4).round().to(torch.uint8)
    return dataclasses.replace(
        tiny_set,
        store=PixelsInMemory(small),
        provenance={"source": "tests", "packed": {"size": 16, "crop": None}},
    )


@pytest.fixture(scope="session")
def little_path(little_set: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("little") / "little.h5"
    write_hdf5(little_set, path)
    return path


@pytest.fixture(scope="session")
def checkpoint(little_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of `small` that learnt the little set."""
    out = tmp_path_factory.mktemp("checkpoints") / "small"
    arguments = f"--data {little_path} --out {out} --steps 50 --batch-size 16 --validate-every 10"
    network = ["--model", "small", "--learning-rate", "0.005"]
    assert classify_train([*arguments.split(), *network]) == 0
    return out
