"""Generators as units of the experiment: one per fold, trained without its test side."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from classify.experiment.protocol import Fold
from classify.experiment.units import PROTOCOL_VERSION, UnitStore, digest
from galaxies.atomic import write_text
from galaxies.image_set import ImageSet
from gan.recipes import RECIPES

if TYPE_CHECKING:
    from gan.training_config import TrainConfig

FINISHED = "finished.json"
PRECISION = "precision"
STATE = "state.pt"


@dataclass(frozen=True)
class GeneratorUnit:
    """One generator of a cross-fitted experiment.

    Attributes
    ----------
    data : str
        Digest of the image set.
    class_name : str
    fold : int
    keep : int or None
    train_rows, validation_rows : str
        Digests of the rows that it learns from and that choose its checkpoint.
    training : dict
        Fields of ``gan.training_config.TrainConfig`` that differ from its defaults.
    """

    data: str
    class_name: str
    fold: int
    keep: int | None
    train_rows: str
    validation_rows: str
    training: dict[str, Any]

    @property
    def key(self) -> str:
        """Name of the checkpoint's folder."""
        recipe = self.training.get("recipe", "tail")
        content = {
            "what": "generator",
            "protocol": PROTOCOL_VERSION,
            "parts": dataclasses.asdict(RECIPES[recipe]),
            **dataclasses.asdict(self),
        }
        return digest(content)

    def folder(self, results: Path) -> Path:
        """Where the checkpoint lies."""
        return results / "generators" / self.key

    def finished(self, results: Path) -> bool:
        """Whether its training has ended."""
        return (self.folder(results) / FINISHED).is_file()


TrainGeneratorFunction = Callable[[GeneratorUnit, ImageSet, Path, str], None]
"""(unit, images with train and validation sides only, folder, device)."""


def fold_images(image_set: ImageSet, fold: Fold) -> ImageSet:
    """The training and validation images of a fold; its test images are not even in the set."""
    rows = np.concatenate((fold.train, fold.validation))
    split = np.repeat([0, 1], [len(fold.train), len(fold.validation)]).astype(np.int8)
    order = np.argsort(rows, kind="stable")
    return dataclasses.replace(image_set.select(rows[order]), split=split[order])


def train_generator(unit: GeneratorUnit, images: ImageSet, folder: Path, device: str) -> None:
    """Train with `gan.trainer`, going on where a killed training stopped."""
    from gan.trainer import train
    from gan.training_config import TrainConfig

    config = TrainConfig(
        **unit.training,
        classes=(unit.class_name,),
        out=folder,
        size=images.size,
        # The GPU of this process: a name without a number would be the first in all of them.
        device=f"cuda:{torch.cuda.current_device()}" if device.startswith("cuda") else "cpu",
        resume=(folder / STATE).is_file(),  # absent where the training was killed at once
        save_seconds=30.0,
    )
    precision = one_precision(config, images, folder.parent)
    train(dataclasses.replace(config, precision=precision), images, folder, progress=False)


def one_precision(
    config: "TrainConfig", images: ImageSet, place: Path
) -> Literal["float32", "bfloat16"]:
    """The precision of all generators of an experiment, chosen once and kept in ``place``.

    The choice rests on a timing, which depends on what else the machine does: generators that
    chose for themselves would differ between runs.
    """
    from gan.preparation import prepare
    from gan.trial import choose_precision

    kept = place / PRECISION
    with UnitStore(place.parent).claim("precision", wait=True):
        if not kept.is_file():
            chosen = choose_precision(prepare(config, images), config, torch.device(config.device))
            write_text(kept, str(chosen).removeprefix("torch.") + "\n")
    return "bfloat16" if kept.read_text(encoding="utf-8").strip() == "bfloat16" else "float32"


def run_generator_unit(
    unit: GeneratorUnit,
    image_set: ImageSet,
    fold: Fold,
    results: Path,
    device: str,
    train: TrainGeneratorFunction = train_generator,
) -> bool:
    """Train one generator unless it is there; ``False`` where another process is at it."""
    with UnitStore(results).claim(unit.key) as free:
        if unit.finished(results):
            return True
        if not free:
            return False
        folder = unit.folder(results)
        train(unit, fold_images(image_set, fold), folder, device)
        write_text(folder / FINISHED, json.dumps(dataclasses.asdict(unit), indent=1) + "\n")
        # Optimisers and the like serve only to resume; with a generator per fold they add up.
        (folder / STATE).unlink(missing_ok=True)
    return True
