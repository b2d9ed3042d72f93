"""How much likelier a row is among the new rows than among the calibration rows."""

from dataclasses import dataclass

import numpy as np

from galaxies.errors import InputError

FOLDS = 5
LARGEST_RATIO = 100.0
"""Ratios are cut here: one calibration row must not stand for thousands of new ones."""


@dataclass(frozen=True)
class DensityRatio:
    """Estimated ratios, and what they rest on.

    Attributes
    ----------
    calibration : (n,) float64
        p_new(x) / p_calibration(x) at the calibration rows, mean 1 over them.
    new : (m,) float64
        At the new rows, on the same scale.
    auc : float
        Of telling the two sets apart on rows not trained on: .5 alike, 1 disjoint.
    effective_rows : float
        (sum w)^2 / sum w^2 of the calibration rows (Kish): how many rows the weighted
        calibration is worth.
    """

    calibration: np.ndarray
    new: np.ndarray
    auc: float
    effective_rows: float


def estimate_density_ratio(
    calibration: np.ndarray, new: np.ndarray, *, seed: int = 0
) -> DensityRatio:
    """Classifier-based density ratio, Sugiyama et al. 2012 (Density Ratio Estimation, ch. 4).

    Boosted trees learn to tell new rows from calibration rows; ratios come from the folds that
    did not train on a row, so a flexible classifier cannot invent a shift by memorising.

    Parameters
    ----------
    calibration : (n, F) float
    new : (m, F) float
        Without labels; NaN where missing.

    Raises
    ------
    InputError
        If a side has fewer than 20 rows.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    if min(len(calibration), len(new)) < 20:
        raise InputError(
            f"a density ratio needs at least 20 rows on both sides, got {len(calibration)} and "
            f"{len(new)}"
        )
    rows = np.concatenate([calibration, new])
    is_new = np.repeat([0, 1], [len(calibration), len(new)])
    logit = np.empty(len(rows))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for fitted, held_out in folds.split(rows, is_new):
        model = HistGradientBoostingClassifier(
            max_iter=120, learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=30,
            l2_regularization=5.0, random_state=seed,
        ).fit(rows[fitted], is_new[fitted])  # fmt: skip
        logit[held_out] = model.decision_function(rows[held_out])
    auc = float(roc_auc_score(is_new, logit))
    ratio = np.exp(np.clip(logit, -20, 20)) * len(calibration) / len(new)
    ratio = np.minimum(ratio, LARGEST_RATIO)
    scale = ratio[is_new == 0].mean()
    weights = ratio / scale
    own = weights[is_new == 0]
    return DensityRatio(own, weights[is_new == 1], auc, float(own.sum() ** 2 / (own**2).sum()))
