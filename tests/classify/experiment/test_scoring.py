import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classify.experiment import command
from classify.experiment.cli import ExperimentConfig
from classify.experiment.laboratory import Laboratory
from classify.experiment.record import ExperimentRecord
from classify.experiment.scoring import Scores, adjusted, counts_seen
from galaxies.hdf5 import write_hdf5
from galaxies.image_set import ImageSet

Build = Callable[..., Laboratory]
OWN = {"count": 20}
EVERY = {"count": 80, "per_class": [20, 60, 0]}


@pytest.mark.parametrize(
    ("training", "images", "note", "seen"),
    [
        ({"symmetries": False}, None, {}, [30, 60, 10]),
        ({"symmetries": True}, None, {}, [20, 60, 20]),
        ({"symmetries": False}, {"kind": "gan"}, OWN, [30, 60, 10]),
        ({"synthetic_share": 0.5}, {"kind": "gan"}, OWN, [10, 60, 10]),
        ({"synthetic_until": 0.75, "symmetries": True}, {"kind": "gan"}, OWN, [10, 60, 10]),
        ({"synthetic_until": 0.75}, {"kind": "gan"}, EVERY, [10, 0, 10]),
        ({"synthetic_until": 0.75}, {"kind": "smote"}, {"points": 9}, [30, 60, 10]),
        ({"model": "random-forest"}, {"kind": "gan"}, OWN, [30, 60, 10]),
    ],
)
def test_adjusted_logits_divide_by_what_the_network_saw(
    training: dict[str, Any], images: dict[str, Any] | None, note: dict[str, Any], seen: list[int]
) -> None:
    """Mirrored images of a twin count; added images do not where draws follow the real ones."""
    metrics = {"training_counts": [30, 60, 10], "added": note}
    config = {"training": training, "images": images, "class_index": 0}
    assert counts_seen(metrics, config, [2, 1, 0]).tolist() == seen


def test_the_arm_of_mirror_twins_is_adjusted_by_their_mean(
    blobs: ImageSet, tmp_path: Path, build: Build
) -> None:
    twins = dataclasses.replace(blobs, mirror_pairs=(("rare", "long"),))
    write_hdf5(twins, tmp_path / "twins.h5")
    out = tmp_path / "out"
    config = ExperimentConfig(
        data=str(tmp_path / "twins.h5"), classes=("rare",), out=out, repeats=3, steps=20,
        draws=50, workers=1, device="cpu", arms="plain,symmetries+logit-adjusted",
    )  # fmt: skip
    command.run(config, build=build)
    record = ExperimentRecord.read(out)
    assert record.mirror_permutation == [2, 1, 0]
    arm = record.arm("symmetries+logit-adjusted")
    scores = Scores(out, record)
    stored = scores.store.load(arm.units["all"][0][0])
    rare, round_, long = stored.metrics["training_counts"]
    mean = (rare + long) / 2
    for known, counts in (
        (record, [mean, round_, mean]),
        (dataclasses.replace(record, mirror_permutation=[]), [rare, round_, long]),
    ):
        found = Scores(out, known).predictions(arm)[0][0].test_probabilities
        expected = adjusted(stored.predictions, counts, 1.0).test_probabilities
        np.testing.assert_allclose(found, expected)
