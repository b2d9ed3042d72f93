"""The end of every run: the test side is read once, and what was found is written and told."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from classify.card import write_card
from classify.checkpoint import write_checkpoint
from classify.conformal import CoverageReport, coverage_report
from classify.ensemble import Ensemble, write_ensemble
from classify.metrics import Metrics, evaluate, table
from classify.plots import write_all
from classify.predictions_table import write_predictions
from classify.reference import Reference, write_reference
from classify.repeated_views import Classifier
from classify.samples import write_samples
from classify.train import ClassifyTrain
from galaxies.command_line import config_as_json, print_json
from galaxies.image_set import SPLITS, ImageSet

REPORT_LEVEL = 0.9
"""Level of the prediction sets in the report."""


def finish(
    classifier: Classifier,
    reference: Reference,
    image_set: ImageSet,
    config: ClassifyTrain,
    folder: Path,
    *,
    synthetic: ImageSet | None = None,
    seconds: float = 0.0,
) -> tuple[Metrics, CoverageReport | None]:
    """Judge on the test side and write everything into an existing folder."""
    test = image_set.side("test")
    metrics, coverage, probabilities = judge(classifier, reference, test)
    classifier.record |= {
        "command": config_as_json(config),
        "data": describe_data(image_set, config, synthetic),
        "seconds": seconds,
        "metrics": metrics.as_json(),
        "coverage": coverage.as_json() if coverage else None,
    }
    if isinstance(classifier, Ensemble):
        write_ensemble(classifier, folder)
    else:
        write_checkpoint(classifier, folder)
    write_reference(reference, folder)
    write_samples(image_set.side("validation"), folder)
    text = json.dumps(metrics.as_json(), indent=1) + "\n"
    (folder / "metrics.json").write_text(text, encoding="utf-8")
    write_predictions(
        folder / "test_predictions.csv", test.ids, test.labels, probabilities, test.class_names
    )
    write_all(
        folder / "plots",
        history=[] if isinstance(classifier, Ensemble) else classifier.history,
        kept_step=classifier.record["training"].get("kept_step", 0),
        metrics=metrics,
        probabilities=probabilities,
        images=test,
    )
    write_card(classifier, metrics, coverage, folder / "card.md")
    return metrics, coverage


def judge(
    classifier: Classifier, reference: Reference, test: ImageSet
) -> tuple[Metrics, CoverageReport | None, np.ndarray]:
    """Read the test side, once."""
    probabilities = classifier.probabilities(test).numpy()
    metrics = evaluate(probabilities, test.labels, classifier.class_names)
    coverage = None
    if reference.calibration is not None:
        sets = reference.calibration.sets(probabilities, REPORT_LEVEL)
        coverage = coverage_report(
            sets,
            test.labels,
            classifier.class_names,
            REPORT_LEVEL,
            calibration=reference.calibration,
        )
    return metrics, coverage, probabilities


def describe_data(
    image_set: ImageSet, config: ClassifyTrain, synthetic: ImageSet | None
) -> dict[str, Any]:
    """What the classifier was trained on, with a fingerprint of the training images."""
    packed = image_set.provenance.get("packed") or {}
    description: dict[str, Any] = {
        "source": config.data,
        "provenance": image_set.provenance,
        "counts": {
            side: dict(zip(image_set.class_names, _counts(image_set, index), strict=True))
            for index, side in enumerate(SPLITS)
        },
        "training_fingerprint": training_fingerprint(image_set),
        "decoding": {
            "crop": packed.get("crop"),
            "size": image_set.size,
            "channels": image_set.channels,
            "scale_16_bit": bool(packed.get("scaled_16_bit", False)),
        },
    }
    if synthetic is not None:
        description["synthetic"] = {
            "source": str(config.synthetic),
            "images": len(synthetic),
            "provenance": synthetic.provenance,
        }
    return description


def training_fingerprint(image_set: ImageSet) -> str:
    """sha256 over the sorted fingerprints of the training images."""
    prints = sorted(image_set.side("train").fingerprints().tolist())
    return hashlib.sha256("".join(prints).encode()).hexdigest()


def _counts(image_set: ImageSet, side: int) -> list[int]:
    assert image_set.split is not None
    return image_set.select(image_set.split == side).counts().tolist()


def report(
    config: ClassifyTrain,
    out: Path,
    classifier: Classifier,
    metrics: Metrics,
    coverage: CoverageReport | None,
) -> None:
    """Print the result: a table for people, one object for programs."""
    training = classifier.record["training"]
    if config.json:
        print_json(
            {
                "checkpoint": str(out),
                **training,
                "seconds": classifier.record["seconds"],
                "temperature": classifier.temperature,
                "metrics": metrics.as_json(),
                "coverage": coverage.as_json() if coverage else None,
            }
        )
        return
    print(table(metrics))
    if coverage is not None:
        print(
            f"prediction sets at {100 * REPORT_LEVEL:g} %: {coverage.overall.covered} of "
            f"{coverage.overall.images} hold the truth, mean size {coverage.overall.mean_size:.2f}"
        )
        for sentence in (*coverage.failures, *coverage.notes):
            print(sentence)
    if isinstance(classifier, Ensemble):
        for member in training["members"]:
            print(
                f"member {member['network']}: balanced accuracy {member['balanced_accuracy']:.3f}"
            )
        print(f"{out}: {classifier.combine} of {len(classifier.members)} networks")
    else:
        print(f"{out}: {config.model}, weights of step {training['kept_step']}")
