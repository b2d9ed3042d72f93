"""The labelled items of one experiment and how they are divided; the base of every laboratory."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from classify.experiment.arms import Arm
from classify.experiment.generators import GeneratorUnit
from classify.experiment.protocol import (
    Fold,
    LabelledItems,
    cross_fitting_folds,
    keep_real,
    move_border,
    stored_fold,
)
from classify.experiment.units import ClassifierUnit, UnitOutput


@dataclass(frozen=True)
class Setting:
    """What all units of an experiment share; small enough to send to another machine.

    Attributes
    ----------
    folder : Path
        The results folder; selectors (classifiers that filter) are kept there.
    class_index : int
    folds : int
        0 uses the stored split.
    seed : int
    device : str
    threads : int
        CPU threads of one training.
    training : dict
        Fields of the training configuration that all arms share.
    """

    folder: Path
    class_index: int
    folds: int
    seed: int
    device: str
    threads: int
    training: dict[str, Any]


class Division(ABC):
    """Items, their folds, and the training of a unit on one side of them.

    Parameters
    ----------
    items
        Images or rows of a table.
    setting
        Shared by all units.
    digest
        Of everything that a run can learn from the items.
    units
        (N,) int64: items with equal numbers may not be parted.
    """

    noun = "images"
    """What the items are called, in the plural."""

    draws_from_sources = True
    """Whether generated items come from a generator that was trained before the unit."""

    def __init__(
        self, items: LabelledItems, setting: Setting, digest: str, units: np.ndarray
    ) -> None:
        self.items = items
        self.setting = setting
        self.digest = digest
        self.units = units
        self._folds: dict[int | None, list[Fold]] = {}

    @property
    def class_name(self) -> str:
        """Name of the class that is augmented."""
        return self.items.class_names[self.setting.class_index]

    @property
    def generator_sizes(self) -> tuple[int, Sequence[int]]:
        """Side of the items in pixels, and the sides that a fold's generator makes; none: any."""
        return 0, ()

    def folds(self, keep: int | None = None) -> list[Fold]:
        """The folds, with ``keep`` real training items of the class where it is given."""
        if keep not in self._folds:
            setting = self.setting
            if keep is not None:
                self._folds[keep] = [
                    keep_real(fold, self.items, setting.class_index, keep, setting.seed)
                    for fold in self.folds()
                ]
            elif setting.folds:
                self._folds[None] = cross_fitting_folds(
                    self.items, self.units, setting.folds, setting.seed, self.noun
                )
            else:
                self._folds[None] = [stored_fold(self.items)]
        return self._folds[keep]

    def sides(
        self, fold: int, repeat: int, keep: int | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of training, validation and test of one fold and repeat."""
        found = self.folds(keep)[fold]
        train, validation = move_border(
            found,
            self.items,
            self.units,
            repeat,
            self.setting.seed,
            limited=None if keep is None else self.setting.class_index,
        )
        return train, validation, found.test

    @abstractmethod
    def training_of(self, arm: Arm, seed: int) -> dict[str, Any]:
        """All settings of one training of an arm, as JSON holds them."""

    def details_of(self, arm: Arm) -> dict[str, Any]:
        """What else shapes the items that an arm adds, as JSON holds it."""
        return {}

    @property
    def mirror_permutation(self) -> list[int]:
        """(K,) class of the mirror image of each class; empty where nothing is mirrored."""
        return []

    def trained_with(self, unit: ClassifierUnit) -> str:
        """Units with equal answers go to one worker, because they share work."""
        return unit.key

    @abstractmethod
    def run(self, unit: ClassifierUnit) -> UnitOutput:
        """Train one unit and let it speak of its validation and test items."""

    def run_generator(self, unit: GeneratorUnit) -> bool:
        """Train one generator; ``False`` where another process is at it."""
        raise TypeError(f"{type(self).__name__} trains no generators of their own")
