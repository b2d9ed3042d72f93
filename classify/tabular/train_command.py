"""What ``classify-train`` does where ``--data`` is a table."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from classify.calibration import fit_temperature
from classify.checkpoint import MARKS
from classify.conformal import ConformalCalibration, CoverageReport, coverage_report
from classify.metrics import Metrics, evaluate, table
from classify.plots import confusion, curves, ranking_curves, reliability_diagram, save
from classify.predictions_table import write_predictions
from classify.resume import work_place
from classify.tabular.calibration_rows import CalibrationRows
from classify.tabular.card import table_card
from classify.tabular.classifier import (
    TableClassifier,
    TableTraining,
    train_table_classifier,
    write_table_checkpoint,
)
from classify.tabular.columns import columns_of
from classify.tabular.dense import WIDTHS, DenseConfig, dense_network
from classify.tabular.exchangeability import Exchangeability
from classify.training_config import TrainingConfig
from classify.validation_parts import hold_out_calibration_rows
from galaxies.atomic import refuse_existing, whole_folder
from galaxies.command_line import config_as_json, print_json
from galaxies.errors import InputError
from galaxies.tables import Table, TableColumns, read_table, with_table_split

if TYPE_CHECKING:
    from classify.train import ClassifyTrain

REPORT_LEVEL = 0.9
TABLE_BATCH, TABLE_RATE = 256, 1e-3
"""Of dense networks, where ``--batch-size`` and ``--learning-rate`` are not given."""

_IMAGE_ONLY = (
    "steps", "weight_decay", "schedule", "dropout", "loss", "focal_gamma", "logit_adjustment_tau",
    "label_smoothing", "retrain_head_steps", "symmetries", "augment", "augment_strength", "crops",
    "mixup", "cutmix", "synthetic", "synthetic_share", "synthetic_until", "synthetic_weight",
    "synthetic_statistics", "weights", "transfer", "layer_decay", "best_by", "validate_every",
    "patience", "precision", "ensemble", "combine", "examples", "tensorboard", "size", "channels",
    "classes",
)  # fmt: skip
"""What would change nothing."""


def classify_train_table(config: "ClassifyTrain", named: Sequence[str] = ()) -> None:
    """Train, calibrate, test once, and write the checkpoint; ``named`` as in `table_training`."""
    _refuse_image_flags(config, named)
    training = table_training(config, named)
    if config.dry_run:
        _dry_run(config, training)
        return
    out = config.out or Path("checkpoints") / f"table-{config.model}"
    refuse_existing(out, overwrite=config.overwrite, marks=MARKS)
    data = open_table(config)
    with work_place(out.parent / f".{out.name}.training"):
        _train_in(config, training, out, data)


def open_table(config: "ClassifyTrain") -> Table:
    """The table, without the classes left out, with a split."""
    data = read_table(config.data, _columns(config))
    if config.leave_out:
        data = data.without_classes(config.leave_out)
    return with_table_split(data)


def _columns(config: "ClassifyTrain") -> TableColumns:
    return columns_of(config.table, colours=config.table.features == "colours")


def table_training(config: "ClassifyTrain", named: Sequence[str] = ()) -> TableTraining:
    """The training configuration of a table.

    Parameters
    ----------
    named
        Fields of ``config`` that were given. The others that still have the default for images
        take that for tables.
    """
    unset = TrainingConfig()

    def given(name: str) -> bool:
        return name in named or getattr(config, name) != getattr(unset, name)

    rate = config.learning_rate if given("learning_rate") else TABLE_RATE
    batch = config.batch_size if given("batch_size") else TABLE_BATCH
    return TableTraining(
        model=config.model,
        balance=config.balance if config.table.resample == "none" else "none",
        resample=config.table.resample,
        bayesian=config.table.bayesian,
        dense=DenseConfig(
            epochs=config.table.epochs,
            patience=config.table.table_patience,
            batch_size=batch,
            learning_rate=rate,
        ),
        seed=config.seed,
        threads=torch.get_num_threads(),
    )


def _train_in(config: "ClassifyTrain", training: TableTraining, out: Path, data: Table) -> None:
    data.side("test")  # where there is none, say so before the training
    chooser, held_out = hold_out_calibration_rows(data.side("validation"), config.calibration_share)
    started = time.perf_counter()
    classifier = train_table_classifier(data.side("train"), chooser, training)
    seconds = time.perf_counter() - started
    kept: CalibrationRows | None = None
    if held_out is not None:
        logits = torch.from_numpy(classifier.log_probabilities(held_out))
        classifier.temperature = fit_temperature(logits, held_out.known_labels)
        kept = CalibrationRows(
            classifier.columns_of(held_out),
            ConformalCalibration(classifier.probabilities(held_out), held_out.known_labels.copy()),
        )
    test = data.side("test")
    probabilities = classifier.probabilities(test)
    metrics = evaluate(probabilities, test.known_labels, test.class_names)
    coverage: CoverageReport | None = None
    monitor: Exchangeability | None = None
    if kept is not None:
        sets, monitor = kept.sets(test.features, probabilities, REPORT_LEVEL, "per-class")
        coverage = coverage_report(
            sets, test.known_labels, test.class_names, REPORT_LEVEL, calibration=kept.calibration
        )
    sides = ("train", "validation", "test")
    classifier.record |= {
        "data": {
            "source": config.data,
            "provenance": data.provenance,
            "forced": list(config.table.allow_column),
            "fingerprint": data.side("train").fingerprint(),
            "counts": {
                side: dict(zip(data.class_names, data.side(side).counts().tolist(), strict=True))
                for side in sides
            },
        },
        "seconds": seconds,
        "metrics": metrics.as_json(),
        "coverage": coverage.as_json() if coverage else None,
        "exchangeability": monitor.as_json() if monitor else None,
        "command": config_as_json(config),
    }
    with whole_folder(out, overwrite=config.overwrite, marks=MARKS) as folder:
        write_table_checkpoint(classifier, folder)
        if kept is not None:
            kept.write(folder)
        text = json.dumps(metrics.as_json(), indent=1) + "\n"
        (folder / "metrics.json").write_text(text, encoding="utf-8")
        write_predictions(
            folder / "test_predictions.csv",
            test.ids,
            test.known_labels,
            probabilities,
            test.class_names,
        )
        _write_pictures(folder / "plots", classifier, metrics, probabilities, test)
        (folder / "card.md").write_text(
            table_card(classifier, metrics, coverage, monitor), encoding="utf-8"
        )
    _report(config, out, classifier, metrics, coverage, monitor)


def _write_pictures(
    folder: Path,
    classifier: TableClassifier,
    metrics: Metrics,
    probabilities: np.ndarray,
    test: Table,
) -> None:
    folder.mkdir()
    if classifier.history:
        kept = classifier.record["training"]["kept_step"]
        save(curves(classifier.history, kept), folder / "curves.png")
    labels = test.known_labels
    save(confusion(metrics), folder / "confusion.png")
    save(ranking_curves(probabilities, labels, metrics), folder / "ranking.png")
    save(reliability_diagram(probabilities, labels, metrics), folder / "reliability.png")


def _report(
    config: "ClassifyTrain",
    out: Path,
    classifier: TableClassifier,
    metrics: Metrics,
    coverage: CoverageReport | None,
    monitor: Exchangeability | None,
) -> None:
    if config.json:
        print_json(
            {
                "checkpoint": str(out),
                "model": config.model,
                "parameters": classifier.parameters,
                "features": classifier.feature_names,
                "temperature": classifier.temperature,
                "metrics": metrics.as_json(),
                "coverage": coverage.as_json() if coverage else None,
                "exchangeability": monitor.as_json() if monitor else None,
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
    if monitor is not None and monitor.verdict != "alike":
        print(monitor.in_words())
    print(f"{out}: {config.model}, {len(classifier.feature_names)} features")


def _dry_run(config: "ClassifyTrain", training: TableTraining) -> None:
    data = read_table(config.data, _columns(config))
    if training.model not in WIDTHS:
        raise InputError(f"{training.model} has no parameters to count before it is fitted")
    from classify.networks.network import count_parameters
    from classify.tabular.feature_scaling import scaling_of

    inputs = scaling_of(data.features).outputs
    network = dense_network(inputs, len(data.class_names), WIDTHS[training.model], 0.0)
    counts = {
        "model": training.model,
        "features": inputs,
        "classes": len(data.class_names),
        "parameters": count_parameters(network),
        "trainable_parameters": count_parameters(network),
    }
    if config.json:
        print_json(counts | {"config": config_as_json(config)})
    else:
        print(
            f"{training.model} for {inputs} features, {counts['classes']} classes: "
            f"{counts['parameters']:,} parameters"
        )


def _refuse_image_flags(config: "ClassifyTrain", named: Sequence[str]) -> None:
    unset = type(config)()
    wrong = [
        name
        for name in _IMAGE_ONLY
        if name in named or getattr(config, name) != getattr(unset, name)
    ]
    if wrong:
        flags = ", ".join("--" + name.replace("_", "-") for name in wrong)
        raise InputError(f"{flags}: of no use for a table; leave it out")
    if config.resume:
        raise InputError("training on a table takes minutes and is not resumed; leave out --resume")
