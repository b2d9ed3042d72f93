"""One training as one unit: a folder named by the hash of everything that shapes its numbers.

A unit is whole or absent, so a killed experiment goes on where it was, and a finished training
is never repeated: not in another call, not under another arm's name, not by a second process.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from classify.experiment.measures import FoldPredictions
from galaxies.atomic import whole_folder
from galaxies.errors import InputError

PROTOCOL_VERSION = 3
"""Changes when the same configuration would give other numbers."""

PROBABILITIES = "probabilities.npz"
CONFIG = "config.json"
METRICS = "metrics.json"


@dataclass(frozen=True)
class ClassifierUnit:
    """One classifier of one arm, repeat and fold.

    Attributes
    ----------
    data : str
        Digest of the image set.
    class_index : int
        The class that is augmented.
    fold, repeat : int
    keep : int or None
        Real training images of the class, where the experiment limits them.
    train_rows, validation_rows, test_rows : str
        Digests of the rows on each side.
    training : dict
        Every field of the training configuration.
    images : dict or None
        Kind, count, seed, filter and the generator's digest of added images.
    generator_path : str
        Where that generator lies; not part of the hash.
    device : str
        Kind of device: a GPU draws and rounds otherwise than a CPU.
    """

    data: str
    class_index: int
    fold: int
    repeat: int
    keep: int | None
    train_rows: str
    validation_rows: str
    test_rows: str
    training: dict[str, Any]
    images: dict[str, Any] | None = None
    generator_path: str = ""
    device: str = "cpu"

    def config(self) -> dict[str, Any]:
        """All that shapes the numbers, as JSON holds it."""
        content = dataclasses.asdict(self)
        del content["generator_path"]
        if self.device == "cpu":  # runs from before the field was there are found again
            del content["device"]
        return {"what": "classifier", "protocol": PROTOCOL_VERSION, **content}

    @property
    def key(self) -> str:
        """Name of the unit's folder."""
        return digest(self.config())


def digest(content: dict[str, Any]) -> str:
    """First 20 hexadecimal digits of the SHA-256 of a JSON object with sorted keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class UnitOutput:
    """What a finished unit leaves behind."""

    predictions: FoldPredictions
    metrics: dict[str, Any]


class UnitStore:
    """The ``runs`` folder of a results folder.

    Parameters
    ----------
    folder
        The results folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self._locks = folder / ".locks"

    def has(self, key: str) -> bool:
        """Whether the unit is finished."""
        return (self.runs / key / METRICS).is_file()

    def save(self, unit: ClassifierUnit, output: UnitOutput) -> None:
        """Write a unit; where another process was first, its result stays."""
        try:
            with whole_folder(self.runs / unit.key) as temporary:
                found = output.predictions
                np.savez_compressed(
                    temporary / PROBABILITIES,
                    validation_rows=found.validation_rows.astype(np.int32),
                    validation_labels=found.validation_labels.astype(np.int16),
                    validation_probabilities=found.validation_probabilities.astype(np.float32),
                    test_rows=found.test_rows.astype(np.int32),
                    test_labels=found.test_labels.astype(np.int16),
                    test_probabilities=found.test_probabilities.astype(np.float32),
                )
                _write_json(temporary / CONFIG, unit.config())
                _write_json(temporary / METRICS, output.metrics)
        except (InputError, OSError):
            if not self.has(unit.key):
                raise

    def load(self, key: str) -> UnitOutput:
        """Read a finished unit.

        Raises
        ------
        InputError
            If its files are damaged; says which folder to delete.
        """
        folder = self.runs / key
        try:
            metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
            with np.load(folder / PROBABILITIES, allow_pickle=False) as arrays:
                predictions = FoldPredictions(
                    validation_rows=arrays["validation_rows"].astype(np.int64),
                    validation_labels=arrays["validation_labels"].astype(np.int64),
                    validation_probabilities=arrays["validation_probabilities"],
                    test_rows=arrays["test_rows"].astype(np.int64),
                    test_labels=arrays["test_labels"].astype(np.int64),
                    test_probabilities=arrays["test_probabilities"],
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{folder} is damaged ({error}); delete it and run the same command again"
            ) from None
        return UnitOutput(predictions, metrics)

    def config(self, key: str) -> dict[str, Any]:
        """What `ClassifierUnit.config` was of a finished unit.

        Raises
        ------
        InputError
            If the file is damaged; says which folder to delete.
        """
        path = self.runs / key / CONFIG
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path.parent} is damaged ({error}); delete it and run the same command again"
            ) from None

    @contextlib.contextmanager
    def claim(self, key: str, *, wait: bool = False) -> Iterator[bool]:
        """Hold a unit against other processes; yields whether it is held.

        The claim belongs to the process and vanishes with it, also when it is killed.

        Parameters
        ----------
        wait
            Wait for another process instead of yielding ``False``.
        """
        self._locks.mkdir(parents=True, exist_ok=True)
        with (self._locks / key).open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def sweep(self) -> None:
        """Delete what killed processes left half-written."""
        for place in (self.runs, self.folder / "generators", self.folder / "selectors"):
            for leftover in place.glob(".*.partial"):
                key = leftover.name.split(".")[1]
                with self.claim(key) as free:
                    if free:
                        shutil.rmtree(leftover, ignore_errors=True)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
