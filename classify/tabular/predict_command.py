"""What ``classify-predict`` does where the checkpoint takes table rows, alone or beside images."""

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classify.conformal import ConformalCalibration, coverage_report
from classify.metrics import evaluate, table
from classify.tabular.calibration_rows import CalibrationRows
from classify.tabular.classifier import load_table_classifier
from galaxies.atomic import refuse_existing, whole_file
from galaxies.command_line import print_json, warn
from galaxies.errors import InputError
from galaxies.table_files import read_columns
from galaxies.tables import TableColumns, read_table

if TYPE_CHECKING:
    from classify.predict import ClassifyPredict


def classify_predict_table(config: "ClassifyPredict") -> None:
    """Predict every row of one table; say so where the rows are unlike the calibration rows."""
    if config.csv is not None:
        refuse_existing(config.csv, overwrite=config.overwrite)
    if len(config.images) != 1:
        raise InputError("a table classifier takes one table at a time")
    classifier = load_table_classifier(config.checkpoint)
    # The columns that training was allowed to use are allowed here too, by name.
    made = classifier.record.get("data", {})
    given = made.get("provenance", {})
    measured = tuple(given.get("measured", ()))
    forced = measured or tuple(made.get("forced", ()))
    present = _columns_by_name(config, classifier.record)
    wanted = TableColumns(
        label=given.get("class_column") if config.evaluate else None,
        id=present.get("id"),
        split=present.get("split"),
        features=measured,
        allow=forced,
        colours=bool(given.get("colours")),
    )
    try:
        data = read_table(config.images[0], wanted, labelled=config.evaluate)
    except InputError as error:
        raise InputError(
            f"{config.checkpoint} needs the columns {', '.join(measured)}: {error}"
        ) from None
    if config.side != "all":
        if data.split is None:
            raise InputError(
                f"--side {config.side}: {config.images[0]} has no column that gives each row its "
                "side (split, or what --split-column named in training); leave out --side"
            )
        data = data.side(config.side)
    first, count = config.shard_numbers()
    data = data.select(np.arange(first - 1, len(data), count))
    probabilities = classifier.probabilities(data)
    kept = CalibrationRows.read(config.checkpoint)
    sets, monitor = None, None
    if kept is not None:
        sets, monitor = kept.sets(
            classifier.columns_of(data), probabilities, config.level, config.set_kind
        )
        if monitor is None:
            warn("too few rows to tell whether they are like the calibration rows")
        elif monitor.verdict != "alike":
            warn(monitor.in_words())
    _answer(config, data.ids, classifier.class_names, probabilities, sets)
    if config.evaluate:
        truth = _known_labels(classifier.class_names, data.class_names, data.known_labels)
        # Weighted sets were calibrated for other rows, so the count of calibration rows says
        # nothing about their coverage.
        alike = kept is not None and (monitor is None or monitor.verdict == "alike")
        calibration = kept.calibration if kept is not None and alike else None
        _evaluate(config, classifier.class_names, truth, probabilities, sets, calibration)


def _columns_by_name(config: "ClassifyPredict", record: dict[str, Any]) -> dict[str, str]:
    """The id and split columns that flags gave to training, where this table has them."""
    flags = record.get("command", {}).get("table", {})
    told = {"id": flags.get("id_column")}
    if config.side != "all":
        told["split"] = flags.get("split_column")
    told = {part: name for part, name in told.items() if name}
    if not told:  # what is found by its name needs no look at the table
        return {}
    names = read_columns(Path(config.images[0]))
    return {part: name for part, name in told.items() if name in names}


def classify_predict_joint(config: "ClassifyPredict") -> None:
    """Predict the images of one set, each with its features."""
    from classify.checkpoint import load_classifier
    from classify.inputs import open_set
    from classify.reference import read_reference
    from galaxies.device import choose_device

    if config.csv is not None:
        refuse_existing(config.csv, overwrite=config.overwrite)
    if len(config.images) != 1:
        raise InputError("a network that sees features takes one image set at a time")
    classifier = load_classifier(config.checkpoint, choose_device(config.device))
    images = open_set(Path(config.images[0]), labelled=config.evaluate)
    if config.side != "all":
        images = images.side(config.side)
    first, count = config.shard_numbers()
    images = images.select(np.arange(first - 1, len(images), count))
    probabilities = classifier.probabilities(images).numpy()
    kept = read_reference(config.checkpoint).calibration
    sets = None if kept is None else kept.sets(probabilities, config.level, config.set_kind)
    _answer(config, images.ids, classifier.class_names, probabilities, sets)
    if config.evaluate:
        truth = _known_labels(classifier.class_names, images.class_names, images.labels)
        _evaluate(config, classifier.class_names, truth, probabilities, sets, kept)


def _answer(
    config: "ClassifyPredict",
    ids: np.ndarray,
    class_names: tuple[str, ...],
    probabilities: np.ndarray,
    sets: np.ndarray | None,
) -> None:
    """Write and print one answer per row."""
    rows = [
        _row(name, class_names, p, None if sets is None else sets[i])
        for i, (name, p) in enumerate(zip(ids, probabilities, strict=True))
    ]
    if config.csv is not None:
        _write_csv(config, rows, class_names)
    if config.json:
        print_json(
            [
                {
                    "file": row["id"],
                    "class": row["class"],
                    "probabilities": {n: row[f"p_{n}"] for n in class_names},
                    "set": None
                    if sets is None
                    else [k for k, held in zip(class_names, sets[i], strict=True) if held],
                }
                for i, row in enumerate(rows)
            ]
        )
    elif config.csv is None:
        for row in rows:
            held = "" if sets is None else f" {{{row['set'].replace('|', ', ')}}}"
            print(f"{row['id']}: {row['class']} {row['p_' + row['class']]:.3f}{held}")


def _row(
    name: str, class_names: tuple[str, ...], p: np.ndarray, held: np.ndarray | None
) -> dict[str, Any]:
    return {
        "id": str(name),
        "class": class_names[int(p.argmax())],
        **{f"p_{k}": float(value) for k, value in zip(class_names, p, strict=True)},
        "set": None
        if held is None
        else "|".join(k for k, inside in zip(class_names, held, strict=True) if inside),
        "set_size": None if held is None else int(held.sum()),
    }


def _write_csv(
    config: "ClassifyPredict", rows: list[dict[str, Any]], class_names: tuple[str, ...]
) -> None:
    assert config.csv is not None
    with whole_file(config.csv, overwrite=config.overwrite) as temporary:
        if config.csv.suffix.lower() == ".parquet":
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), temporary)
            return
        with temporary.open("w", newline="", encoding="utf-8") as file:
            # A shard may hold no row; its table still has its header.
            header = ["id", "class", *(f"p_{name}" for name in class_names), "set", "set_size"]
            writer = csv.DictWriter(file, header)
            writer.writeheader()
            writer.writerows(rows)


def _known_labels(
    class_names: tuple[str, ...], given: tuple[str, ...], labels: np.ndarray
) -> np.ndarray:
    """Labels in the numbering of the checkpoint."""
    foreign = sorted({given[label] for label in np.unique(labels)} - set(class_names))
    if foreign:
        raise InputError(
            f"--evaluate: these labels are not classes of the checkpoint: {', '.join(foreign)}; "
            f"its classes are {', '.join(class_names)}"
        )
    number = np.array([class_names.index(name) if name in class_names else -1 for name in given])
    return number[labels]


def _evaluate(
    config: "ClassifyPredict",
    class_names: tuple[str, ...],
    truth: np.ndarray,
    probabilities: np.ndarray,
    sets: np.ndarray | None,
    calibration: ConformalCalibration | None,
) -> None:
    stream = sys.stderr if config.json else sys.stdout
    print(table(evaluate(probabilities, truth, class_names)), file=stream)
    if sets is not None:
        report = coverage_report(
            sets, truth, class_names, config.level, config.set_kind, calibration
        )
        print("\n".join(report.lines()), file=stream)
