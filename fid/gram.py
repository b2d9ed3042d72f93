"""One Gram matrix of both sides' features, from which every split of them is cheap.

With K = Z Z' of the pooled features, the kernel distance of any two groups of images is a sum
over entries of K, and their Fréchet distance needs one singular value decomposition of a block
of K: milliseconds, where a matrix root of 2048 x 2048 takes seconds. That makes permutation
tests and real-against-real bands affordable.
"""

from dataclasses import dataclass

import numpy as np

from fid.frechet import frechet_distance, nuclear_norm
from fid.kernel import KernelDistance, distance_of_row_sums, polynomial_kernel
from fid.statistics import checked_features, statistics_of_features
from galaxies.errors import InputError

GRAM_IMAGES = 2000
"""Most images a side in the Gram matrix."""

NULL_IMAGES = 300
"""Most images a side in each Fréchet distance behind a band, a permutation or an interval."""


@dataclass(frozen=True)
class NullBand:
    """What a perfect generator would score.

    Attributes
    ----------
    images : int
        Images a side in each distance.
    observed : float
        Mean distance of real and generated images at that count.
    low, high, mean : float
        95 % band and mean of the distance between two disjoint groups of real images.
    permutation_p : float
        Share of random relabellings of all images whose distance is at least as large, with
        ``permutation_images`` images a side.
    permutation_images : tuple of int
    """

    images: int
    observed: float
    low: float
    high: float
    mean: float
    permutation_p: float
    permutation_images: tuple[int, int]


class PooledGram:
    """Inner products of the features of n real and m generated images.

    Parameters
    ----------
    real, fake
        (n, d) and (m, d).

    Raises
    ------
    InputError
        If a side has fewer than 4 images, so that no half of it has a spread.
    """

    def __init__(self, real: np.ndarray, fake: np.ndarray) -> None:
        if min(len(real), len(fake)) < 4:
            raise InputError(
                f"at least 4 images a side are needed, got {len(real)} and {len(fake)}"
            )
        self.features = np.concatenate([checked_features(real), checked_features(fake)])
        self.real_rows = np.arange(len(real))
        self.fake_rows = np.arange(len(real), len(self.features))
        self.products = self.features @ self.features.T
        self.dimensions = self.features.shape[1]

    def frechet(self, first: np.ndarray, second: np.ndarray) -> float:
        """Fréchet distance of two groups of rows."""
        if min(len(first), len(second)) > self.dimensions:
            return frechet_distance(
                statistics_of_features(self.features[first]),
                statistics_of_features(self.features[second]),
            ).value
        own_first = self.products[np.ix_(first, first)]
        own_second = self.products[np.ix_(second, second)]
        cross = self.products[np.ix_(first, second)]
        mean_term = own_first.mean() + own_second.mean() - 2 * cross.mean()
        centred = cross - cross.mean(axis=0) - cross.mean(axis=1, keepdims=True) + cross.mean()
        n, m = len(first), len(second)
        cross_term = nuclear_norm(centred)[0] / np.sqrt((n - 1) * (m - 1))
        value = mean_term + _trace(own_first) + _trace(own_second) - 2 * cross_term
        return max(0.0, float(value))

    def kernel(self) -> KernelDistance:
        """KID of the two sides."""
        kernel = polynomial_kernel(self.products, self.dimensions)
        real, fake = self.real_rows, self.fake_rows
        diagonal = np.diagonal(kernel)
        return distance_of_row_sums(
            kernel[np.ix_(real, real)].sum(axis=1) - diagonal[real],
            kernel[np.ix_(fake, fake)].sum(axis=1) - diagonal[fake],
            kernel[np.ix_(real, fake)].sum(axis=1),
            kernel[np.ix_(fake, real)].sum(axis=1),
        )

    def kernel_permutation_p(self, permutations: int, rng: np.random.Generator) -> float:
        """Share of relabellings of all images whose KID is at least the observed one."""
        n, m = len(self.real_rows), len(self.fake_rows)
        kernel = polynomial_kernel(self.products, self.dimensions)
        np.fill_diagonal(kernel, 0)
        labels = np.zeros((n + m, permutations + 1))
        labels[:n, 0] = 1
        for column in range(1, permutations + 1):
            labels[rng.permutation(n + m)[:n], column] = 1
        to_first = kernel @ labels
        first = (labels * to_first).sum(axis=0)
        crossed = ((1 - labels) * to_first).sum(axis=0)
        second = kernel.sum() - first - 2 * crossed
        values = first / (n * (n - 1)) + second / (m * (m - 1)) - 2 * crossed / (n * m)
        return _permutation_p(values[0], values[1:])

    def null_band(self, permutations: int, rng: np.random.Generator) -> NullBand:
        """Real against real at the same counts, and a permutation test."""
        n, m = len(self.real_rows), len(self.fake_rows)
        images = min(n // 2, m, NULL_IMAGES)
        null, observed = [], []
        for _ in range(max(50, permutations // 2)):
            order = rng.permutation(self.real_rows)
            first, second = order[:images], order[images : 2 * images]
            null.append(self.frechet(first, second))
            observed.append(self.frechet(first, rng.choice(self.fake_rows, images, replace=False)))
        low, high = np.quantile(null, [0.025, 0.975])
        sizes = min(n, NULL_IMAGES), min(m, NULL_IMAGES)
        return NullBand(
            images=images,
            observed=float(np.mean(observed)),
            low=float(low),
            high=float(high),
            mean=float(np.mean(null)),
            permutation_p=self._frechet_permutation_p(permutations, sizes, rng),
            permutation_images=sizes,
        )

    def _frechet_permutation_p(
        self, permutations: int, sizes: tuple[int, int], rng: np.random.Generator
    ) -> float:
        """Among the same images, so that the test is exact whatever their number."""
        real = rng.choice(self.real_rows, sizes[0], replace=False)
        fake = rng.choice(self.fake_rows, sizes[1], replace=False)
        pool = np.concatenate([real, fake])
        values = []
        for _ in range(permutations):
            order = rng.permutation(pool)
            values.append(self.frechet(order[: sizes[0]], order[sizes[0] :]))
        return _permutation_p(self.frechet(real, fake), np.array(values))

    def frechet_standard_error(self, repeats: int, rng: np.random.Generator) -> float:
        """Standard error of the Fréchet distance by groups drawn without replacement.

        The delete-d jackknife (Shao & Wu 1989): distances of groups of a share f of a side vary
        by (1 - f) / f times the variance that is sought. A bootstrap would repeat images, lower
        the rank and add bias. Each side is varied by itself, with a share of its own, while the
        other stays: one share for both would cut the smaller side to nothing. With fewer images
        than features the error is still too large, by up to twice.
        """
        variance = 0.0
        for varied, fixed in (
            (self.real_rows, self.fake_rows),
            (self.fake_rows, self.real_rows),
        ):
            group = max(2, int(len(varied) * min(0.5, NULL_IMAGES / len(varied))))
            share = group / len(varied)
            others = rng.choice(fixed, min(len(fixed), NULL_IMAGES), replace=False)
            values = [
                self.frechet(rng.choice(varied, group, replace=False), others)
                for _ in range(repeats)
            ]
            variance += float(np.var(values, ddof=1)) * share / (1 - share)
        return float(np.sqrt(variance))


def _trace(products: np.ndarray) -> float:
    """Trace of the covariance of features with these inner products."""
    count = len(products)
    return float((np.trace(products) - products.sum() / count) / (count - 1))


def _permutation_p(observed: float, permuted: np.ndarray) -> float:
    # The observed labelling is one of the relabellings (Phipson & Smyth 2010).
    return float((1 + (permuted >= observed).sum()) / (1 + len(permuted)))
