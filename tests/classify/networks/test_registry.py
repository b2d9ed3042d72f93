"""Networks by name: any size and channels that the architecture allows, and a word otherwise."""

import re
import sys
from pathlib import Path

import pytest
import torch

from classify.networks.network import Network
from classify.networks.pretrained import pretrained_weights
from classify.networks.registry import NetworkSpecification, build
from classify.training_config import TrainingConfig
from galaxies.errors import InputError


@pytest.mark.parametrize("name", ["small", "small-d4", "unam-cnn", "custom-cnn-final", "mobilenet"])
@pytest.mark.parametrize(("channels", "size"), [(1, 64), (5, 69), (10, 33)])
def test_networks_take_any_channels_and_sizes(name: str, channels: int, size: int) -> None:
    network = build(NetworkSpecification(name, channels, size, 4)).eval()
    assert network(torch.zeros(2, channels, size, size)).shape == (2, 4)


@pytest.mark.parametrize("name", ["mobilenetv3-small", "mobilenetv2"])
def test_library_networks_take_other_channels(name: str) -> None:
    network = build(NetworkSpecification(name, 5, 64, 3)).eval()
    assert network(torch.zeros(1, 5, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "size", "least"),
    [
        ("small", 15, "16"),
        ("small-d4", 15, "16"),
        ("custom-cnn-4", 63, "64"),
        ("unam-cnn", 23, "24"),
        ("cavanagh-c1", 9, "10"),
        ("cavanagh-c2", 37, "38"),
        ("mobilenet", 31, "32"),
        ("densenet121", 28, "29"),
        ("vgg16", 31, "32"),
    ],
)
def test_a_size_that_is_impossible_is_refused_with_the_least_one(
    name: str, size: int, least: str
) -> None:
    with pytest.raises(InputError, match=least):
        build(NetworkSpecification(name, 3, size, 4))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("small", 16),
        ("custom-cnn-4", 64),
        ("unam-cnn", 24),
        ("cavanagh-c1", 10),
        ("cavanagh-c2", 38),
    ],
)
def test_the_least_size_works(name: str, size: int) -> None:
    network = build(NetworkSpecification(name, 1, size, 3)).eval()
    assert network(torch.zeros(1, 1, size, size)).shape == (1, 3)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="no network 'resnet5000'"):
        build(NetworkSpecification("resnet5000", 3, 64, 4))


def test_one_class_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2 classes"):
        build(NetworkSpecification("small", 3, 64, 1))


def test_initial_weights_depend_on_the_seed_alone() -> None:
    specification = NetworkSpecification("small", 3, 32, 3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = build(specification, seed=5).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    same, other = build(specification, seed=5).state_dict(), build(specification, 6).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_any_timm_name_works() -> None:
    pytest.importorskip("timm")
    network = build(NetworkSpecification("mobilenetv2_050", 4, 64, 3)).eval()
    assert isinstance(network, Network)
    images = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network.head(network.features(images)), network(images))


def test_weights_of_the_hub_are_those_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network: the library is asked for its pretrained model of that name."""
    timm = pytest.importorskip("timm")
    create, asked = timm.create_model, []

    def create_without_a_download(name: str, pretrained: bool = False) -> torch.nn.Module:
        asked.append((name, pretrained))
        torch.manual_seed(5)
        return create(name)

    monkeypatch.setattr(timm, "create_model", create_without_a_download)
    config = TrainingConfig(model="efficientnetv2-b0", weights="imagenet")
    found = pretrained_weights(config)
    assert found is not None
    assert asked == [("tf_efficientnetv2_b0", True)]
    specification = NetworkSpecification("efficientnetv2-b0", 3, 64, 4)
    monkeypatch.undo()
    network = build(specification, pretrained=found.state, pretrained_source="the hub")
    own = network.state_dict()
    assert torch.equal(own["trunk.body.conv_stem.weight"], found.state["conv_stem.weight"])


def test_weights_of_the_hub_are_made_for_the_size_of_the_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A transformer has a position embedding per place, which timm resamples to a given size."""
    timm = pytest.importorskip("timm")
    create = timm.create_model

    def create_without_a_download(name: str, pretrained: bool, **options: int) -> torch.nn.Module:
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", create_without_a_download)
    name = "test_vit"  # timm's smallest
    found = pretrained_weights(TrainingConfig(model=name, weights="imagenet"), 64)
    assert found is not None
    monkeypatch.undo()
    network = build(NetworkSpecification(name, 3, 64, 4), pretrained=found.state)
    embedding = network.state_dict()["trunk.body.pos_embed"]
    assert torch.equal(embedding, found.state["pos_embed"])


@pytest.mark.parametrize("from_hub", [True, False])
def test_torchvision_published_densenet_under_older_names(
    from_hub: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    published = {}
    for key, tensor in models.densenet121().state_dict().items():
        if not key.endswith("num_batches_tracked"):
            published[re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key)] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in published
    weights = str(tmp_path / "densenet121.pth")
    torch.save(published, weights)
    if from_hub:
        kind = type(models.DenseNet121_Weights.DEFAULT)
        monkeypatch.setattr(kind, "get_state_dict", lambda *_, **__: torch.load(weights))
    config = TrainingConfig(model="densenet121", weights="imagenet" if from_hub else weights)
    found = pretrained_weights(config, 64)
    assert found is not None
    network = build(NetworkSpecification("densenet121", 3, 64, 4), pretrained=found.state)
    own = network.state_dict()["trunk.body.features.denseblock1.denselayer1.conv1.weight"]
    assert torch.equal(own, published["features.denseblock1.denselayer1.conv.1.weight"])


@pytest.mark.parametrize("name", ["efficientnetv2-b0", "resnet50"])
def test_without_a_connection_a_file_is_asked_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    torchvision = pytest.importorskip("torchvision")

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(torchvision.models, "get_model_weights", offline)
    with pytest.raises(InputError, match=rf"weights of {name} .*no route.* --weights FILE"):
        pretrained_weights(TrainingConfig(model=name, weights="imagenet"))


def test_without_timm_an_unknown_name_is_said_to_be_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Most such names are slips of the pen, which no extra mends."""
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"no network 'smal' here .*if it is one of timm's"):
        build(NetworkSpecification("smal", 3, 32, 4))
    with pytest.raises(InputError, match=r"^this network needs an extra"):
        build(NetworkSpecification("efficientnetv2-b0", 3, 32, 4))
