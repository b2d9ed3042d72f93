"""From the flags and an image set to all that a run needs, or one line that says why not."""

import dataclasses
import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from galaxies.device import choose_device
from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from gan.build import NetworkShape
from gan.checkpoint import DataDescription
from gan.networks import MinibatchDeviation, check_size
from gan.overfitting import HeldOutImages, has_held_out_images
from gan.recipes import SIGN_TARGET, Parts, resolve_parts
from gan.step import Schedule, TrainingStep
from gan.training_config import TrainConfig, default_size, default_width
from gan.training_data import LEAST_IMAGES, prepare_training_data, resize_set


@dataclass(frozen=True)
class Preparation:
    """A run before its first step.

    Attributes
    ----------
    train : ImageSet
        Training images of the made classes, at the network's size, in memory.
    validation : ImageSet or None
        Held-out images of the same classes and size.
    judge_train, judge_validation : ImageSet
        What a judge is made from and judges by: of all classes of the set, whatever the generator
        makes, for one class alone teaches a classifier nothing.
    left_out : dict of str to int
        Classes that have too few training images to be made, and how many they have.
    parts, shape, schedule, data
        What is trained on what.
    fingerprints, ids : list of str
        Of the training images as they are in the set, before any resizing.
    """

    train: ImageSet
    validation: ImageSet | None
    judge_train: ImageSet
    judge_validation: ImageSet | None
    left_out: dict[str, int]
    parts: Parts
    shape: NetworkShape
    schedule: Schedule
    data: DataDescription
    fingerprints: list[str]
    ids: list[str]

    @property
    def made(self) -> list[int]:
        """Indices, in the set, of the classes that the generator makes."""
        return list(self.data.made)

    @property
    def chosen(self) -> list[int]:
        """Indices, in the set, of the classes that the run is for."""
        return list(self.data.chosen)


def prepare(config: TrainConfig, images: ImageSet) -> Preparation:
    """Check everything that can be wrong and gather what the run needs.

    Parameters
    ----------
    config
        The flags.
    images
        A set with a split; the test side is never read.

    Raises
    ------
    InputError
        One line: an unknown class, too few images, a size that cannot be made.
    """
    size = config.size or default_size(images.size)
    check_size(size)
    if not config.classes:
        listed = ", ".join(f"{i} {name}" for i, name in enumerate(images.class_names))
        raise InputError(f"name the class to make with --class; the classes are: {listed}")
    chosen = [images.class_index(name) for name in config.classes]
    if len(set(chosen)) != len(chosen):
        raise InputError(f"--class names a class twice: {', '.join(config.classes)}")
    if images.is_synthetic:
        raise InputError("the set is synthetic: a generator learns from real images only")
    parts = resolve_parts(config.recipe, config)
    _refuse_late_class(parts, size)
    refuse_broken_groups(parts, config.batch_size)
    width = config.width or default_width(config.recipe, choose_device(config.device).type)
    side = images.side("train")
    counts = side.counts()
    present = [int(index) for index in np.flatnonzero(counts >= LEAST_IMAGES)]
    for index in chosen:
        if index not in present:
            raise InputError(_too_few(images, index, int(counts[index])))
    made = chosen if config.scope == "class" else present
    train = _of_classes(side, made)
    fingerprints = train.fingerprints().tolist()
    sized_train = _sized(train, size)
    has_validation = images.split is not None and bool((images.split == 1).any())
    held_out = images.side("validation") if has_validation else None
    validation = None if held_out is None else _of_classes(held_out, made)
    validation = _sized(validation, size) if validation else None
    judge_train, judge_validation = sized_train, validation
    judged = made
    if made != present and config.judge != "none" and held_out is not None:
        judged = present
        judge_train = _sized(_of_classes(side, judged), size)
        judge_validation = _sized(_of_classes(held_out, judged), size)
    if _watches_held_out(parts) and not has_held_out_images(validation, made):
        if config.augment_watch == "held-out":
            raise InputError(
                "--augment-watch held-out needs at least 4 validation images of a class; "
                "galaxy-set split makes a validation side, or pass --augment-watch sign"
            )
        parts = dataclasses.replace(parts, augment_watch="sign", augment_target=SIGN_TARGET)
    others = _of_classes(side, [index for index in judged if index not in made])
    judges = [others] if held_out is None else [others, _of_classes(held_out, judged)]
    data = DataDescription(
        source=str(config.data),
        class_names=images.class_names,
        made=tuple(made),
        chosen=tuple(chosen),
        counts=tuple(int(counts[index]) for index in made),
        mirror_pairs=images.mirror_pairs or (),
        size_before=images.size,
        stretch=None if images.stretch is None else dict(images.stretch.__dict__),
        digest=_digest("".join(fingerprints)),
        labels_digest=_digest(str(train.labels.tolist())),
        judging_digest=_digest(
            *(str([part.labels.tolist(), part.fingerprints().tolist()]) for part in judges)
        ),
    )
    return Preparation(
        train=sized_train,
        validation=validation,
        judge_train=judge_train,
        judge_validation=judge_validation,
        left_out={
            images.class_names[index]: int(counts[index])
            for index in range(len(images.class_names))
            if config.scope == "all" and index not in present
        },
        parts=parts,
        shape=NetworkShape(len(made), images.channels, size, width),
        schedule=Schedule(
            int(parts.condition_from * config.steps), int(parts.condition_full * config.steps)
        ),
        data=data,
        fingerprints=fingerprints,
        ids=[str(name) for name in train.ids],
    )


def _too_few(images: ImageSet, index: int, on_training_side: int) -> str:
    """Why a class cannot be made, and what would help."""
    name, total = images.class_names[index], int(images.counts()[index])
    if total < LEAST_IMAGES:
        return f"class {name!r} has {total} images; at least {LEAST_IMAGES} training images needed"
    return (
        f"class {name!r} has {on_training_side} of its {total} images on the training side of the "
        f"split; at least {LEAST_IMAGES} are needed there: galaxy-set split SET.h5 --fractions "
        "0.7 0.15 0.15 --overwrite gives it more, or choose another --class"
    )


def _of_classes(images: ImageSet, classes: list[int]) -> ImageSet:
    return images.select(np.isin(images.labels, classes))


def _sized(images: ImageSet, size: int) -> ImageSet:
    return resize_set(images, size).in_memory()


def _digest(*texts: str) -> str:
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def _refuse_late_class(parts: Parts, size: int) -> None:
    """A generator whose last layer lies below ``class_from`` would ignore the class."""
    last = size // 2 if parts.generator == "convolutional" else size
    if parts.class_from > last:
        raise InputError(
            f"--class-from {parts.class_from} lies beyond the last layer with a class of a "
            f"{parts.generator} generator of {size} pixels, {last}: its images would ignore the "
            "class"
        )


def refuse_broken_groups(parts: Parts, batch_size: int) -> None:
    """A batch that four does not divide trains on other groups than it is watched with."""
    if parts.minibatch_deviation and batch_size % MinibatchDeviation.GROUP:
        raise InputError(
            f"--batch-size {batch_size} is no multiple of {MinibatchDeviation.GROUP}, the images "
            "whose deviation the discriminator sees together; choose one that is, or pass "
            "--minibatch-deviation False"
        )


def build_step(
    preparation: Preparation,
    config: TrainConfig,
    device: torch.device,
    precision: torch.dtype,
    *,
    batch_size: int | None = None,
    rank: int = 0,
    world: int = 1,
) -> TrainingStep:
    """Networks and data on the device, ready for the first step."""
    data = prepare_training_data(
        preparation.train, preparation.made, preparation.chosen, preparation.parts, device
    )
    held_out = None
    if _watches_held_out(preparation.parts):
        assert preparation.validation is not None
        held_out = HeldOutImages(preparation.validation, preparation.made, data)
    return TrainingStep(
        preparation.shape,
        preparation.parts,
        data,
        batch_size=batch_size or config.batch_size,
        schedule=preparation.schedule,
        precision=precision,
        held_out=held_out,
        seed=config.seed,
        rank=rank,
        world=world,
    )


def _watches_held_out(parts: Parts) -> bool:
    adapts = bool(parts.augment) and parts.augment_target > 0
    return adapts and parts.augment_watch == "held-out"
