import dataclasses

import numpy as np
import pytest
import torch

from classify.networks.registry import NetworkSpecification, build
from classify.own_statistics import forward_apart, has_batch_statistics
from classify.training import train_classifier
from classify.training_config import TrainingConfig
from galaxies.errors import InputError
from galaxies.image_set import ImageSet


def network_of(name: str, size: int = 32) -> torch.nn.Module:
    specification = NetworkSpecification(
        name=name, channels=3, size=size, classes=3, dropout=0.0, mirror_permutation=(0, 1, 2)
    )
    return build(specification, 0).train()


def running(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: b.clone() for name, b in network.named_buffers() if "running" in name}


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    images = torch.randn((12, 3, 32, 32), generator=random)
    is_synthetic = torch.tensor([0, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1, 0], dtype=torch.bool)
    images[is_synthetic] = images[is_synthetic] * 0.3 + 2
    return images, is_synthetic


@pytest.mark.parametrize("name", ["small", "small-d4", "mobilenetv2"])
def test_each_part_is_normalised_as_if_it_were_alone(
    name: str, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, is_synthetic = batch
    together, alone = network_of(name), network_of(name)
    torch.manual_seed(0)
    logits = forward_apart(together, [images], is_synthetic)
    torch.manual_seed(0)
    real = alone(images[~is_synthetic])
    of_real = running(alone)
    made = alone(images[is_synthetic])
    torch.testing.assert_close(logits[~is_synthetic], real)
    torch.testing.assert_close(logits[is_synthetic], made)
    kept = running(together)
    for key, value in kept.items():
        torch.testing.assert_close(value, of_real[key])
    assert any(not torch.allclose(value, running(alone)[key]) for key, value in kept.items())


def test_the_momentum_comes_back(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    network = network_of("small")
    before = [m.momentum for m in network.modules() if hasattr(m, "momentum")]
    forward_apart(network, [batch[0]], batch[1])
    assert [m.momentum for m in network.modules() if hasattr(m, "momentum")] == before
    assert before


def test_a_lone_image_stays_with_the_others(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images = batch[0]
    lone = torch.zeros(12, dtype=torch.bool)
    lone[3] = True
    expected = network_of("small")(images)
    torch.testing.assert_close(forward_apart(network_of("small"), [images], lone), expected)


def darker(images: ImageSet) -> ImageSet:
    """Images of every class that betray themselves: a third of the light on a brighter sky."""
    pixels = (images.pixels.float() / 3 + 90).to(torch.uint8)
    return dataclasses.replace(
        images, store=dataclasses.replace(images.store, pixels=pixels), split=None
    )


def test_what_marks_synthetic_images_leaves_the_statistics_of_real_ones_alone(
    tiny_set: ImageSet,
) -> None:
    train, validation = tiny_set.side("train"), tiny_set.side("validation")
    fake = darker(train.in_memory())
    settings = {"model": "small", "steps": 40, "batch_size": 16, "validate_every": 40, "seed": 1}
    means = {}
    for statistics in ("shared", "own"):
        config = TrainingConfig(**settings, synthetic_statistics=statistics)
        classifier = train_classifier(train, validation, config, synthetic=fake, progress=False)
        with torch.no_grad():
            probabilities = classifier.probabilities(validation).numpy()
        means[statistics] = next(iter(running(classifier.network).values()))
        assert np.isfinite(probabilities).all()
    alone = train_classifier(train, validation, TrainingConfig(**settings), progress=False)
    reference = next(iter(running(alone.network).values()))
    apart = {name: float((mean - reference).norm()) for name, mean in means.items()}
    assert apart["own"] < 0.3 * apart["shared"]


def test_what_cannot_be_parted_is_refused(tiny_set: ImageSet) -> None:
    assert not has_batch_statistics(network_of("custom-cnn-1", 64))
    config = TrainingConfig(model="custom-cnn-1", steps=1, synthetic_statistics="own")
    with pytest.raises(InputError, match="custom-cnn-1 has no batch normalisation"):
        train_classifier(tiny_set.side("train"), None, config, progress=False)
    with pytest.raises(InputError, match="cannot part what --mixup"):
        TrainingConfig(synthetic_statistics="own", mixup=0.2)


def test_statistics_of_their_own_and_pretrained_weights_exclude_each_other(
    tiny_set: ImageSet,
) -> None:
    """Batch normalisation that keeps the statistics of its weights has none of the batch."""
    config = TrainingConfig(
        model="small", steps=1, synthetic_statistics="own", weights="weights.safetensors"
    )
    with pytest.raises(InputError, match="no effect with --weights"):
        train_classifier(tiny_set.side("train"), None, config, progress=False)
