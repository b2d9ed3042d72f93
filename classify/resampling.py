"""Bootstrap intervals of F1, AUC and average precision, over images within each class.

A resample is a vector of counts, one per image, so every statistic is a weighted sum over one
sorted order and no array of resampled scores is ever built.
"""

import numpy as np

LEVEL = 0.95
_BLOCK_NUMBERS = 2**22  # counts held at once: 32 MiB


def bootstrap_intervals(
    scores: np.ndarray, labels: np.ndarray, *, seed: int = 0, resamples: int = 1000
) -> dict[str, np.ndarray]:
    """Percentile intervals per class.

    Parameters
    ----------
    scores
        (n, K) probabilities.
    labels
        (n,) int64.

    Returns
    -------
    dict
        ``f1``, ``auc``, ``average_precision``: (K, 2) float64 low and high; NaN for a class
        without images, and where ``resamples`` is 0.
    """
    classes = scores.shape[1]
    empty = {name: np.full((classes, 2), np.nan) for name in ("f1", "auc", "average_precision")}
    if not resamples:
        return empty
    random = np.random.default_rng(seed)
    predicted = scores.argmax(axis=1)
    found = {name: np.full((classes, resamples), np.nan) for name in empty}
    block = max(1, _BLOCK_NUMBERS // len(labels))
    for start in range(0, resamples, block):
        part = slice(start, min(start + block, resamples))
        counts = _stratified_counts(labels, part.stop - start, random)  # (R, n)
        for k in range(classes):
            positive = labels == k
            if positive.all() or not positive.any():
                continue
            auc, average_precision = weighted_ranking(scores[:, k], positive, counts)
            right = counts[:, positive & (predicted == k)].sum(axis=1)
            both = counts[:, positive].sum(axis=1) + counts[:, predicted == k].sum(axis=1)
            found["f1"][k, part] = 2 * right / both
            found["auc"][k, part] = auc
            found["average_precision"][k, part] = average_precision
    tail = 100 * (1 - LEVEL) / 2
    return {
        name: np.percentile(values, [tail, 100 - tail], axis=1).T for name, values in found.items()
    }


def weighted_ranking(
    scores: np.ndarray, positive: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUC and average precision of weighted images.

    Parameters
    ----------
    scores
        (n,); equal scores share a threshold.
    positive
        (n,) bool.
    counts
        (R, n) non-negative weights.

    Returns
    -------
    (R,), (R,)
    """
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(counts[:, order] * positive[order], axis=1)[:, last_of_tie]
    false = np.cumsum(counts[:, order] * ~positive[order], axis=1)[:, last_of_tie]
    hits_before = np.pad(hits, ((0, 0), (1, 0)))[:, :-1]
    false_before = np.pad(false, ((0, 0), (1, 0)))[:, :-1]
    total_hits, total_false = hits[:, -1], false[:, -1]
    trapezes = ((false - false_before) * (hits + hits_before) / 2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = trapezes / (total_hits * total_false)
        precision = np.nan_to_num(hits / (hits + false))
    steps = (hits - hits_before) / total_hits[:, None]
    return auc, (steps * precision).sum(axis=1)


def _stratified_counts(
    labels: np.ndarray, resamples: int, random: np.random.Generator
) -> np.ndarray:
    """(R, n) how often each image is drawn; each class keeps its number of images."""
    counts = np.zeros((resamples, len(labels)))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        counts[:, rows] = random.multinomial(
            len(rows), np.full(len(rows), 1 / len(rows)), size=resamples
        )
    return counts
