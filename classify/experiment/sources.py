"""Where generated images come from: checkpoints, a synthetic set, or a generator per fold."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from classify.experiment.added_images import at_equal_dose, is_checkpoint
from classify.experiment.arms import Arm
from classify.experiment.cli import ExperimentConfig
from classify.experiment.division import Division
from classify.experiment.generator_parts import parse_parts
from classify.experiment.laboratory import Laboratory
from classify.experiment.planner import GeneratorSource, Planner
from classify.synthetic import refuse_leaking
from galaxies.command_line import warn
from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from galaxies.sources import open_image_set

Sources = dict[tuple[str, int, int | None], GeneratorSource]
"""(generator's name, fold, limit of real images) -> source."""


def generator_names(checkpoints: Sequence[Path]) -> list[str]:
    """Short distinct names of checkpoints: those of the folders, numbered where they repeat.

    A snapshot carries its step behind the name of its run.
    """
    from gan.checkpoint import run_and_step

    names: list[str] = []
    for path in checkpoints:
        folder, step = run_and_step(path)
        name = folder.name if step is None else f"{folder.name}-step-{step}"
        name = name.replace("+", "-").replace("@", "-").replace(",", "-").replace(":", "-")
        number, free = len(names) + 1, name
        while free in names:
            number, free = number + 1, f"{name}-{number}"
        names.append(free)
    return names


def ready_sources(
    config: ExperimentConfig,
    laboratory: Laboratory,
    arms: Sequence[Arm],
    keeps: list[int | None],
) -> tuple[Sources, list[str]]:
    """The generators that were passed, by name, fold and limit, and what is in doubt.

    Raises
    ------
    InputError
        If one is not a checkpoint, saw a held-out image, or cannot make what an arm adds.
    """
    from gan.checkpoint import run_and_step, weights_sha256

    ready: list[GeneratorSource] = []
    doubts: list[str | None] = []
    for name, path in zip(generator_names(config.gan), config.gan, strict=True):
        if not is_checkpoint(path):
            raise InputError(
                f"{path} is not a checkpoint of gan-train (a folder with config.json, or a file in "
                "its snapshots/)"
            )
        sample = laboratory.generated(str(path), 1, 0)
        _refuse_other_sizes(sample, path, laboratory)
        doubts.append(refuse_leaking(sample, laboratory.image_set))
        _refuse_missing_classes(path, laboratory, arms, keeps)
        ready.append(GeneratorSource(name, str(path), weights_sha256(*run_and_step(path))))
    _warn_of_repeated(ready)
    if config.synthetic is not None:
        synthetic = open_image_set(config.synthetic)
        _refuse_other_sizes(synthetic, config.synthetic, laboratory)
        doubts.append(refuse_leaking(synthetic, laboratory.image_set))
        _refuse_small_set(synthetic, config.synthetic, laboratory, arms, keeps)
        digest = hashlib.sha256("\n".join(synthetic.fingerprints().tolist()).encode()).hexdigest()
        ready.append(GeneratorSource("synthetic", str(config.synthetic), digest))
    sources = {(source.name, 0, keep): source for source in ready for keep in keeps}
    return sources, list(dict.fromkeys(doubt for doubt in doubts if doubt))  # each said once


def fold_sources(
    config: ExperimentConfig,
    laboratory: Division,
    arms: list[Arm],
    keeps: list[int | None],
    train: Any,
) -> Sources:
    """One generator per fold, trained where an arm draws from it."""
    if not (config.folds and laboratory.draws_from_sources):
        return {}
    if not any(arm.generated for arm in arms):
        return {}
    training = {
        "recipe": config.gan_recipe,
        "steps": config.gan_steps,
        "scope": config.gan_scope,
        "width": config.gan_width,
        "batch_size": config.gan_batch_size,
        **parse_parts(config.gan_parts, config.gan_recipe),
    }
    units = Planner(laboratory, {}).generator_units(training, keeps)
    train(units, title="generators")
    return {
        ("fold generator", unit.fold, unit.keep): GeneratorSource(
            "fold generator", str(unit.folder(laboratory.setting.folder)), unit.key
        )
        for unit in units
    }


def _warn_of_repeated(ready: Sequence[GeneratorSource]) -> None:
    """Name what was given twice, such as a run and the snapshot whose weights it kept."""
    first: dict[str, GeneratorSource] = {}
    for source in ready:
        same = first.setdefault(source.sha256, source)
        if same is not source:
            warn(
                f"{source.path} holds the weights of {same.path}: one generator, which counts "
                "once where quality is held against gain"
            )


def _refuse_other_sizes(made: ImageSet, path: Path | str, laboratory: Laboratory) -> None:
    size, channels = laboratory.image_set.size, laboratory.image_set.channels
    if (made.size, made.channels) != (size, channels):
        raise InputError(
            f"{path} makes images of {made.size} pixels and {made.channels} channels, the set has "
            f"{size} and {channels}; bring them together with galaxy-set pack SET --size "
            f"{made.size}, or train the generator with --size {size}"
        )
    own = laboratory.image_set
    if (made.store.dtype, made.stretch) != (own.store.dtype, own.stretch):
        raise InputError(
            f"{path} makes images of {_pixels(made)}, the set has {_pixels(own)}; give a generator "
            "that was trained on images like these"
        )


def _pixels(images: ImageSet) -> str:
    kind = str(images.store.dtype).removeprefix("torch.")
    return kind if images.stretch is None else f"{kind} flux with {images.stretch}"


def _refuse_missing_classes(
    path: Path,
    laboratory: Laboratory,
    arms: Sequence[Arm],
    keeps: list[int | None],
) -> None:
    tried = {laboratory.setting.class_index}  # the sample of this class has been drawn
    for arm, needed in _needs(laboratory, arms, keeps):
        for index in needed.keys() - tried:
            tried.add(index)
            try:
                laboratory.generated(str(path), 1, 0, laboratory.image_set.class_names[index])
            except InputError as error:
                raise InputError(
                    f"arm {arm.name} adds images of every class, but {path}: {error}"
                ) from None


def _refuse_small_set(
    synthetic: ImageSet,
    path: Path,
    laboratory: Laboratory,
    arms: Sequence[Arm],
    keeps: list[int | None],
) -> None:
    names = laboratory.image_set.class_names
    counts = dict(zip(synthetic.class_names, synthetic.counts().tolist(), strict=True))
    for arm, needed in _needs(laboratory, arms, keeps):
        for index, count in needed.items():
            held = counts.get(names[index], 0)
            if held < count:
                raise InputError(
                    f"{path} holds {held} images of {names[index]}, but arm {arm.name} adds "
                    f"{count}; generate more (gan-generate --count) or lower the dose"
                )


def _needs(
    laboratory: Laboratory, arms: Sequence[Arm], keeps: list[int | None]
) -> Iterator[tuple[Arm, dict[int, int]]]:
    """Generated images that an arm needs of each class, for every fold and limit."""
    images, index = laboratory.image_set, laboratory.setting.class_index
    for arm in arms:
        if not arm.generated or arm.added is None:
            continue
        for keep in keeps:
            for fold in laboratory.folds(keep):
                real = np.bincount(images.labels[fold.train], minlength=len(images.class_names))
                own = arm.added.count(int(real[index]), int(real.max()))
                needed = {index: own}
                if arm.added.every_class:
                    needed = dict(enumerate(at_equal_dose(real, index, own).tolist()))
                yield arm, {place: count for place, count in needed.items() if count}
