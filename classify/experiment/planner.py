"""From arms, repeats and folds to the units that have to be trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from classify.determinism import derived_seed
from classify.experiment.arms import AddedItems, Arm
from classify.experiment.division import Division
from classify.experiment.generators import GeneratorUnit
from classify.experiment.protocol import rows_digest
from classify.experiment.units import ClassifierUnit
from galaxies.errors import InputError

Sides = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows of training, validation and test."""

AGAIN = 100_000
"""Added to the repeat's number for the seeds of an ``again`` arm."""


@dataclass(frozen=True)
class GeneratorSource:
    """A generator that units may draw from.

    Attributes
    ----------
    name : str
        As arms call it.
    path : str
        Checkpoint folder or synthetic set.
    sha256 : str
        Of its weights or of its images: part of a unit's hash.
    """

    name: str
    path: str
    sha256: str


class Planner:
    """Names the units of an experiment.

    Parameters
    ----------
    laboratory
        Knows the items and their folds.
    sources
        (generator name, fold, keep) -> source; a ready generator serves every fold.
    """

    def __init__(
        self, laboratory: Division, sources: Mapping[tuple[str, int, int | None], GeneratorSource]
    ) -> None:
        self.laboratory = laboratory
        self.sources = sources
        self._sides: dict[tuple[int, int, int | None], Sides] = {}

    def unit(self, arm: Arm, repeat: int, fold: int, keep: int | None = None) -> ClassifierUnit:
        """The unit of one arm, repeat and fold.

        The seed depends on repeat and fold alone, so all arms of a repeat start from the same
        weights and share the seeds of draws and augmentation. Arms of one sampling that add
        nothing see the images in the same order.
        """
        laboratory = self.laboratory
        setting = laboratory.setting
        train, validation, test = self._rows(fold, repeat, keep)
        # Doses count the fold's own training side, so that every repeat adds the same number.
        labels = laboratory.items.labels[laboratory.folds(keep)[fold].train]
        counts = np.bincount(labels, minlength=len(laboratory.items.class_names))
        seeded = repeat + (AGAIN if arm.again else 0)
        purpose = f"fold {fold}"
        images = None
        source = None
        if arm.added is not None:
            if arm.added.kind == "gan" and laboratory.draws_from_sources:
                source = self._source(arm.added, fold, keep)
            images = self._added(arm, arm.added, counts, source, seeded, fold, keep)
        return ClassifierUnit(
            data=laboratory.digest,
            class_index=setting.class_index,
            fold=fold,
            repeat=repeat,
            keep=keep,
            train_rows=rows_digest(train),
            validation_rows=rows_digest(validation),
            test_rows=rows_digest(test),
            training=laboratory.training_of(
                arm, derived_seed(setting.seed, purpose, seeded) % 2**31
            ),
            images=images,
            generator_path="" if source is None else source.path,
            device=setting.device.split(":")[0],
        )

    def units(
        self, arms: Sequence[Arm], repeats: int, keeps: Sequence[int | None] = (None,)
    ) -> list[ClassifierUnit]:
        """All units of some arms, repeat by repeat, each once however many arms share it."""
        found: dict[str, ClassifierUnit] = {}
        for repeat in range(repeats):
            for keep in keeps:
                for fold in range(len(self.laboratory.folds(keep))):
                    for arm in arms:
                        unit = self.unit(arm, repeat, fold, keep)
                        found.setdefault(unit.key, unit)
        return list(found.values())

    def generator_units(
        self, training: dict[str, Any], keeps: Sequence[int | None]
    ) -> list[GeneratorUnit]:
        """One generator per fold (and limit of real images)."""
        laboratory = self.laboratory
        return [
            GeneratorUnit(
                data=laboratory.digest,
                class_name=laboratory.class_name,
                fold=fold.index,
                keep=keep,
                train_rows=rows_digest(fold.train),
                validation_rows=rows_digest(fold.validation),
                training={
                    **training,
                    "seed": derived_seed(laboratory.setting.seed, "generator", fold.index) % 2**31,
                },
            )
            for keep in keeps
            for fold in laboratory.folds(keep)
        ]

    def _rows(self, fold: int, repeat: int, keep: int | None) -> Sides:
        place = (fold, repeat, keep)
        if place not in self._sides:
            self._sides[place] = self.laboratory.sides(fold, repeat, keep)
        return self._sides[place]

    def _source(self, images: AddedItems, fold: int, keep: int | None) -> GeneratorSource:
        names = list(dict.fromkeys(name for name, _, _ in self.sources))
        if not names:
            raise InputError(
                "an arm adds generated images: pass --gan CHECKPOINT, --synthetic SET.h5, or "
                "--folds K to train a generator per fold"
            )
        return self.sources[images.generator or names[0], fold, keep]

    def _added(
        self,
        arm: Arm,
        images: AddedItems,
        counts: np.ndarray,
        source: GeneratorSource | None,
        seeded: int,
        fold: int,
        keep: int | None,
    ) -> dict[str, Any]:
        setting = self.laboratory.setting
        count = images.count(int(counts[setting.class_index]), int(counts.max()))
        return {
            "kind": images.kind,
            "count": count,
            "seed": derived_seed(setting.seed, f"added images, fold {fold}", seeded) % 2**31,
            "keep_above": images.keep_above,
            "instead": images.instead,
            **({"every_class": True} if images.every_class else {}),
            "generator": "" if source is None else source.sha256,
            **self.laboratory.details_of(arm),
        }
