"""Experiments whose truth is known, to count how often a method says something else.

Three kinds of nothing:

``same recipe``
    The arm is its own baseline, trained with other seeds and tested on the same images. Images
    differ in difficulty, trainings in luck; no expected difference exists. Tests over images
    take the luck of a training for an effect.
``exchangeable recipes``
    Arm and baseline are different recipes whose expected recall is equal; on one data set
    either may be ahead. Each experiment draws its own data, splits it into folds and trains
    linear discriminants on one half of the features or on the other. Tests over repeats take
    the luck of the data set for an effect.
``equal recipes in groups``
    Two recipes of equal expected recall, of which either may be ahead in one group of images
    (a field, a plate); other groups would be other ones. Tests that take images for independent
    take the luck of a few groups for an effect.

And something: exchangeable recipes of which one sees its classes further apart.
"""

from dataclasses import dataclass

import numpy as np

from classify.experiment.comparison import (
    ImageResamples,
    PairedDifference,
    ScoredArm,
    compare,
)
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
class EqualRecipesInGroups:
    """Settings of the experiment whose test images come in groups.

    Attributes
    ----------
    sizes : tuple of int
        Test images of the class in each group; as many of another class give the false positives.
    repeats : int
    difficulty_spread, training_spread : float
        As for `SameRecipe`.
    group_spread : float
        Standard deviation over groups and recipes of a shift of the logits of being found.
    """

    sizes: tuple[int, ...] = (7, 15, 5, 4, 4, 12, 41, 11, 137)
    repeats: int = 10
    difficulty_spread: float = 2.0
    training_spread: float = 0.3
    group_spread: float = 0.7

    measure = "recall"

    def groups(self) -> np.ndarray:
        """(n,) str group of each test image."""
        return np.tile(np.repeat(np.arange(len(self.sizes)), self.sizes), 2).astype(str)

    def experiment(self, rng: np.random.Generator) -> list[list[RunPredictions]]:
        """Two arms of ``repeats`` runs each."""
        groups = self.groups().astype(np.int64)
        count = len(groups)
        labels = np.repeat([0, 1], count // 2)
        difficulty = rng.normal(0, self.difficulty_spread, count)
        arms = []
        for _ in range(2):
            own = difficulty + rng.normal(0, self.group_spread, len(self.sizes))[groups]
            runs = []
            for _ in range(self.repeats):
                luck = rng.normal(0, self.training_spread)
                found = rng.random(count) < 1 / (1 + np.exp(-(own + luck)))
                right = np.where(labels == 0, found, ~found)
                runs.append(_run(labels, np.zeros(count, np.int64), right))
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
    advantage : float
        What the arm's features have more of it than the baseline's; 0: nothing happened.
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
    advantage: float = 0.0
    training_noise: float = 0.5
    fold_noise: float = 0.5

    measure = "recall_at_false_positive_rate"

    def experiment(self, rng: np.random.Generator) -> list[list[RunPredictions]]:
        """Two arms of ``repeats`` runs each, with thresholds at 2 % false positives."""
        labels = np.repeat([0, 1], [self.positives, self.negatives])
        count = len(labels)
        data = rng.normal(size=(count, 2 * self.features))
        data[labels == 0] += self.separation
        data[labels == 0, : self.features] += self.advantage  # the arm's, see below
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


Setting = SameRecipe | EqualRecipesInGroups | ExchangeableRecipes


def false_claims(
    setting: Setting,
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
        result = _compared(setting, arm, baseline, draws, rng)
        estimate = result.estimate
        positive = arm[0].labels == 0
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


@dataclass(frozen=True)
class Sharpness:
    """What simulated experiments with one true effect said.

    Attributes
    ----------
    effect : float
        The true difference: the mean over all experiments.
    coverage : float
        Share of 95 % intervals that hold it.
    significant : float
        Share with p of at most .05.
    claims : dict of str to float
        Share of each verdict.
    """

    effect: float
    coverage: float
    significant: float
    claims: dict[str, float]


def sharpness(
    setting: Setting, tables: int, rng: np.random.Generator, *, draws: int = 200
) -> Sharpness:
    """How often intervals cover an effect, and what is claimed of it, in ``tables`` experiments."""
    rule = ClaimRule()
    estimates: list[Estimate] = []
    claims: dict[str, float] = {}
    for _ in range(tables):
        arm, baseline = setting.experiment(rng)
        result = _compared(setting, arm, baseline, draws, rng)
        claim = rule.claim(result.estimate, result.estimate.p, result.detectable)
        estimates.append(result.estimate)
        claims[claim] = claims.get(claim, 0) + 1 / tables
    effect = float(np.mean([estimate.difference for estimate in estimates]))
    held = [one.interval[0] <= effect <= one.interval[1] for one in estimates]
    significant = [one.p <= rule.level for one in estimates]
    return Sharpness(effect, float(np.mean(held)), float(np.mean(significant)), claims)


def _compared(
    setting: Setting,
    arm: list[RunPredictions],
    baseline: list[RunPredictions],
    draws: int,
    rng: np.random.Generator,
) -> PairedDifference:
    groups = setting.groups() if isinstance(setting, EqualRecipesInGroups) else None
    resamples = ImageResamples.draw(arm[0].labels, arm[0].fold, groups, draws, rng)
    sides = ScoredArm("arm", arm, resamples), ScoredArm("baseline", baseline, resamples)
    result = compare(*sides, setting.measure, 0, rng=rng)
    assert result is not None
    return result


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
