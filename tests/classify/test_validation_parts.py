"""Which validation images choose and which calibrate."""

import numpy as np
import pytest
import torch

from classify.validation_parts import hold_out_calibration, hold_out_calibration_rows
from galaxies.image_set import ImageSet, PixelsInMemory
from galaxies.tables import Table


def images(labels: list[int], group: list[str] | None = None) -> ImageSet:
    return ImageSet(
        store=PixelsInMemory(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8)),
        labels=np.array(labels),
        class_names=("common", "usual", "rare"),
        ids=np.arange(len(labels)).astype(str),
        group=None if group is None else np.array(group),
    )


def test_a_class_of_one_image_leaves_the_others_parted(capsys: pytest.CaptureFixture[str]) -> None:
    chooser, calibration = hold_out_calibration(images([0] * 20 + [1] * 10 + [2]), 0.5)
    assert chooser is not None
    assert calibration is not None
    assert not set(chooser.ids) & set(calibration.ids)
    assert len(chooser) + len(calibration) == 31
    assert chooser.counts()[2] == 1
    assert calibration.counts().tolist()[2] == 0
    assert (calibration.counts()[:2] >= 4).all()
    assert "rare" in capsys.readouterr().err


def test_a_group_that_holds_the_only_rare_image_stays_whole() -> None:
    labels = [0] * 20 + [1] * 10 + [2]
    group = [f"g{i // 2}" for i in range(30)] + ["g0"]
    chooser, calibration = hold_out_calibration(images(labels, group), 0.5)
    assert chooser is not None
    assert calibration is not None
    assert chooser.group is not None
    assert calibration.group is not None
    assert not set(chooser.group) & set(calibration.group)
    assert (calibration.counts()[:2] > 0).all()


def test_one_image_of_every_class_cannot_be_parted(capsys: pytest.CaptureFixture[str]) -> None:
    chooser, calibration = hold_out_calibration(images([0, 1, 2]), 0.5)
    assert chooser is calibration
    assert "slightly too sure" in capsys.readouterr().err


def test_a_class_of_one_row_leaves_the_others_parted(capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.array([0] * 20 + [1] * 10 + [2])
    table = Table(
        features=np.arange(31.0)[:, None],
        feature_names=("u",),
        labels=labels,
        class_names=("common", "usual", "rare"),
        ids=np.arange(31).astype(str),
    )
    chooser, calibration = hold_out_calibration_rows(table, 0.5)
    assert calibration is not None
    assert not set(chooser.ids) & set(calibration.ids)
    assert chooser.counts()[2] == 1
    assert calibration.counts()[2] == 0
    assert "rare" in capsys.readouterr().err
