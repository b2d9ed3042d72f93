"""A trainer and a generator that are real but take milliseconds."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, settings

from classify.experiment.division import Setting
from classify.experiment.laboratory import Laboratory
from classify.training import TrainingConfig
from galaxies.hdf5 import write_hdf5
from galaxies.image_set import ImageSet, PixelsInMemory

# A busy machine is no failure of what is tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

SIZE = 16


class RidgeClassifier:
    """Ridge regression on 8x8 pixels, with seeded noise on its weights: a training in 2 ms."""

    def __init__(self, weights: torch.Tensor, steps: int) -> None:
        self.weights = weights
        self.record = {"training": {"steps_made": steps}}

    def probabilities(self, images: ImageSet) -> torch.Tensor:
        return torch.softmax(8 * (_pixels(images) @ self.weights), dim=1)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        torch.save(self.weights, folder / "weights.pt")


def train_ridge(
    train: ImageSet,
    validation: ImageSet | None,
    config: TrainingConfig,
    *,
    synthetic: ImageSet | None = None,
    device: Any = "cpu",
    progress: bool = True,
) -> RidgeClassifier:
    data, labels = _pixels(train), torch.from_numpy(train.labels)
    if synthetic is not None:
        data = torch.cat((data, _pixels(synthetic)))
        labels = torch.cat((labels, torch.from_numpy(synthetic.labels)))
    classes = len(train.class_names)
    weight = torch.ones(len(labels), dtype=torch.float64)
    if config.balance != "none":
        weight = 1 / torch.bincount(labels, minlength=classes).clamp(min=1)[labels].double()
        weight = weight / weight.mean()
    scaled = data * weight[:, None]
    gram = data.T @ scaled + 5 * torch.eye(data.shape[1], dtype=torch.float64)
    solved = torch.linalg.solve(gram, scaled.T @ F.one_hot(labels, classes).double())
    noise = torch.randn(
        solved.shape, generator=torch.Generator().manual_seed(config.seed), dtype=torch.float64
    )
    return RidgeClassifier(solved + 0.15 * solved.std() * noise, config.steps)


def _pixels(images: ImageSet) -> torch.Tensor:
    small = F.avg_pool2d(images.pixels.float() / 255, images.size // 8).flatten(1).double()
    return torch.cat((small, torch.ones(len(small), 1, dtype=torch.float64)), dim=1)


def generate_blobs(
    path: Path, class_name: str, count: int, seed: int, device: torch.device
) -> ImageSet:
    """Images of the rare class of `blob_set`, from a folder that stands for a checkpoint."""
    lineage = np.load(path / "lineage.npy") if (path / "lineage.npy").exists() else np.array([])
    made = blob_set((count, 0, 0), seed=1000 + seed, sharpness=1.0)
    return dataclasses.replace(
        made,
        split=None,
        provenance={"generator": {"checkpoint": str(path)}},
        training_fingerprints=lineage.astype("U32"),
        training_ids=np.array(["x"]),
    )


def blob_set(
    counts: tuple[int, int, int] = (40, 120, 80), seed: int = 0, sharpness: float = 0.8
) -> ImageSet:
    """Noisy blobs, bars and rings of 16x16 that a linear classifier tells apart now and then."""
    random = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], counts)
    axis = np.linspace(-1, 1, SIZE)
    x, y = np.meshgrid(axis, axis)
    images = []
    for label in labels:
        dx, dy = random.normal(0, 0.15, 2)
        radius = np.hypot(x - dx, y - dy)
        shape = [
            np.exp(-(((np.abs(x - dx) - 0.45) / 0.25) ** 2) - ((y - dy) / 0.3) ** 2),
            np.exp(-((radius / 0.45) ** 2)),
            np.exp(-(((x - dx) / 0.7) ** 2) - ((y - dy) / 0.2) ** 2),
        ][label]
        images.append(60 + 90 * sharpness * shape + random.normal(0, 45, (3, SIZE, SIZE)))
    pixels = torch.from_numpy(np.clip(np.array(images).reshape(-1, 3, SIZE, SIZE), 0, 255)).to(
        torch.uint8
    )
    split = np.array([random.choice(3, p=[0.55, 0.2, 0.25]) for _ in labels])
    for label in range(3):
        members = np.flatnonzero(labels == label)
        split[members] = (np.arange(len(members)) % 20 >= 11).astype(int) + (
            np.arange(len(members)) % 20 >= 15
        )
    return ImageSet(
        store=PixelsInMemory(pixels),
        labels=labels.astype(np.int64),
        class_names=("rare", "round", "long"),
        ids=np.array([f"blob-{seed}-{row}" for row in range(len(labels))]),
        split=split.astype(np.int8),
    )


@pytest.fixture(scope="session")
def blobs() -> ImageSet:
    return blob_set()


@pytest.fixture(scope="session")
def blobs_path(blobs: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blobs") / "blobs.h5"
    write_hdf5(blobs, path)
    return path


@pytest.fixture(scope="session")
def checkpoint(blobs: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stands for a checkpoint whose generator saw the training split."""
    folder = tmp_path_factory.mktemp("checkpoint") / "blobby"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "weights.safetensors").write_bytes(b"weights")
    np.save(folder / "lineage.npy", blobs.side("train").fingerprints())
    return folder


Build = Callable[[ImageSet, Setting], Laboratory]


@pytest.fixture
def build() -> Build:
    """Builds a laboratory with the quick trainer and generator."""

    def train_generator(unit: Any, images: ImageSet, folder: Path, device: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
        np.save(folder / "lineage.npy", images.side("train").fingerprints())

    return partial(
        Laboratory, train=train_ridge, generate=generate_blobs, train_generator=train_generator
    )


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(
        folder=tmp_path / "results",
        class_index=0,
        folds=0,
        seed=0,
        device="cpu",
        threads=1,
        training={"steps": 20, "batch_size": 16, "model": "small", "learning_rate": 1e-3},
    )
