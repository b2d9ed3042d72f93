"""Experiments of networks that see features beside each image, which generated images lack."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from classify.experiment.arms import parse_arm, parse_arms
from classify.experiment.checks import usable_arms
from classify.experiment.division import Setting
from classify.experiment.kept_classifiers import IMAGE_SELECTOR
from classify.experiment.laboratory import Laboratory
from classify.experiment.planner import GeneratorSource, Planner
from galaxies.image_set import ImageSet


@pytest.fixture
def laboratory(blobs: ImageSet, tmp_path: Path) -> Laboratory:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(len(blobs), 2)).astype(np.float32)
    features[:, 0] += 2 * blobs.labels
    with_features = dataclasses.replace(
        blobs, features=features, feature_names=("size", "concentration")
    )

    def generate(
        path: Path, class_name: str, count: int, seed: int, device: torch.device
    ) -> ImageSet:
        own = blobs.of_classes([class_name])
        rows = np.random.default_rng(seed).integers(0, len(own), count)
        return dataclasses.replace(
            own.select(rows), features=np.zeros(0, np.float32), feature_names=()
        )

    training = {"model": "margnet-small", "steps": 4, "batch_size": 16, "learning_rate": 1e-3}
    setting = Setting(tmp_path, 0, 0, 0, "cpu", 1, training)
    return Laboratory(with_features, setting, generate=generate)


@pytest.mark.parametrize("name", ["gan@1", "gan@1+only", "gan@1+filtered", "placebo@1"])
def test_every_arm_trains_though_generated_images_have_no_features(
    laboratory: Laboratory, checkpoint: Path, name: str
) -> None:
    source = GeneratorSource("g", str(checkpoint), "0")
    unit = Planner(laboratory, {("g", 0, None): source}).unit(parse_arm(name), 0, 0)
    output = laboratory.run(unit)
    assert unit.images is not None
    assert output.metrics["added"]["count"] == unit.images["count"]
    assert np.isfinite(output.predictions.test_probabilities).all()


def test_what_filters_and_judges_sees_images_alone(laboratory: Laboratory, blobs: ImageSet) -> None:
    judge = laboratory.selector(0, None)
    assert judge.config.model == IMAGE_SELECTOR
    bare = dataclasses.replace(
        blobs.select(np.arange(5)), features=np.zeros(0, np.float32), feature_names=()
    )
    assert judge.probabilities(bare).shape == (5, 3)


def test_smote_is_left_out_with_a_reason(
    laboratory: Laboratory, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = usable_arms(parse_arms("balanced,smote@1"), laboratory)
    assert [arm.name for arm in arms] == ["plain", "balanced"]
    assert "arm smote@1 is left out: SMOTE works on what a network sees" in capsys.readouterr().err
