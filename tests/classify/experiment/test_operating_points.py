import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from classify.experiment import operating_points
from classify.experiment.operating_points import (
    average_precision,
    brier_score,
    expected_calibration_error,
    precision_recall_curve,
    threshold_at_false_positive_rate,
    threshold_at_precision,
)
from galaxies.errors import InputError

tables = st.lists(
    st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.7, 0.9]), st.booleans()),
    min_size=4,
    max_size=40,
).filter(lambda rows: 0 < sum(positive for _, positive in rows) < len(rows))


def _arrays(rows: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score for score, _ in rows]), np.array([positive for _, positive in rows])


@given(tables, st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]))
def test_the_rate_is_kept_and_no_lower_threshold_keeps_it(
    rows: list[tuple[float, bool]], rate: float
) -> None:
    scores, positive = _arrays(rows)
    threshold = threshold_at_false_positive_rate(scores, positive, rate)
    assert np.mean(scores[~positive] > threshold) <= rate
    lower = [s for s in np.unique(scores) if s < threshold]
    assert all(np.mean(scores[~positive] > s) > rate for s in lower)


@given(tables, st.sampled_from([0.2, 0.5, 0.8, 1.0]))
def test_the_precision_is_kept_with_the_greatest_recall(
    rows: list[tuple[float, bool]], precision: float
) -> None:
    scores, positive = _arrays(rows)
    candidates = [-np.inf, *np.unique(scores)]
    recalls = [
        np.mean(scores[positive] > s)
        for s in candidates
        if (scores > s).any() and np.mean(positive[scores > s]) >= precision - 1e-12
    ]
    threshold = threshold_at_precision(scores, positive, precision)
    called = scores > threshold
    assert np.mean(called[positive]) == max(recalls, default=0.0)
    if called.any():
        assert np.mean(positive[called]) >= precision - 1e-12


@given(tables)
def test_average_precision_equals_scikit_learn(rows: list[tuple[float, bool]]) -> None:
    scores, positive = _arrays(rows)
    expected = average_precision_score(positive, scores)
    assert average_precision(scores, positive)[0] == pytest.approx(expected, abs=1e-12)


def test_weights_are_repeated_images(rng: np.random.Generator) -> None:
    scores, positive = rng.random(60), rng.random(60) < 0.3
    weights = rng.integers(0, 4, (5, 60)).astype(float)
    for row, value in zip(weights, average_precision(scores, positive, weights), strict=True):
        repeated = np.repeat(np.arange(60), row.astype(int))
        expected = average_precision_score(positive[repeated], scores[repeated])
        assert value == pytest.approx(expected, abs=1e-10)


def test_the_curve_of_a_perfect_ranking_is_one_everywhere() -> None:
    scores, positive = np.array([0.9, 0.8, 0.2, 0.1]), np.array([True, True, False, False])
    np.testing.assert_allclose(
        precision_recall_curve(scores, positive, np.array([0.0, 0.5, 1.0])), 1.0
    )
    worst = precision_recall_curve(-scores, positive, np.array([1.0]))
    assert worst[0] == pytest.approx(0.5)


def test_images_of_one_score_are_called_together() -> None:
    scores, positive = np.full(4, 0.5), np.array([True, False, False, False])
    assert precision_recall_curve(scores, positive, np.array([0.5, 1.0])) == pytest.approx(0.25)


def test_calibration_of_an_honest_and_of_a_boastful_classifier(rng: np.random.Generator) -> None:
    truth = rng.random(20_000)
    labels = (rng.random(20_000) < truth).astype(int)
    honest = np.stack([1 - truth, truth], axis=1)
    assert expected_calibration_error(honest, labels) < 0.02
    boastful = np.eye(2)[honest.argmax(axis=1)]
    error_rate = np.mean(honest.argmax(axis=1) != labels)
    assert expected_calibration_error(boastful, labels) == pytest.approx(error_rate, abs=1e-12)
    assert brier_score(boastful, labels) == pytest.approx(2 * error_rate)
    assert brier_score(honest, labels) == pytest.approx(1 / 3, abs=0.01)


def test_a_side_without_positives_or_negatives_is_refused() -> None:
    with pytest.raises(InputError, match="no image of the class"):
        threshold_at_precision(np.array([0.1, 0.2]), np.array([False, False]), 0.5)
    with pytest.raises(InputError, match="another class"):
        threshold_at_false_positive_rate(np.array([0.1, 0.2]), np.array([True, True]), 0.1)


def test_many_images_give_the_same_average_precision(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = rng.integers(0, 20, 200) / 20  # with ties
    positive = rng.random(200) < 0.3
    weights = rng.multinomial(200, np.full(200, 1 / 200), size=9).astype(np.float32)
    weights[3, positive] = 0
    few = average_precision(scores, positive, weights)
    monkeypatch.setattr(operating_points, "_LARGEST_TABLE", 0)
    np.testing.assert_allclose(average_precision(scores, positive, weights), few, rtol=1e-12)
    assert np.isnan(few[3])
