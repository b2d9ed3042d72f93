"""No TF32 inside the networks, and whatever was set before afterwards."""

import pytest
import torch

from fid.extraction import extract
from fid.full_precision import full_precision
from fid.image_sources import SetImages
from fid.inception_features import InceptionFeatures
from fid.metric import FrechetDistanceMetric
from fid.timm_features import TimmFeatures


def settings() -> tuple[bool, bool, str, str]:
    backends = torch.backends
    return (
        backends.cudnn.allow_tf32,
        backends.cuda.matmul.allow_tf32,
        backends.cudnn.conv.fp32_precision,
        backends.cuda.matmul.fp32_precision,
    )


class Watching(torch.nn.Module):
    """A network that notes in which arithmetic it runs."""

    num_features = 3
    seen: tuple[str, str] | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        backends = torch.backends
        self.seen = (backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision)
        return images.mean(dim=(2, 3))


def test_settings_come_back_also_after_an_error():
    before = settings()
    with pytest.raises(RuntimeError), full_precision():
        raise RuntimeError
    assert settings() == before


def test_timm_features_run_in_full_precision():
    network, before = Watching(), settings()
    features = TimmFeatures(
        network, "m", "0", side=8, mean=(0.5,) * 3, std=(0.5,) * 3, device=torch.device("cpu")
    )
    features(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert network.seen == ("ieee", "ieee")
    assert settings() == before


@pytest.mark.parametrize("approximate", [False, True])
def test_inception_features_run_in_full_precision_unless_approximate(approximate, monkeypatch):
    network = Watching()
    monkeypatch.setattr("fid.inception_features.check_layout", lambda weights: weights)
    features = InceptionFeatures({}, "0", approximate=approximate)
    features.__dict__["_network"] = network
    features(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert (network.seen == ("ieee", "ieee")) is not approximate


class OtherPackage:
    """Features of a package that thinks nothing of precision."""

    name, dimensions, weights_sha256, recipe = "other", 3, "", "mean"

    def __init__(self, approximate: bool) -> None:
        self.approximate = approximate
        self.network = Watching()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images.float())


@pytest.mark.parametrize("approximate", [False, True])
def test_whatever_is_registered_runs_in_full_precision(approximate, tiny_set):
    features, before = OtherPackage(approximate), settings()
    extract(SetImages("tiny", tiny_set), features, progress=False)
    assert (features.network.seen == ("ieee", "ieee")) is not approximate
    features.network.seen = None
    FrechetDistanceMetric(features).update(tiny_set.pixels[:4], real=True)
    assert (features.network.seen == ("ieee", "ieee")) is not approximate
    assert settings() == before


@pytest.mark.parametrize("products", ["highest", "high", "medium"])
def test_both_of_torchs_switches_agree_inside_and_afterwards(products):
    torch.set_float32_matmul_precision(products)
    try:
        before = settings()
        with full_precision():
            assert settings() == (False, False, "ieee", "ieee")  # asking raises where they differ
            assert torch.get_float32_matmul_precision() == "highest"
        assert settings() == before
        assert torch.get_float32_matmul_precision() == products
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.matmul.fp32_precision = "none"
