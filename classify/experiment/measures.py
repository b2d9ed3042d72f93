"""What one run of an arm scored: every measure from stored probabilities and image weights.

All measures take weights (B, n), one row per bootstrap draw, and answer for all runs and draws
at once: the plain value is the row of ones. A run that was cross-fitted holds its folds side by
side; every image carries the threshold of the fold that tested it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from classify.experiment.operating_points import (
    average_precision,
    threshold_at_false_positive_rate,
    threshold_at_precision,
)

MEASURES: dict[str, str] = {
    "recall": "recall (largest probability)",
    "recall_at_false_positive_rate": "recall at the matched false-positive rate",
    "recall_at_precision": "recall at the matched precision",
    "average_precision": "average precision",
    "precision": "precision (largest probability)",
    "false_positive_rate": "false-positive rate (largest probability)",
    "false_positive_rate_reached": "false-positive rate that its matched threshold reached",
    "precision_reached": "precision that its matched threshold reached",
}
"""Name in ``results.json`` -> name in words. *Reached* is what a threshold, chosen on validation
images, came to on the test images: where arms differ in it, their recalls were not matched."""

LOWER_IS_BETTER = ("false_positive_rate", "false_positive_rate_reached")

OVERALL_MEASURES: dict[str, str] = {
    "macro_recall": "mean recall over the classes",
    "accuracy": "accuracy",
}


def gain_in_words(measure: str) -> str:
    """What a difference in a measure of the verdict is a change of, in short."""
    return "average precision" if measure == "average_precision" else "recall"


@dataclass(frozen=True)
class OperatingPoints:
    """The rates at which classifiers are matched."""

    false_positive_rate: float
    precision: float


@dataclass(frozen=True)
class FoldPredictions:
    """What one trained network said of its validation and test images.

    Attributes
    ----------
    validation_rows, test_rows : (m,), (n,) int64
        Rows in the image set.
    validation_labels, test_labels : (m,), (n,) int64
    validation_probabilities, test_probabilities : (m, K), (n, K) float32
    """

    validation_rows: np.ndarray
    validation_labels: np.ndarray
    validation_probabilities: np.ndarray
    test_rows: np.ndarray
    test_labels: np.ndarray
    test_probabilities: np.ndarray


@dataclass(frozen=True)
class RunPredictions:
    """One repeat of one arm over all its test images.

    Attributes
    ----------
    rows, labels, fold : (n,) int64
        Row in the set, class, and index of the fold; sorted by row.
    probabilities : (n, K) float64
    thresholds : dict
        (kind, class index) -> (folds,) threshold chosen on the validation images of each fold.
    """

    rows: np.ndarray
    labels: np.ndarray
    fold: np.ndarray
    probabilities: np.ndarray
    thresholds: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)


def join_folds(folds: list[FoldPredictions], points: OperatingPoints) -> RunPredictions:
    """Lay the folds of one repeat side by side, with thresholds from each fold's validation."""
    classes = folds[0].test_probabilities.shape[1]
    thresholds: dict[tuple[str, int], np.ndarray] = {}
    for index in range(classes):
        by_rate, by_precision = [], []
        for fold in folds:
            scores = fold.validation_probabilities[:, index].astype(np.float64)
            positive = fold.validation_labels == index
            usable = positive.any() and not positive.all()
            by_rate.append(
                threshold_at_false_positive_rate(scores, positive, points.false_positive_rate)
                if usable
                else np.nan
            )
            by_precision.append(
                threshold_at_precision(scores, positive, points.precision) if usable else np.nan
            )
        thresholds["false_positive_rate", index] = np.array(by_rate)
        thresholds["precision", index] = np.array(by_precision)
    rows = np.concatenate([fold.test_rows for fold in folds])
    order = np.argsort(rows, kind="stable")
    return RunPredictions(
        rows=rows[order],
        labels=np.concatenate([fold.test_labels for fold in folds])[order],
        fold=np.repeat(np.arange(len(folds)), [len(fold.test_rows) for fold in folds])[order],
        probabilities=np.concatenate([f.test_probabilities for f in folds])[order].astype(
            np.float64
        ),
        thresholds=thresholds,
    )


def measure(
    name: str, runs: Sequence[RunPredictions], index: int | None, weights: np.ndarray
) -> np.ndarray:
    """Values (R, B) of one measure in each run, under image weights.

    Parameters
    ----------
    name
        A name of `MEASURES`, or of `OVERALL_MEASURES`.
    runs
        R runs over the same test images.
    index
        The class; ``None`` for a measure over all classes.
    weights : (B, n) float32

    Returns
    -------
    (R, B) float64
        nan where the measure is not defined: no weight on a positive, or nothing called
        positive.
    """
    labels = runs[0].labels
    if index is None:
        right = np.stack([run.probabilities.argmax(axis=1) == labels for run in runs])
        if name == "accuracy":
            return _ratio(right, np.ones_like(right), weights)
        recalls = [
            _ratio(right & (labels == each), np.broadcast_to(labels == each, right.shape), weights)
            for each in np.unique(labels)
        ]
        return np.mean(recalls, axis=0)
    positive = np.broadcast_to(labels == index, (len(runs), len(labels)))
    if name == "average_precision":
        return np.stack([_mean_over_folds(run, index, weights) for run in runs])
    kind = _matched(name)
    if kind and any(np.isnan(run.thresholds[kind, index]).any() for run in runs):
        return np.full((len(runs), len(weights)), np.nan)
    calls = called(name, runs, index)
    if name.startswith("precision"):
        return _ratio(calls & positive, calls, weights)
    if name.startswith("false_positive_rate"):
        return _ratio(calls & ~positive, ~positive, weights)
    return _ratio(calls & positive, positive, weights)


def called(name: str, runs: Sequence[RunPredictions], index: int) -> np.ndarray:
    """(R, n) bool: the images that each run calls the class, at the threshold of a measure."""
    kind = _matched(name)
    if not kind:
        return np.stack([run.probabilities.argmax(axis=1) == index for run in runs])
    thresholds = np.stack([run.thresholds[kind, index][run.fold] for run in runs])
    return np.stack([run.probabilities[:, index] for run in runs]) > thresholds


def _matched(name: str) -> str:
    """The kind of threshold that a measure calls by; empty for the largest probability."""
    if name.startswith("recall_at_"):
        return name.removeprefix("recall_at_")
    return name.removesuffix("_reached") if name.endswith("_reached") else ""


def _ratio(numerator: np.ndarray, denominator: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted share (R, B) of ``numerator`` (R, n) in ``denominator`` (R, n)."""
    # Counts stay far below 2^24, so float32 sums are exact and the product is a fast one.
    above = (numerator.astype(np.float32) @ weights.T).astype(np.float64)
    below = (denominator.astype(np.float32) @ weights.T).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)


def _mean_over_folds(run: RunPredictions, index: int, weights: np.ndarray) -> np.ndarray:
    """Average precision per fold, weighted by positives.

    Scores of different networks are not on one scale, so folds are never ranked together.
    """
    total = np.zeros(len(weights))
    share = np.zeros(len(weights))
    positive = run.labels == index
    for fold in np.unique(run.fold):
        here = run.fold == fold
        if not positive[here].any():
            continue
        value = average_precision(
            run.probabilities[here, index], positive[here], np.ascontiguousarray(weights[:, here])
        )
        positives = weights[:, here & positive].sum(axis=1)
        total += np.where(positives > 0, np.nan_to_num(value) * positives, 0.0)
        share += positives
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(share > 0, total / share, np.nan)
