"""Pictures of a training run and of its predictions on the test side."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from classify.calibration import reliability
from classify.metrics import Metrics
from galaxies.image_set import ImageSet
from galaxies.pixels import to_network

INK, BLUE, RED = "#222222", "#3b6fb6", "#c0504d"
RESOLUTION = 130
GALLERY = 24


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    figure.savefig(path, dpi=RESOLUTION, bbox_inches="tight", facecolor="white")


def curves(history: list[dict[str, Any]], kept_step: int) -> Figure:
    """Loss and recall against the step, with the step whose weights were kept."""
    figure = Figure(figsize=(10, 3.6))
    left, right = figure.subplots(1, 2)
    steps = [entry["step"] for entry in history]
    left.plot(steps, [entry["train_loss"] for entry in history], color=BLUE, label="training")
    if "validation_loss" in history[-1]:
        losses = [entry["validation_loss"] for entry in history]
        left.plot(steps, losses, color=RED, label="validation, mean of classes")
        accuracy = [entry["validation_accuracy"] for entry in history]
        balanced = [entry["validation_balanced_accuracy"] for entry in history]
        right.plot(steps, balanced, color=RED, label="mean recall (balanced accuracy)")
        right.plot(steps, accuracy, color=INK, alpha=0.6, label="accuracy")
        right.set(xlabel="step", ylabel="validation", ylim=(0, 1.02))
        _mark_kept(right, kept_step)
        right.legend(frameon=False, fontsize=8)
    else:
        right.axis("off")
    left.set(xlabel="step", ylabel="loss")
    left.set_ylim(bottom=0)
    _mark_kept(left, kept_step)
    left.legend(frameon=False, fontsize=8)
    return figure


def confusion(metrics: Metrics) -> Figure:
    """Confusion matrix in counts and in shares of each row (recall on the diagonal)."""
    names = [m.name for m in metrics.per_class]
    counts = metrics.confusion
    rows = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = max(3.6, 0.55 * len(names) + 2)
    figure = Figure(figsize=(2 * side + 0.8, side), layout="constrained")
    for axes, title, text in zip(
        figure.subplots(1, 2),
        ("counts", "share of the true class"),
        ([[str(v) for v in row] for row in counts], [[f"{v:.2f}" for v in row] for row in rows]),
        strict=True,
    ):
        axes.imshow(rows, cmap="Blues", vmin=0, vmax=1)
        for i in range(len(names)):
            for j in range(len(names)):
                shade = "white" if rows[i, j] > 0.55 else INK
                axes.text(j, i, text[i][j], ha="center", va="center", color=shade, fontsize=8)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set(xlabel="predicted", ylabel="true", title=title)
    return figure


def ranking_curves(probabilities: np.ndarray, labels: np.ndarray, metrics: Metrics) -> Figure:
    """ROC and precision-recall curve of each class against the rest."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    palette = matplotlib.colormaps["tab10" if len(metrics.per_class) <= 10 else "tab20"]
    for k, of_class in enumerate(metrics.per_class):
        positive = labels == k
        if positive.all() or not positive.any():
            continue
        order = np.argsort(-probabilities[:, k], kind="stable")
        last_of_tie = np.append(np.diff(probabilities[order, k]) != 0, True)
        hits = np.cumsum(positive[order])[last_of_tie]
        false = np.cumsum(~positive[order])[last_of_tie]
        colour = palette(k % palette.N)
        left.plot(
            [0, *(false / false[-1])],
            [0, *(hits / hits[-1])],
            color=colour,
            label=f"{of_class.name}, AUC {of_class.auc:.3f}",
        )
        right.step(
            [0, *(hits / hits[-1])],
            [1, *(hits / (hits + false))],
            where="pre",
            color=colour,
            label=f"{of_class.name} ({of_class.images}), AP {of_class.average_precision:.3f}",
        )
    left.plot([0, 1], [0, 1], color=INK, lw=0.7, ls=":")
    left.set(xlabel="false positive rate", ylabel="recall", title="ROC")
    right.set(xlabel="recall", ylabel="precision", title="precision and recall", ylim=(0, 1.03))
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=7)
    return figure


def reliability_diagram(probabilities: np.ndarray, labels: np.ndarray, metrics: Metrics) -> Figure:
    """Accuracy against confidence, with the number of images in each bin."""
    found = reliability(probabilities, labels)
    figure = Figure(figsize=(4.6, 5.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    width = found.edges[1] - found.edges[0]
    middle = (found.edges[:-1] + found.edges[1:]) / 2
    filled = found.count > 0
    upper.bar(middle[filled], found.accuracy[filled], width * 0.92, color=BLUE, alpha=0.75)
    upper.plot(found.confidence[filled], found.accuracy[filled], "o", color=INK, ms=3)
    upper.plot([0, 1], [0, 1], color=RED, lw=1, ls="--")
    upper.set(ylabel="accuracy", ylim=(0, 1), xlim=(0, 1))
    upper.set_title(f"calibration error {metrics.calibration_error:.3f}", fontsize=10)
    lower.bar(middle, found.count, width * 0.92, color=INK, alpha=0.5)
    lower.set(xlabel="confidence (largest probability)", ylabel="images")
    return figure


def mistakes_gallery(
    images: ImageSet, probabilities: np.ndarray, class_names: tuple[str, ...], most: int = GALLERY
) -> Figure | None:
    """The most confident mistakes with truth and prediction; ``None`` when there is none."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != images.labels)
    if not len(wrong):
        return None
    order = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:most]
    columns = min(6, len(order))
    rows = -(-len(order) // columns)
    figure = Figure(figsize=(1.9 * columns, 2.45 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    pictures = displayable(images, order)
    for axes, row, picture in zip(panels, order, pictures, strict=False):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
        confidence = probabilities[row, predicted[row]]
        axes.set_title(
            f"true {class_names[images.labels[row]]}\n"
            f"said {class_names[predicted[row]]} {confidence:.2f}",
            fontsize=7,
        )
    return figure


def displayable(images: ImageSet, rows: np.ndarray) -> np.ndarray:
    """Colour (n, H, W, 3) where there are three bands, else their mean (n, H, W); in [0, 1]."""
    unit = ((to_network(images.read(rows), images.stretch) + 1) / 2).numpy()
    if unit.shape[1] == 3:
        return unit.transpose(0, 2, 3, 1)
    return unit.mean(axis=1)


def write_all(
    folder: Path,
    *,
    history: list[dict[str, Any]],
    kept_step: int,
    metrics: Metrics,
    probabilities: np.ndarray,
    images: ImageSet,
) -> None:
    """Write every picture into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    if history:
        save(curves(history, kept_step), folder / "curves.png")
    save(confusion(metrics), folder / "confusion_matrix.png")
    save(ranking_curves(probabilities, images.labels, metrics), folder / "ranking_curves.png")
    save(reliability_diagram(probabilities, images.labels, metrics), folder / "reliability.png")
    gallery = mistakes_gallery(images, probabilities, tuple(m.name for m in metrics.per_class))
    if gallery is not None:
        save(gallery, folder / "mistakes.png")


def _mark_kept(axes: Axes, step: int) -> None:
    axes.axvline(step, color=INK, lw=0.8, ls=":", label=f"weights kept, step {step}")
