"""A classifier as a feature extractor, for `fid` and through it for `gan`.

`fid` finds these two functions through entry points, so it never imports this room.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch

from classify.checkpoint import WEIGHTS, load_classifier
from classify.classifier import TrainedClassifier
from classify.training import train_classifier
from classify.training_config import TrainingConfig
from galaxies.errors import InputError
from galaxies.image_set import ImageSet

NAME = "classifier"
STEPS = 400


class ClassifierFeatures:
    """Penultimate features of a trained classifier.

    Satisfies ``fid.features.FeatureExtractor``: uint8 (n, C, H, W) to float32 (n, d).

    Attributes
    ----------
    name : str
        ``classifier``.
    dimensions : int
        d.
    weights_sha256 : str
        Of the checkpoint's weights, or of the tensors where there is no file.
    recipe : str
        How images become features, in words.
    """

    def __init__(self, classifier: TrainedClassifier, weights_sha256: str) -> None:
        self.classifier = classifier
        self.name = NAME
        self.weights_sha256 = weights_sha256
        self.dimensions = int(self(_black_image(classifier)).shape[1])
        self.recipe = (
            f"penultimate features of {classifier.specification.name}, "
            f"{classifier.size}x{classifier.size}x{classifier.channels}, no resizing"
        )

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features (n, d) float32 of stored pixels (n, C, H, W)."""
        return self.classifier.features(images)

    def save(self, folder: Path) -> None:
        """Write the classifier as a checkpoint, which `load_extractor` reads again."""
        self.classifier.save(folder)


def load_extractor(
    argument: str, weights: Path | None, device: torch.device | str
) -> ClassifierFeatures:
    """Features of a checkpoint: ``--features classifier:CHECKPOINT``.

    Raises
    ------
    InputError
        If ``argument`` is not a classifier's checkpoint.
    """
    if not argument:
        raise InputError("classifier features need a checkpoint: --features classifier:CHECKPOINT")
    if weights is not None:
        raise InputError(
            "classifier features take their weights from the checkpoint, not --weights"
        )
    classifier = load_classifier(Path(argument), device)
    digest = hashlib.sha256((Path(argument) / WEIGHTS).read_bytes()).hexdigest()
    return ClassifierFeatures(classifier, digest)


def train_extractor(
    image_set: ImageSet,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = True,
    steps: int | None = None,
) -> ClassifierFeatures:
    """Train a judge of images on (a training split of) a set, and return its features.

    A judge must not know its training images by heart: a rare class drawn as often as the others
    is learnt until its training images lie far from unseen ones in these features, and images
    like them, the best that there can be, look bad. So the rare class is drawn by the root of its
    count, under all symmetries and telescope-like changes, in few steps; the last weights are
    kept, for there is no validation side to choose by.
    """
    config = judge_training(seed, steps or STEPS)
    classifier = train_classifier(image_set, None, config, device=device, progress=progress)
    return ClassifierFeatures(classifier, digest_of(classifier.network.state_dict()))


def judge_training(seed: int, steps: int = STEPS) -> TrainingConfig:
    """How a judge of images is trained, see `train_extractor`."""
    return TrainingConfig(
        seed=seed, best_by="last", balance="sqrt-sampling", augment="physical", steps=steps
    )


def digest_of(state: dict[str, torch.Tensor]) -> str:
    """sha256 over the names and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


FeatureTrainer = Callable[..., ClassifierFeatures]


def _black_image(classifier: TrainedClassifier) -> torch.Tensor:
    dtype = torch.uint8 if classifier.normalisation.stretch is None else torch.float32
    return torch.zeros(1, classifier.channels, classifier.size, classifier.size, dtype=dtype)
