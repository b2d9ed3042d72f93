"""Training that starts from a checkpoint of our own."""

import dataclasses
from pathlib import Path

import pytest
import torch

from classify.classifier import TrainedClassifier
from classify.networks.pretrained import Pretrained
from classify.normalisation import Normalisation, normalisation_of
from classify.training import train_classifier
from classify.training_config import TrainingConfig
from galaxies.image_set import ImageSet, PixelsInMemory

SETTINGS = {"model": "small-d4", "steps": 2, "batch_size": 8, "best_by": "last"}


@pytest.fixture(scope="module")
def little(tiny_set: ImageSet) -> ImageSet:
    """A few training images at 16 pixels."""
    train = tiny_set.side("train").in_memory()
    small = torch.nn.functional.avg_pool2d(train.pixels.float(), 4).round().to(torch.uint8)
    return dataclasses.replace(train, store=PixelsInMemory(small), split=None)


@pytest.fixture(scope="module")
def checkpoint(little: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "checkpoint"
    train_classifier(little, None, TrainingConfig(**SETTINGS), progress=False).save(folder)  # type: ignore[arg-type]
    return folder


def transferred(images: ImageSet, folder: Path) -> TrainedClassifier:
    darker = dataclasses.replace(
        images, store=PixelsInMemory((images.pixels.float() / 3).to(torch.uint8))
    )
    weights = str(folder / "weights.safetensors")
    config = TrainingConfig(**SETTINGS, weights=weights)  # type: ignore[arg-type]
    return train_classifier(darker, None, config, progress=False)


def test_weights_of_a_checkpoint_keep_its_statistics_and_its_scale(
    little: ImageSet, checkpoint: Path
) -> None:
    from safetensors.torch import load_file

    given = load_file(checkpoint / "weights.safetensors")
    classifier = transferred(little, checkpoint)
    own = classifier.network.state_dict()
    kept = [name for name in given if "running" in name]
    assert kept
    assert all(torch.equal(own[name], given[name]) for name in kept)
    assert any(not torch.equal(own[name], given[name]) for name in given)
    assert classifier.normalisation == normalisation_of(little)


def test_a_description_of_other_weights_does_not_count(
    little: ImageSet, checkpoint: Path, tmp_path: Path
) -> None:
    for name in ("weights.safetensors", "config.json"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(
        text.replace('"weights_sha256": "', '"weights_sha256": "0')
    )
    assert transferred(little, tmp_path).normalisation != normalisation_of(little)


def test_other_channels_take_the_mean_scale_of_the_weights() -> None:
    known = Normalisation((0.0, 0.3, 0.6), (0.5, 0.5, 0.8))
    weights = Pretrained({}, "a checkpoint", False, known)
    found = weights.normalisation("small", 1, None, from_library=False)
    assert found is not None
    assert found.mean == pytest.approx((0.3,))
    assert found.std == pytest.approx((0.6,))


def test_a_checkpoint_of_a_library_network_gives_its_weights_to_that_network(
    little: ImageSet, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    wide = torch.nn.functional.interpolate(little.pixels.float(), 32).to(torch.uint8)
    images = dataclasses.replace(little, store=PixelsInMemory(wide))
    settings = {**SETTINGS, "model": "mobilenetv3-small", "steps": 1}
    trained = train_classifier(images, None, TrainingConfig(**settings), progress=False)  # type: ignore[arg-type]
    trained.save(tmp_path / "checkpoint")
    weights = tmp_path / "checkpoint" / "weights.safetensors"
    config = TrainingConfig(**settings, weights=str(weights), learning_rate=1e-9)  # type: ignore[arg-type]
    again = train_classifier(images, None, config, progress=False).network.state_dict()
    given = load_file(weights)
    assert set(given) == set(again)
    for name, tensor in given.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-4, atol=1e-6)
