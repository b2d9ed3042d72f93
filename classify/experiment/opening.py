"""From ``--data`` to a laboratory: images or a table, checked for leaks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classify.experiment.arms import IMAGE_ARMS, ArmVocabulary
from classify.experiment.cli import ExperimentConfig
from classify.experiment.division import Division, Setting
from classify.experiment.laboratory import Laboratory
from classify.experiment.leaks import check_leaks
from classify.experiment.table_arms import TABLE_ARMS
from classify.experiment.table_laboratory import (
    OpenTableLaboratory,
    TableLaboratory,
    crossing_rows,
    open_experiment_table,
)
from classify.tabular.columns import columns_of
from classify.tabular.options import TABLE_MODELS, ColumnOptions
from galaxies.class_names import class_index
from galaxies.command_line import warn
from galaxies.device import choose_device
from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from galaxies.sources import open_image_set
from galaxies.split import with_split
from galaxies.table_files import is_table_file
from galaxies.tables import Table
from gan.training_config import default_width

UNITS_FILE = "units.npy"
"""What folds keep whole, for worker processes."""

IMAGE_DEFAULTS: dict[str, Any] = {"model": "small", "gan_steps": 6000}
TABLE_DEFAULTS: dict[str, Any] = {"model": "gradient-boosting", "gan_steps": 2000}

_IMAGES_ONLY = (
    "gan", "synthetic", "steps", "batch_size", "learning_rate", "best_by", "gan_recipe",
    "gan_width", "gan_batch_size", "gan_scope", "gan_parts", "screen", "screen_from", "features",
    "feature_weights", "dask", "dask_resources",
)  # fmt: skip


@dataclass(frozen=True)
class OpenedExperiment:
    """What an experiment is about.

    Attributes
    ----------
    laboratory : Division
    folder : Path
        Of the results.
    arms : ArmVocabulary
        The parts that its arms are made of.
    notes : list of str
        Leaks that were allowed.
    reopen : callable
        Opens the laboratory anew in a worker process.
    """

    laboratory: Division
    folder: Path
    arms: ArmVocabulary
    notes: list[str]
    reopen: Callable[[], Division]


@dataclass(frozen=True)
class OpenLaboratory:
    """Opens the laboratory of images in a worker process."""

    data: str
    setting: Setting

    def __call__(self) -> Laboratory:
        """Open the set and find its folds again."""
        torch.set_num_threads(self.setting.threads)
        images = open_experiment_set(self.data, self.setting.folds)
        units = np.load(self.setting.folder / UNITS_FILE, allow_pickle=False)
        return Laboratory(images, self.setting, units=units)


def is_table(config: ExperimentConfig) -> bool:
    """Whether the experiment is about rows of a table."""
    return is_table_file(config.data)


def defaults_of(config: ExperimentConfig) -> dict[str, Any]:
    """The flags whose default depends on the kind of data, where they were left out."""
    if is_table(config):
        defaults = TABLE_DEFAULTS
    else:
        width = default_width(config.gan_recipe, training_device(config))
        defaults = IMAGE_DEFAULTS | {"gan_width": width}
    return {name: value for name, value in defaults.items() if getattr(config, name) is None}


def training_device(config: ExperimentConfig) -> str:
    """``cpu`` or ``cuda``, where the trainings run: here, or on the workers of a cluster."""
    if config.dask is None:
        return choose_device(config.device).type
    from classify.experiment.cluster import device_of_workers

    return device_of_workers(config.dask, config.device, tuple(config.dask_resource_values()))


def open_experiment(config: ExperimentConfig, build: Callable[..., Laboratory]) -> OpenedExperiment:
    """Open what ``--data`` names.

    Parameters
    ----------
    config
        With its defaults filled in.
    build
        Makes the laboratory of images.

    Raises
    ------
    InputError
        If a flag is of no use for this kind of data, or something crosses the split.
    """
    return _open_table(config) if is_table(config) else _open_images(config, build)


def open_experiment_set(data: str, folds: int) -> ImageSet:
    """The real images in memory; with their split unless folds replace it."""
    image_set = open_image_set(data)
    if image_set.is_synthetic:
        raise InputError(f"{data} is a generated set; --data takes real images")
    return (image_set if folds else with_split(image_set)).in_memory()


def _open_images(config: ExperimentConfig, build: Callable[..., Laboratory]) -> OpenedExperiment:
    if config.table != ColumnOptions() or config.colours:
        if not Path(config.data).exists():
            raise InputError(f"{config.data} does not exist")
        raise InputError(f"{config.data} is no table; leave out the flags about its columns")
    image_set = open_experiment_set(config.data, config.folds)
    class_index = image_set.class_index(config.classes[0] if config.classes else 0)
    check = check_leaks(image_set, folds=config.folds, progress=not config.json)
    notes = _allowed(config, check.crossing, f"galaxy-set info {config.data} lists them")
    training = {
        "model": config.model,
        "steps": config.steps,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "best_by": config.best_by,
        "validate_every": max(1, config.steps // 8),
    }
    device = training_device(config)
    setting = _setting(config, image_set.class_names, class_index, device, training)
    laboratory = build(image_set, setting, units=check.units)
    reopen = OpenLaboratory(config.data, setting)
    folder = results_folder(config, laboratory.class_name)
    return OpenedExperiment(laboratory, folder, IMAGE_ARMS, notes, reopen)


def _open_table(config: ExperimentConfig) -> OpenedExperiment:
    unset = ExperimentConfig()
    wrong = [name for name in _IMAGES_ONLY if getattr(config, name) != getattr(unset, name)]
    if wrong:
        flags = ", ".join("--" + name.replace("_", "-") for name in wrong)
        raise InputError(f"{flags}: of no use for a table; leave it out")
    if config.device == "cuda":
        raise InputError("--device cuda: algorithms for tables run on the CPU; leave it out")
    if config.model not in TABLE_MODELS:
        raise InputError(
            f"{config.model!r} takes no table; models for tables are: {', '.join(TABLE_MODELS)}"
        )
    columns = columns_of(config.table, colours=config.colours)
    table = open_experiment_table(config.data, columns, config.folds)
    class_index = _class_index(table, config.classes)
    crossing = [] if config.folds else crossing_rows(table)
    notes = _allowed(config, tuple(crossing), "a table without a split is split with them whole")
    training = {"model": config.model, "gan_steps": config.gan_steps}
    setting = _setting(config, table.class_names, class_index, "cpu", training)
    reopen = OpenTableLaboratory(config.data, columns, setting)
    folder = results_folder(config, table.class_names[class_index])
    return OpenedExperiment(TableLaboratory(table, setting), folder, TABLE_ARMS, notes, reopen)


def results_folder(config: ExperimentConfig, class_name: str) -> Path:
    """``--out``, or ``results/DATA-CLASS``."""
    safe = class_name.replace(" ", "_").replace("/", "_")
    return config.out or Path("results") / f"{Path(config.data).stem or 'data'}-{safe}"


def _class_index(table: Table, classes: tuple[str, ...]) -> int:
    """The class named, by name or index; by default the rarest."""
    return class_index(classes[0], table.class_names) if classes else int(table.counts().argmin())


def _allowed(config: ExperimentConfig, crossing: tuple[str, ...], hint: str) -> list[str]:
    if crossing and not config.allow_leak:
        raise InputError(
            f"{config.data} leaks: {'; '.join(crossing)}; drop or regroup them ({hint}), use "
            "--folds, or pass --allow-leak, which marks the report"
        )
    for line in crossing:
        warn(f"leak allowed: {line}")
    return [f"Leak allowed by --allow-leak: {line}" for line in crossing]


def _setting(
    config: ExperimentConfig,
    class_names: tuple[str, ...],
    class_index: int,
    device: str,
    training: dict[str, Any],
) -> Setting:
    return Setting(
        folder=results_folder(config, class_names[class_index]).resolve(),
        class_index=class_index,
        folds=config.folds,
        seed=config.seed,
        device=device,
        threads=config.threads,
        training=training,
    )
