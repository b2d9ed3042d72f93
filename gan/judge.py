"""How good the generated images of a class are while the generator still trains.

Features of a classifier trained on the training split alone, so that nothing has to be
downloaded and the test split stays unread. KID (Binkowski et al. 2018) against the validation
split chooses the checkpoint: it is unbiased at a hundred images, where FID is not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fid.full_precision import precision_of
from galaxies.image_set import ImageSet
from galaxies.pixels import Stretch, to_network
from galaxies.symmetry import SYMMETRIES, apply_symmetry, is_mirrored

Extractor = Callable[[Tensor], Tensor]
"""Stored pixels (n, C, H, W) to features (n, d): what `fid.features.FeatureExtractor` does."""

LEAST_VALIDATION = 4
"""Below this many held-out images a class cannot be judged against them."""

_BATCH = 256
_PIXEL_SIDE = 32
_MOST_SPREAD = 1000  # memory and time grow with the square of the rows


@dataclass(frozen=True)
class Verdict:
    """What the judge finds in the images of one class.

    Attributes
    ----------
    kid, kid_error : float
        KID to the held-out images of the class, mean over the symmetries of the class, and its
        standard error (that of one view).
    diversity : float
        Mean distance between two generated images over that between two real ones, in features.
    copying : float
        Excess of generated images whose nearest real image is a training one: 0 when held-out
        images are as near as their number says, 1 when a training image always is nearest.
    nearness : float
        Median distance to the nearest training image over that of the held-out images.
    agreement : float
        Share of generated images that a linear classifier on the features takes for the class.
    agreement_real : float
        The same share for the held-out images.
    mistaken_for : int
        Index of the class that generated images are most often taken for, the class included.
    """

    kid: float
    kid_error: float
    diversity: float
    copying: float
    nearness: float
    agreement: float
    agreement_real: float
    mistaken_for: int

    def as_json(self) -> dict[str, Any]:
        """Fields by name, numbers rounded for the log."""
        return {
            name: value if isinstance(value, int) else round(float(value), 5)
            for name, value in self.__dict__.items()
        }


class Judge:
    """Compares generated images of a class with the training and validation images.

    Parameters
    ----------
    extractor
        Features of stored pixels.
    train, validation
        Sides of the split, at the size of the generated images.
    """

    def __init__(self, extractor: Extractor, train: ImageSet, validation: ImageSet) -> None:
        self.extractor = extractor
        self.train_labels, self.validation_labels = train.labels, validation.labels
        self.train_features = self.features(train.pixels)
        self.validation_features = self.features(validation.pixels)
        self._train_pixels, self._validation_pixels = train.pixels, validation.pixels
        self._views: dict[int, list[np.ndarray]] = {}
        self._real_spreads: dict[int, float] = {}
        self._stretch = train.stretch
        self._thumbnails: dict[int, tuple[ClassViews, ClassViews, Tensor]] = {}
        self.linear = _discriminant(self.train_features, self.train_labels)
        self.twins = train.mirror_permutation().tolist()
        self.symmetries = {
            index: [e for e in range(SYMMETRIES) if twin == index or not _mirrors(e)]
            for index, twin in enumerate(self.twins)
        }

    def features(self, pixels: Tensor) -> np.ndarray:
        """(n, d) float64 features of stored pixels."""
        pieces = [
            _features_of(self.extractor, pixels[start : start + _BATCH])
            for start in range(0, len(pixels), _BATCH)
        ]
        return torch.cat(pieces).numpy()

    def can_judge(self, index: int) -> bool:
        """Whether a class has held-out images enough."""
        return int((self.validation_labels == index).sum()) >= LEAST_VALIDATION

    def judge(self, index: int, images: Tensor) -> Verdict:
        """Judge (n, C, S, S) stored pixels generated for class ``index``."""
        from fid.kernel import kernel_distance

        fake = self.features(images)
        distances = [kernel_distance(view, fake) for view in self._held_out_views(index)]
        held_out = self.validation_features[self.validation_labels == index]
        taken_for = self.linear(fake)
        copying, nearness = self._copying(index, thumbnails(images, self._stretch))
        return Verdict(
            kid=float(np.mean([distance.value for distance in distances])),
            kid_error=float(np.mean([distance.standard_error for distance in distances])),
            diversity=_spread(fake) / max(self._real_spread(index), 1e-12),
            copying=copying,
            nearness=nearness,
            agreement=float((taken_for == index).mean()),
            agreement_real=float((self.linear(held_out) == index).mean()),
            mistaken_for=int(np.bincount(taken_for).argmax()),
        )

    def _held_out_views(self, index: int) -> list[np.ndarray]:
        """Features of the held-out images of a class under each of its symmetries.

        The orientation of a dozen held-out galaxies is an accident, the mean KID over their views
        is free of it; each view's KID is unbiased.
        """
        if index not in self._views:
            own = self._validation_pixels[torch.from_numpy(self.validation_labels == index)]
            self._views[index] = [
                self.features(apply_symmetry(own, torch.full((len(own),), element)))
                for element in self.symmetries[index]
            ]
        return self._views[index]

    def _real_spread(self, index: int) -> float:
        if index not in self._real_spreads:
            trained = self.train_features[self.train_labels == index]
            held_out = self.validation_features[self.validation_labels == index]
            self._real_spreads[index] = _spread(np.concatenate([trained, held_out]))
        return self._real_spreads[index]

    def _copying(self, index: int, images: Tensor) -> tuple[float, float]:
        """Excess share nearest to a training image, and the ratio of median distances.

        A blurred image is near everything, training and held-out alike, so the first number does
        not mistake blur for copying.
        """
        train, held_out, own = self._small_images(index)
        to_train = nearest_distance(images, train)
        to_held_out = nearest_distance(images, held_out)
        expected = len(train) / (len(train) + len(held_out))
        share = float((to_train < to_held_out).double().mean())
        usual = nearest_distance(own, train).median()
        nearness = float(to_train.median() / usual.clamp_min(1e-12))
        return max(0.0, (share - expected) / (1 - expected)), nearness

    def _small_images(self, index: int) -> tuple["ClassViews", "ClassViews", Tensor]:
        """Training and held-out images that show a class, and its own held-out ones.

        Made when a class is first judged: those of a whole survey would take more memory than its
        images do.
        """
        if index not in self._thumbnails:
            twin = self.twins[index]
            sides = []
            for pixels, labels in (
                (self._train_pixels, self.train_labels),
                (self._validation_pixels, self.validation_labels),
            ):
                rows = np.isin(labels, (index, twin))
                small = thumbnails(pixels[torch.from_numpy(rows)], self._stretch)
                sides.append((small, labels[rows]))
            (trained, train_labels), (held_out, held_out_labels) = sides
            self._thumbnails[index] = (
                views_of_class(trained, train_labels, index, twin),
                views_of_class(held_out, held_out_labels, index, twin),
                held_out[torch.from_numpy(held_out_labels == index)],
            )
        return self._thumbnails[index]


@dataclass(frozen=True)
class ClassViews:
    """All images that show one class: its own, and the mirrored ones of its twin.

    Attributes
    ----------
    parts : tuple of (Tensor, list of int)
        (n, C, S, S) images, and the symmetries under which they belong to the class.
    """

    parts: tuple[tuple[Tensor, list[int]], ...]

    def __len__(self) -> int:
        return sum(len(images) for images, _ in self.parts)


def views_of_class(pixels: Tensor, labels: np.ndarray, index: int, twin: int) -> ClassViews:
    """The views of class ``index`` among ``pixels``; ``twin`` is the class of its mirror image.

    A class that is its own twin has all eight symmetries. A clockwise spiral has the four
    rotations, and so has each anticlockwise one once it is mirrored: a generator learns from both.
    """
    of_class = {name: pixels[torch.from_numpy(labels == name)] for name in {index, twin}}
    if twin == index:
        return ClassViews(((of_class[index], list(range(SYMMETRIES))),))
    mirrored = [element for element in range(SYMMETRIES) if _mirrors(element)]
    turned = [element for element in range(SYMMETRIES) if not _mirrors(element)]
    return ClassViews(((of_class[index], turned), (of_class[twin], mirrored)))


def nearest_distance(
    images: Tensor, references: ClassViews, itself: Tensor | None = None
) -> Tensor:
    """(n,) root mean square distance of images (n, C, S, S) to the nearest view of a class.

    ``itself`` (n,) names the image of the first part that each image is, and is not compared with.
    """
    best = torch.full((len(images),), torch.inf)
    flat = images.flatten(1)
    for number, (others, elements) in enumerate(references.parts):
        for element in elements if len(others) else ():
            turned = apply_symmetry(others, torch.full((len(others),), element))
            distances = torch.cdist(flat, turned.flatten(1))
            if itself is not None and number == 0:
                distances[torch.arange(len(images)), itself] = torch.inf
            best = torch.minimum(best, distances.min(dim=1).values)
    return best / flat.shape[1] ** 0.5


def _mirrors(element: int) -> bool:
    return bool(is_mirrored(torch.tensor(element)))


def thumbnails(pixels: Tensor, stretch: Stretch | None) -> Tensor:
    """(n, C, 32, 32) float32 in [0, 1] on the host; flux as networks see it.

    A generator's flux ends at ``stretch.white``, that of galaxies does not: unstretched, a copy
    of a bright galaxy would lie far from it.
    """
    side = min(_PIXEL_SIDE, pixels.shape[-1])

    def unit(block: Tensor) -> Tensor:
        if block.dtype == torch.uint8:
            return block.float() / 255
        return (to_network(block, stretch) + 1) / 2

    pieces = [
        torch.nn.functional.adaptive_avg_pool2d(unit(block), side) for block in pixels.split(_BATCH)
    ]
    return torch.cat(pieces)


def _spread(features: np.ndarray) -> float:
    """Mean distance between two different rows, of at most `_MOST_SPREAD` evenly spaced ones."""
    if len(features) > _MOST_SPREAD:
        features = features[np.linspace(0, len(features) - 1, _MOST_SPREAD).round().astype(int)]
    rows = torch.from_numpy(features)
    distances = torch.pdist(rows) if len(rows) > 1 else torch.zeros(1)
    return float(distances.mean())


def _features_of(extractor: Extractor, pixels: Tensor) -> Tensor:
    """(n, d) float64 on the CPU; without TF32, so that a judgement does not depend on the card."""
    with precision_of(extractor):
        return extractor(pixels).detach().cpu().double()


def class_probabilities_of(extractor: Extractor, train: ImageSet) -> Callable[[Tensor], np.ndarray]:
    """Stored pixels (n, C, H, W) to (n, classes) probabilities of a linear discriminant."""

    def features(pixels: Tensor) -> np.ndarray:
        pieces = [_features_of(extractor, block) for block in pixels.split(_BATCH)]
        return torch.cat(pieces).numpy()

    classes, logits = _linear_logits(features(train.pixels), train.labels)

    def probabilities(pixels: Tensor) -> np.ndarray:
        values = logits(features(pixels))
        values = np.exp(values - values.max(axis=1, keepdims=True))
        table = np.zeros((len(values), len(train.class_names)))
        table[:, classes] = values / values.sum(axis=1, keepdims=True)
        return table

    return probabilities


def _discriminant(features: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Features (n, d) to the likeliest class (n,)."""
    classes, logits = _linear_logits(features, labels)
    return lambda rows: classes[logits(rows).argmax(axis=1)]


def _linear_logits(
    features: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Regularised linear discriminant with equal priors: the classes, and their logits."""
    classes = np.unique(labels)
    means = np.stack([features[labels == index].mean(axis=0) for index in classes])
    residuals = features - means[np.searchsorted(classes, labels)]
    covariance = residuals.T @ residuals / max(1, len(features) - len(classes))
    ridge = 0.05 * np.trace(covariance) / len(covariance) + 1e-9
    weights = np.linalg.solve(covariance + ridge * np.eye(len(covariance)), means.T)
    offsets = -0.5 * (means.T * weights).sum(axis=0)
    return classes, lambda rows: rows @ weights + offsets
