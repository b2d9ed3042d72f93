"""What ``classify-train`` does once its arguments are read."""

import dataclasses
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from classify.calibration import fit_temperature
from classify.checkpoint import MARKS
from classify.finishing import finish, report
from classify.joint_features import JOINT_NETWORKS, joint_features_of
from classify.networks.network import count_parameters, count_trainable_parameters
from classify.networks.registry import NetworkSpecification, build, describe
from classify.reference import make_reference
from classify.resume import STATE, work_place
from classify.synthetic import align_classes, refuse_leaking
from classify.tabular.options import TABLE_MODELS, TableOptions
from classify.train import ClassifyTrain
from classify.training import train_classifier
from classify.training_config import TrainingConfig
from classify.validation_parts import hold_out_calibration
from galaxies.atomic import refuse_existing, whole_folder
from galaxies.command_line import config_as_json, print_json, warn
from galaxies.device import choose_device
from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from galaxies.sources import open_image_set
from galaxies.split import with_split
from galaxies.table_files import is_table_file


def classify_train(config: ClassifyTrain, named: Sequence[str] = ()) -> None:
    """Train, calibrate, test once, and write the checkpoint.

    Parameters
    ----------
    named
        Fields of ``config`` that were given, for tables, whose defaults differ.
    """
    if config.list_models:
        for name, words in describe():
            print(f"{name:<20} {words}")
        for name, words in TABLE_MODELS.items():
            print(f"{name:<20} for tables: {words}")
        return
    if is_table_file(config.data):
        from classify.tabular.train_command import classify_train_table

        classify_train_table(config, named)
        return
    _refuse_flags_of_tables(config, named)
    if config.dry_run:
        _dry_run(config)
        return
    out = config.out or Path("checkpoints") / (
        f"ensemble-{config.combine}" if config.ensemble else f"classifier-{config.model}"
    )
    if not config.resume:
        refuse_existing(out, overwrite=config.overwrite, marks=MARKS)
    if config.tensorboard:
        from classify.tensorboard import require_tensorboard

        require_tensorboard()
    device = choose_device(config.device)
    image_set = open_data(config)
    if config.ensemble:
        from classify.ensemble_command import make_ensemble

        make_ensemble(config, out, image_set, device)
        return
    synthetic = open_synthetic(config, image_set)
    with work_place(work_folder(out)):
        _train_in(config, out, image_set, synthetic, device)


def _refuse_flags_of_tables(config: ClassifyTrain, named: Sequence[str]) -> None:
    """Refuse what would change nothing: --epochs, for one, is not how long images are trained."""
    if config.model in TABLE_MODELS:
        raise InputError(
            f"--model {config.model} takes a table of photometry, and --data {config.data} is a "
            "set of images; --list-models names the networks"
        )
    unset = TableOptions()
    given = [
        field.name
        for field in dataclasses.fields(unset)
        if field.name in named or getattr(config.table, field.name) != getattr(unset, field.name)
    ]
    if given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        instead = "; --steps says how long images are trained" if "epochs" in given else ""
        raise InputError(f"{flags}: for tables only, and {config.data} is a set of images{instead}")


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
    state_folder = work_folder(out)
    if not config.resume:
        if (state_folder / STATE).is_file() and not config.overwrite:
            raise InputError(
                f"an interrupted run of {out} is kept in {state_folder}: --resume continues it, "
                "--overwrite starts anew"
            )
        (state_folder / STATE).unlink(missing_ok=True)
    elif not (state_folder / STATE).is_file():
        raise InputError(
            f"{out} is finished; nothing to resume"
            if out.exists()
            else f"there is no interrupted run of {out} to resume; leave out --resume"
        )
    image_set.side("test")  # where there is none, say so before the training
    train, validation = image_set.side("train"), image_set.side("validation")
    _warn_of_absent_classes(train, validation, synthetic, config)
    chooser, calibration = hold_out_calibration(validation, config.calibration_share)
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
        if (state_folder / STATE).is_file():
            warn(f"continue with the same command and --resume (state in {state_folder})")
        raise
    seconds = time.perf_counter() - started
    if calibration is not None:
        logits = classifier.logits(calibration)
        classifier.temperature = fit_temperature(logits, calibration.labels)
    reference = make_reference(classifier, train, calibration, most_examples=config.examples)
    overwrite = config.overwrite or config.resume
    with whole_folder(out, overwrite=overwrite, marks=MARKS) as folder:
        metrics, coverage = finish(
            classifier, reference, image_set, config, folder, synthetic=synthetic, seconds=seconds
        )
        if config.tensorboard:
            from classify.tensorboard import write_events

            write_events(classifier.history, folder / "tensorboard")
        if (state_folder / STATE).is_file():  # none where the training made no look
            shutil.copyfile(state_folder / STATE, folder / STATE)
    # The lock is held until the block above this function ends, so nobody else is in here.
    shutil.rmtree(state_folder, ignore_errors=True)
    report(config, out, classifier, metrics, coverage)


def _warn_of_absent_classes(
    train: ImageSet, validation: ImageSet, synthetic: ImageSet | None, config: ClassifyTrain
) -> None:
    """Name the classes that cannot be learnt, and those that have no say in what is kept."""
    learnt = train.counts() + (0 if synthetic is None else synthetic.counts())
    if unlearnt := _names_without(learnt, train):
        warn(
            f"no training image of {unlearnt}: the classifier can never find that; split the set "
            "anew, or leave it out with --leave-out"
        )
    if unheard := _names_without(validation.counts(), train):
        warn(
            f"no validation image of {unheard}: it has no part in choosing the weights"
            + (
                ", and prediction sets per class can never rule it out"
                if config.calibration_share
                else ""
            )
        )


def _names_without(counts: np.ndarray, image_set: ImageSet) -> str:
    names = zip(image_set.class_names, counts, strict=True)
    return ", ".join(name for name, count in names if not count)


def _dry_run(config: ClassifyTrain) -> None:
    from classify.transfer import choose_trainable

    table_columns = 0
    if None in (config.size, config.channels, config.classes):
        image_set = open_data(config)
        if config.model in JOINT_NETWORKS:
            table_columns = joint_features_of(image_set).scaling.outputs
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
        table_columns=table_columns,
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
