"""New rows between old ones: SMOTE and its relatives, on scaled features.

Only training rows ever come here. Every method fills the smaller classes up to the largest one
(or to ``wanted`` rows), appends the new rows after the old ones, and draws from the generator it
is given.
"""

from collections.abc import Callable

import numpy as np

from galaxies.errors import InputError

NEIGHBOURS = 5


def smote(
    features: np.ndarray, labels: np.ndarray, wanted: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """SMOTE, Chawla et al. 2002 (J. Artif. Intell. Res. 16, 321).

    A new row lies at a uniform random place between a row and one of its nearest neighbours of
    the same class.

    Parameters
    ----------
    features : (n, F) float
        Scaled, without missing values.
    labels : (n,) int64
    wanted : (K,) int64
        New rows of each class.

    Returns
    -------
    (n + sum(wanted), F), (n + sum(wanted),)
    """

    def between(k: int, count: int) -> np.ndarray:
        own = features[labels == k]
        return _interpolate(own, own, np.full(len(own), 1 / len(own)), count, rng)

    return _append(features, labels, wanted, between)


def borderline_smote(
    features: np.ndarray, labels: np.ndarray, wanted: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Borderline-SMOTE1, Han et al. 2005 (ICIC, LNCS 3644, 878).

    New rows start only at rows in danger: at least half, but not all, of their neighbours are of
    other classes. A class without rows in danger is filled as by SMOTE.
    """
    share = _share_of_others(features, labels)

    def between(k: int, count: int) -> np.ndarray:
        own = features[labels == k]
        danger = (share[labels == k] >= 0.5) & (share[labels == k] < 1)
        weights = danger / danger.sum() if danger.any() else np.full(len(own), 1 / len(own))
        return _interpolate(own, own, weights, count, rng)

    return _append(features, labels, wanted, between)


def adasyn(
    features: np.ndarray, labels: np.ndarray, wanted: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """ADASYN, He et al. 2008 (IJCNN, 1322).

    A row starts new ones in proportion to how many of its neighbours are of other classes.
    """
    share = _share_of_others(features, labels)

    def between(k: int, count: int) -> np.ndarray:
        own = features[labels == k]
        weights = share[labels == k]
        weights = weights / weights.sum() if weights.any() else np.full(len(own), 1 / len(own))
        return _interpolate(own, own, weights, count, rng)

    return _append(features, labels, wanted, between)


def copies(
    features: np.ndarray, labels: np.ndarray, wanted: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Random over-sampling: rows again, each as often as any other of its class, up to one."""

    def again(k: int, count: int) -> np.ndarray:
        own = features[labels == k]
        walks = -(-count // len(own))
        order = np.concatenate([rng.permutation(len(own)) for _ in range(walks)])
        return own[order[:count]]

    return _append(features, labels, wanted, again)


METHODS: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "smote": smote,
    "borderline-smote": borderline_smote,
    "adasyn": adasyn,
}


def rows_to_balance(labels: np.ndarray, classes: int, exponent: float = 0.0) -> np.ndarray:
    """(K,) new rows that bring class k to ``largest (n_k / largest)^exponent`` rows.

    0 makes all classes equal, 0.5 halves the imbalance (in logarithms); a class without rows
    stays without.
    """
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    largest = counts.max()
    target = np.where(counts > 0, largest * (counts / largest) ** exponent, 0)
    return (np.rint(target) - counts).clip(0).astype(np.int64)


def _append(
    features: np.ndarray,
    labels: np.ndarray,
    wanted: np.ndarray,
    make: Callable[[int, int], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    rows, classes = [features], [labels]
    for k, count in enumerate(np.asarray(wanted).tolist()):
        if count:
            if not (labels == k).any():
                raise InputError(f"class {k} has no training rows to make new ones from")
            rows.append(make(k, count).astype(features.dtype))
            classes.append(np.full(count, k, labels.dtype))
    return np.concatenate(rows), np.concatenate(classes)


def _interpolate(
    starts: np.ndarray,
    pool: np.ndarray,
    weights: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Rows between starts (drawn by weight) and one of their nearest in the pool."""
    nearest = _neighbours(pool, starts, min(NEIGHBOURS, len(pool) - 1))
    chosen = rng.choice(len(starts), size=count, p=weights)
    if nearest.shape[1] == 0:  # a class of one row
        return starts[chosen]
    partner = nearest[chosen, rng.integers(0, nearest.shape[1], count)]
    step = rng.random((count, 1))
    return starts[chosen] + step * (pool[partner] - starts[chosen])


def _neighbours(pool: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """(n, count) nearest rows of the pool to each row, the row itself left out."""
    from sklearn.neighbors import NearestNeighbors

    if count == 0:
        return np.zeros((len(rows), 0), np.int64)
    search = NearestNeighbors(n_neighbors=count + 1).fit(pool)
    return search.kneighbors(rows, return_distance=False)[:, 1:]


def _share_of_others(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n,) share of each row's nearest neighbours that are of other classes."""
    nearest = _neighbours(features, features, min(NEIGHBOURS, len(features) - 1))
    return (labels[nearest] != labels[:, None]).mean(axis=1)
