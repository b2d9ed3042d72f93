"""Fixtures that several rooms share: a tiny set, generators, and the real data."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from galaxies.hdf5 import write_hdf5
from galaxies.image_set import ImageSet, PixelsInMemory

REAL_DATA = Path(
    os.environ.get("GALAXY_AUGMENT_REAL_DATA") or Path(__file__).resolve().parents[2] / "shared"
)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """Started in the background of a script the tests inherit that SIGINT is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def run_without_loading() -> Callable[..., str]:
    """Run code in a fresh interpreter, in which none of some modules may end up loaded."""

    def run(code: str, *heavy: str) -> str:
        check = f"heavy = {set(heavy)!r} & set(sys.modules); assert not heavy, heavy"
        words = [sys.executable, "-c", f"import sys; {code}; {check}"]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Path of a real file or folder such as ``data/gz1``; skips with a reason where absent."""

    def find(name: str) -> Path:
        path = REAL_DATA / name
        if not path.exists():
            pytest.skip(f"needs the real {name} (set GALAXY_AUGMENT_REAL_DATA to its folder)")
        return path

    return find


@pytest.fixture(scope="session")
def tiny_set() -> ImageSet:
    """120 colour images of 64x64 in three classes that a small network can learn, split."""
    return make_tiny_set()


@pytest.fixture(scope="session")
def tiny_set_path(tiny_set: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny set as a packed file."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.h5"
    write_hdf5(tiny_set, path)
    return path


def make_tiny_set(count: int = 120, size: int = 64, channels: int = 3, seed: int = 0) -> ImageSet:
    """Round, elongated and double blobs on a noisy sky: 20 %, 50 % and 30 % of the images."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], [count // 5, count // 2, count - count // 5 - count // 2])
    axis = np.linspace(-1, 1, size)
    x, y = np.meshgrid(axis, axis)
    images = np.empty((count, channels, size, size))
    for index, label in enumerate(labels):
        angle, width = rng.uniform(0, np.pi), rng.uniform(0.12, 0.2)
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        if label == 0:
            light = np.exp(-((u - 0.3) ** 2 + v**2) / width**2 / 0.5)
            light += np.exp(-((u + 0.3) ** 2 + v**2) / width**2 / 0.5)
        else:
            ratio = 1.0 if label == 1 else 0.3
            light = np.exp(-(u**2 + (v / ratio) ** 2) / (2 * width**2))
        colour = rng.uniform(0.6, 1.0, (channels, 1, 1))
        images[index] = 200 * colour * light + rng.normal(20, 5, (channels, size, size))
    split = np.zeros(count, np.int8)
    for label in range(3):
        rows = rng.permutation(np.flatnonzero(labels == label))
        split[rows[: len(rows) // 4]] = 2
        split[rows[len(rows) // 4 : len(rows) // 2]] = 1
    return ImageSet(
        store=PixelsInMemory(torch.from_numpy(images.clip(0, 255).astype(np.uint8))),
        labels=labels.astype(np.int64),
        class_names=("double", "round", "elongated"),
        ids=np.array([f"galaxy-{index}" for index in range(count)]),
        split=split,
        provenance={"source": "tests"},
    )
