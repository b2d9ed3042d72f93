import numpy as np
import pytest

from fid.kernel import kernel_distance
from galaxies.errors import InputError


def brute_force(real: np.ndarray, fake: np.ndarray) -> float:
    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (x @ y / len(x) + 1) ** 3

    n, m = len(real), len(fake)
    within_real = sum(kernel(real[i], real[j]) for i in range(n) for j in range(n) if i != j)
    within_fake = sum(kernel(fake[i], fake[j]) for i in range(m) for j in range(m) if i != j)
    across = sum(kernel(x, y) for x in real for y in fake)
    return within_real / (n * (n - 1)) + within_fake / (m * (m - 1)) - 2 * across / (n * m)


def test_value_and_jackknife_by_brute_force(rng):
    real, fake = rng.normal(size=(12, 5)), rng.normal(size=(9, 5)) + 0.5
    result = kernel_distance(real, fake)
    assert result.value == pytest.approx(brute_force(real, fake), rel=1e-12)
    left_out = np.array([brute_force(np.delete(real, i, 0), fake) for i in range(12)])
    left_out_fake = np.array([brute_force(real, np.delete(fake, i, 0)) for i in range(9)])
    variance = 11 / 12 * np.square(left_out - left_out.mean()).sum()
    variance += 8 / 9 * np.square(left_out_fake - left_out_fake.mean()).sum()
    assert result.standard_error == pytest.approx(np.sqrt(variance), rel=1e-10)


def test_standard_error_is_the_spread_over_draws():
    results = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        results.append(kernel_distance(rng.normal(size=(60, 8)), rng.normal(0.4, 1, size=(80, 8))))
    spread = np.std([result.value for result in results], ddof=1)
    assert np.mean([result.standard_error for result in results]) == pytest.approx(spread, rel=0.2)
    covered = [
        low <= np.mean([r.value for r in results]) <= high
        for low, high in (result.interval() for result in results)
    ]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_unbiased_where_frechet_is_not():
    values = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        draw = rng.normal(size=(40, 16))
        values.append(kernel_distance(draw[:20], draw[20:]).value)
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error


def test_blocks_of_rows_change_nothing(rng, monkeypatch):
    real, fake = rng.normal(size=(50, 6)), rng.normal(size=(40, 6))
    whole = kernel_distance(real, fake)
    monkeypatch.setattr("fid.kernel._BLOCK_ROWS", 7)
    assert kernel_distance(real, fake).value == pytest.approx(whole.value, rel=1e-10)


def test_agrees_with_torch_fidelity_on_all_pairs(rng):
    metric_kid = pytest.importorskip("torch_fidelity.metric_kid", reason="needs torch-fidelity")
    real, fake = rng.normal(size=(50, 32)), rng.normal(size=(50, 32)) + 0.3
    kernels = [(x @ y.T / 32 + 1) ** 3 for x, y in ((real, real), (real, fake), (fake, fake))]
    theirs = float(metric_kid.mmd2(*kernels))
    assert kernel_distance(real, fake).value == pytest.approx(theirs, rel=1e-10)


def test_too_few_images_are_refused(rng):
    with pytest.raises(InputError, match="at least 3 images a side, got 2 and 5"):
        kernel_distance(rng.normal(size=(2, 4)), rng.normal(size=(5, 4)))
