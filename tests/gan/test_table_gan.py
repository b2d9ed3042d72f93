"""The table GAN: monotone normal scores, rows like those of their class, the same by seed."""

import numpy as np
import pytest

from galaxies.errors import InputError
from gan.tables import TableGanConfig, normal_scores_of, train_table_gan


def make_rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [900, 100])
    common = rng.multivariate_normal([0, 0, 0], [[1, 0.8, 0], [0.8, 1, 0], [0, 0, 1]], 900)
    rare = rng.multivariate_normal([3, -2, 1], [[0.5, -0.4, 0], [-0.4, 0.5, 0], [0, 0, 2]], 100)
    rows = np.concatenate([common, rare])
    rows[:, 2] = np.exp(rows[:, 2] / 2)  # skewed, as fluxes are
    return rows, labels


def test_normal_scores_are_normal_and_invertible() -> None:
    rows, _ = make_rows()
    scores = normal_scores_of(rows)
    normal = scores.forward(rows)
    np.testing.assert_allclose(normal.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(normal.std(axis=0), 1, atol=0.05)
    inside = np.abs(normal) < 3  # beyond, ranks are cut
    np.testing.assert_allclose(scores.inverse(normal)[inside], rows[inside], rtol=1e-6, atol=1e-6)
    far = scores.inverse(np.full((1, 3), 40.0))
    assert (far <= rows.max(axis=0) + 1e-9).all()


def test_repeated_values_map_to_the_middle_of_their_ranks() -> None:
    rows = np.concatenate([np.zeros(500), np.ones(500)])[:, None]
    scores = normal_scores_of(rows)
    assert scores.inverse(scores.forward(np.array([[0.0]])))[0, 0] == 0
    assert scores.inverse(scores.forward(np.array([[1.0]])))[0, 0] == 1


@pytest.mark.slow
def test_what_lies_above_a_tie_comes_after_it() -> None:
    """Half of the values are 0: the next greater one is above the median, not at the bottom."""
    rng = np.random.default_rng(0)
    values = np.concatenate([np.zeros(5000), rng.random(5000)])[:, None]
    scores = normal_scores_of(values)
    wanted = np.array([0.0, 1e-5, 1e-3, 0.1, 0.5, 1.0])[:, None]
    found = scores.forward(wanted)[:, 0]
    assert (np.diff(found) > 0).all()
    assert found[1] == pytest.approx(0.0, abs=0.02)  # the median


def test_generated_rows_follow_their_class() -> None:
    rows, labels = make_rows()
    generator = train_table_gan(
        rows, labels, 2, TableGanConfig(steps=500, width=64, average=0.98), progress=False
    )
    made = generator.generate(1, 1000, seed=5)
    real = rows[labels == 1]
    spread = real.std(axis=0)
    np.testing.assert_array_less(np.abs(np.median(made, 0) - np.median(real, 0)), 0.5 * spread)
    assert np.corrcoef(made[:, 0], made[:, 1])[0, 1] < -0.4
    common = generator.generate(0, 1000, seed=5)
    assert np.corrcoef(common[:, 0], common[:, 1])[0, 1] > 0.5
    np.testing.assert_array_equal(made, generator.generate(1, 1000, seed=5))


def test_the_same_seed_trains_the_same_generator() -> None:
    rows, labels = make_rows()
    config = TableGanConfig(steps=20, seed=3)
    first, second = (
        train_table_gan(rows, labels, 2, config, progress=False).generate(1, 10, seed=0)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_few_rows_and_unknown_classes_are_refused() -> None:
    rows, labels = make_rows()
    few = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:4]])
    with pytest.raises(InputError, match="4 training rows"):
        train_table_gan(rows[few], labels[few], 2, progress=False)
    generator = train_table_gan(
        rows[labels == 0], labels[labels == 0], 2, TableGanConfig(steps=2), progress=False
    )
    with pytest.raises(InputError, match="not trained on class 1"):
        generator.generate(1, 5, seed=0)
