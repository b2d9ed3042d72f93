"""What a classifier does to each class, with counts and intervals; no class hides in an average.

Point values of AUC and average precision come from torchmetrics, one class against the rest. Its
multiclass reductions are avoided: a class without images scores 0 there and is dropped from the
macro mean; here it is NaN, counted, and named.
"""

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from classify.calibration import brier_score, expected_calibration_error
from classify.intervals import wilson_interval
from classify.resampling import bootstrap_intervals
from galaxies.errors import InputError

COLLAPSED_SHARE = 0.99
"""A classifier that gives one class to at least this share of the images has collapsed."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class ClassMetrics:
    """One class against the rest; NaN where a number does not exist.

    Attributes
    ----------
    name : str
    images, predicted, right : int
        Images of the class, images given to it, and those that are both.
    recall, precision, f1 : float
        ``right / images``, ``right / predicted`` and their harmonic mean.
    recall_interval, precision_interval : (float, float)
        Wilson, 95 %.
    f1_interval, auc_interval, average_precision_interval : (float, float)
        Percentile bootstrap over images, stratified by class, 95 %.
    auc, average_precision : float
        Area under the ROC curve, and the mean precision over the recall steps.
    """

    name: str
    images: int
    predicted: int
    right: int
    recall: float
    recall_interval: Interval
    precision: float
    precision_interval: Interval
    f1: float
    f1_interval: Interval
    auc: float
    auc_interval: Interval
    average_precision: float
    average_precision_interval: Interval


@dataclass(frozen=True)
class Metrics:
    """All numbers of one set of predictions.

    Attributes
    ----------
    images : int
    accuracy, balanced_accuracy, macro_f1, weighted_f1 : float
        Macro means are over the classes that have images.
    accuracy_interval : (float, float)
        Wilson, 95 %.
    per_class : tuple of ClassMetrics
    confusion : (K, K) int64
        Rows are the truth, columns the prediction.
    calibration_error, brier, log_loss : float
        Of the probabilities.
    collapsed_to : str or None
        The class that (nearly) every image is given, where there is one.
    without_images : tuple of str
        Classes that cannot be judged.
    """

    images: int
    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    macro_f1: float
    weighted_f1: float
    per_class: tuple[ClassMetrics, ...]
    confusion: np.ndarray
    calibration_error: float
    brier: float
    log_loss: float
    collapsed_to: str | None
    without_images: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON-able form; NaN becomes null."""
        values = asdict(self) | {"confusion": self.confusion.tolist()}
        return _without_nan(values)

    def in_words(self) -> list[str]:
        """What a reader must not miss, one sentence each."""
        sentences = []
        if self.collapsed_to is not None:
            lost = sum(m.right == 0 for m in self.per_class if m.images)
            sentences.append(
                f"collapsed to class {self.collapsed_to}: nearly every image is given that "
                f"class, so accuracy {self.accuracy:.3f} says nothing and {lost} classes are "
                "never found"
            )
        if self.without_images:
            sentences.append(
                f"no image of {', '.join(self.without_images)}: these classes are not judged"
            )
        return sentences


def evaluate(
    probabilities: np.ndarray | torch.Tensor,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> Metrics:
    """Compute all metrics of (n, K) probabilities against (n,) labels.

    The prediction is the largest probability itself, never one above a threshold; the first of
    equal ones wins.

    Parameters
    ----------
    seed, resamples
        Of the bootstrap; 0 resamples leave its intervals NaN.

    Raises
    ------
    InputError
        If there is nothing to judge, or shapes differ.
    """
    scores = np.asarray(probabilities, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.int64)
    if scores.shape != (len(labels), len(class_names)) or not len(labels):
        raise InputError(
            f"probabilities of shape {scores.shape} do not fit {len(labels)} labels of "
            f"{len(class_names)} classes"
        )
    predicted = scores.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, len(class_names))
    images, given, right = confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal()
    boot = bootstrap_intervals(scores, labels, seed=seed, resamples=resamples)
    per_class = tuple(
        _of_class(name, k, images[k], given[k], right[k], scores, labels, boot)
        for k, name in enumerate(class_names)
    )
    present = images > 0
    recalls = np.array([m.recall for m in per_class])[present]
    f1 = np.array([m.f1 for m in per_class])[present]
    share = given / len(labels)
    collapsed = share.max() >= COLLAPSED_SHARE and images[share.argmax()] < 0.95 * len(labels)
    total_right = int(right.sum())
    return Metrics(
        images=len(labels),
        accuracy=total_right / len(labels),
        accuracy_interval=wilson_interval(total_right, len(labels)),
        balanced_accuracy=float(recalls.mean()),
        macro_f1=float(f1.mean()),
        weighted_f1=float((f1 * images[present]).sum() / images.sum()),
        per_class=per_class,
        confusion=confusion,
        calibration_error=expected_calibration_error(scores, labels),
        brier=brier_score(scores, labels),
        log_loss=float(-np.log(scores[np.arange(len(labels)), labels].clip(1e-300)).mean()),
        collapsed_to=class_names[int(share.argmax())] if collapsed else None,
        without_images=tuple(n for n, there in zip(class_names, present, strict=True) if not there),
    )


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(K, K) int64 counts: rows are the truth, columns the prediction."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    matrix = multiclass_confusion_matrix(
        torch.from_numpy(np.asarray(predicted)), torch.from_numpy(np.asarray(labels)), classes
    )
    return matrix.numpy().astype(np.int64)


def table(metrics: Metrics) -> str:
    """Per-class table in plain text, one line per class."""
    width = max(len(m.name) for m in metrics.per_class)
    lines = [
        f"{'class':<{width}}  images  recall [95 %]         precision [95 %]      F1     AUC    AP"
    ]
    for m in metrics.per_class:
        lines.append(
            f"{m.name:<{width}}  {m.images:6d}  "
            f"{_with_interval(m.recall, m.recall_interval)}  "
            f"{_with_interval(m.precision, m.precision_interval)}  "
            f"{_number(m.f1)}  {_number(m.auc)}  {_number(m.average_precision)}"
        )
    low, high = metrics.accuracy_interval
    lines.append(
        f"accuracy {metrics.accuracy:.3f} [{low:.3f}, {high:.3f}], balanced accuracy "
        f"{metrics.balanced_accuracy:.3f}, macro F1 {metrics.macro_f1:.3f}, "
        f"calibration error {metrics.calibration_error:.3f}"
    )
    return "\n".join([*lines, *metrics.in_words()])


def _of_class(
    name: str,
    k: int,
    images: int,
    given: int,
    right: int,
    scores: np.ndarray,
    labels: np.ndarray,
    boot: dict[str, np.ndarray],
) -> ClassMetrics:
    recall = right / images if images else float("nan")
    # Nothing was given to the class: its precision does not exist, but its F1 is 0.
    precision = right / given if given else float("nan")
    f1 = 2 * right / (images + given) if images else float("nan")
    auc, average_precision = ranking_metrics(scores[:, k], labels == k)
    return ClassMetrics(
        name=name,
        images=int(images),
        predicted=int(given),
        right=int(right),
        recall=float(recall),
        recall_interval=wilson_interval(int(right), int(images)),
        precision=float(precision),
        precision_interval=wilson_interval(int(right), int(given)),
        f1=float(f1),
        f1_interval=_pair(boot["f1"][k]),
        auc=auc,
        auc_interval=_pair(boot["auc"][k]),
        average_precision=average_precision,
        average_precision_interval=_pair(boot["average_precision"][k]),
    )


def ranking_metrics(scores: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """AUC and average precision of (n,) scores; NaN where a side has no image."""
    if positive.all() or not positive.any():
        return float("nan"), float("nan")
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    # Ranks instead of scores: torchmetrics applies a sigmoid to scores outside [0, 1], and works
    # in float32, where close probabilities would tie.
    _, ranks = np.unique(scores, return_inverse=True)
    # More than 2^24 different scores would tie in float32; there are never so many images.
    ordered = torch.from_numpy(ranks.reshape(-1) / max(1, ranks.max())).double()
    target = torch.from_numpy(positive.astype(np.int64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        auc = binary_auroc(ordered, target)
        average_precision = binary_average_precision(ordered, target)
    return float(auc), float(average_precision)


def _with_interval(value: float, interval: Interval) -> str:
    return f"{_number(value)} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _number(value: float) -> str:
    return "  -  " if np.isnan(value) else f"{value:.3f}"


def _pair(values: np.ndarray) -> Interval:
    return float(values[0]), float(values[1])


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
