"""What a checkpoint remembers of its data beside the weights: calibration and training images.

``reference.safetensors`` holds numbers; ``examples.h5`` some of the training images, so that
a page can show the nearest ones without the original set.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from classify.classifier import TrainedClassifier
from classify.conformal import ConformalCalibration
from classify.damage import refuse_damaged
from classify.determinism import numpy_generator_for
from classify.ensemble import Ensemble
from classify.neighbours import TrainingNeighbours, Whitening, fit_neighbours
from galaxies.errors import InputError
from galaxies.hdf5 import read_hdf5, write_hdf5
from galaxies.image_set import ImageSet

REFERENCE = "reference.safetensors"
EXAMPLES = "examples.h5"


@dataclass(frozen=True)
class Reference:
    """Calibration and neighbours of one classifier.

    Attributes
    ----------
    calibration : ConformalCalibration or None
        ``None`` where no images were held out for it.
    neighbours : TrainingNeighbours or None
    examples : ImageSet or None
        The images of ``neighbours``, in the same order.
    """

    calibration: ConformalCalibration | None
    neighbours: TrainingNeighbours | None
    examples: ImageSet | None


def make_reference(
    classifier: TrainedClassifier | Ensemble,
    train: ImageSet,
    calibration: ImageSet | None,
    *,
    most_examples: int,
    seed: int = 0,
) -> Reference:
    """Measure calibration scores and training features.

    ``most_examples`` training images are kept, in equal numbers per class as far as there are;
    0 keeps none, and then nothing is flagged as unlike the training data.
    """
    held_out = None
    if calibration is not None and len(calibration):
        probabilities = classifier.probabilities(calibration).numpy()
        held_out = ConformalCalibration(probabilities, calibration.labels.copy())
    if not most_examples:
        return Reference(held_out, None, None)
    examples = train.select(examples_per_class(train.labels, most_examples, seed)).in_memory()
    neighbours = fit_neighbours(
        classifier.features(examples),
        examples.labels,
        examples.ids,
        classifier.features(calibration) if calibration is not None else None,
    )
    return Reference(held_out, neighbours, examples)


def examples_per_class(labels: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Rows (ascending) of at most ``most`` images, the rare classes first in full."""
    random = numpy_generator_for(seed, "examples")
    classes, counts = np.unique(labels, return_counts=True)
    left, chosen = most, []
    for position, index in enumerate(np.argsort(counts, kind="stable")):
        share = left // (len(classes) - position)
        rows = random.permutation(np.flatnonzero(labels == classes[index]))[:share]
        chosen.append(rows)
        left -= len(rows)
    return np.sort(np.concatenate(chosen))


def write_reference(reference: Reference, folder: Path) -> None:
    """Write into an existing checkpoint folder."""
    tensors: dict[str, torch.Tensor] = {}
    if reference.calibration is not None:
        tensors["calibration_probabilities"] = torch.from_numpy(reference.calibration.probabilities)
        tensors["calibration_labels"] = torch.from_numpy(reference.calibration.labels)
    if reference.neighbours is not None and reference.examples is not None:
        tensors["training_features"] = reference.neighbours.features.contiguous()
        tensors["whitening_centre"] = reference.neighbours.whitening.centre
        tensors["whitening_projection"] = reference.neighbours.whitening.projection
        tensors["whitened_features"] = reference.neighbours.whitened.contiguous()
        tensors["outlier_threshold"] = torch.tensor(
            [reference.neighbours.threshold], dtype=torch.float64
        )
        write_hdf5(reference.examples, folder / EXAMPLES)
    if tensors:
        save_file(tensors, folder / REFERENCE)


def read_reference(folder: Path) -> Reference:
    """Read what `write_reference` wrote; parts that were not written are ``None``."""
    if not (folder / REFERENCE).is_file():
        return Reference(None, None, None)
    with refuse_damaged(folder, "classifier checkpoint"):
        return _read_reference(folder)


def _read_reference(folder: Path) -> Reference:
    with safe_open(folder / REFERENCE, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    calibration = None
    if "calibration_labels" in tensors:
        calibration = ConformalCalibration(
            tensors["calibration_probabilities"].numpy(), tensors["calibration_labels"].numpy()
        )
    if "training_features" not in tensors:
        return Reference(calibration, None, None)
    missing = {"whitening_centre", "whitening_projection", "whitened_features"} - set(tensors)
    if missing or not (folder / EXAMPLES).is_file():
        raise InputError(f"{folder / REFERENCE} is incomplete; train the checkpoint anew")
    examples = read_hdf5(folder / EXAMPLES)
    neighbours = TrainingNeighbours(
        tensors["training_features"],
        Whitening(tensors["whitening_centre"], tensors["whitening_projection"]),
        tensors["whitened_features"],
        examples.labels,
        examples.ids,
        float(tensors["outlier_threshold"]),
    )
    return Reference(calibration, neighbours, examples)
