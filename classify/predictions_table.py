"""``test_predictions.csv``: what a classifier says of each image or row of the test side."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write_predictions(
    path: Path,
    ids: Sequence[str] | np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Write id, true class, predicted class and probabilities, one line each.

    Parameters
    ----------
    path
        The CSV file.
    ids
        N names.
    labels
        (N,) int64 true classes.
    probabilities
        (N, classes) float.
    class_names
        Of all classes.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "true", "predicted", *(f"p_{name}" for name in class_names)])
        for name, label, row in zip(ids, labels, probabilities, strict=True):
            best = class_names[int(row.argmax())]
            writer.writerow([name, class_names[label], best, *(f"{value:.6g}" for value in row)])
