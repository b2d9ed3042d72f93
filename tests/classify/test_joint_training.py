"""Image and table together: training, checkpoint, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from classify.classifier import TrainedClassifier
from classify.tabular.margnet_training import part_for_stack
from classify.training import TrainingConfig, load_classifier, train_classifier
from galaxies.errors import InputError
from galaxies.image_set import ImageSet, PixelsInMemory


def with_features(count: int = 150, size: int = 16, seed: int = 0) -> ImageSet:
    """Three classes: the image tells 0 from the rest, the features tell 1 from 2."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = rng.normal(60, 12, (count, 1, size, size))
    pixels[labels == 0, :, 5:11, 5:11] += 90
    features = rng.normal(size=(count, 3))
    features[:, 1] += np.where(labels == 1, 2.5, np.where(labels == 2, -2.5, 0))
    features[rng.random(count) < 0.05, 0] = np.nan
    split = np.tile(np.repeat([0, 1, 2], [3, 3, 3]), count)[:count]
    return ImageSet(
        store=PixelsInMemory(torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))),
        labels=labels.astype(np.int64),
        class_names=("bright", "red", "blue"),
        ids=np.arange(count).astype(str),
        split=split.astype(np.int8),
        features=features.astype(np.float32),
        feature_names=("size", "g_r", "other"),
    )


@pytest.fixture(scope="module")
def both() -> ImageSet:
    return with_features(270)


def train(both: ImageSet, model: str, steps: int = 120) -> TrainedClassifier:
    config = TrainingConfig(model=model, steps=steps, batch_size=32, validate_every=40)
    return train_classifier(both.side("train"), both.side("validation"), config, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["margnet-small", "margformer-small"])
def test_both_inputs_are_used_and_the_checkpoint_answers_the_same(
    model: str, both: ImageSet, tmp_path: Path
) -> None:
    classifier = train(both, model)
    test = both.side("test")
    found = classifier.probabilities(test)
    right = (found.argmax(dim=1).numpy() == test.labels).mean()
    assert right > 0.85  # the image alone gives about 2/3, the features alone about .8
    classifier.save(tmp_path / "checkpoint")
    again = load_classifier(tmp_path / "checkpoint")
    torch.testing.assert_close(again.probabilities(test), found, rtol=0, atol=0)
    turned = dataclasses.replace(
        test, features=test.features[:, ::-1].copy(), feature_names=test.feature_names[::-1]
    )
    torch.testing.assert_close(again.probabilities(turned), found, rtol=0, atol=0)
    with pytest.raises(InputError, match="needs 3 features beside each image"):
        again.probabilities(test.pixels)
    without = dataclasses.replace(test, features=np.zeros((len(test), 0)), feature_names=())
    with pytest.raises(InputError, match="lacks the features size, g_r, other"):
        again.probabilities(without)


def test_a_set_without_features_is_refused_with_the_way_to_join_one(both: ImageSet) -> None:
    bare = dataclasses.replace(both, features=np.zeros((len(both), 0)), feature_names=())
    for model in ("margnet-small", "margformer-small"):
        with pytest.raises(InputError, match="galaxy-set pack"):
            train(bare, model)


def test_a_feature_that_gives_the_class_away_is_not_seen(
    both: ImageSet, capsys: pytest.CaptureFixture[str]
) -> None:
    named = dataclasses.replace(both, feature_names=("size", "g_r", "redshift"))
    classifier = train(named, "margformer-small", steps=2)
    assert classifier.joint_features is not None
    assert classifier.joint_features.names == ("size", "g_r")
    assert "redshift (gives the class away)" in capsys.readouterr().err
    joined = {"joined_table": {"allowed": ["redshift"]}}
    forced = dataclasses.replace(named, provenance=joined)
    found = train(forced, "margformer-small", steps=2).joint_features
    assert found is not None
    assert "redshift" in found.names


def test_the_stack_sees_images_that_no_part_saw(both: ImageSet) -> None:
    chooser, for_stack = part_for_stack(both.side("validation"), seed=0)
    assert not set(chooser.ids) & set(for_stack.ids)
    assert len(chooser) + len(for_stack) == len(both.side("validation"))
    assert (for_stack.counts() > 0).all()


def test_mixing_images_is_refused_where_features_stand_beside_them(both: ImageSet) -> None:
    config = TrainingConfig(model="margformer-small", steps=2, mixup=0.2)
    with pytest.raises(InputError, match="mix images, not the features"):
        train_classifier(both.side("train"), None, config, progress=False)
