"""Every network that is named has the parameters that were published for it."""

import pytest

from classify.networks.network import count_parameters
from classify.networks.published import layer_parameters
from classify.networks.registry import NetworkSpecification, build, names


@pytest.mark.parametrize(
    ("name", "channels", "size", "classes", "parameters"),
    [
        ("custom-cnn-1", 3, 256, 10, 3_944_130),
        ("custom-cnn-2", 3, 256, 10, 3_958_998),
        ("custom-cnn-3", 3, 256, 10, 562_226),
        ("custom-cnn-4", 3, 256, 10, 390_322),
        ("custom-cnn-final", 3, 64, 10, 2_619_978),
        ("unam-cnn", 3, 69, 10, 1_799_964),
        ("cavanagh-c1", 1, 100, 4, 34_721_924),
        ("cavanagh-c1-bn", 1, 100, 4, 34_722_116),
        ("cavanagh-c2", 1, 100, 4, 2_393_860),
        ("cavanagh-c2-bn", 1, 100, 4, 2_393_988),
        ("cavanagh-c1", 1, 69, 4, 14_798_980),
        ("cavanagh-c1", 1, 69, 3, 14_798_723),
        ("cavanagh-c2", 1, 69, 4, 820_996),
        ("cavanagh-c2", 1, 69, 3, 820_739),
        ("mobilenet", 3, 224, 1000, 4_231_976),
        ("mobilenetv2", 3, 32, 1000, 3_504_872),
        ("mobilenetv3-small", 3, 32, 1000, 2_542_856),
        ("densenet121", 3, 32, 1000, 7_978_856),
        ("resnet50", 3, 32, 1000, 25_557_032),
        ("small", 3, 64, 5, 486_293),
        ("small-d4", 3, 64, 5, 136_544),
    ],
)
def test_network_has_its_published_parameters(
    name: str, channels: int, size: int, classes: int, parameters: int
) -> None:
    network = build(NetworkSpecification(name, channels, size, classes))
    assert count_parameters(network) == parameters


@pytest.mark.slow
def test_vgg16_has_its_published_parameters() -> None:
    assert count_parameters(build(NetworkSpecification("vgg16", 3, 32, 1000))) == 138_357_544


def test_efficientnetv2_b0_has_its_published_parameters() -> None:
    pytest.importorskip("timm")
    # 7,200,312 in Keras, which counts the 60,608 running statistics.
    network = build(NetworkSpecification("efficientnetv2-b0", 3, 32, 1000))
    assert count_parameters(network) == 7_200_312 - 60_608


@pytest.mark.parametrize(
    ("name", "total_with_statistics"), [("cavanagh-c2", 2_394_308), ("cavanagh-c2-bn", 2_394_564)]
)
def test_running_statistics_are_those_of_keras(name: str, total_with_statistics: int) -> None:
    network = build(NetworkSpecification(name, 1, 100, 4))
    statistics = sum(b.numel() for n, b in network.named_buffers() if "running" in n)
    assert count_parameters(network) + statistics == total_with_statistics


@pytest.mark.parametrize(
    ("name", "size", "layers"),
    [
        ("custom-cnn-1", 256, [228, 608, 3_932_280, 10_164, 850]),
        ("custom-cnn-2", 256, [456, 2_416, 12_832, 3_932_280, 10_164, 850]),
        ("custom-cnn-3", 256, [228, 224, 3_216, 4_640, 51_264, 491_640, 10_164, 850]),
        ("custom-cnn-4", 256, [228, 224, 3_216, 4_640, 51_264, 73_856, 245_880, 10_164, 850]),
        ("custom-cnn-final", 64, [896, 18_496, 73_856, 295_168, 2_097_664, 131_328, 2_570]),
    ],
)
def test_every_layer_has_its_printed_parameters(name: str, size: int, layers: list[int]) -> None:
    assert list(layer_parameters(build(NetworkSpecification(name, 3, size, 10)))) == layers


def test_names_are_unique() -> None:
    assert len(set(names())) == len(names())
