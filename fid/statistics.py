"""Mean and covariance of features in float64: streamed, merged, saved, never in float32.

A set in shards gives the statistics of the whole: each shard is summed on its own and the sums
are merged (Chan, Golub & LeVeque 1983), on one machine or on a cluster. Up to as many samples as
dimensions the features themselves are kept, because they are smaller than a covariance matrix
and allow a distance that never takes the root of a rounded number.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from galaxies.errors import InputError


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """What a Fréchet distance needs to know of one set.

    Attributes
    ----------
    count : int or None
        Number of samples; ``None`` only for statistics of other programs, which do not store it.
    mean : (d,) float64
    scatter : (d, d) float64 or None
        Sum over samples of the outer products of the deviations from the mean; ``None`` where
        ``rows`` holds the samples.
    rows : (count, d) float64 or None
        The samples themselves, kept while count <= d.
    covariance_only : (d, d) float64 or None
        Covariance given without a count.
    """

    count: int | None
    mean: np.ndarray
    scatter: np.ndarray | None = None
    rows: np.ndarray | None = None
    covariance_only: np.ndarray | None = None

    @property
    def dimensions(self) -> int:
        """Number of features, d."""
        return len(self.mean)

    @property
    def covariance(self) -> np.ndarray:
        """(d, d) float64, divided by count - 1 as in the published FID."""
        if self.covariance_only is not None:
            return self.covariance_only
        assert self.count is not None
        scatter = self.scatter if self.scatter is not None else _scatter(self.centred_rows)
        return scatter / (self.count - 1)

    @property
    def centred_rows(self) -> np.ndarray:
        """(count, d) float64 deviations from the mean, where the samples are kept."""
        assert self.rows is not None
        return self.rows - self.mean

    @property
    def trace(self) -> float:
        """Trace of the covariance: the total variance of the features."""
        if self.covariance_only is not None:
            return float(np.trace(self.covariance_only))
        assert self.count is not None
        if self.scatter is not None:
            return float(np.trace(self.scatter)) / (self.count - 1)
        return float(np.square(self.centred_rows).sum()) / (self.count - 1)

    def equals(self, other: "FeatureStatistics") -> bool:
        """Whether both hold the same numbers, bit for bit."""
        return (
            self.count == other.count
            and np.array_equal(self.mean, other.mean)
            and _same(self.scatter, other.scatter)
            and _same(self.rows, other.rows)
            and _same(self.covariance_only, other.covariance_only)
        )

    def require_at_least_two(self, name: str) -> None:
        """Raise `InputError` where there is no covariance; ``name`` says whose."""
        if self.count is not None and self.count < 2:
            raise InputError(
                f"{name} holds {self.count} image{'s' * (self.count != 1)}; "
                "a distance between distributions needs at least 2"
            )


class StatisticsAccumulator:
    """Sums features batch by batch; memory stays at two matrices of d x d.

    The result does not depend on the sizes of the batches: rows are folded into the sums in
    blocks of d, wherever the batches ended.
    """

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._waiting = np.empty((max(dimensions, 256), dimensions))
        self._filled = 0
        self._folded: FeatureStatistics | None = None

    def update(self, features: np.ndarray) -> None:
        """Add (n, d) features.

        Raises
        ------
        InputError
            If their number of dimensions differs or one of them is not finite.
        """
        features = checked_features(features)
        if features.shape[1] != self.dimensions:
            raise InputError(
                f"features have {features.shape[1]} dimensions, {self.dimensions} are expected"
            )
        start = 0
        while start < len(features):
            if self._filled == len(self._waiting):
                self._fold()
            step = min(len(features) - start, len(self._waiting) - self._filled)
            self._waiting[self._filled : self._filled + step] = features[start : start + step]
            self._filled += step
            start += step

    def result(self) -> FeatureStatistics:
        """Statistics of everything added so far; more may be added afterwards."""
        waiting = _statistics_of_block(self._waiting[: self._filled].copy())
        if self._folded is None:
            return waiting
        return merge([self._folded, waiting])

    def _fold(self) -> None:
        block = with_scatter(_statistics_of_block(self._waiting))
        self._folded = block if self._folded is None else merge([self._folded, block])
        self._filled = 0


def statistics_of_features(features: np.ndarray) -> FeatureStatistics:
    """Statistics of (n, d) features in memory."""
    features = checked_features(features)
    accumulator = StatisticsAccumulator(features.shape[1])
    accumulator.update(features)
    return accumulator.result()


def merge(parts: Iterable[FeatureStatistics]) -> FeatureStatistics:
    """Statistics of the union of disjoint parts.

    Raises
    ------
    InputError
        If the parts differ in dimensions, or one does not know its count.
    """
    parts = list(parts)
    if not parts:
        raise InputError("there is nothing to merge")
    dimensions = parts[0].dimensions
    for part in parts:
        if part.dimensions != dimensions:
            raise InputError(
                f"cannot merge features of {dimensions} and {part.dimensions} dimensions"
            )
        if part.count is None:
            raise InputError("cannot merge statistics that do not say how many images they sum")
    total = sum(part.count or 0 for part in parts)
    if total <= dimensions and all(part.rows is not None for part in parts):
        return _statistics_of_block(np.concatenate([part.rows for part in parts]))
    merged = with_scatter(parts[0])
    for part in parts[1:]:
        merged = _merge_two(merged, with_scatter(part))
    return merged


def with_scatter(part: FeatureStatistics) -> FeatureStatistics:
    """The same statistics without the samples."""
    if part.scatter is not None or part.rows is None:
        return part
    return FeatureStatistics(part.count, part.mean, scatter=_scatter(part.centred_rows))


def checked_features(features: np.ndarray) -> np.ndarray:
    """Return (n, d) float64.

    Raises
    ------
    InputError
        If the array is not (n, d) numbers or one of them is not finite.
    """
    features = np.asarray(features)
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise InputError(
            f"features are {features.dtype} of shape {features.shape}; (N, d) numbers are needed"
        )
    features = features.astype(np.float64, copy=False)
    if not np.isfinite(features).all():
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        raise InputError(
            f"features of {len(bad)} samples are not finite (the first is row {bad[0]})"
        )
    return features


def _statistics_of_block(rows: np.ndarray) -> FeatureStatistics:
    count, dimensions = rows.shape
    if count == 0:
        return FeatureStatistics(0, np.zeros(dimensions), rows=rows)
    mean = rows.mean(axis=0)
    if count <= dimensions:
        return FeatureStatistics(count, mean, rows=rows)
    return FeatureStatistics(count, mean, scatter=_scatter(rows - mean))


def _merge_two(left: FeatureStatistics, right: FeatureStatistics) -> FeatureStatistics:
    assert left.count is not None
    assert right.count is not None
    assert left.scatter is not None
    assert right.scatter is not None
    if left.count == 0 or right.count == 0:
        return left if right.count == 0 else right
    total = left.count + right.count
    gap = right.mean - left.mean
    mean = left.mean + gap * (right.count / total)
    scatter = left.scatter + right.scatter
    scatter += np.outer(gap, gap) * (left.count * right.count / total)
    return FeatureStatistics(total, mean, scatter=scatter)


def _scatter(centred: np.ndarray) -> np.ndarray:
    return centred.T @ centred


def _same(left: np.ndarray | None, right: np.ndarray | None) -> bool:
    if left is None or right is None:
        return left is right
    return np.array_equal(left, right)
