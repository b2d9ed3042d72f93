"""Metrics against published tables, counting, and scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as oracle

from classify.calibration import (
    brier_score,
    expected_calibration_error,
    fit_temperature,
    reliability,
)
from classify.metrics import evaluate, table
from classify.resampling import weighted_ranking
from galaxies.errors import InputError

SUPPORTS = np.array([216, 371, 529, 405, 67, 409, 366, 526, 284, 375])
"""Test images per class of the published Galaxy10 DECaLS report."""

TEN = tuple(f"{index}" for index in range(10))


@pytest.fixture
def noisy(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (300, 4) that know something, and labels."""
    labels = rng.integers(0, 4, 300)
    scores = rng.normal(size=(300, 4)) + 1.5 * np.eye(4)[labels]
    exponential = np.exp(scores)
    return exponential / exponential.sum(axis=1, keepdims=True), labels


NAMES = ("a", "b", "c", "d")


def test_values_are_those_of_scikit_learn(noisy: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, labels = noisy
    found = evaluate(probabilities, labels, NAMES, resamples=0)
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, _ = oracle.precision_recall_fscore_support(labels, predicted)
    for k, m in enumerate(found.per_class):
        assert (m.recall, m.precision, m.f1) == pytest.approx((recall[k], precision[k], f1[k]))
        truth = labels == k
        assert m.auc == pytest.approx(oracle.roc_auc_score(truth, probabilities[:, k]), abs=1e-6)
        assert m.average_precision == pytest.approx(
            oracle.average_precision_score(truth, probabilities[:, k]), abs=1e-6
        )
    assert found.balanced_accuracy == pytest.approx(
        oracle.balanced_accuracy_score(labels, predicted)
    )
    assert found.macro_f1 == pytest.approx(f1.mean())
    assert found.log_loss == pytest.approx(oracle.log_loss(labels, probabilities))
    np.testing.assert_array_equal(found.confusion, oracle.confusion_matrix(labels, predicted))


def test_a_constant_predictor_is_called_collapsed_with_its_class() -> None:
    labels = np.repeat(np.arange(10), SUPPORTS)
    probabilities = np.full((len(labels), 10), 0.05)
    probabilities[:, 2] = 0.55
    found = evaluate(probabilities, labels, TEN, resamples=0)
    assert found.collapsed_to == "2"
    assert found.accuracy == pytest.approx(0.149, abs=5e-4)
    assert found.weighted_f1 == pytest.approx(0.0387, abs=5e-5)
    assert sum(m.recall == 0 for m in found.per_class) == 9
    assert "collapsed to class 2" in table(found)


def test_a_good_classifier_of_a_dominant_class_is_not_collapsed() -> None:
    labels = np.zeros(1000, int)
    labels[:5] = 1
    found = evaluate(np.eye(2)[labels] * 0.9 + 0.05, labels, ("common", "rare"), resamples=0)
    assert found.collapsed_to is None


def test_the_published_class_0_row() -> None:
    """18 right of 216, 23 predicted: recall .083 [.053, .128], precision .783."""
    labels = np.repeat([0, 1], [216, 1000])
    predicted = np.ones(1216, int)
    predicted[:18] = 0
    predicted[216:221] = 0
    found = evaluate(np.eye(2)[predicted], labels, ("disturbed", "rest"), resamples=0)
    m = found.per_class[0]
    assert (m.images, m.predicted, m.right) == (216, 23, 18)
    assert m.recall == pytest.approx(18 / 216)
    assert m.recall_interval == pytest.approx((0.053, 0.128), abs=5e-4)
    assert m.precision == pytest.approx(0.783, abs=5e-4)
    line = table(found).splitlines()[1]
    assert "0.083 [0.053, 0.128]" in line
    assert "0.783" in line


@pytest.mark.parametrize(
    ("row", "expected"), [((0.4, 0.35, 0.25), 0), ((0.3, 0.4, 0.3), 1), ((0.2, 0.3, 0.5), 2)]
)
def test_the_largest_probability_decides_without_a_threshold(
    row: tuple[float, ...], expected: int
) -> None:
    found = evaluate(np.array([row]), np.array([expected]), ("E", "S0", "Sp"), resamples=0)
    assert found.per_class[expected].right == 1


def test_a_class_without_images_is_named_and_not_averaged() -> None:
    probabilities = np.eye(3)[[0, 1, 1, 2]]
    found = evaluate(probabilities, np.array([0, 1, 1, 1]), ("a", "b", "c"), resamples=10)
    assert found.without_images == ("c",)
    assert np.isnan(found.per_class[2].recall)
    assert np.isnan(found.per_class[2].auc)
    assert found.balanced_accuracy == pytest.approx((1 + 2 / 3) / 2)
    assert found.as_json()["per_class"][2]["recall"] is None
    assert "no image of c" in table(found)


def test_close_probabilities_do_not_tie() -> None:
    scores = 0.5 + np.array([1e-12, 2e-12, 3e-12, 4e-12])
    found = evaluate(
        np.stack([1 - scores, scores], axis=1), np.array([0, 0, 1, 1]), ("a", "b"), resamples=0
    )
    assert found.per_class[1].auc == 1.0


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="do not fit"):
        evaluate(np.ones((3, 2)), np.zeros(4, int), ("a", "b"))
    with pytest.raises(InputError, match="do not fit"):
        evaluate(np.ones((0, 2)), np.zeros(0, int), ("a", "b"))


def test_weighted_ranking_with_unit_weights_is_scikit_learn(
    noisy: tuple[np.ndarray, np.ndarray],
) -> None:
    probabilities, labels = noisy
    scores, positive = probabilities[:, 0].round(2), labels == 0  # with ties
    auc, average_precision = weighted_ranking(scores, positive, np.ones((1, 300)))
    assert auc[0] == pytest.approx(oracle.roc_auc_score(positive, scores))
    assert average_precision[0] == pytest.approx(oracle.average_precision_score(positive, scores))


def test_weights_are_repetitions(noisy: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, labels = noisy
    scores, positive = probabilities[:, 0], labels == 0
    counts = np.random.default_rng(1).integers(0, 3, (1, 300))
    auc, average_precision = weighted_ranking(scores, positive, counts)
    repeated = np.repeat(np.arange(300), counts[0])
    assert auc[0] == pytest.approx(oracle.roc_auc_score(positive[repeated], scores[repeated]))
    assert average_precision[0] == pytest.approx(
        oracle.average_precision_score(positive[repeated], scores[repeated])
    )


def test_bootstrap_intervals_cover_the_truth(rng: np.random.Generator) -> None:
    """AUC of two unit normals one apart is Phi(1/sqrt 2) = .760."""
    covered = 0
    for seed in range(60):
        labels = np.repeat([0, 1], [60, 60])
        score = rng.normal(size=120) + labels
        probability = 1 / (1 + np.exp(-score))
        both = np.stack([1 - probability, probability], axis=1)
        low, high = (
            evaluate(both, labels, ("a", "b"), seed=seed, resamples=200).per_class[1].auc_interval
        )
        covered += low <= 0.7602 <= high
    assert 51 <= covered <= 60  # 95 % of 60 is 57; the percentile bootstrap is a little short


def test_bootstrap_is_deterministic(noisy: tuple[np.ndarray, np.ndarray]) -> None:
    one, two, other = (
        evaluate(*noisy, NAMES, seed=seed, resamples=50).per_class[0].f1_interval
        for seed in (0, 0, 1)
    )
    assert one == two != other


def test_calibration_error_of_known_bins() -> None:
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    labels = np.array([0] * 6 + [1] * 4 + [0] * 6 + [1] * 4)
    assert expected_calibration_error(probabilities, labels, bins=10) == pytest.approx(0.15)
    bins = reliability(probabilities, labels, bins=10)
    assert bins.count.tolist() == [0, 0, 0, 0, 0, 10, 0, 0, 10, 0]


def test_brier_score_of_a_coin() -> None:
    assert brier_score(np.full((4, 2), 0.5), np.array([0, 1, 0, 1])) == pytest.approx(0.5)
    assert brier_score(np.eye(2), np.array([0, 1])) == 0


def test_temperature_repairs_logits_that_are_too_sure() -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 3, generator=generator) * 2
    labels = torch.multinomial(torch.softmax(logits, 1), 1, generator=generator)[:, 0].numpy()
    assert fit_temperature(logits * 3, labels) == pytest.approx(3, rel=0.05)
    assert fit_temperature(logits, labels) == pytest.approx(1, rel=0.05)
