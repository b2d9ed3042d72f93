"""What ``classify-train`` does once its arguments are read."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classify.calibration import fit_temperature
from classify.card import write_card
from classify.checkpoint import write_checkpoint
from classify.classifier import TrainedClassifier
from classify.conformal import CoverageReport, coverage_report
from classify.metrics import Metrics, evaluate, table
from classify.networks.network import count_parameters, count_trainable_parameters
from classify.networks.registry import NetworkSpecification, build, describe
from classify.plots import write_all
from classify.reference import Reference, make_reference, write_reference
from classify.samples import write_samples
from classify.synthetic import align_classes, refuse_leaking
from classify.train import ClassifyTrain
from classify.training import train_classifier
from classify.training_config import TrainingConfig
from galaxies.atomic import folder_lock, refuse_existing
from galaxies.command_line import config_as_json, print_json, warn
from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from galaxies.sources import open_image_set
from galaxies.split import split_set, with_split
from galaxies.table_files import is_table_file

REPORT_LEVEL = 0.9
"""Level of the prediction sets in the report."""


def classify_train(config: ClassifyTrain) -> None:
    """Train, calibrate, test once, and write the checkpoint."""
    if config.list_models:
        for name, words in describe():
            print(f"{name:<20} {words}")
        return
    if is_table_file(config.data):
        from classify.tabular.train_command import classify_train_table

        classify_train_table(config)
        return
    if config.dry_run:
        _dry_run(config)
        return
    out = config.out or Path("checkpoints") / f"classifier-{config.model}"
    if not config.resume:
        refuse_existing(out, overwrite=config.overwrite)
    device = choose_device(config.device)
    image_set = open_data(config)
    synthetic = open_synthetic(config, image_set)
    with folder_lock(work_folder(out)):
        _train_in(config, out, image_set, synthetic, device)


def open_data(config: ClassifyTrain) -> ImageSet:
    """The real set, without the classes left out, with a split."""
    image_set = open_image_set(config.data)
    if config.leave_out:
        image_set = image_set.without_classes(config.leave_out)
    return with_split(image_set)


def open_synthetic(config: ClassifyTrain, image_set: ImageSet) -> ImageSet | None:
    """The synthetic set, checked against the held-out images, in the classes of the real one."""
    if config.synthetic is None:
        return None
    synthetic = open_image_set(config.synthetic)
    refuse_leaking(synthetic, image_set)
    return align_classes(synthetic, image_set.class_names)


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"there is no device {name!r}; use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA device; use --device cpu")
    return device


def hold_out_calibration(
    validation: ImageSet, share: float
) -> tuple[ImageSet | None, ImageSet | None]:
    """Part the validation side: one part chooses the weights, the other calibrates.

    Groups stay whole. Where the side is too small to be parted, both parts are all of it, and a
    warning says so.
    """
    if not share:
        return validation, None
    try:
        # The classes that are absent here would be refused although they need no image.
        parted = split_set(validation, (1 - share, share, 0.0), seed=0)
        return parted.side("train"), parted.side("validation")
    except InputError as error:
        warn(
            f"the validation split cannot be parted ({error}); the same images choose the weights "
            "and calibrate, so prediction sets are slightly too sure"
        )
        return validation, validation


def work_folder(out: Path) -> Path:
    """Where an unfinished run keeps its state, beside ``out``."""
    return out.parent / f".{out.name}.training"


def _train_in(
    config: ClassifyTrain,
    out: Path,
    image_set: ImageSet,
    synthetic: ImageSet | None,
    device: torch.device,
) -> None:
    from galaxies.atomic import whole_folder

    state_folder = work_folder(out)
    if not config.resume:
        (state_folder / "state.pt").unlink(missing_ok=True)
    elif not (state_folder / "state.pt").is_file():
        raise InputError(
            f"{out} is finished; nothing to resume"
            if out.exists()
            else f"there is no interrupted run of {out} to resume; leave out --resume"
        )
    train = image_set.side("train")
    chooser, calibration = hold_out_calibration(
        image_set.side("validation"), config.calibration_share
    )
    started = time.perf_counter()
    try:
        classifier = train_classifier(
            train,
            chooser,
            training_part(config),
            synthetic=synthetic,
            device=device,
            state_folder=state_folder,
        )
    except KeyboardInterrupt:
        if (state_folder / "state.pt").is_file():
            warn(f"continue with the same command and --resume (state in {state_folder})")
        raise
    seconds = time.perf_counter() - started
    if calibration is not None:
        logits = classifier.logits(calibration)
        classifier.temperature = fit_temperature(logits, calibration.labels)
    reference = make_reference(classifier, train, calibration, most_examples=config.examples)
    test = image_set.side("test")
    metrics, coverage, probabilities = judge(classifier, reference, test)
    classifier.record |= {
        "data": describe_data(image_set, config, synthetic),
        "seconds": seconds,
        "metrics": metrics.as_json(),
        "coverage": coverage.as_json() if coverage else None,
    }
    with whole_folder(out, overwrite=config.overwrite or config.resume) as folder:
        write_checkpoint(classifier, folder)
        write_reference(reference, folder)
        write_samples(calibration if calibration is not None else chooser, folder)
        (folder / "metrics.json").write_text(json.dumps(metrics.as_json(), indent=1) + "\n")
        save_predictions(folder / "test_predictions.csv", test, probabilities)
        write_all(
            folder / "plots",
            history=classifier.history,
            kept_step=classifier.record["training"]["kept_step"],
            metrics=metrics,
            probabilities=probabilities,
            images=test,
        )
        write_card(classifier, metrics, coverage, folder / "card.md")
        if config.tensorboard:
            from classify.tensorboard import write_events

            write_events(classifier.history, folder / "tensorboard")
    (state_folder / "state.pt").unlink(missing_ok=True)
    report(config, out, classifier, metrics, coverage, seconds)


def judge(
    classifier: TrainedClassifier, reference: Reference, test: ImageSet
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
    import hashlib

    train = image_set.side("train")
    prints = sorted(train.fingerprints().tolist())
    packed = image_set.provenance.get("packed") or {}
    description: dict[str, Any] = {
        "source": config.data,
        "provenance": image_set.provenance,
        "counts": {
            side: dict(
                zip(image_set.class_names, image_set.side(side).counts().tolist(), strict=True)
            )
            for side in ("train", "validation", "test")
        },
        "training_fingerprint": hashlib.sha256("".join(prints).encode()).hexdigest(),
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


def save_predictions(path: Path, images: ImageSet, probabilities: np.ndarray) -> None:
    """CSV of the test side: id, true class, predicted class, probabilities."""
    import csv

    names = images.class_names
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "true", "predicted", *(f"p_{name}" for name in names)])
        for name, label, row in zip(images.ids, images.labels, probabilities, strict=True):
            best = names[int(row.argmax())]
            writer.writerow([name, names[label], best, *(f"{value:.6g}" for value in row)])


def report(
    config: ClassifyTrain,
    out: Path,
    classifier: TrainedClassifier,
    metrics: Metrics,
    coverage: CoverageReport | None,
    seconds: float,
) -> None:
    """Print the result: a table for people, one object for programs."""
    if config.json:
        print_json(
            {
                "checkpoint": str(out),
                "parameters": classifier.record["training"]["parameters"],
                "kept_step": classifier.record["training"]["kept_step"],
                "seconds": seconds,
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
        for failure in coverage.failures:
            print(failure)
    print(f"{out}: {config.model}, weights of step {classifier.record['training']['kept_step']}")


def _dry_run(config: ClassifyTrain) -> None:
    from classify.transfer import choose_trainable

    if None in (config.size, config.channels, config.classes):
        image_set = open_data(config)
        size, channels = image_set.size, image_set.channels
        classes = len(image_set.class_names)
        permutation: tuple[int, ...] | None = tuple(image_set.mirror_permutation().tolist())
    else:
        size, channels, classes, permutation = 0, 0, 0, None
    specification = NetworkSpecification(
        name=config.model,
        channels=config.channels or channels,
        size=config.crops or config.size or size,
        classes=config.classes or classes,
        dropout=config.dropout,
        mirror_permutation=permutation,
    )
    network = build(specification)
    choose_trainable(network, config.transfer)
    counts = {
        "model": config.model,
        "size": specification.size,
        "channels": specification.channels,
        "classes": specification.classes,
        "parameters": count_parameters(network),
        "trainable_parameters": count_trainable_parameters(network),
    }
    if config.json:
        print_json(counts | {"config": config_as_json(config)})
        return
    print(
        f"{config.model} for {specification.size}x{specification.size}x{specification.channels}, "
        f"{specification.classes} classes: {counts['parameters']:,} parameters, "
        f"{counts['trainable_parameters']:,} trainable"
    )


def training_part(config: TrainingConfig) -> TrainingConfig:
    """The fields of `TrainingConfig` alone, which are what training depends on."""
    names = [field.name for field in dataclasses.fields(TrainingConfig)]
    return TrainingConfig(**{name: getattr(config, name) for name in names})
