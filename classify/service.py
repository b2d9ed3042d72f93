"""A checkpoint loaded once, and everything it can say about new images.

The command line, the web page and any program sit on this, so the same file gives the same
numbers everywhere.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classify.classifier import TrainedClassifier
from classify.conformal import SetKind, set_in_words
from classify.ensemble import Ensemble, load_any
from classify.fits_files import FitsReading
from classify.grad_cam import grad_cam
from classify.reading import ImageReader
from classify.reference import Reference, read_reference
from classify.repeated_views import (
    Classifier,
    disagreement,
    dropout_samples,
    symmetric_probabilities,
)
from galaxies.errors import InputError
from galaxies.image_set import ImageSet, PixelsInMemory

DEFAULT_LEVEL = 0.9
Source = Path | bytes | np.ndarray


@dataclass(frozen=True)
class Questions:
    """What is asked of each image beside its class.

    Attributes
    ----------
    level : float
        Confidence of the prediction set.
    set_kind : ``per-class`` or ``marginal``
        See `classify.conformal`.
    neighbours : int
        So many nearest training images are named.
    grad_cam : bool
        Make a map of the evidence for the predicted class.
    average_symmetries : bool
        Average over the eight symmetries.
    dropout_samples : int
        Average over so many passes with dropout on, and report their disagreement; 0 is off.
    """

    level: float = DEFAULT_LEVEL
    set_kind: SetKind = "per-class"
    neighbours: int = 0
    grad_cam: bool = False
    average_symmetries: bool = False
    dropout_samples: int = 0


@dataclass(frozen=True)
class Neighbour:
    """A training image near to the one that was asked about.

    Attributes
    ----------
    id, label : str
    distance : float
        Between features of length one: 0 same direction, 2 opposite.
    row : int
        Of ``ClassifierService.reference.examples``.
    """

    id: str
    label: str
    distance: float
    row: int


@dataclass(frozen=True)
class Prediction:
    """The answer for one image; where ``error`` is set the rest is empty.

    Attributes
    ----------
    name : str
    label : str or None
        Predicted class.
    probabilities : dict
        Class name -> probability.
    prediction_set : list of str or None
        Classes that cannot be ruled out at the level; ``None`` where the checkpoint has no
        calibration.
    set_in_words : str or None
    never_ruled_out : list of str
        Classes that stand in the set of every image at this level, because too few calibration
        images are there to rule them out.
    class_record : dict or None
        ``recall``, ``precision`` and their intervals and counts of the predicted class on the
        test side of the training.
    unlike_training : bool or None
        Farther from the training images than 99 % of held-out ones; ``None`` where unknown.
    distance : float or None
        To the fifth nearest training image, in whitened features (`classify.neighbours`).
    neighbours : list of Neighbour
    evidence : (H, W) float32 or None
        Grad-CAM map in [0, 1].
    disagreement : float or None
        Mutual information, nats, of ensemble members or dropout samples.
    error : str or None
        Why the image could not be used.
    """

    name: str
    label: str | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    prediction_set: list[str] | None = None
    set_in_words: str | None = None
    never_ruled_out: list[str] = field(default_factory=list)
    class_record: dict[str, Any] | None = None
    unlike_training: bool | None = None
    distance: float | None = None
    neighbours: list[Neighbour] = field(default_factory=list)
    evidence: np.ndarray | None = None
    disagreement: float | None = None
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What ``classify-predict --json`` prints for one file; the evidence map is left out."""
        if self.error is not None:
            return {"file": self.name, "error": self.error}
        values: dict[str, Any] = {
            "file": self.name,
            "class": self.label,
            "probabilities": self.probabilities,
            "set": self.prediction_set,
            "set_in_words": self.set_in_words,
            "never_ruled_out": self.never_ruled_out,
            "unlike_training": self.unlike_training,
            "distance": self.distance,
        }
        if self.neighbours:
            values["neighbours"] = [asdict(n) for n in self.neighbours]
        if self.disagreement is not None:
            values["disagreement"] = self.disagreement
        return values

    def as_row(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """One row of a table; the same keys for every image."""
        names = self.prediction_set
        return {
            "id": self.name,
            "class": self.label,
            **{f"p_{name}": self.probabilities.get(name) for name in class_names},
            "set": None if names is None else "|".join(names),
            "set_size": None if names is None else len(names),
            "unlike_training": self.unlike_training,
            "distance": self.distance,
            "disagreement": self.disagreement,
            "nearest_training": "|".join(n.id for n in self.neighbours) or None,
        }


class ClassifierService:
    """One loaded checkpoint.

    Attributes
    ----------
    classifier : TrainedClassifier or Ensemble
    reference : Reference
        Calibration and training images.
    reader : ImageReader
    folder : Path
    """

    def __init__(self, classifier: Classifier, reference: Reference, folder: Path) -> None:
        self.classifier = classifier
        self.reference = reference
        self.folder = folder
        decoding = (classifier.record.get("data") or {}).get("decoding") or {}
        self.reader = ImageReader(
            size=classifier.size,
            channels=classifier.channels,
            crop=decoding.get("crop"),
            scale_16_bit=bool(decoding.get("scale_16_bit", False)),
            takes_flux=classifier.takes_flux,
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return self.classifier.class_names

    @cached_property
    def training_fingerprints(self) -> frozenset[str]:
        """Fingerprints of the training images that the checkpoint keeps; none may be kept."""
        examples = self.reference.examples
        return frozenset() if examples is None else frozenset(examples.fingerprints().tolist())

    @property
    def card(self) -> str:
        """``card.md`` of the checkpoint, empty where there is none."""
        path = self.folder / "card.md"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    @property
    def metrics(self) -> dict[str, Any]:
        """``metrics.json`` of the checkpoint (test side), empty where there is none."""
        path = self.folder / "metrics.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def predict(
        self, items: Sequence[tuple[str, Source]], questions: Questions | None = None
    ) -> list[Prediction]:
        """Answer for each (name, file or bytes or array), in order; a bad one is answered too."""
        found: dict[int, torch.Tensor] = {}
        errors: dict[int, str] = {}
        for index, (name, source) in enumerate(items):
            try:
                found[index] = self.reader.read(source, name)
            except InputError as error:
                errors[index] = str(error)
        answers: list[Prediction] = []
        if found:
            names = [items[index][0] for index in found]
            answers = self.predict_pixels(names, torch.stack(list(found.values())), questions)
        of_index = dict(zip(found, answers, strict=True))
        return [
            of_index[index]
            if index in of_index
            else Prediction(name=items[index][0], error=errors[index])
            for index in range(len(items))
        ]

    def predict_pixels(
        self, names: Sequence[str], pixels: torch.Tensor, questions: Questions | None = None
    ) -> list[Prediction]:
        """Answer for stored pixels (n, C, H, W) of the classifier's size."""
        asked = questions or Questions()
        probabilities, unsettled = self._probabilities(pixels, asked)
        sets, standing = None, []
        # The calibration holds answers to single views; averaged ones are another score, for
        # which its thresholds promise nothing.
        averaged = asked.average_symmetries or asked.dropout_samples
        if self.reference.calibration is not None and not averaged:
            calibration = self.reference.calibration
            sets = calibration.sets(probabilities, asked.level, asked.set_kind)
            standing = self._members(calibration.never_ruled_out(asked.level, asked.set_kind))
        nearest = self._nearest(pixels, asked)
        best = probabilities.argmax(axis=1)
        maps = self._evidence(pixels, best) if asked.grad_cam else None
        per_class = {entry["name"]: entry for entry in self._class_records()}
        answers = []
        for row, name in enumerate(names):
            label = self.class_names[best[row]]
            members = self._members(sets[row]) if sets is not None else None
            answers.append(
                Prediction(
                    name=name,
                    label=label,
                    probabilities=dict(
                        zip(self.class_names, probabilities[row].tolist(), strict=True)
                    ),
                    prediction_set=members,
                    set_in_words=None
                    if members is None
                    else set_in_words(members, len(self.class_names), asked.level, standing),
                    never_ruled_out=standing,
                    class_record=per_class.get(label),
                    unlike_training=None
                    if nearest is None or nearest.unlike is None
                    else bool(nearest.unlike[row]),
                    distance=None if nearest is None else float(nearest.distance[row]),
                    neighbours=[] if nearest is None else nearest.named[row],
                    evidence=None if maps is None else maps[row],
                    disagreement=None if unsettled is None else float(unsettled[row]),
                )
            )
        return answers

    def _probabilities(
        self, pixels: torch.Tensor, asked: Questions
    ) -> tuple[np.ndarray, np.ndarray | None]:
        classifier = self.classifier
        if asked.dropout_samples:
            if isinstance(classifier, Ensemble):
                raise InputError(
                    "dropout samples are for one network; an ensemble disagrees by itself"
                )
            draws = dropout_samples(classifier, pixels, asked.dropout_samples)
            return draws.mean(dim=0).numpy(), disagreement(draws)
        if asked.average_symmetries:
            return symmetric_probabilities(classifier, pixels).numpy(), None
        if isinstance(classifier, Ensemble):
            members = classifier.member_probabilities(pixels)
            return classifier.join(members).numpy(), disagreement(members)
        return classifier.probabilities(pixels).numpy(), None

    def _evidence(self, pixels: torch.Tensor, classes: np.ndarray) -> np.ndarray:
        if isinstance(self.classifier, TrainedClassifier):
            return grad_cam(self.classifier, pixels, classes)
        maps = [grad_cam(member, pixels, classes) for member in self.classifier.members]
        if len({of_member.shape for of_member in maps}) > 1:  # members may see other --crops
            maps = [_laid_over_centre(of_member, pixels.shape[-1]) for of_member in maps]
        return np.mean(maps, axis=0)

    def _nearest(self, pixels: torch.Tensor, asked: Questions) -> "_Nearest | None":
        known = self.reference.neighbours
        if known is None:
            return None
        features = self.classifier.features(pixels)
        distance = known.distance(features)
        named: list[list[Neighbour]] = [[] for _ in range(len(pixels))]
        if asked.neighbours:
            distances, rows = known.nearest(features, asked.neighbours)
            named = [
                [
                    Neighbour(
                        id=str(known.ids[row]),
                        label=self.class_names[int(known.labels[row])],
                        distance=float(value),
                        row=int(row),
                    )
                    for value, row in zip(values, of_image, strict=True)
                ]
                for values, of_image in zip(distances, rows, strict=True)
            ]
        # Without held-out images nothing says which distance is a long one.
        unlike = distance > known.threshold if np.isfinite(known.threshold) else None
        return _Nearest(distance, unlike, named)

    def _members(self, row: np.ndarray) -> list[str]:
        return [name for name, inside in zip(self.class_names, row, strict=True) if inside]

    def _class_records(self) -> list[dict[str, Any]]:
        metrics = self.classifier.record.get("metrics") or {}
        return list(metrics.get("per_class") or [])


@dataclass(frozen=True)
class _Nearest:
    distance: np.ndarray
    unlike: np.ndarray | None
    named: list[list[Neighbour]]


def _laid_over_centre(maps: np.ndarray, side: int) -> np.ndarray:
    """(n, H', H') to (n, side, side), zero where the network saw nothing."""
    before = (side - maps.shape[-1]) // 2
    after = side - maps.shape[-1] - before
    return np.pad(maps, ((0, 0), (before, after), (before, after)))


def load_service(
    checkpoint: Path | str,
    device: torch.device | str = "cpu",
    *,
    crop: int | None = None,
    fits: FitsReading | None = None,
) -> ClassifierService:
    """Load a classifier or an ensemble with all that it remembers of its data.

    Parameters
    ----------
    crop
        Central square to cut from files; default what the training set was packed with.
    fits
        How FITS files are read.

    Raises
    ------
    InputError
        If ``checkpoint`` is not one.
    """
    import dataclasses

    folder = Path(checkpoint)
    service = ClassifierService(load_any(folder, device), read_reference(folder), folder)
    changes: dict[str, Any] = {}
    if crop is not None:
        changes["crop"] = crop
    if fits is not None:
        changes["fits"] = fits
    service.reader = dataclasses.replace(service.reader, **changes)
    return service


def as_image_set(pixels: torch.Tensor, service: ClassifierService) -> ImageSet:
    """Unlabelled set of stored pixels (n, C, H, W), for functions that take a set."""
    return ImageSet(
        store=PixelsInMemory(pixels),
        labels=np.zeros(len(pixels), np.int64),
        class_names=service.class_names,
        ids=np.arange(len(pixels)).astype(str),
    )
