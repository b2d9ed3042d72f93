"""``card.md``: what a classifier is, what it was trained on, and where it fails."""

from pathlib import Path

from classify.classifier import TrainedClassifier
from classify.conformal import CoverageReport
from classify.ensemble import Ensemble
from classify.metrics import ClassMetrics, Metrics

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
    counts = data["counts"]
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
        "| class | train | validation | test |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {counts['train'][name]} | {counts['validation'][name]} "
            f"| {counts['test'][name]} |"
            for name in classifier.class_names
        ),
        "",
    ]
    if "synthetic" in data:
        lines += [
            f"Trained beside {data['synthetic']['images']} synthetic images "
            f"(`{data['synthetic']['source']}`).",
            "",
        ]
    lines += [
        "## Test side, per class",
        "",
        "| class | images | recall (95 %) | precision (95 %) | F1 | AUC | AP |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_row(m) for m in metrics.per_class),
        "",
        f"Accuracy {metrics.accuracy:.3f}, balanced accuracy {metrics.balanced_accuracy:.3f}, "
        f"calibration error {metrics.calibration_error:.3f}.",
        "",
    ]
    if coverage is not None:
        lines += [f"## Prediction sets at {100 * coverage.level:g} %", ""]
        lines += [f"- {line}" for line in coverage.lines()] + [""]
    lines += ["## Known failures", "", *(f"- {line}" for line in failures(metrics)), ""]
    return "\n".join([*lines, "## Training", "", *_training(classifier), ""])


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
    def value(number: float, interval: tuple[float, float] | None = None) -> str:
        if number != number:
            return "-"
        return f"{number:.3f}" + (f" ({interval[0]:.3f}-{interval[1]:.3f})" if interval else "")

    return (
        f"| {m.name} | {m.images} | {value(m.recall, m.recall_interval)} "
        f"| {value(m.precision, m.precision_interval)} | {value(m.f1)} | {value(m.auc)} "
        f"| {value(m.average_precision)} |"
    )
