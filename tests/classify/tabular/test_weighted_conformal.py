"""Conformal sets under shift: equal weights are the plain sets, right weights repair coverage."""

import numpy as np
import pytest

from classify.conformal import ConformalCalibration, conformal_quantile
from classify.tabular.density_ratio import estimate_density_ratio
from classify.tabular.exchangeability import (
    conformal_p_values,
    score_martingale,
    two_sample_monitor,
)
from classify.tabular.weighted_conformal import WeightedCalibration, weighted_quantiles
from galaxies.errors import InputError


@pytest.mark.parametrize("level", [0.5, 0.68, 0.9, 0.95])
@pytest.mark.parametrize("count", [3, 9, 10, 57])
def test_equal_weights_give_the_plain_quantile(count: int, level: float) -> None:
    scores = np.random.default_rng(count).random(count)
    found = weighted_quantiles(scores, np.full(count, 2.5), np.array([2.5]), level)
    assert found[0] == conformal_quantile(scores, level)


def test_weighted_quantile_follows_the_formula() -> None:
    # Masses 1, 2, 3 at .1, .2, .3 and 2 at infinity: cumulated shares 1/8, 3/8, 6/8, 1.
    scores, weights = np.array([0.3, 0.1, 0.2]), np.array([3.0, 1.0, 2.0])
    at = [weighted_quantiles(scores, weights, np.array([2.0]), q)[0] for q in (0.1, 0.3, 0.7, 0.8)]
    assert at == [0.1, 0.2, 0.3, np.inf]


def test_a_row_that_calibration_never_saw_gets_every_class() -> None:
    calibration = ConformalCalibration(np.tile([0.9, 0.1], (50, 1)), np.repeat([0, 1], 25))
    weighted = WeightedCalibration(calibration, np.ones(50))
    probabilities = np.array([[0.99, 0.01], [0.99, 0.01]])
    sets = weighted.sets(probabilities, np.array([1.0, 1e6]), 0.9)
    assert sets.tolist()[1] == [True, True]


def shifted(rng: np.random.Generator, count: int, centre: float) -> tuple[np.ndarray, np.ndarray]:
    """One feature; the class is harder to tell at larger values, and the model does not know."""
    x = rng.normal(centre, 1, count)
    noise = 0.25 + 2.0 / (1 + np.exp(-2 * x))
    truth = (rng.normal(0, noise) > 0.7).astype(np.int64)
    return x[:, None], truth


def probabilities_of(truth: np.ndarray, rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Right where x is small, and confidently wrong more often where it is large."""
    wrong = rng.random(len(truth)) < 0.03 + 0.4 / (1 + np.exp(-2 * (x[:, 0] - 1)))
    confidence = rng.uniform(0.7, 0.999, len(truth))
    said = np.where(wrong, 1 - truth, truth)
    p = np.empty((len(truth), 2))
    p[np.arange(len(truth)), said] = confidence
    p[np.arange(len(truth)), 1 - said] = 1 - confidence
    return p


def test_weights_repair_the_coverage_that_shift_breaks() -> None:
    plain, repaired, estimated = [], [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x, truth = shifted(rng, 1500, 0.0)
        new_x, new_truth = shifted(rng, 1500, 1.2)
        calibration = ConformalCalibration(probabilities_of(truth, rng, x), truth)
        p = probabilities_of(new_truth, rng, new_x)
        held = np.arange(len(new_truth)), new_truth
        plain.append(calibration.sets(p, 0.85, "marginal")[held].mean())
        log_ratio = 1.2 * x[:, 0] - 0.72  # of two normals of unit width, 1.2 apart
        right = WeightedCalibration(calibration, np.exp(log_ratio))
        new_weights = np.exp(1.2 * new_x[:, 0] - 0.72)
        repaired.append(right.sets(p, new_weights, 0.85, "marginal")[held].mean())
        ratio = estimate_density_ratio(x, new_x, seed=seed)
        learnt = WeightedCalibration(calibration, ratio.calibration)
        estimated.append(learnt.sets(p, ratio.new, 0.85, "marginal")[held].mean())
    assert np.mean(plain) < 0.79
    assert 0.84 < np.mean(repaired) < 0.92
    assert 0.82 < np.mean(estimated) < 0.92


def test_the_monitor_is_quiet_where_nothing_shifted_and_loud_where_it_did() -> None:
    rng = np.random.default_rng(0)
    verdicts = []
    for seed in range(6):
        rows = rng.normal(0, 1, (600, 4))
        verdicts.append(two_sample_monitor(rows[:300], rows[300:], seed=seed)[0].verdict)
    assert verdicts.count("alike") >= 5
    known = rng.normal(0, 1, (400, 4))
    soft, ratio = two_sample_monitor(known, rng.normal([1.0, 0, 0, 0], 1, (400, 4)))
    assert soft.verdict == "shifted"
    assert "told apart" in soft.in_words()
    assert ratio.effective_rows < 350
    far, _ = two_sample_monitor(known, rng.normal(4, 1, (400, 4)))
    assert far.verdict == "disjoint"


def test_martingale_keeps_its_false_alarm_rate_and_hears_a_shift() -> None:
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(200):
        calibration, stream = rng.normal(size=2000), rng.normal(size=500)
        p = conformal_p_values(calibration, stream, rng)
        false += score_martingale(p).max() >= np.log10(20)
    assert false / 200 <= 0.09  # Ville: at most .05
    shifted_p = conformal_p_values(rng.normal(size=2000), rng.normal(1.0, 1, 500), rng)
    assert score_martingale(shifted_p).max() > 4


def test_p_values_are_uniform_where_scores_are_exchangeable() -> None:
    rng = np.random.default_rng(2)
    p = conformal_p_values(rng.normal(size=500), rng.normal(size=4000), rng)
    assert abs(p.mean() - 0.5) < 0.03
    assert abs((p < 0.1).mean() - 0.1) < 0.03
    tied = conformal_p_values(np.zeros(100), np.zeros(2000), rng)
    assert abs(tied.mean() - 0.5) < 0.03


def test_weights_that_cannot_be_are_refused() -> None:
    calibration = ConformalCalibration(np.tile([0.9, 0.1], (4, 1)), np.zeros(4, np.int64))
    with pytest.raises(InputError, match="4 calibration rows but 3 weights"):
        WeightedCalibration(calibration, np.ones(3))
    with pytest.raises(InputError, match="finite"):
        WeightedCalibration(calibration, np.array([1, 1, np.nan, 1]))
    with pytest.raises(InputError, match="at least 20 rows"):
        estimate_density_ratio(np.zeros((5, 1)), np.zeros((100, 1)))
