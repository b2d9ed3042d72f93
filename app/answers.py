"""Accepted files and samples to answers: the one road of the page and the endpoint."""

import csv
import io
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from app import served
from app.cli import ClassifyAppConfig
from app.pieces import shown_pixels
from app.uploads import Limits, Refused, Upload, accept
from app.wording import reason_for_people
from classify.evidence_picture import evidence_overlay
from classify.service import Prediction, Questions
from galaxies.errors import InputError
from galaxies.pixels import Stretch

if TYPE_CHECKING:
    import torch

SIMILAR = 6
"""Nearest training images that are shown."""

_BATCH = 64


@dataclass(frozen=True)
class Answer:
    """What is said of one file.

    Attributes
    ----------
    prediction : Prediction
        Its ``error`` is set where the file could not be used.
    pixels : (C, H, W) tensor or None
        As the network saw them, before scaling.
    truth : str or None
        Class in the catalogue, where the image is one of the samples.
    """

    prediction: Prediction
    pixels: "torch.Tensor | None" = None
    truth: str | None = None

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.prediction.name

    @property
    def error(self) -> str | None:
        """Why it could not be used."""
        return self.prediction.error


@dataclass(frozen=True)
class Explanation:
    """Why an image got its answer.

    Attributes
    ----------
    evidence : (H, W, 3) uint8 or None
        The image under the map of its evidence; ``None`` where the network allows no map.
    similar : list of ((H, W, 1 or 3) uint8, str, float)
        The nearest training images, their classes and distances.
    """

    evidence: np.ndarray | None
    similar: list[tuple[np.ndarray, str, float]]


def answer_files(
    files: Iterable[tuple[str, bytes]], level: float, limits: Limits | None = None
) -> list[Answer]:
    """Answer every file, in order; a bad one is answered beside the good ones."""
    read: list[Answer] = []
    for item in accept(files, limits or served.limits()):
        if isinstance(item, Refused):
            read.append(Answer(Prediction(item.name, error=item.reason)))
        else:
            read.append(_read(item))
    return _predict(read, level)


def answer_samples(level: float) -> list[Answer]:
    """Answer the sample images: those of ``--samples``, or held-out ones of the checkpoint."""
    return list(_answer_samples(served.choices(), level))


@lru_cache(maxsize=32)
def _answer_samples(choices: ClassifyAppConfig, level: float) -> tuple[Answer, ...]:
    """The same for every visitor, so computed once."""
    if choices.samples is not None:
        files = ((path.name, path.read_bytes()) for path in served.sample_files(choices.samples))
        return tuple(answer for answer in answer_files(files, level) if answer.error is None)
    samples = served.samples()
    if samples is None:
        return ()
    names = [samples.class_names[label] for label in samples.labels]
    read = [
        Answer(Prediction(str(name)), pixels, truth)
        for name, pixels, truth in zip(samples.ids, samples.pixels, names, strict=True)
    ]
    return tuple(_predict(read, level))


def explain(answer: Answer, level: float) -> Explanation:
    """Where the network looked, and which training images are most like this one."""
    assert answer.pixels is not None
    service = served.classifier()
    pixels = answer.pixels[None]
    with served.computing:
        try:
            asked = Questions(level=level, neighbours=SIMILAR, grad_cam=True)
            (found,) = service.predict_pixels([answer.name], pixels, asked)
        except InputError:  # this network has no feature map with extent
            asked = Questions(level=level, neighbours=SIMILAR)
            (found,) = service.predict_pixels([answer.name], pixels, asked)
    evidence = found.evidence
    overlay = None
    if evidence is not None:
        overlay = evidence_overlay(answer.pixels, evidence, stretch())
    similar = []
    examples = served.examples()
    if examples is not None and found.neighbours:
        rows = np.array([neighbour.row for neighbour in found.neighbours])
        similar = [
            (shown_pixels(image.numpy(), examples.stretch), near.label, near.distance)
            for image, near in zip(examples.read(rows), found.neighbours, strict=True)
        ]
    return Explanation(overlay, similar)


def nearest_real(images: np.ndarray) -> list[tuple[np.ndarray, str, float]] | None:
    """The training image nearest to each generated one, by the features of the classifier.

    Parameters
    ----------
    images : (n, C, H, W)
        Stored pixels.

    Returns
    -------
    list of ((H, W, 1 or 3) uint8, str, float), or None
        Picture, class and distance; ``None`` where the classifier keeps no training images or
        takes images of another shape.
    """
    import torch

    service = served.classifier()
    examples, known = served.examples(), service.reference.neighbours
    expected = (service.classifier.channels, service.classifier.size, service.classifier.size)
    if examples is None or known is None or images.shape[1:] != expected:
        return None
    with served.computing:
        features = service.classifier.features(torch.from_numpy(images))
        distances, rows = known.nearest(features, 1)
    pictures = examples.read(rows[:, 0])
    labels = examples.labels[rows[:, 0]]
    return [
        (shown_pixels(image.numpy(), examples.stretch), examples.class_names[label], float(far))
        for image, label, far in zip(pictures, labels, distances[:, 0], strict=True)
    ]


def stretch() -> Stretch | None:
    """How the classifier's flux becomes a picture; ``None`` for uint8."""
    classifier = served.classifier().classifier
    member = classifier.members[0] if hasattr(classifier, "members") else classifier
    return member.normalisation.stretch


def as_csv(answers: Sequence[Answer]) -> bytes:
    """The table of all answers, in the columns of ``classify-predict --csv``, and the reasons."""
    names = served.classifier().class_names
    rows = [{**answer.prediction.as_row(names), "error": answer.error} for answer in answers]
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]) if rows else ["id"])
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _harmless(value) for key, value in row.items()})
    return file.getvalue().encode("utf-8")


def _read(upload: Upload) -> Answer:
    try:
        pixels = served.classifier().reader.read(upload.content, upload.name)
    except InputError as error:
        reason = reason_for_people(str(error), upload.name)
        return Answer(Prediction(upload.name, error=reason))
    except Exception as error:  # a hostile file may break a decoder in any way
        traceback.print_exc()
        reason = f"the file is damaged ({type(error).__name__})"
        return Answer(Prediction(upload.name, error=reason))
    return Answer(Prediction(upload.name), pixels)


def _predict(read: list[Answer], level: float) -> list[Answer]:
    import torch

    good = [index for index, answer in enumerate(read) if answer.pixels is not None]
    answers = list(read)
    service = served.classifier()
    for start in range(0, len(good), _BATCH):
        rows = good[start : start + _BATCH]
        pixels = torch.stack([p for row in rows if (p := read[row].pixels) is not None])
        with served.computing:
            found = service.predict_pixels(
                [read[row].name for row in rows], pixels, Questions(level=level)
            )
        for row, prediction in zip(rows, found, strict=True):
            answers[row] = Answer(prediction, read[row].pixels, read[row].truth)
    return answers


def _harmless(value: object) -> object:
    """A text that a spreadsheet would run as a formula gets an apostrophe before it."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
