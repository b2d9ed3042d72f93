"""Classical algorithms by name, each a scikit-learn pipeline with the same preparation."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from galaxies.errors import InputError

TREES = 200
CLASSICAL = (
    "logistic-regression",
    "random-forest",
    "gradient-boosting",
    "svm",
    "nearest-neighbours",
    "lightgbm",
)
WITHOUT_WEIGHTS = ("nearest-neighbours",)
"""Algorithms that cannot weigh rows."""

SVM_FOLDS = 3
"""Folds in which the scores of the support vector machine are turned into probabilities."""

CROSS_FITTED = ("svm",)
"""Algorithms that need two different rows of each class: one to learn from, one to calibrate."""

NEIGHBOURS = 15

STOPS_EARLY = ("gradient-boosting",)
"""Algorithms that need rows of their own to know when to stop."""

SET_ASIDE = 0.1
"""Share of the training rows that those are."""


def preparation() -> Any:
    """Missing values to medians with a column that says so, then zero mean and unit variance."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    return Pipeline(
        [
            ("impute", SimpleImputer(strategy="median", add_indicator=True)),
            ("scale", StandardScaler()),
        ]
    )


def estimator(name: str, seed: int, threads: int = 1) -> Any:
    """An unfitted scikit-learn estimator with ``predict_proba``.

    Raises
    ------
    InputError
        If there is no such algorithm, or its package is not installed.
    """
    if name not in _FACTORIES:
        raise InputError(f"there is no algorithm {name!r}; choose from {', '.join(CLASSICAL)}")
    return _FACTORIES[name](seed, threads)


def fit(
    name: str,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
    weights: np.ndarray | None = None,
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
    threads: int = 1,
) -> Any:
    """Fit one algorithm on prepared (n, F) features.

    Parameters
    ----------
    weights
        (n,) weight of each row; ``None`` weighs all alike.
    held_out
        Features and labels of real rows that are not among the training rows; they stop boosting.
        They are weighed so that their classes count as much as in training.

    Raises
    ------
    InputError
        If the algorithm cannot weigh rows and weights differ.
    """
    model = estimator(name, seed, threads)
    watched: dict[str, Any] = {}
    if name in STOPS_EARLY:
        if held_out is None or not len(held_out[1]):
            model.set_params(early_stopping=False)
        else:
            watched = {
                "X_val": held_out[0],
                "y_val": held_out[1],
                "sample_weight_val": _as_in_training(held_out[1], labels, weights),
            }
    if name == "nearest-neighbours":
        model.set_params(n_neighbors=min(NEIGHBOURS, len(labels)))
    if name == "svm":
        model.set_params(cv=_folds_of_whole_rows(features, labels, seed))
    fitted = _fit(name, model, features, labels, weights, watched)
    if name == "svm":
        fitted.set_params(cv=None)  # thousands of row numbers, which nothing needs any more
    return fitted


def _folds_of_whole_rows(features: np.ndarray, labels: np.ndarray, seed: int) -> Any:
    """Folds that keep copies of a row together: a sigmoid must not see scores of its own rows."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    row_of = np.unique(features, axis=0, return_inverse=True)[1].ravel()
    chosen: dict[str, Any] = {"shuffle": True, "random_state": seed}
    if len(np.unique(row_of)) == len(labels):
        splits = StratifiedKFold(SVM_FOLDS, **chosen).split(features, labels)
    else:
        splits = StratifiedGroupKFold(SVM_FOLDS, **chosen).split(features, labels, row_of)
    with warnings.catch_warnings():
        # A class of two rows stands in two of the folds, which is all that it needs.
        warnings.filterwarnings("ignore", "The least populated class")
        return list(splits)


def _fit(
    name: str,
    model: Any,
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None,
    watched: dict[str, Any],
) -> Any:
    if weights is None or np.allclose(weights, weights[0]):
        return model.fit(features, labels, **watched)
    if name in WITHOUT_WEIGHTS:
        raise InputError(
            f"{name} cannot weigh rows; use --balance sampling or none, or --resample smote"
        )
    return model.fit(features, labels, sample_weight=weights, **watched)


def _as_in_training(
    held_out: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
) -> np.ndarray:
    """(n,) weights that give held-out classes their share of the training, mean 1."""
    classes = int(max(held_out.max(), labels.max())) + 1
    trained = np.bincount(labels, weights, classes) / (
        len(labels) if weights is None else weights.sum()
    )
    found = np.bincount(held_out, minlength=classes) / len(held_out)
    shares = trained[held_out] / found[held_out]
    return shares / shares.mean()


def set_aside(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) bool: a tenth of each class, none of a class too small to spare a row."""
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        chosen[own[: int(SET_ASIDE * len(own))]] = True
    return chosen


def probabilities(model: Any, features: np.ndarray, classes: int) -> np.ndarray:
    """(n, K) probabilities; a class that training never saw gets 0."""
    found = model.predict_proba(features)
    full = np.zeros((len(features), classes))
    full[:, np.asarray(model.classes_, dtype=np.int64)] = found
    return full / full.sum(axis=1, keepdims=True)


def _logistic_regression(seed: int, threads: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1.0, max_iter=2000, random_state=seed)


def _random_forest(seed: int, threads: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(
        TREES, min_samples_leaf=2, max_features="sqrt", n_jobs=threads, random_state=seed
    )


def _gradient_boosting(seed: int, threads: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=400, learning_rate=0.06, l2_regularization=1.0, early_stopping=True,
        n_iter_no_change=20, random_state=seed,
    )  # fmt: skip


def _svm(seed: int, threads: int) -> Any:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import StratifiedKFold
    from sklearn.svm import SVC

    folds = StratifiedKFold(SVM_FOLDS, shuffle=True, random_state=seed)
    return CalibratedClassifierCV(
        SVC(C=3.0, gamma="scale", cache_size=500), method="sigmoid", cv=folds, ensemble=False
    )


def _nearest_neighbours(seed: int, threads: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(NEIGHBOURS, weights="distance", n_jobs=threads)


def _lightgbm(seed: int, threads: int) -> Any:
    try:
        from lightgbm import LGBMClassifier
    except ImportError:
        raise InputError("lightgbm is not installed; install galaxy-augment[boost]") from None
    return LGBMClassifier(
        n_estimators=300, learning_rate=0.05, num_leaves=31, min_child_samples=20,
        subsample=0.8, subsample_freq=1, colsample_bytree=0.8, reg_lambda=1.0,
        random_state=seed, deterministic=True, force_col_wise=True, n_jobs=threads, verbose=-1,
    )  # fmt: skip


_FACTORIES: dict[str, Callable[[int, int], Any]] = {
    "logistic-regression": _logistic_regression,
    "random-forest": _random_forest,
    "gradient-boosting": _gradient_boosting,
    "svm": _svm,
    "nearest-neighbours": _nearest_neighbours,
    "lightgbm": _lightgbm,
}
