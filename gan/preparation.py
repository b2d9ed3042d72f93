"""From the flags and an image set to all that a run needs, or one line that says why not."""

import dataclasses
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from galaxies.device import choose_device
from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from gan.build import NetworkShape, build_discriminator, build_generator, parameter_count
from gan.checkpoint import DataDescription
from gan.networks import check_size
from gan.overfitting import HeldOutImages, has_held_out_images
from gan.recipes import SIGN_TARGET, Parts, resolve_parts
from gan.step import Schedule, TrainingStep
from gan.training_config import TrainConfig, default_width
from gan.training_data import prepare_training_data, resize_set

BF16_GAIN = 0.9
"""bfloat16 is taken on a CPU where it needs less than this share of the float32 time."""

TRIAL_BATCH = 8

TRIALS = 3
"""So often either precision is timed."""


@dataclass(frozen=True)
class Preparation:
    """A run before its first step.

    Attributes
    ----------
    train : ImageSet
        Training images of the made classes, at the network's size, in memory.
    validation : ImageSet or None
        Held-out images of the same classes and size.
    parts, shape, schedule, data
        What is trained on what.
    fingerprints, ids : list of str
        Of the training images as they are in the set, before any resizing.
    """

    train: ImageSet
    validation: ImageSet | None
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
    check_size(config.size)
    if not config.classes:
        listed = ", ".join(f"{i} {name}" for i, name in enumerate(images.class_names))
        raise InputError(f"name the class to make with --class; the classes are: {listed}")
    chosen = [images.class_index(name) for name in config.classes]
    if len(set(chosen)) != len(chosen):
        raise InputError(f"--class names a class twice: {', '.join(config.classes)}")
    if images.is_synthetic:
        raise InputError("the set is synthetic: a generator learns from real images only")
    parts = resolve_parts(config.recipe, config)
    _refuse_late_class(parts, config.size)
    width = config.width or default_width(config.recipe, choose_device(config.device).type)
    side = images.side("train")
    present = [int(index) for index in np.flatnonzero(side.counts() >= 2)]
    for index in chosen:
        if index not in present:
            raise InputError(
                f"class {images.class_names[index]!r} has {side.counts()[index]} training images; "
                "at least 2 are needed"
            )
    made = chosen if config.scope == "class" else present
    train = side.select(np.isin(side.labels, made))
    fingerprints = train.fingerprints().tolist()
    validation = None
    if images.split is not None and (images.split == 1).any():
        held_out = images.side("validation")
        validation = held_out.select(np.isin(held_out.labels, made))
        validation = resize_set(validation, config.size).in_memory() if len(validation) else None
    if _watches_held_out(parts) and not has_held_out_images(validation, made):
        if config.augment_watch == "held-out":
            raise InputError(
                "--augment-watch held-out needs at least 4 validation images of a class; "
                "galaxy-set split makes a validation side, or pass --augment-watch sign"
            )
        parts = dataclasses.replace(parts, augment_watch="sign", augment_target=SIGN_TARGET)
    digest = hashlib.sha256("".join(fingerprints).encode()).hexdigest()
    data = DataDescription(
        source=str(config.data),
        class_names=images.class_names,
        made=tuple(made),
        chosen=tuple(chosen),
        counts=tuple(int(train.counts()[index]) for index in made),
        mirror_pairs=images.mirror_pairs or (),
        size_before=images.size,
        stretch=None if images.stretch is None else dict(images.stretch.__dict__),
        digest=digest,
    )
    return Preparation(
        train=resize_set(train, config.size).in_memory(),
        validation=validation,
        parts=parts,
        shape=NetworkShape(len(made), images.channels, config.size, width),
        schedule=Schedule(
            int(parts.condition_from * config.steps), int(parts.condition_full * config.steps)
        ),
        data=data,
        fingerprints=fingerprints,
        ids=[str(name) for name in train.ids],
    )


def _refuse_late_class(parts: Parts, size: int) -> None:
    """A generator whose last layer lies below ``class_from`` would ignore the class."""
    last = size // 2 if parts.generator == "convolutional" else size
    if parts.class_from > last:
        raise InputError(
            f"--class-from {parts.class_from} lies beyond the last layer with a class of a "
            f"{parts.generator} generator of {size} pixels, {last}: its images would ignore the "
            "class"
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


def choose_precision(
    preparation: Preparation, config: TrainConfig, device: torch.device
) -> torch.dtype:
    """The dtype of the convolutions: as asked, or the faster one.

    On a CPU two steps of each are timed, because neither the processor's flags nor the version
    of the library tell how fast bfloat16 convolutions are.
    """
    if config.precision != "auto":
        return torch.float32 if config.precision == "float32" else torch.bfloat16
    if device.type == "cuda":
        # Emulated bfloat16, as on cards before Ampere, is many times slower than float32.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    seconds = {
        dtype: [seconds_per_image(preparation, config, device, dtype) for _ in range(TRIALS)]
        for dtype in (torch.float32, torch.bfloat16)
    }
    # The least of several: another program's load must not change the choice, and the weights.
    faster = min(seconds[torch.bfloat16]) < BF16_GAIN * min(seconds[torch.float32])
    return torch.bfloat16 if faster else torch.float32


def seconds_per_image(
    preparation: Preparation, config: TrainConfig, device: torch.device, precision: torch.dtype
) -> float:
    """Time two small steps, after one that warms up."""
    step = build_step(preparation, config, device, precision, batch_size=TRIAL_BATCH)
    step.draw()
    step.run(penalised=False)
    _wait(device)
    start = time.perf_counter()
    for _ in range(2):
        step.draw()
        step.run(penalised=False)
    _wait(device)
    return (time.perf_counter() - start) / (2 * TRIAL_BATCH)


def describe_dry_run(
    preparation: Preparation, config: TrainConfig, device: torch.device
) -> dict[str, Any]:
    """Configuration, parameters, memory in bytes and an estimate of the time in seconds."""
    random = torch.Generator().manual_seed(config.seed)
    generator = build_generator(preparation.shape, preparation.parts, random)
    discriminator = build_discriminator(preparation.shape, preparation.parts, random)
    parameters = parameter_count(generator), parameter_count(discriminator)
    precision = choose_precision(preparation, config, device)
    seconds = seconds_per_image(preparation, config, device, precision)
    # float32: weights and two moments of both networks, and the average of the generator.
    state = 4 * (4 * parameters[0] + 3 * parameters[1])
    return {
        "generator_parameters": parameters[0],
        "discriminator_parameters": parameters[1],
        "classes": {
            preparation.data.class_names[index]: count
            for index, count in zip(preparation.made, preparation.data.counts, strict=True)
        },
        "network": preparation.shape.as_json(),
        "device": str(device),
        "precision": str(precision).removeprefix("torch."),
        "memory_bytes": {
            "weights_and_optimizers": state,
            "training_images": preparation.train.pixel_bytes,
            "activations": _activation_bytes(preparation, config, device, precision),
        },
        "seconds_estimated": round(seconds * config.batch_size * config.steps),
        "images": config.batch_size * config.steps,
    }


def default_folder(config: TrainConfig, data: DataDescription) -> Path:
    """``checkpoints/RECIPE-CLASS``."""
    names = "-".join(data.class_names[index] for index in data.chosen)
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in names)
    return Path("checkpoints") / f"{config.recipe}-{safe}"


def _activation_bytes(
    preparation: Preparation, config: TrainConfig, device: torch.device, precision: torch.dtype
) -> int:
    """Most bytes that autograd keeps in a step, measured on a small batch and scaled."""
    step = build_step(preparation, config, device, precision, batch_size=TRIAL_BATCH)
    weights = {tensor.data_ptr() for tensor in step.tensors().values()}
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    step.draw()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        step.run(penalised=step.is_penalised(0))
    return sum(kept.values()) * config.batch_size // TRIAL_BATCH


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
