"""The validation side in two parts: one chooses, the other calibrates."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from galaxies.command_line import warn
from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from galaxies.split import split_set
from galaxies.tables import Table, row_units, split_table

Side = TypeVar("Side", ImageSet, Table)


def hold_out_calibration(
    validation: ImageSet, share: float
) -> tuple[ImageSet | None, ImageSet | None]:
    """Part the validation side: one part chooses the weights, the other calibrates.

    Groups stay whole. A class that is too small to be parted chooses alone, and a warning names
    it; where nothing can be parted, both parts are all of the side, and a warning says so.
    """
    if not share:
        return validation, None
    units = np.arange(len(validation)) if validation.group is None else validation.group
    return _parted(validation, validation.labels, units, share, split_set, "images")


def hold_out_calibration_rows(validation: Table, share: float) -> tuple[Table, Table | None]:
    """The same for the rows of a table; copies of a row stay together."""
    if not share:
        return validation, None
    labels, units = validation.known_labels, row_units(validation)
    return _parted(validation, labels, units, share, split_table, "rows")


def _parted(
    validation: Side,
    labels: np.ndarray,
    units: np.ndarray,
    share: float,
    split: Callable[..., Side],
    noun: str,
) -> tuple[Side, Side]:
    alone = _units_that_choose_alone(labels, units)
    rest = np.flatnonzero(~alone) if not alone.all() else np.arange(len(labels))
    try:
        parted = split(validation.select(rest), (1 - share, share, 0.0), seed=0)
    except InputError as error:
        warn(
            f"the validation split cannot be parted ({error}); the same {noun} choose the weights "
            "and calibrate, so prediction sets are slightly too sure"
        )
        return validation, validation
    missing = sorted(set(labels.tolist()) - set(labels[rest].tolist()))
    if missing:
        named = ", ".join(validation.class_names[k] for k in missing)
        warn(
            f"too few validation {noun} to choose the weights and calibrate too: {named}; they "
            "choose, and prediction sets per class can never rule that class out"
        )
    assert parted.split is not None
    sides = np.zeros(len(labels), dtype=np.int8)
    sides[rest] = parted.split
    whole = dataclasses.replace(validation, split=sides, provenance=parted.provenance)
    return whole.side("train"), whole.side("validation")


def _units_that_choose_alone(labels: np.ndarray, units: np.ndarray) -> np.ndarray:
    """(N,) bool: rows of the units that hold a class which stands in no second unit."""
    alone = np.zeros(len(labels), dtype=bool)
    while True:
        before = int(alone.sum())
        for label in np.unique(labels[~alone]):
            holding = np.unique(units[~alone & (labels == label)])
            if len(holding) == 1:
                alone |= units == holding[0]
        if int(alone.sum()) == before:
            return alone
