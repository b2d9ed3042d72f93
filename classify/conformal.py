"""Prediction sets that hold the true class with a stated probability.

Split conformal prediction (Vovk et al. 2005; Sadinle et al. 2019, arXiv:1609.00451): the score of
a class is one minus its probability, and a set holds every class whose score is not above the
k-th smallest score of n calibration images, k = ceil((n + 1) level). ``marginal`` promises the
level over all images; ``per-class`` (Mondrian) uses each class's own calibration images and
promises it within every class. Both promises assume that the new images are like the calibration
images; `coverage_report` tests that on labelled ones.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
from scipy import signal, stats

from classify.intervals import wilson_interval
from galaxies.errors import InputError

FAILURE_CHANCE = 0.01
"""A coverage that would be seen less often than this is reported as broken."""

SetKind = Literal["per-class", "marginal"]


@dataclass(frozen=True)
class ConformalCalibration:
    """Scores of calibration images; any level can be asked of them later.

    Attributes
    ----------
    probabilities : (n, K) float64
    labels : (n,) int64
    """

    probabilities: np.ndarray
    labels: np.ndarray

    def thresholds(self, level: float, kind: SetKind = "per-class") -> np.ndarray:
        """(K,) largest score that is still in the set; infinite where images are too few.

        A class with fewer than level / (1 - level) calibration images (9 at 90 %) gets an
        infinite threshold per class: it then stands in every set, the only honest answer.
        """
        if not 0 < level < 1:
            raise InputError(f"a confidence level lies between 0 and 1, got {level}")
        own = 1 - self.probabilities[np.arange(len(self.labels)), self.labels]
        classes = self.probabilities.shape[1]
        if kind == "marginal":
            return np.full(classes, conformal_quantile(own, level))
        return np.array([conformal_quantile(own[self.labels == k], level) for k in range(classes)])

    def sets(
        self, probabilities: np.ndarray, level: float, kind: SetKind = "per-class"
    ) -> np.ndarray:
        """(m, K) bool: which classes are in the set of each of (m, K) probabilities."""
        return 1 - np.asarray(probabilities, dtype=np.float64) <= self.thresholds(level, kind)

    def never_ruled_out(self, level: float, kind: SetKind = "per-class") -> np.ndarray:
        """(K,) bool: classes that stand in every set, for want of calibration images."""
        return np.isinf(self.thresholds(level, kind))


def conformal_quantile(scores: np.ndarray, level: float) -> float:
    """The k-th smallest score, k = ceil((n + 1) level); infinite if k > n."""
    # The product of two decimal fractions may lie a hair above a whole number.
    k = math.ceil((len(scores) + 1) * level - 1e-9)
    return float(np.sort(scores)[k - 1]) if k <= len(scores) else math.inf


@dataclass(frozen=True)
class Coverage:
    """How often sets held the truth, over all images or those of one class.

    Attributes
    ----------
    name : str
        Class, or ``all``.
    images, covered : int
    interval : (float, float)
        Wilson, 95 %, of the coverage.
    mean_size : float
    empty, wrong_single : float
        Share of empty sets, and of sets that hold one class, the wrong one.
    """

    name: str
    images: int
    covered: int
    interval: tuple[float, float]
    mean_size: float
    empty: float
    wrong_single: float


@dataclass(frozen=True)
class CoverageReport:
    """Coverage on labelled images, and whether the promise is broken there."""

    level: float
    kind: SetKind
    overall: Coverage
    per_class: tuple[Coverage, ...]
    failures: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)

    def lines(self) -> list[str]:
        """One line for all images, one per class, one per failure."""
        rows = [
            f"{c.name}: {c.covered} of {c.images} sets hold the truth"
            + (f" ({c.covered / c.images:.3f})" if c.images else "")
            + f", mean size {c.mean_size:.2f}, {100 * c.empty:.1f} % empty"
            for c in (self.overall, *self.per_class)
        ]
        return rows + list(self.failures) + list(self.notes)


def coverage_report(
    sets: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    level: float,
    kind: SetKind = "per-class",
    calibration: ConformalCalibration | None = None,
) -> CoverageReport:
    """Compare (n, K) sets with (n,) true labels.

    A failure is reported where so few covered images would be seen less than once in a hundred
    times if the promise held (for ``marginal`` sets: over all images; a class that falls short
    is then reported as what the marginal promise leaves open), or where that holds already for
    the images that have neither an empty set nor one with a single wrong class.

    Parameters
    ----------
    calibration
        What the sets were calibrated on: with few images the coverage itself varies, by a
        beta-binomial law, and that is allowed for. Without it the coverage is taken to be
        exactly ``level``.
    """
    labels = np.asarray(labels)
    overall = _coverage("all", sets, labels)
    per_class = tuple(
        _coverage(name, sets[labels == k], labels[labels == k])
        for k, name in enumerate(class_names)
    )
    sizes = _calibration_sizes(calibration, kind, len(class_names))
    # The promise per class is one about every mix of classes: that of the new images counts.
    laws = [covered_law(found.images, level, n) for found, n in zip(per_class, sizes, strict=True)]
    if kind == "per-class":
        law_of_all = reduce(signal.fftconvolve, laws)
    else:
        whole = None if calibration is None else len(calibration.labels)
        law_of_all = covered_law(len(labels), level, whole)
    failures = []
    for found, law in zip((overall, *per_class), (law_of_all, *laws), strict=True):
        if law[: found.covered + 1].sum() < FAILURE_CHANCE:
            share = found.covered / found.images
            promised = kind == "per-class" or found is overall
            failures.append(
                f"coverage failure for {found.name}: {share:.3f} "
                f"[{found.interval[0]:.3f}, {found.interval[1]:.3f}] "
                + (
                    f"is below the promised {level:g}; these images are unlike the calibration ones"
                    if promised
                    else f"is below {level:g}, which marginal sets do not promise per class"
                )
            )
    lost = round((overall.empty + overall.wrong_single) * overall.images)
    if law_of_all[: overall.images - lost + 1].sum() < FAILURE_CHANCE:
        failures.append(
            f"coverage failure: {100 * overall.empty:.2f} % of the sets are empty and "
            f"{100 * overall.wrong_single:.2f} % hold one wrong class, together more than the "
            f"{100 * (1 - level):.2f} % that may miss the truth; the guarantee does not hold here"
        )
    notes = _too_few(calibration, class_names, level) if kind == "per-class" else ()
    return CoverageReport(level, kind, overall, per_class, tuple(failures), notes)


def covered_law(images: int, level: float, calibration: int | None) -> np.ndarray:
    """(images + 1,) probability of each count of covered images if the promise holds.

    Given n calibration images the number of covered new ones is BetaBinomial(n + 1 - l, l) with
    l = floor((n + 1)(1 - level)) (Vovk 2012; Angelopoulos & Bates 2021, arXiv:2107.07511, C);
    without a count it is binomial.
    """
    counts = np.arange(images + 1)
    if calibration is None:
        return stats.binom.pmf(counts, images, level)
    left_out = calibration + 1 - math.ceil((calibration + 1) * level - 1e-9)
    if left_out < 1:  # an infinite threshold covers everything
        return (counts == images).astype(np.float64)
    return stats.betabinom.pmf(counts, images, calibration + 1 - left_out, left_out)


def _too_few(
    calibration: ConformalCalibration | None, class_names: tuple[str, ...], level: float
) -> tuple[str, ...]:
    if calibration is None:
        return ()
    thresholds = calibration.thresholds(level)
    counts = np.bincount(calibration.labels, minlength=len(class_names))
    return tuple(
        f"{name} has {count} calibration images, too few to rule it out at {level:g}: it stands "
        "in every set"
        for name, count, threshold in zip(class_names, counts, thresholds, strict=True)
        if np.isinf(threshold)
    )


def _calibration_sizes(
    calibration: ConformalCalibration | None, kind: SetKind, classes: int
) -> list[int | None]:
    """Calibration images behind the coverage of each class."""
    # Marginal sets promise nothing per class; there the plain binomial serves as a yardstick.
    if calibration is None or kind == "marginal":
        return [None] * classes
    return [int(count) for count in np.bincount(calibration.labels, minlength=classes)]


def set_in_words(
    names: Sequence[str], classes: int, level: float, never_ruled_out: Sequence[str] = ()
) -> str:
    """A prediction set as a person would say it.

    An empty set is no sign of a strange image by itself: of images that are like the calibration
    ones, those in the lower half of clearness have one at 50 %.

    Parameters
    ----------
    names
        Classes in the set.
    classes
        Number of all classes.
    never_ruled_out
        Classes that stand in every set, see `ConformalCalibration.never_ruled_out`. The image has
        no part in their being there, and the words say so.
    """
    percent = f"{100 * level:g} %"
    told = [name for name in names if name not in never_ruled_out]
    standing = [name for name in names if name in never_ruled_out]
    if len(standing) == classes:
        return f"any class at {percent}: too few calibration images to rule one out"
    if standing:
        verb = "has" if len(standing) == 1 else "have"
        told_words = _told_in_words(told, percent) if told else f"no other class at {percent}"
        return (
            f"{told_words}; {', '.join(standing)} {verb} too few calibration images to be ruled out"
        )
    if not names:
        return f"no class at {percent}: less clear than {percent} of the calibration images"
    if len(names) == classes:
        return f"could be any class at {percent}: the image does not tell"
    return _told_in_words(told, percent)


def _told_in_words(names: Sequence[str], percent: str) -> str:
    if len(names) == 1:
        return f"{names[0]}, at {percent} confidence"
    return f"{', '.join(names[:-1])} or {names[-1]}; not enough to say which at {percent}"


def _coverage(name: str, sets: np.ndarray, labels: np.ndarray) -> Coverage:
    count = len(labels)
    held = sets[np.arange(count), labels] if count else np.zeros(0, bool)
    size = sets.sum(axis=1)
    covered = int(held.sum())
    return Coverage(
        name=name,
        images=count,
        covered=covered,
        interval=wilson_interval(covered, count),
        mean_size=float(size.mean()) if count else 0.0,
        empty=float((size == 0).mean()) if count else 0.0,
        wrong_single=float(((size == 1) & ~held).mean()) if count else 0.0,
    )
