"""Prediction sets: thresholds by hand, coverage by theory, and failures that are told."""

import numpy as np
import pytest
from scipy import stats

from classify.conformal import (
    ConformalCalibration,
    SetKind,
    conformal_quantile,
    coverage_report,
    set_in_words,
)
from galaxies.errors import InputError


def world(
    rng: np.random.Generator, count: int, sharp: float = 1.5
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (count, 3) and labels, imbalanced."""
    labels = rng.choice(3, count, p=[0.7, 0.2, 0.1])
    scores = np.exp(rng.normal(size=(count, 3)) + sharp * np.eye(3)[labels])
    return scores / scores.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize(
    ("count", "level", "rank"), [(9, 0.9, 9), (19, 0.9, 18), (99, 0.95, 95), (10, 0.5, 6)]
)
def test_the_threshold_is_the_k_th_smallest_score(count: int, level: float, rank: int) -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1, count + 1)) / count
    assert conformal_quantile(scores, level) == rank / count


def test_too_few_scores_exclude_nothing() -> None:
    assert conformal_quantile(np.zeros(8), 0.9) == np.inf
    assert conformal_quantile(np.zeros(9), 0.9) == 0
    assert conformal_quantile(np.zeros(0), 0.5) == np.inf


def test_marginal_coverage_follows_beta_binomial() -> None:
    """Coverage on m new images given n calibration ones is BetaBinomial(n + 1 - l, l)."""
    rng = np.random.default_rng(3)
    n, m, level = 50, 40, 0.9
    left_out = int(np.floor((n + 1) * (1 - level) + 1e-9))
    covered = []
    for _ in range(400):
        probabilities, labels = world(rng, n + m)
        calibration = ConformalCalibration(probabilities[:n], labels[:n])
        sets = calibration.sets(probabilities[n:], level, "marginal")
        covered.append(sets[np.arange(m), labels[n:]].sum())
    law = stats.betabinom(m, n + 1 - left_out, left_out)
    assert np.mean(covered) == pytest.approx(law.mean(), abs=4 * law.std() / 20)
    assert np.std(covered) == pytest.approx(law.std(), rel=0.15)


def test_per_class_sets_keep_the_promise_in_every_class_and_marginal_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = world(rng, 40_000, sharp=1.0)
    # The rare class is hard: its probability is pushed down.
    probabilities = probabilities * np.array([1, 1, 0.4])
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    calibration = ConformalCalibration(probabilities[:20_000], labels[:20_000])
    new, truth = probabilities[20_000:], labels[20_000:]
    own = calibration.sets(new, 0.9, "per-class")[np.arange(20_000), truth]
    joint = calibration.sets(new, 0.9, "marginal")[np.arange(20_000), truth]
    for k in range(3):
        assert own[truth == k].mean() == pytest.approx(0.9, abs=0.02)
    assert joint.mean() == pytest.approx(0.9, abs=0.01)
    assert joint[truth == 2].mean() < 0.8


def test_a_class_with_few_calibration_images_stands_in_every_set() -> None:
    probabilities = np.full((30, 2), 0.5)
    calibration = ConformalCalibration(probabilities, np.array([0] * 25 + [1] * 5))
    sets = calibration.sets(np.array([[1.0, 0.0]]), 0.9)
    assert sets.tolist() == [[True, True]]


def test_a_table_of_empty_sets_prints_a_coverage_failure() -> None:
    """The published case: at 90 %, 14.07 % empty sets and single ones otherwise."""
    count = 10_000
    labels = np.zeros(count, int)
    sets = np.zeros((count, 3), bool)
    sets[1407:, 0] = True
    report = coverage_report(sets, labels, ("star", "galaxy", "quasar"), 0.9, "marginal")
    text = "\n".join(report.lines())
    assert "coverage failure" in text
    assert "14.07 % of the sets are empty" in text


def test_sets_that_keep_the_promise_print_no_failure() -> None:
    rng = np.random.default_rng(1)
    probabilities, labels = world(rng, 4000)
    calibration = ConformalCalibration(probabilities[:2000], labels[:2000])
    sets = calibration.sets(probabilities[2000:], 0.9)
    report = coverage_report(sets, labels[2000:], ("a", "b", "c"), 0.9, calibration=calibration)
    assert report.failures == ()
    assert len(report.lines()) == 4
    assert report.overall.images == 2000


def test_false_alarms_are_rare_with_few_calibration_images() -> None:
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(100):
        probabilities, labels = world(rng, 1200)
        calibration = ConformalCalibration(probabilities[:200], labels[:200])
        sets = calibration.sets(probabilities[200:], 0.9)
        report = coverage_report(sets, labels[200:], ("a", "b", "c"), 0.9, "per-class", calibration)
        alarms += bool(report.failures)
    assert alarms <= 10  # four tests at 1 % each: about 4


@pytest.mark.parametrize("kind", ["per-class", "marginal"])
def test_false_alarms_are_rare_where_every_miss_is_an_empty_or_wrong_set(kind: SetKind) -> None:
    """With two classes the sets that miss are empty or wrong; good calibrations once alarmed."""
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(200):
        probabilities, labels = world(rng, 1200, sharp=4)
        joined = np.stack([probabilities[:, 0], probabilities[:, 1:].sum(axis=1)], axis=1)
        truth = np.minimum(labels, 1)
        calibration = ConformalCalibration(joined[:200], truth[:200])
        sets = calibration.sets(joined[200:], 0.9, kind)
        report = coverage_report(sets, truth[200:], ("a", "b"), 0.9, kind, calibration)
        alarms += any("guarantee does not hold" in failure for failure in report.failures)
    assert alarms <= 8  # one test at 1 %: about 2


def test_a_folder_of_one_rare_class_is_judged_by_the_calibration_of_that_class() -> None:
    """Nine calibration images leave the coverage of their class wide open."""
    labels = np.repeat([0, 1], [991, 9])
    calibration = ConformalCalibration(np.full((1000, 2), 0.5), labels)
    sets = np.ones((200, 2), bool)
    sets[:40, 1] = False
    report = coverage_report(sets, np.ones(200, int), ("a", "b"), 0.9, "per-class", calibration)
    assert report.failures == ()
    marginal = coverage_report(sets, np.ones(200, int), ("a", "b"), 0.9, "marginal", calibration)
    assert any("coverage failure for all" in failure for failure in marginal.failures)


def test_no_images_are_no_failure() -> None:
    none = np.zeros((0, 2), bool)
    assert coverage_report(none, np.zeros(0, int), ("a", "b"), 0.9).failures == ()


def test_shifted_images_break_the_promise_and_it_is_told() -> None:
    rng = np.random.default_rng(1)
    probabilities, labels = world(rng, 2000, sharp=3)
    shifted, truth = world(rng, 2000, sharp=0.3)
    calibration = ConformalCalibration(probabilities, labels)
    report = coverage_report(calibration.sets(shifted, 0.9), truth, ("a", "b", "c"), 0.9)
    assert any("coverage failure for all" in failure for failure in report.failures)
    assert any("unlike the calibration" in failure for failure in report.failures)


def test_a_level_outside_0_to_1_is_refused() -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        ConformalCalibration(np.ones((1, 1)), np.zeros(1, int)).thresholds(1.0)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "no class at 90 %: less clear than 90 % of the calibration images"),
        (["merger"], "merger, at 90 % confidence"),
        (["merger", "spiral"], "merger or spiral; not enough to say which"),
        (["merger", "spiral", "edge_on"], "could be any class"),
    ],
)
def test_sets_in_words(names: list[str], words: str) -> None:
    assert words in set_in_words(names, 3, 0.9)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["merger"], "no other class at 90 %; merger has too few calibration images to be ruled"),
        (["merger", "spiral"], "spiral, at 90 % confidence; merger has too few"),
    ],
)
def test_a_class_that_stands_in_every_set_is_not_laid_to_the_image(
    names: list[str], words: str
) -> None:
    """What is there for want of calibration images says nothing about this image."""
    assert words in set_in_words(names, 3, 0.9, ["merger"])
    every = set_in_words(["a", "b"], 2, 0.9, ["a", "b"])
    assert every == "any class at 90 %: too few calibration images to rule one out"


def test_the_classes_that_stand_in_every_set_are_those_with_too_few_images() -> None:
    labels = np.repeat([0, 1], [9, 8])
    calibration = ConformalCalibration(np.full((17, 2), 0.5), labels)
    assert calibration.never_ruled_out(0.9).tolist() == [False, True]
    assert calibration.never_ruled_out(0.9, "marginal").tolist() == [False, False]
