"""SMOTE and its relatives: where new rows lie, which rows start them, and how many there are."""

import numpy as np
import pytest

from classify.tabular.oversampling import (
    METHODS,
    adasyn,
    borderline_smote,
    copies,
    rows_to_balance,
    smote,
)


@pytest.fixture
def two_classes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    rows = np.concatenate([rng.normal(0, 1, (80, 2)), rng.normal(2, 0.7, (20, 2))])
    return rows, np.repeat([0, 1], [80, 20])


def test_rows_to_balance_fills_up_to_the_largest_class() -> None:
    labels = np.repeat([0, 1, 2], [100, 25, 4])
    assert rows_to_balance(labels, 4).tolist() == [0, 75, 96, 0]
    assert rows_to_balance(labels, 3, exponent=0.5).tolist() == [0, 25, 16]


@pytest.mark.parametrize("method", [*METHODS.values(), copies])
def test_old_rows_come_first_and_counts_are_exact(
    method: object, two_classes: tuple[np.ndarray, np.ndarray]
) -> None:
    rows, labels = two_classes
    made, of_class = method(rows, labels, np.array([0, 60]), np.random.default_rng(0))  # type: ignore[operator]
    np.testing.assert_array_equal(made[:100], rows)
    assert np.bincount(of_class).tolist() == [80, 80]
    again, _ = method(rows, labels, np.array([0, 60]), np.random.default_rng(0))  # type: ignore[operator]
    np.testing.assert_array_equal(made, again)


def test_smote_rows_lie_between_a_row_and_a_near_neighbour(
    two_classes: tuple[np.ndarray, np.ndarray],
) -> None:
    rows, labels = two_classes
    own = rows[labels == 1]
    made = smote(rows, labels, np.array([0, 200]), np.random.default_rng(1))[0][100:]
    for new in made:
        # On the segment of some pair: |a - new| + |new - b| = |a - b|.
        to = np.linalg.norm(own - new, axis=1)
        gap = to[:, None] + to[None] - np.linalg.norm(own[:, None] - own[None], axis=2)
        assert np.min(gap + np.eye(len(own))) < 1e-9


def test_borderline_rows_start_only_where_others_are_near() -> None:
    rng = np.random.default_rng(0)
    common = rng.uniform(0, 1, (200, 2))
    far, near = rng.normal(8, 0.1, (10, 2)), rng.uniform(0.4, 0.6, (8, 2))
    rows, labels = np.concatenate([common, far, near]), np.repeat([0, 1], [200, 18])
    wanted = np.array([0, 50])
    from_danger = borderline_smote(rows, labels, wanted, np.random.default_rng(0))[0][218:]
    from_any = smote(rows, labels, wanted, np.random.default_rng(0))[0][218:]
    # A row of the far clump has only its own kind around it and starts nothing.
    in_clump = (np.linalg.norm(from_danger - 8, axis=1) < 1).mean()
    assert in_clump < 0.05
    assert (np.linalg.norm(from_any - 8, axis=1) < 1).mean() > 0.4
    by_density = adasyn(rows, labels, wanted, np.random.default_rng(0))[0][218:]
    assert (np.linalg.norm(by_density - 8, axis=1) < 1).mean() < 0.3


def test_agrees_with_imbalanced_learn_in_distribution(
    two_classes: tuple[np.ndarray, np.ndarray],
) -> None:
    over_sampling = pytest.importorskip("imblearn.over_sampling")
    rows, labels = two_classes
    theirs = over_sampling.SMOTE(sampling_strategy={1: 5020}, random_state=0)
    expected = theirs.fit_resample(rows, labels)[0][100:]
    found = smote(rows, labels, np.array([0, 5000]), np.random.default_rng(0))[0][100:]
    np.testing.assert_allclose(found.mean(axis=0), expected.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(np.cov(found.T), np.cov(expected.T), atol=0.05)


def test_a_class_of_one_row_is_repeated() -> None:
    rows, labels = np.array([[0.0, 0], [1, 1], [2, 2], [9, 9]]), np.array([0, 0, 0, 1])
    made = smote(rows, labels, np.array([0, 2]), np.random.default_rng(0))[0]
    np.testing.assert_array_equal(made[4:], [[9, 9], [9, 9]])
