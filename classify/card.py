"""``card.md``: what a classifier is, what it was trained on, and where it fails."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from classify.classifier import TrainedClassifier
from classify.conformal import CoverageReport
from classify.ensemble import Ensemble
from classify.metrics import ClassMetrics, Metrics
from galaxies.class_names import table_cell

WEAK_RECALL = 0.5
FEW_IMAGES = 30


def write_card(
    classifier: TrainedClassifier | Ensemble,
    metrics: Metrics,
    coverage: CoverageReport | None,
    path: Path,
) -> None:
    """Write the card in Markdown."""
    path.write_text(card_text(classifier, metrics, coverage), encoding="utf-8")


def card_text(
    classifier: TrainedClassifier | Ensemble, metrics: Metrics, coverage: CoverageReport | None
) -> str:
    """The card in Markdown, with a YAML head."""
    data = classifier.record["data"]
    training = classifier.record["training"]
    title = _title(classifier)
    lines = [
        "---",
        "tags: [galaxy-augment, image-classification]",
        f"network: {title}",
        f"classes: {len(classifier.class_names)}",
        "---",
        "",
        f"# {title} for {len(classifier.class_names)} classes",
        "",
        f"{training['parameters']:,} parameters; images of {classifier.size}x{classifier.size} "
        f"pixels, {classifier.channels} channels.",
        "",
        "## Data",
        "",
        f"Source `{data['source']}`; fingerprint of the training images "
        f"`{data['training_fingerprint'][:16]}`.",
        "",
        *counts_table(classifier.class_names, data["counts"]),
        "",
    ]
    if "synthetic" in data:
        lines += [
            f"Trained beside {data['synthetic']['images']} synthetic images "
            f"(`{data['synthetic']['source']}`).",
            "",
        ]
    lines += [
        *class_numbers(metrics, "images"),
        "",
    ]
    if coverage is not None:
        lines += [f"## Prediction sets at {100 * coverage.level:g} %", ""]
        lines += [f"- {line}" for line in coverage.lines()] + [""]
    lines += ["## Known failures", "", *(f"- {line}" for line in failures(metrics)), ""]
    return "\n".join([*lines, "## Training", "", *_training(classifier), ""])


def counts_table(class_names: Sequence[str], counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Markdown lines: how many images or rows of each class stand on each side."""
    sides = ("train", "validation", "test")
    return [
        f"| class | {' | '.join(sides)} |",
        "| --- | --- | --- | --- |",
        *(
            f"| {table_cell(name)} | {' | '.join(str(counts[side][name]) for side in sides)} |"
            for name in class_names
        ),
    ]


def class_numbers(metrics: Metrics, items: str) -> list[str]:
    """Markdown lines: the numbers of each class, of ``items`` (images, rows), and of all."""
    return [
        "## Test side, per class",
        "",
        f"| class | {items} | recall | precision | F1 | AUC | average precision |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_row(m) for m in metrics.per_class),
        "",
        "Intervals cover 95 %.",
        "",
        f"Accuracy {metrics.accuracy:.3f}, balanced accuracy {metrics.balanced_accuracy:.3f}, "
        f"calibration error {metrics.calibration_error:.3f}.",
    ]


def _title(classifier: TrainedClassifier | Ensemble) -> str:
    if isinstance(classifier, Ensemble):
        return f"ensemble ({classifier.combine}) of {len(classifier.members)} networks"
    return classifier.specification.name


def _training(classifier: TrainedClassifier | Ensemble) -> list[str]:
    if isinstance(classifier, Ensemble):
        return [
            f"- {m['network']}, seed {m['seed']}: balanced accuracy {m['balanced_accuracy']:.3f}"
            for m in classifier.record["training"]["members"]
        ] + ["", f"Temperature {classifier.temperature:.3f}."]
    config, training = classifier.config, classifier.record["training"]
    return [
        f"Weights of step {training['kept_step']} of {training['steps_made']}, chosen by "
        f"{config.best_by}; temperature {classifier.temperature:.3f}.",
        "",
        f"{config.steps} steps of {config.batch_size} images, AdamW at {config.learning_rate:g}, "
        f"balance {config.balance}, loss {config.loss}, symmetries "
        f"{'on' if config.symmetries else 'off'}, augmentation {config.augment}, seed "
        f"{config.seed}. Every setting stands in `config.json`.",
    ]


def failures(metrics: Metrics) -> list[str]:
    """Sentences that a user of the classifier must know."""
    found = metrics.in_words()
    for m in metrics.per_class:
        if m.images and m.recall < WEAK_RECALL:
            k = [other.name for other in metrics.per_class].index(m.name)
            row = metrics.confusion[k].copy()
            row[k] = -1
            other = metrics.per_class[int(row.argmax())].name
            found.append(
                f"finds {m.right} of {m.images} {m.name} ({100 * m.recall:.0f} %); most often it "
                f"says {other} instead"
            )
        if m.predicted and m.precision < WEAK_RECALL:
            found.append(
                f"of the {m.predicted} images it calls {m.name}, {m.right} are "
                f"({100 * m.precision:.0f} %)"
            )
        if m.images < FEW_IMAGES:
            found.append(f"{m.name} has {m.images} test images: its numbers are uncertain")
    return found or ["no class has a recall or precision below one half on the test side"]


def _row(m: ClassMetrics) -> str:
    def value(number: float, interval: tuple[float, float]) -> str:
        if math.isnan(number):
            return "-"
        low, high = interval
        return f"{number:.3f}" + ("" if math.isnan(low) else f" ({low:.3f}-{high:.3f})")

    return (
        f"| {table_cell(m.name)} | {m.images} | {value(m.recall, m.recall_interval)} "
        f"| {value(m.precision, m.precision_interval)} | {value(m.f1, m.f1_interval)} "
        f"| {value(m.auc, m.auc_interval)} "
        f"| {value(m.average_precision, m.average_precision_interval)} |"
    )
