"""The difference between an arm and its baseline, with every source of variance it met.

A difference is uncertain because another training would give another network (*repeats*),
because other galaxies would have been tested (*images*), and, in a cross-fitted experiment,
because other galaxies would have trained network and generator (*folds*). The variance of the
mean difference is estimated as the sum

    s_R^2 / R                               differences of the repeats
    + var_B(mean over repeats)              bootstrap of the test images (or of their groups)
    + max(0, V - K var_B) (1/K + 1/(.8 (K - 1)))   what the folds differ by beyond their images

with V the variance of the K fold means, and the difference over its root is held against
Student's t with Satterthwaite's degrees of freedom. The factor of the last term is Nadeau and
Bengio's (2003) with ``n_test/n_train`` of the generators, because the folds share training
images; it is a heuristic of theirs for repeated random splits (no unbiased estimate exists for
folds: Bengio and Grandvalet 2004, JMLR 5, 1089). What folds differ by holds their own trainings
as well as other training images. The first two terms both hold the interaction of image and
training, which errs to the side of caution (Owen 2007, Ann. Appl. Stat. 1, 386, on two-way
resampling). The second term enters the sum with at least ``1/n^2``, the variance of one image
that changes sides: where none of n images did, the next one still may (Agresti and Min 2005,
Stat. Med. 24, 729).

The bootstrap is Rao and Wu's (1988, JASA 83, 231): one unit less than a stratum holds is drawn and
the weights rescaled, so that the variance is unbiased in small strata. Groups of unequal size tell
less than their number: ``n^2 / sum m^2`` of them count (Carter, Schnepel and Steigerwald 2017,
Rev. Econ. Stat. 99, 698), less one per fold.

The last term is a difference of mean squares, so its degrees of freedom come from both
(`_freedom`); where folds differ by no more than their images explain it is 0.
`classify.experiment.null_simulation` shows what that costs: with 3 folds and more the test stays
near its level, with 2 it would not, so there both mean squares count even where the term is 0.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from classify.experiment.measures import RunPredictions, called, measure
from classify.experiment.protocol import VALIDATION_SHARE
from classify.experiment.statistics import (
    Estimate,
    corrected_paired_t,
    minimum_detectable_effect,
    paired_t,
    satterthwaite,
    sign_flip_p,
    student_estimate,
)

MINIMUM_DRAWS = 20
"""Fewer usable bootstrap draws than this give no interval."""


@dataclass(frozen=True)
class ImageResamples:
    """Bootstrap weights of the test images, shared by every comparison of an experiment.

    Attributes
    ----------
    weights : (B, n) float32
        How often each test image was drawn.
    clusters : (n,) int64
        The unit that was drawn: the image, or its group.
    """

    weights: np.ndarray
    clusters: np.ndarray

    @classmethod
    def draw(
        cls,
        labels: np.ndarray,
        fold: np.ndarray,
        group: np.ndarray | None,
        draws: int,
        rng: np.random.Generator,
    ) -> "ImageResamples":
        """Resample images within fold and class, or whole groups within a fold.

        A unit that is alone in its stratum is always drawn once.

        Parameters
        ----------
        labels, fold : (n,) int64
        group : (n,) str or None
            Images of one group are not independent, so groups are drawn.
        """
        weights = np.zeros((draws, len(labels)), dtype=np.float32)
        if group is None:
            clusters = np.arange(len(labels))
            strata = [(labels == c) & (fold == k) for c in set(labels) for k in set(fold)]
            for members in map(np.flatnonzero, strata):
                if len(members):
                    weights[:, members] = _rescaled_draws(len(members), draws, rng)
            return cls(weights, clusters)
        clusters = np.unique(group, return_inverse=True)[1].astype(np.int64)
        for k in sorted(set(fold)):
            members = np.flatnonzero(fold == k)
            names, place = np.unique(clusters[members], return_inverse=True)
            weights[:, members] = _rescaled_draws(len(names), draws, rng)[:, place]
        return cls(weights, clusters)


def _rescaled_draws(units: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(B, units) weights of Rao and Wu's bootstrap: mean 1, and unbiased variance of a mean."""
    if units == 1:
        return np.ones((draws, 1))
    counts = rng.multinomial(units - 1, np.full(units, 1 / units), size=draws)
    return counts * (units / (units - 1))


@dataclass(frozen=True)
class PairedDifference:
    """One measure of an arm less that of its baseline.

    Attributes
    ----------
    per_repeat : (R,) float
    estimate : Estimate
        Over repeats and images, and folds where there are several: the one that claims rest on.
    over_repeats : Estimate
        Paired t over the repeats alone: for these test images and these splits.
    p_sign_flip : float
        Exact check of ``over_repeats``.
    over_folds : Estimate or None
        Nadeau and Bengio's corrected t over the folds' mean differences.
    percentile_interval : (float, float)
        Two-level bootstrap: repeats and images resampled together.
    detectable : float
        Minimum detectable effect at the error found, power .8, level .05.
    variance : dict
        ``repeats``, ``images``, ``folds``: the three terms.
    """

    per_repeat: np.ndarray
    estimate: Estimate
    over_repeats: Estimate
    p_sign_flip: float
    over_folds: Estimate | None
    percentile_interval: tuple[float, float]
    detectable: float
    variance: dict[str, float]


class ScoredArm:
    """The runs of one arm, each measure computed once and kept.

    Parameters
    ----------
    name
        Of the arm, for reports.
    runs
        R runs; run r of every arm shares its seed and its images.
    resamples
        Shared by every arm of the experiment.
    """

    def __init__(
        self, name: str, runs: Sequence[RunPredictions], resamples: ImageResamples
    ) -> None:
        self.name = name
        self.runs = list(runs)
        self.resamples = resamples
        self._draws: dict[tuple[str, int | None], np.ndarray] = {}

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64 classes of the test images."""
        return self.runs[0].labels

    def values(self, name: str, index: int | None) -> np.ndarray:
        """(R,) value of a measure in each repeat."""
        return measure(name, self.runs, index, np.ones((1, len(self.labels)), np.float32))[:, 0]

    def draws(self, name: str, index: int | None) -> np.ndarray:
        """(R, B) value in each repeat and bootstrap draw of the images."""
        key = (name, index)
        if key not in self._draws:
            self._draws[key] = measure(name, self.runs, index, self.resamples.weights)
        return self._draws[key]

    def fold_values(self, name: str, index: int | None) -> np.ndarray:
        """(R, K) value in each repeat and fold."""
        fold = self.runs[0].fold
        weights = (fold[None, :] == np.unique(fold)[:, None]).astype(np.float32)
        return measure(name, self.runs, index, weights)


def detectable_in_family(estimate: Estimate, level: float, family_size: int) -> float:
    """What a comparison can see at the level of Holm's first step over ``family_size`` tests."""
    return minimum_detectable_effect(
        estimate.standard_error, estimate.degrees_of_freedom, alpha=level / family_size
    )


def compare(
    arm: ScoredArm,
    baseline: ScoredArm,
    name: str,
    index: int | None,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
) -> PairedDifference | None:
    """Compare two arms repeat by repeat.

    Parameters
    ----------
    arm, baseline
        Of one experiment.
    name, index
        The measure and its class, as for `classify.experiment.measures.measure`.

    Returns
    -------
    PairedDifference or None
        ``None`` where the measure is not defined in some repeat, or in some fold in all repeats,
        for example the precision of networks that never call the class.
    """
    values = arm.values(name, index) - baseline.values(name, index)
    if not np.isfinite(values).all():
        return None
    drawn = arm.draws(name, index) - baseline.draws(name, index)
    drawn = drawn[:, np.isfinite(drawn).all(axis=0)]
    if drawn.shape[1] < MINIMUM_DRAWS:
        return None
    repeats = len(values)
    of_repeats = float(values.var(ddof=1)) / repeats
    images, free_images = _images_about((arm, baseline), name, index)
    resampled = float(drawn.mean(axis=0).var(ddof=1))
    of_images = max(resampled, 1 / images**2)
    parts = [(of_repeats, repeats - 1.0), (of_images, free_images)]
    of_folds, over_folds, freedom = 0.0, None, satterthwaite(parts)
    if len(np.unique(arm.runs[0].fold)) > 1:
        fold_means = _fold_differences(arm, baseline, name, index)
        if not np.isfinite(fold_means).all():
            return None
        count, spread = len(fold_means), float(fold_means.var(ddof=1))
        shared = 1 / ((1 - VALIDATION_SHARE) * (count - 1))
        of_folds = max(0.0, spread - count * resampled) * (1 / count + shared)
        over_folds = corrected_paired_t(fold_means, shared, level)
        if of_folds > 0 or count == 2:
            freedom = _freedom(parts, of_folds, spread, count, 1 / count + shared)
    error = math.sqrt(of_repeats + of_images + of_folds)
    resampled_repeats = rng.integers(0, repeats, (drawn.shape[1], repeats))
    both = np.take_along_axis(drawn.T, resampled_repeats, axis=1).mean(axis=1)
    tail = (1 - level) / 2
    return PairedDifference(
        per_repeat=values,
        estimate=_of_shares(student_estimate(float(values.mean()), error, freedom, level)),
        over_repeats=paired_t(values, level),
        p_sign_flip=sign_flip_p(values),
        over_folds=over_folds,
        percentile_interval=(float(np.quantile(both, tail)), float(np.quantile(both, 1 - tail))),
        detectable=minimum_detectable_effect(error, freedom),
        variance={"repeats": of_repeats, "images": of_images, "folds": of_folds},
    )


def compare_in_fold(
    arm: ScoredArm, baseline: ScoredArm, name: str, index: int, fold: int
) -> Estimate | None:
    """Compare two arms on the test images of one fold; over repeats and images, as `compare`."""
    inside = arm.runs[0].fold == fold
    once = inside[None].astype(np.float32)
    values = (measure(name, arm.runs, index, once) - measure(name, baseline.runs, index, once))[
        :, 0
    ]
    weights = arm.resamples.weights * once
    drawn = measure(name, arm.runs, index, weights) - measure(name, baseline.runs, index, weights)
    drawn = drawn[:, np.isfinite(drawn).all(axis=0)]
    if not np.isfinite(values).all() or drawn.shape[1] < MINIMUM_DRAWS:
        return None
    repeats = len(values)
    images, free_images = _images_about((arm, baseline), name, index, inside)
    of_repeats = float(values.var(ddof=1)) / repeats
    of_images = max(float(drawn.mean(axis=0).var(ddof=1)), 1 / images**2)
    freedom = satterthwaite([(of_repeats, repeats - 1.0), (of_images, free_images)])
    error = math.sqrt(of_repeats + of_images)
    return _of_shares(student_estimate(float(values.mean()), error, freedom))


def _images_about(
    sides: Sequence[ScoredArm], name: str, index: int | None, inside: np.ndarray | None = None
) -> tuple[float, float]:
    """Images that make up the denominator of a measure, and degrees of freedom among them.

    At least 1 each; where sides have different ones, as calls, the smaller number. One image of
    the smallest of C classes moves the mean recall over classes as one of C times as many would.
    """
    labels = sides[0].labels
    among = np.ones(len(labels), dtype=bool) if inside is None else inside
    if name == "macro_recall":
        classes, counts = np.unique(labels[among], return_counts=True)
        smallest = among & (labels == classes[counts.argmin()])
        return float(len(classes) * counts.min()), _freedom_of_units(sides[0], smallest)
    if index is not None and name.startswith("precision"):
        calls = [called(name, side.runs, index) & among for side in sides]
        images = min(float(np.mean(of_side.sum(axis=1))) for of_side in calls)
        free = min(np.mean([_freedom_of_units(sides[0], row) for row in rows]) for rows in calls)
        return max(1.0, images), float(free)
    if index is not None:
        negatives = name.startswith("false_positive_rate")
        among = among & ((labels != index) if negatives else (labels == index))
    return max(1.0, float(among.sum())), _freedom_of_units(sides[0], among)


def _freedom_of_units(arm: ScoredArm, among: np.ndarray) -> float:
    """Degrees of freedom of what is resampled ``among`` the images (n,) bool, at least 1."""
    if not among.any():
        return 1.0
    sizes = np.bincount(arm.resamples.clusters[among]).astype(np.float64)
    effective = sizes.sum() ** 2 / np.square(sizes).sum()
    return max(1.0, float(effective) - len(np.unique(arm.runs[0].fold[among])))


def _freedom(
    parts: Sequence[tuple[float, float]],
    of_folds: float,
    spread: float,
    folds: int,
    factor: float,
) -> float:
    """Satterthwaite's degrees of freedom of the sum of three terms, at least K - 1.

    The third is ``factor * (spread - K * of_images)``: the images enter the sum with the weight
    ``1 - factor * K``, and each full mean square with its own degrees of freedom.
    """
    (of_repeats, free_repeats), (of_images, free_images) = parts
    total = of_repeats + of_images + of_folds
    squares = (
        (factor * spread) ** 2 / (folds - 1)
        + ((factor * folds - 1) * of_images) ** 2 / free_images
        + of_repeats**2 / free_repeats
    )
    return max(folds - 1.0, total**2 / squares)


def _of_shares(estimate: Estimate) -> Estimate:
    """A difference of two shares lies in [-1, 1], and so does its interval."""
    low, high = estimate.interval
    return dataclasses.replace(estimate, interval=(max(-1.0, low), min(1.0, high)))


def _fold_differences(
    arm: ScoredArm, baseline: ScoredArm, name: str, index: int | None
) -> np.ndarray:
    """(K,) mean difference of each fold over the repeats in which it is defined, nan without."""
    per_fold = arm.fold_values(name, index) - baseline.fold_values(name, index)
    defined = np.isfinite(per_fold)
    sums = np.where(defined, per_fold, 0.0).sum(axis=0)
    return np.where(defined.any(axis=0), sums / np.maximum(defined.sum(axis=0), 1), np.nan)
