"""Where generated images come from: checkpoints, a synthetic set, or a generator per fold."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classify.experiment.arms import Arm
from classify.experiment.cli import ExperimentConfig
from classify.experiment.division import Division
from classify.experiment.laboratory import Laboratory, is_checkpoint
from classify.experiment.planner import GeneratorSource, Planner
from classify.synthetic import refuse_leaking
from galaxies.errors import InputError
from galaxies.sources import open_image_set

Sources = dict[tuple[str, int, int | None], GeneratorSource]
"""(generator's name, fold, limit of real images) -> source."""


def generator_names(checkpoints: Sequence[Path]) -> list[str]:
    """Short distinct names of checkpoints: the folders' names, numbered where they repeat."""
    names: list[str] = []
    for path in checkpoints:
        name = path.name.replace("+", "-").replace("@", "-").replace(",", "-").replace(":", "-")
        names.append(name if name not in names else f"{name}-{len(names) + 1}")
    return names


def ready_sources(
    config: ExperimentConfig, laboratory: Laboratory, keeps: list[int | None]
) -> Sources:
    """The generators that were passed, by name, fold and limit of real images.

    Raises
    ------
    InputError
        If one is not a checkpoint, or saw a held-out image.
    """
    ready: list[GeneratorSource] = []
    for name, path in zip(generator_names(config.gan), config.gan, strict=True):
        if not is_checkpoint(path):
            raise InputError(f"{path} is not a checkpoint of gan-train (a folder with config.json)")
        sample = laboratory.generated(str(path), 1, 0)
        refuse_leaking(sample, laboratory.image_set)
        ready.append(GeneratorSource(name, str(path), _file_digest(path / "weights.safetensors")))
    if config.synthetic is not None:
        synthetic = open_image_set(config.synthetic)
        refuse_leaking(synthetic, laboratory.image_set)
        digest = hashlib.sha256("\n".join(synthetic.fingerprints().tolist()).encode()).hexdigest()
        ready.append(GeneratorSource("synthetic", str(config.synthetic), digest))
    return {(source.name, 0, keep): source for source in ready for keep in keeps}


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
    }
    units = Planner(laboratory, {}).generator_units(training, keeps)
    train(units, title="generators")
    return {
        ("fold generator", unit.fold, unit.keep): GeneratorSource(
            "fold generator", str(unit.folder(laboratory.setting.folder)), unit.key
        )
        for unit in units
    }


def _file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise InputError(f"{path.parent} is not a checkpoint: {path.name} is missing") from None
