"""Whether the generator has copied its training images.

For each generated image: its nearest training image under the eight symmetries, that distance
over the one from the training image to its own nearest neighbour (Alaa et al. 2022), and over
the distance to the nearest real image that the generator never saw. For the whole set: the share
of copies, and the data-copying test of Meehan et al. (AISTATS 2020), which asks whether
generated images lie nearer to the training images than unseen real ones do. That test is taken
twice: on the distances, as published, and on their ratios, which do not mistake a fainter set,
whose images are all nearer to everything, for a copied one.
"""

from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch

from fid.nearest import NearestImages, nearest_under_symmetries
from galaxies.errors import InputError

COPY_RATIO = 0.5
"""Nearer to a training image than half the distance to that image's own nearest neighbour."""

SHOWN_PAIRS = 20


@dataclass(frozen=True)
class Memorisation:
    """Distances of m generated images to n training images, beside those of unseen real ones.

    Attributes
    ----------
    nearest : NearestImages
        Nearest training image of each generated one.
    ratio : (m,) float64
        That distance over the distance of the training image to its own nearest neighbour.
    unseen_ratio : (h,) float64
        The same for real images that the generator never saw: the floor of ``ratio``.
    held_out_ratio : (m,) float64 or None
        Distance to the nearest training image over that to the nearest held-out one, among as
        many of the one as of the other; ``None`` without held-out images.
    copies, copies_of_unseen : float
        Share of ``ratio`` and of ``unseen_ratio`` below `COPY_RATIO`.
    z, p : float
        Mann-Whitney statistic of ``ratio`` against ``unseen_ratio`` and its one-sided p-value;
        z is about standard normal for a generator that does not copy, below -3 for one that
        does.
    c_t, c_t_p : float
        The same of the distances: C_T of Meehan et al. with one cell.
    reference : str
        What stood for unseen images.
    """

    nearest: NearestImages
    ratio: np.ndarray
    unseen_ratio: np.ndarray
    held_out_ratio: np.ndarray | None
    copies: float
    copies_of_unseen: float
    z: float
    p: float
    c_t: float
    c_t_p: float
    reference: str

    def closest(self, count: int = SHOWN_PAIRS) -> np.ndarray:
        """(count,) generated images with the smallest ratio, the most suspicious first."""
        return np.argsort(self.ratio, kind="stable")[:count]


def measure_memorisation(
    generated: torch.Tensor,
    training: torch.Tensor,
    held_out: torch.Tensor | None = None,
    *,
    most_unseen: int = 500,
    rng: np.random.Generator,
) -> Memorisation:
    """Look for copies of training images.

    Parameters
    ----------
    generated, training
        (m, C, H, H) and (n, C, H, H) uint8, or as `fid.nearest.reduce_images` leaves them.
    held_out
        (h, C, H, H) real images that the generator never saw. Without them each training image
        stands for an unseen one, compared with the other training images.
    most_unseen
        Most unseen images that are compared; more are thinned by ``rng``.

    Raises
    ------
    InputError
        If there are fewer than 3 training images, or the shapes differ.
    """
    if len(training) < 3:
        raise InputError(f"copies are looked for among at least 3 images, got {len(training)}")
    nearest = nearest_under_symmetries(generated, training)
    ratio = _ratio(nearest.distance, _own_reach(training, nearest.index))
    if held_out is None:
        rows = _thinned(len(training), most_unseen, rng)
        unseen = nearest_under_symmetries(training[rows], training, exclude=rows)
        # The image in question must not be its neighbour's neighbour either.
        both = np.stack([unseen.index, rows], axis=1)
        reach = nearest_under_symmetries(training[unseen.index], training, exclude=both).distance
        reference = "each training image against the other training images"
    else:
        rows = _thinned(len(held_out), most_unseen, rng)
        unseen = nearest_under_symmetries(held_out[rows], training)
        reach = _own_reach(training, unseen.index)
        reference = "held-out images"
    unseen_ratio = _ratio(unseen.distance, reach)
    z, p = copying_test(ratio, unseen_ratio)
    c_t, c_t_p = copying_test(nearest.distance, unseen.distance)
    held_out_ratio = None
    if held_out is not None:
        # A stream of its own: what is drawn here changes nothing that is drawn later.
        held_out_ratio = _held_out_ratio(generated, training, held_out, rng.spawn(1)[0])
    return Memorisation(
        nearest=nearest,
        ratio=ratio,
        unseen_ratio=unseen_ratio,
        held_out_ratio=held_out_ratio,
        copies=float((ratio < COPY_RATIO).mean()),
        copies_of_unseen=float((unseen_ratio < COPY_RATIO).mean()),
        z=z,
        p=p,
        c_t=c_t,
        c_t_p=c_t_p,
        reference=reference,
    )


def copying_test(generated: np.ndarray, unseen: np.ndarray) -> tuple[float, float]:
    """Mann-Whitney z and one-sided p: generated images lie nearer to training than unseen ones.

    Parameters
    ----------
    generated, unseen
        (m,) and (h,) distances to the nearest training image, or their ratios.
    """
    m, h = len(generated), len(unseen)
    ranks = scipy.stats.rankdata(np.concatenate([generated, unseen]))
    statistic = ranks[:m].sum() - m * (m + 1) / 2
    _, ties = np.unique(ranks, return_counts=True)
    total = m + h
    variance = m * h / 12 * (total + 1 - (ties**3 - ties).sum() / (total * (total - 1)))
    if variance <= 0:
        return 0.0, 0.5
    z = float((statistic - m * h / 2) / np.sqrt(variance))
    return z, float(scipy.stats.norm.cdf(z))


def _own_reach(training: torch.Tensor, indices: np.ndarray) -> np.ndarray:
    """Distance of the training images ``indices`` to their own nearest neighbours."""
    asked, inverse = np.unique(indices, return_inverse=True)
    return nearest_under_symmetries(training[asked], training, exclude=asked).distance[inverse]


def _held_out_ratio(
    generated: torch.Tensor,
    training: torch.Tensor,
    held_out: torch.Tensor,
    rng: np.random.Generator,
) -> np.ndarray:
    # The nearest of many is nearer than the nearest of few, copied or not.
    count = min(len(training), len(held_out))
    to_training, to_held_out = (
        nearest_under_symmetries(generated, images[_thinned(len(images), count, rng)]).distance
        for images in (training, held_out)
    )
    return _ratio(to_training, to_held_out)


def _ratio(distance: np.ndarray, scale: np.ndarray) -> np.ndarray:
    # Two equal training images are no scale for a third; the smallest grey step stands in.
    return distance / np.maximum(scale, 1 / 255)


def _thinned(count: int, most: int, rng: np.random.Generator) -> np.ndarray:
    if count <= most:
        return np.arange(count)
    return np.sort(rng.choice(count, most, replace=False))
