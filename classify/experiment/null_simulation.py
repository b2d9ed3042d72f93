"""Experiments in which nothing happened, to count how often a method claims that something did.

Two kinds of nothing:

``same recipe``
    The arm is its own baseline, trained with other seeds and tested on the same images. Images
    differ in difficulty, trainings in luck; no expected difference exists. Tests over images
    take the luck of a training for an effect.
``exchangeable recipes``
    Arm and baseline are different recipes whose expected recall is equal; on one data set
    either may be ahead. Each experiment draws its own data, splits it into folds and trains
    linear discriminants on one half of the features or on the other. Tests over repeats take
    the luck of the data set for an effect.
"""

from dataclasses import dataclass

import numpy as np

from classify.experiment.comparison import ImageResamples, ScoredArm, compare
from classify.experiment.measures import (
    FoldPredictions,
    OperatingPoints,
    RunPredictions,
    called,
    join_folds,
)
from classify.experiment.protocol import VALIDATION_KEPT, VALIDATION_SHARE
from classify.experiment.statistics import Estimate, single_pair_p
from classify.experiment.verdict import ClaimRule

METHODS = (
    "claim of augment-and-eval",
    "test of augment-and-eval",
    "paired t over repeats",
    "corrected t over folds",
    "single-pair McNemar",
    "image bootstrap",
)


@dataclass(frozen=True)
class SameRecipe:
    """Settings of the A/A experiment on a fixed set of test images.

    Attributes
    ----------
    positives : int
        Test images of the class; as many of another class give the false positives.
    repeats : int
    folds : int
        1 is one fixed test split.
    difficulty_spread : float
        Standard deviation over images of the logit of being found; 2 in the measured runs.
    training_spread : float
        Standard deviation over trainings of a shift of all logits; .3 gave a standard deviation
        of recall over seeds of .05 to .06.
    """

    positives: int = 86
    repeats: int = 10
    folds: int = 1
    difficulty_spread: float = 2.0
    training_spread: float = 0.3

    measure = "recall"

    def experiment(self, rng: np.random.Generator) -> list[list[RunPredictions]]:
        """Two arms of ``repeats`` runs each."""
        count = 2 * self.positives
        labels = np.repeat([0, 1], self.positives)
        fold = np.arange(count) % self.folds
        difficulty = rng.normal(0, self.difficulty_spread, count)
        arms = []
        for _ in range(2):
            runs = []
            for _ in range(self.repeats):
                luck = rng.normal(0, self.training_spread, self.folds)[fold]
                found = rng.random(count) < 1 / (1 + np.exp(-(difficulty + luck)))
                called_first = np.where(labels == 0, found, ~found)
                runs.append(_run(labels, fold, called_first))
            arms.append(runs)
        return arms


@dataclass(frozen=True)
class ExchangeableRecipes:
    """Settings of the experiment whose data are drawn anew.

    A fifth of what a fold does not test is its validation side; in each repeat two thirds of it,
    drawn anew, choose the threshold, as in the real experiment.

    Attributes
    ----------
    positives, negatives : int
        Images of the class and of the other class.
    folds : int
        1 is one stored split: a quarter is tested.
    features : int
        Features that each recipe sees; the recipes see different ones, equally informative.
    separation : float
        Distance of the class means in each feature, in standard deviations.
    training_noise, fold_noise : float
        Length of the noise added to a discriminant's direction, relative to it: per training,
        and per fold (the luck of a generator, shared by all repeats of a fold).
    """

    positives: int = 86
    negatives: int = 900
    repeats: int = 5
    folds: int = 5
    features: int = 15
    separation: float = 0.45
    training_noise: float = 0.5
    fold_noise: float = 0.5

    measure = "recall_at_false_positive_rate"

    def experiment(self, rng: np.random.Generator) -> list[list[RunPredictions]]:
        """Two arms of ``repeats`` runs each, with thresholds at 2 % false positives."""
        labels = np.repeat([0, 1], [self.positives, self.negatives])
        count = len(labels)
        data = rng.normal(size=(count, 2 * self.features))
        data[labels == 0] += self.separation
        fold = np.zeros(count, dtype=np.int64)
        for label in (0, 1):
            members = np.flatnonzero(labels == label)
            fold[members] = rng.permutation(len(members)) % (self.folds if self.folds > 1 else 4)
        sides = [self._sides(labels, fold == k, rng) for k in range(self.folds)]
        choosing = [[self._choosing(labels, s[1], rng) for s in sides] for _ in range(self.repeats)]
        points = OperatingPoints(0.02, 0.9)
        arms = []
        for half in range(2):
            seen = data[:, half * self.features : (half + 1) * self.features]
            predictions: list[list[FoldPredictions]] = [[] for _ in range(self.repeats)]
            for k, (train, _, test) in enumerate(sides):
                direction = _discriminant(seen[train], labels[train] == 0)
                length = np.linalg.norm(direction) / np.sqrt(self.features)
                direction = direction + self.fold_noise * length * rng.normal(size=self.features)
                for repeat in range(self.repeats):
                    noise = self.training_noise * length * rng.normal(size=self.features)
                    score = 1 / (1 + np.exp(-seen @ (direction + noise)))
                    both = np.stack([score, 1 - score], axis=1)
                    chosen = choosing[repeat][k]
                    predictions[repeat].append(
                        FoldPredictions(
                            chosen, labels[chosen], both[chosen], test, labels[test], both[test]
                        )
                    )
            arms.append([join_folds(folds, points) for folds in predictions])
        return arms

    @staticmethod
    def _sides(
        labels: np.ndarray, test: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows that train, that are held out for thresholds, and that are tested."""
        rest = np.flatnonzero(~test)
        validation = _share(labels, rest, VALIDATION_SHARE, rng)
        return np.setdiff1d(rest, validation), validation, np.flatnonzero(test)

    @staticmethod
    def _choosing(
        labels: np.ndarray, validation: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """The validation rows that choose the threshold of one repeat."""
        return _share(labels, validation, VALIDATION_KEPT, rng)


def false_claims(
    setting: SameRecipe | ExchangeableRecipes,
    tables: int,
    rng: np.random.Generator,
    *,
    draws: int = 200,
    rule: ClaimRule | None = None,
) -> dict[str, float]:
    """Share of ``tables`` experiments without an effect in which each method finds one.

    Parameters
    ----------
    draws
        Bootstrap draws per experiment.
    rule
        The rule of claims; the default one.

    Returns
    -------
    dict
        One share per name in `METHODS`; a sound method stays near or below .05.
    """
    rule = rule or ClaimRule()
    found = dict.fromkeys(METHODS, 0)
    for _ in range(tables):
        arm, baseline = setting.experiment(rng)
        labels, fold = arm[0].labels, arm[0].fold
        resamples = ImageResamples.draw(labels, fold, None, draws, rng)
        scored = ScoredArm("arm", arm, resamples)
        other = ScoredArm("baseline", baseline, resamples)
        result = compare(scored, other, setting.measure, 0, rng=rng)
        assert result is not None
        estimate = result.estimate
        positive = labels == 0
        right = called(setting.measure, arm, 0)[:, positive]
        baseline_right = called(setting.measure, baseline, 0)[:, positive]
        claim = rule.claim(estimate, estimate.p, result.detectable)
        over_folds: Estimate | None = result.over_folds
        found["claim of augment-and-eval"] += claim in ("helped", "harmed")
        found["test of augment-and-eval"] += estimate.p <= rule.level
        found["paired t over repeats"] += result.over_repeats.p <= rule.level
        found["corrected t over folds"] += over_folds is not None and over_folds.p <= rule.level
        found["single-pair McNemar"] += single_pair_p(right[0], baseline_right[0]) <= rule.level
        found["image bootstrap"] += _images_only(right, baseline_right, draws, rng)
    return {name: count / tables for name, count in found.items()}


def _images_only(
    right: np.ndarray, baseline_right: np.ndarray, draws: int, rng: np.random.Generator
) -> bool:
    """Whether a bootstrap over images of the mean over trainings excludes no difference."""
    gain = right.mean(axis=0) - baseline_right.mean(axis=0)
    means = gain[rng.integers(0, len(gain), (max(draws, 500), len(gain)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return bool(low > 0 or high < 0)


def _share(
    labels: np.ndarray, rows: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    """A share of ``rows``, drawn within each class, sorted."""
    parts = []
    for label in np.unique(labels):
        own = rows[labels[rows] == label]
        parts.append(rng.permutation(own)[: round(share * len(own))])
    return np.sort(np.concatenate(parts))


def _run(labels: np.ndarray, fold: np.ndarray, called_first: np.ndarray) -> RunPredictions:
    probabilities = np.stack([called_first, ~called_first], axis=1).astype(np.float64)
    return RunPredictions(np.arange(len(labels)), labels, fold, probabilities)


def _discriminant(data: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Fisher's linear discriminant."""
    mean, other = data[first].mean(axis=0), data[~first].mean(axis=0)
    spread = np.cov(np.concatenate((data[first] - mean, data[~first] - other)).T)
    return np.linalg.solve(spread, mean - other)
