"""What the tests of this room share: random Inception weights and features that cost nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import fid.features
from fid.inception import convolution_shapes
from fid.recipes import to_three_channels


def random_inception_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """566 tensors in the published layout: He weights, batch norms that are not the identity."""
    random = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}
    for name, (source, target, kernel, _, _) in convolution_shapes().items():
        fan_in = source * kernel[0] * kernel[1]
        weight = torch.randn(target, source, *kernel, generator=random) * (2 / fan_in) ** 0.5
        state[f"{name}.conv.weight"] = weight
        state[f"{name}.bn.weight"] = 1 + 0.1 * torch.rand(target, generator=random)
        state[f"{name}.bn.bias"] = 0.1 * torch.randn(target, generator=random)
        state[f"{name}.bn.running_mean"] = 0.1 * torch.randn(target, generator=random)
        state[f"{name}.bn.running_var"] = 1 + 0.2 * torch.rand(target, generator=random)
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(0)
    state["fc.weight"] = torch.randn(1008, 2048, generator=random) * 0.02
    state["fc.bias"] = torch.zeros(1008)
    return state


@pytest.fixture(scope="session")
def inception_weights() -> dict[str, torch.Tensor]:
    return random_inception_weights()


@pytest.fixture(scope="session")
def inception_file(
    inception_weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("weights") / "random_inception.pth"
    torch.save(inception_weights, path)
    return path


class PooledPixels:
    """Mean pixels of 4x4 boxes of each colour: 48 features, and a count of its calls."""

    name = "pixels"
    dimensions = 48
    weights_sha256 = "0" * 64
    recipe = "boxes"
    bands: tuple[int, int, int] | None = None
    calls = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        type(self).calls += 1
        colour = to_three_channels(images, self.bands).to(torch.float32)
        return F.adaptive_avg_pool2d(colour, 4).flatten(1) / 255


@pytest.fixture
def pixel_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[PooledPixels]:
    """Register ``--features pixels``, and a cache that ends with the test."""
    known = fid.features.registered_loaders

    def loaders() -> dict[str, Callable[[], fid.features.Loader]]:
        return known() | {"pixels": lambda: lambda argument, weights, device: PooledPixels()}

    monkeypatch.setattr(fid.features, "registered_loaders", loaders)
    monkeypatch.setenv("GALAXY_AUGMENT_CACHE", str(tmp_path / "cache"))
    PooledPixels.calls = 0
    return PooledPixels


@pytest.fixture(scope="session")
def write_images() -> Callable[..., Path]:
    """(folder, count, seed, size, ending): a flat folder of coloured noise around a blob."""

    def write(
        folder: Path, count: int, seed: int = 0, size: int = 32, ending: str = ".png"
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        axis = np.linspace(-1, 1, size)
        light = np.exp(-(axis[:, None] ** 2 + axis**2) / 0.1)[..., None]
        for index in range(count):
            pixels = 150 * light * rng.uniform(0.5, 1, 3) + rng.normal(40, 10, (size, size, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / f"{index:04d}{ending}")
        return folder

    return write
