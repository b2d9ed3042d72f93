"""What ``classify-predict`` does once its arguments are read."""

import csv
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from classify.conformal import coverage_report
from classify.fits_files import FitsReading
from classify.inputs import Batch, Item, list_items, read_batches
from classify.metrics import evaluate, table
from classify.predict import ClassifyPredict
from classify.service import (
    ClassifierService,
    Prediction,
    Questions,
    as_image_set,
    load_service,
)
from classify.tabular.checkpoint_kind import is_joint_checkpoint, is_table_checkpoint
from galaxies.atomic import refuse_existing, whole_file, whole_folder
from galaxies.command_line import print_json, warn
from galaxies.device import choose_device
from galaxies.errors import InputError
from galaxies.pixels import Stretch

GRAD_CAM_MARKS = ("[0-9][0-9][0-9][0-9][0-9][0-9]_*.png",)
"""How the pictures of --grad-cam are named."""


def classify_predict(config: ClassifyPredict) -> None:
    """Predict every image and print or write the answers."""
    if is_table_checkpoint(config.checkpoint):
        _refuse_flags_of_images(config)
        from classify.tabular.predict_command import classify_predict_table

        classify_predict_table(config)
        return
    if is_joint_checkpoint(config.checkpoint):
        _refuse_flags_of_images(config)
        from classify.tabular.predict_command import classify_predict_joint

        classify_predict_joint(config)
        return
    if config.csv is not None:
        refuse_existing(config.csv, overwrite=config.overwrite)
        _require_parquet(config.csv)
    if config.grad_cam is not None:
        refuse_existing(config.grad_cam, overwrite=config.overwrite, marks=GRAD_CAM_MARKS)
    service, items = open_service_and_items(config)
    if config.evaluate:
        _refuse_foreign_labels(items, service.class_names)
    averaged = config.average_symmetries or config.dropout_samples
    if averaged and service.reference.calibration is not None:
        warn("no prediction sets: the checkpoint is calibrated for single views, not for averages")
    if config.dask is not None:
        from classify.predict_on_dask import answered_on_dask

        answers, labels = _gather(config, answered_on_dask(config, len(items)), len(items))
    elif config.grad_cam is None:
        batches = answered_batches(config, service, items)
        answers, labels = _gather(config, batches, len(items))
    else:
        with whole_folder(
            config.grad_cam, overwrite=config.overwrite, marks=GRAD_CAM_MARKS
        ) as folder:
            batches = answered_batches(config, service, items, folder)
            answers, labels = _gather(config, batches, len(items))
    if config.csv is not None:
        write_table(answers, service.class_names, config.csv, overwrite=config.overwrite)
    if config.json:
        print_json([answer.as_json() for answer in answers])
    else:
        for answer in answers:
            print(_line(answer))
    if config.evaluate and answers:
        _evaluate(config, service, answers, labels)


FLAGS_OF_IMAGES = (
    "dask", "grad_cam", "neighbours", "average_symmetries", "dropout_samples", "fits_range", "crop",
    "hdu",
)  # fmt: skip
"""What a checkpoint that takes features cannot do."""


def _refuse_flags_of_images(config: ClassifyPredict) -> None:
    """Refuse what would be ignored."""
    usual = {field.name: field.default for field in dataclasses.fields(ClassifyPredict)}
    given = [name for name in FLAGS_OF_IMAGES if getattr(config, name) != usual[name]]
    if given:
        listed = ", ".join("--" + name.replace("_", "-") for name in given)
        raise InputError(
            f"{config.checkpoint} takes features, alone or beside images; leave out {listed}"
        )
    if config.csv is not None:
        _require_parquet(config.csv)


def open_service_and_items(config: ClassifyPredict) -> tuple[ClassifierService, list[Item]]:
    """The classifier, and every image that is asked about, unread."""
    stretch = None if config.fits_range is None else Stretch(*config.fits_range)
    service = load_service(
        config.checkpoint,
        choose_device(config.device),
        crop=config.crop,
        fits=FitsReading(config.hdu, stretch),
    )
    items = list_items(
        config.images,
        service.reader,
        side=config.side,
        recursive=config.recursive,
        labelled=config.evaluate,
    )
    first, count = config.shard_numbers()
    return service, items[first - 1 :: count]


@dataclass(frozen=True)
class AnsweredBatch:
    """The answers for one batch, the labels of its images, and why others could not be used.

    With ``--evaluate`` also how many of them the checkpoint knows as its training images.
    """

    answers: list[Prediction]
    labels: list[str | None]
    bad: list[str]
    learnt: int = 0


def answered_batches(
    config: ClassifyPredict,
    service: ClassifierService,
    items: list[Item],
    folder: Path | None = None,
) -> Iterator[AnsweredBatch]:
    """Read and predict batch after batch; evidence pictures go to ``folder``."""
    questions = Questions(
        level=config.level,
        set_kind=config.set_kind,
        neighbours=config.neighbours,
        grad_cam=folder is not None,
        average_symmetries=config.average_symmetries,
        dropout_samples=config.dropout_samples,
    )
    done = 0
    for batch in read_batches(items, service.reader, config.batch_size):
        answers: list[Prediction] = []
        if batch.items:
            names = [item.name for item in batch.items]
            answers = service.predict_pixels(names, batch.pixels, questions)
            if folder is not None:
                _write_evidence(answers, batch, service, folder, start=done)
                # All answers are kept to the end; their maps would fill the memory.
                answers = [dataclasses.replace(answer, evidence=None) for answer in answers]
        done += len(answers)
        labels = [item.label for item in batch.items]
        learnt = 0
        if config.evaluate and batch.items:
            prints = as_image_set(batch.pixels, service).fingerprints().tolist()
            learnt = sum(name in service.training_fingerprints for name in prints)
        yield AnsweredBatch(answers, labels, [reason for _, reason in batch.bad], learnt)


def write_table(
    answers: list[Prediction], class_names: tuple[str, ...], path: Path, *, overwrite: bool = False
) -> None:
    """Write id, class, probabilities, set and flags as CSV or Parquet."""
    rows = [answer.as_row(class_names) for answer in answers]
    # A shard may hold no image; its table still has its header.
    header = list(Prediction("").as_row(class_names))
    with whole_file(path, overwrite=overwrite) as temporary:
        if path.suffix.lower() == ".parquet":
            import pyarrow
            import pyarrow.parquet

            columns = {name: [row[name] for row in rows] for name in header}
            pyarrow.parquet.write_table(pyarrow.table(columns), temporary)
            return
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, header)
            writer.writeheader()
            writer.writerows(rows)


def _gather(
    config: ClassifyPredict, batches: Iterator[AnsweredBatch], count: int
) -> tuple[list[Prediction], list[str | None]]:
    answers: list[Prediction] = []
    labels: list[str | None] = []
    bad: list[str] = []
    learnt = 0
    if not count:
        warn(f"shard {config.shard} holds no image: there are fewer images than shards")
        return answers, labels
    with tqdm(total=count, desc="classify-predict", unit="image", leave=False) as bar:
        for batch in batches:
            answers += batch.answers
            labels += batch.labels
            bad += batch.bad
            learnt += batch.learnt
            bar.update(len(batch.answers) + len(batch.bad))
    if bad and not config.skip_bad:
        raise InputError(
            f"{len(bad)} of {count} images cannot be used (--skip-bad leaves them out): "
            + "; ".join(bad)
        )
    if bad:
        warn(f"left out {len(bad)} of {count} images: " + "; ".join(bad))
    if not answers:
        raise InputError("no image is left to predict")
    if learnt:
        warn(
            f"at least {learnt} of the {len(answers)} images are training images of "
            f"{config.checkpoint}: what --evaluate reports of them says nothing about new images "
            "(of a set with a split, take --side test)"
        )
    return answers, labels


def _write_evidence(
    answers: list[Prediction],
    batch: Batch,
    service: ClassifierService,
    folder: Path,
    *,
    start: int,
) -> None:
    from classify.evidence_picture import write_evidence_picture

    stretch = _stretch_of(service)
    for index, (answer, pixels) in enumerate(zip(answers, batch.pixels, strict=True)):
        stem = Path(answer.name).stem[:100]  # an id may be longer than a file's name
        write_evidence_picture(
            torch.as_tensor(pixels), answer, stretch, folder / f"{start + index:06d}_{stem}.png"
        )


def _stretch_of(service: ClassifierService) -> Stretch | None:
    classifier = service.classifier
    member = classifier.members[0] if hasattr(classifier, "members") else classifier
    return member.normalisation.stretch


def _refuse_foreign_labels(items: list[Item], names: tuple[str, ...]) -> None:
    """Before anything is computed or written."""
    foreign = sorted({str(item.label) for item in items if item.label not in names})
    if foreign:
        raise InputError(
            f"--evaluate: these labels are not classes of the checkpoint: {', '.join(foreign)}; "
            f"its classes are {', '.join(names)}"
        )


def _evaluate(
    config: ClassifyPredict,
    service: ClassifierService,
    answers: list[Prediction],
    labels: list[str | None],
) -> None:
    """Report on stderr when stdout belongs to a program."""
    import sys

    names = service.class_names
    truth = np.array([names.index(str(label)) for label in labels])
    probabilities = np.array([[a.probabilities[name] for name in names] for a in answers])
    stream = sys.stderr if config.json else sys.stdout
    print(table(evaluate(probabilities, truth, names)), file=stream)
    averaged = config.average_symmetries or config.dropout_samples
    if service.reference.calibration is not None and not averaged:
        sets = service.reference.calibration.sets(probabilities, config.level, config.set_kind)
        report = coverage_report(
            sets, truth, names, config.level, config.set_kind, service.reference.calibration
        )
        print(f"prediction sets at {100 * config.level:g} %", file=stream)
        print("\n".join(report.lines()), file=stream)


def _line(answer: Prediction) -> str:
    assert answer.label is not None
    text = f"{answer.name}: {answer.label} {answer.probabilities[answer.label]:.3f}"
    if answer.set_in_words is not None:
        text += f" ({answer.set_in_words})"
    if answer.unlike_training:
        text += " [unlike the training images]"
    if answer.neighbours:
        text += " nearest: " + ", ".join(f"{n.id} ({n.label})" for n in answer.neighbours)
    return text


def _require_parquet(path: Path) -> None:
    if path.suffix.lower() != ".parquet":
        return
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise InputError("a .parquet table needs pyarrow: pip install pyarrow") from None
