"""Where one unit of an experiment on a table is trained.

The generator of rows costs seconds, so each repeat and fold trains its own on exactly the rows
that its classifiers train on; the intervals cover that training.
"""

import contextlib
import dataclasses
import io
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from classify.determinism import derived_seed, numpy_generator_for
from classify.experiment.arms import Arm
from classify.experiment.division import Division, Setting
from classify.experiment.measures import FoldPredictions
from classify.experiment.units import ClassifierUnit, UnitOutput, digest
from classify.tabular.classifier import TableTraining, train_table_classifier
from classify.tabular.dense import DenseConfig
from classify.tabular.oversampling import METHODS, copies
from galaxies.errors import InputError
from galaxies.tables import (
    Table,
    TableColumns,
    identical_rows,
    read_table,
    row_units,
    with_table_split,
)
from gan.tables import FEWEST_ROWS, TableGanConfig, TableGenerator, train_table_gan

PLACEBO_NOISE = 0.05
"""Standard deviation of the placebo's noise, of each scaled feature's own."""

_KEPT_GENERATORS = 2
"""Arms of one repeat and fold follow each other and share a generator."""


@dataclass(frozen=True)
class TableItems:
    """A table as folds see it."""

    labels: np.ndarray
    class_names: tuple[str, ...]
    split: np.ndarray | None


class TableLaboratory(Division):
    """Trains units of one experiment on a table.

    Parameters
    ----------
    table
        With a split, unless the experiment has folds.
    setting
        Its ``training`` holds ``model`` and ``gan_steps``.
    """

    noun = "rows"
    draws_from_sources = False

    def __init__(self, table: Table, setting: Setting) -> None:
        items = TableItems(table.known_labels, table.class_names, table.split)
        super().__init__(items, setting, _digest_of(table), row_units(table))
        self.table = table
        self._generators: dict[str, TableGenerator] = {}

    def training_of(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Every field of the table training of an arm."""
        model = self.setting.training["model"]
        training = TableTraining(
            **{"model": model, **arm.settings, "seed": seed, "threads": self.setting.threads}
        )
        return dataclasses.asdict(training)

    def details_of(self, arm: Arm) -> dict[str, Any]:
        """The generator of rows is trained within the unit, so its settings shape the unit."""
        if not arm.generated:
            return {}
        return {"generator_settings": dataclasses.asdict(self._generator_config(0))}

    def trained_with(self, unit: ClassifierUnit) -> str:
        """Arms of one repeat and fold share a generator, so one worker trains them."""
        return f"{unit.keep}/{unit.repeat}/{unit.fold}"

    def run(self, unit: ClassifierUnit) -> UnitOutput:
        """Train one unit and let it speak of its validation and test rows."""
        if unit.data != self.digest:
            raise InputError("the table changed since the experiment was planned")
        begun = time.perf_counter()
        torch.set_num_threads(self.setting.threads)
        train_rows, validation_rows, test_rows = self.sides(unit.fold, unit.repeat, unit.keep)
        trained_on, note = self._with_held_back(unit, train_rows)
        train, validation, test = (
            self.table.select(rows) for rows in (trained_on, validation_rows, test_rows)
        )

        counts: list[int] = []

        def augment(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rows, labels = self._augmented(unit, rows, labels)
            counts[:] = np.bincount(labels, minlength=len(train.class_names)).tolist()
            return rows, labels

        # Boosting and linear algebra take every core unless told otherwise.
        with threadpool_limits(self.setting.threads):
            classifier = train_table_classifier(
                train, validation, _training(unit.training), augment=augment, progress=False
            )
        predictions = FoldPredictions(
            validation_rows=validation_rows,
            validation_labels=validation.known_labels,
            validation_probabilities=classifier.probabilities(validation),
            test_rows=test_rows,
            test_labels=test.known_labels,
            test_probabilities=classifier.probabilities(test),
        )
        metrics = {
            "seconds": time.perf_counter() - begun,
            "device": "cpu",
            "torch": torch.__version__,
            "scikit-learn": metadata.version("scikit-learn"),
            "training_counts": counts,
            "training": classifier.record["training"],
            "added": note,
        }
        return UnitOutput(predictions, metrics)

    def _with_held_back(
        self, unit: ClassifierUnit, train_rows: np.ndarray
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Training rows, with further real ones where the arm adds those."""
        if unit.images is None:
            return train_rows, {}
        count = unit.images["count"]
        if unit.images["kind"] != "real":
            return train_rows, {"count": count}
        pool = self.folds(unit.keep)[unit.fold].held_back
        chosen = numpy_generator_for(unit.images["seed"], "real").permutation(pool)[:count]
        return np.sort(np.concatenate([train_rows, chosen])), {"count": count, "of": len(pool)}

    def _augmented(
        self, unit: ClassifierUnit, rows: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scaled training rows with those that the arm adds, or with them instead."""
        if unit.images is None or unit.images["kind"] == "real":
            return rows, labels
        kind, count, seed = (unit.images[name] for name in ("kind", "count", "seed"))
        index, classes = self.setting.class_index, len(self.items.class_names)
        random = numpy_generator_for(seed, kind)
        wanted = np.zeros(classes, np.int64)
        wanted[index] = count
        if kind == "gan":
            generator = self._generator(rows, labels, seed)
            made = generator.generate(index, count, derived_seed(seed, "generated rows") % 2**31)
        elif kind == "placebo":
            made = copies(rows, labels, wanted, random)[0][len(rows) :]
            made = made + random.normal(0, PLACEBO_NOISE, made.shape)
        else:
            made = METHODS[kind](rows, labels, wanted, random)[0][len(rows) :]
        if unit.images["instead"]:
            others = labels != index
            rows, labels = rows[others], labels[others]
        added = np.full(count, index, labels.dtype)
        return np.concatenate([rows, made.astype(rows.dtype)]), np.concatenate([labels, added])

    def _generator(self, rows: np.ndarray, labels: np.ndarray, seed: int) -> TableGenerator:
        """The generator trained on these rows; the arms of one repeat and fold share it."""
        # Another tiny class would stop the generator; it learns from the others without it.
        known = np.bincount(labels)[labels] >= FEWEST_ROWS
        rows, labels = rows[known], labels[known]
        content = np.ascontiguousarray(rows).tobytes() + labels.tobytes()
        key = digest({"rows": _sha256(content), "seed": seed})
        if key not in self._generators:
            while len(self._generators) >= _KEPT_GENERATORS:
                self._generators.pop(next(iter(self._generators)))
            self._generators[key] = train_table_gan(
                rows, labels, len(self.items.class_names), self._generator_config(seed),
                progress=False,
            )  # fmt: skip
        return self._generators[key]

    def _generator_config(self, seed: int) -> TableGanConfig:
        return TableGanConfig(steps=self.setting.training["gan_steps"], seed=seed)


def crossing_rows(table: Table) -> list[str]:
    """What stands on two sides of a stored split, one sentence each."""
    if table.split is None:
        return []
    found = []
    for marks, what in (
        (identical_rows(table), "rows have identical features with rows"),
        (table.group, "rows share a group with rows"),
    ):
        if marks is None:
            continue
        numbers = np.unique(marks, return_inverse=True)[1].reshape(-1)
        sides = np.zeros((numbers.max() + 1, 3), bool)
        sides[numbers, table.split] = True
        crossing = sides.sum(axis=1) > 1
        if crossing.any():
            rows = np.flatnonzero(crossing[numbers])
            found.append(
                f"{len(rows)} {what} on another side of the split, such as row {table.ids[rows[0]]}"
            )
    return found


@dataclass(frozen=True)
class OpenTableLaboratory:
    """Opens the laboratory in a worker process."""

    data: str
    columns: TableColumns
    setting: Setting

    def __call__(self) -> TableLaboratory:
        """Read the table again."""
        torch.set_num_threads(self.setting.threads)
        with contextlib.redirect_stderr(io.StringIO()):  # the first process has said it
            table = open_experiment_table(self.data, self.columns, self.setting.folds)
        return TableLaboratory(table, self.setting)


def open_experiment_table(data: str, columns: TableColumns, folds: int) -> Table:
    """The rows, with their split unless folds replace it."""
    table = read_table(Path(data), columns)
    return table if folds else with_table_split(table)


def _training(fields: dict[str, Any]) -> TableTraining:
    dense = dict(fields["dense"])
    dense["widths"] = tuple(dense["widths"])
    return TableTraining(**{**fields, "dense": DenseConfig(**dense)})


def _digest_of(table: Table) -> str:
    parts = [table.fingerprint(), *table.ids.astype(str).tolist()]
    if table.group is not None:
        parts += table.group.astype(str).tolist()
    return _sha256("\n".join(parts).encode())[:32]


def _sha256(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()
