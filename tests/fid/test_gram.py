import numpy as np
import pytest

from fid.frechet import frechet_distance_of_features
from fid.gram import PooledGram
from fid.infinity import frechet_at_infinity
from fid.kernel import kernel_distance
from fid.sliced import sliced_distance
from galaxies.errors import InputError


@pytest.mark.parametrize("dimensions", [12, 100])
def test_any_split_has_the_distance_of_its_features(rng, dimensions):
    features = rng.normal(size=(80, dimensions)) + 5
    gram = PooledGram(features[:50], features[50:])
    for _ in range(5):
        order = rng.permutation(80)
        first, second = order[:30], order[40:75]
        expected = frechet_distance_of_features(features[first], features[second])
        assert gram.frechet(first, second) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_is_that_of_the_features(rng):
    real, fake = rng.normal(size=(30, 8)), rng.normal(size=(25, 8)) + 0.4
    direct, by_gram = kernel_distance(real, fake), PooledGram(real, fake).kernel()
    assert by_gram.value == pytest.approx(direct.value, rel=1e-10)
    assert by_gram.standard_error == pytest.approx(direct.standard_error, rel=1e-10)


def test_kernel_permutation_by_hand(rng):
    real, fake = rng.normal(size=(12, 4)), rng.normal(size=(10, 4)) + 0.5
    p = PooledGram(real, fake).kernel_permutation_p(99, np.random.default_rng(3))
    pool, same = np.concatenate([real, fake]), np.random.default_rng(3)
    observed = kernel_distance(real, fake).value
    larger = 0
    for _ in range(99):
        chosen = np.zeros(22, dtype=bool)
        chosen[same.permutation(22)[:12]] = True
        larger += kernel_distance(pool[chosen], pool[~chosen]).value >= observed
    assert p == pytest.approx((1 + larger) / 100)


def test_permutation_p_keeps_its_level():
    """Of 100 perfect generators about 10 get p <= 0.1, by either distance."""
    small_kernel = small_frechet = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        gram = PooledGram(rng.normal(size=(15, 20)), rng.normal(size=(15, 20)))
        small_kernel += gram.kernel_permutation_p(49, rng) <= 0.1
        small_frechet += gram.null_band(20, rng).permutation_p <= 0.1
    assert 3 <= small_kernel <= 19
    assert 3 <= small_frechet <= 19


def test_a_perfect_generator_lies_in_the_band_and_a_bad_one_above(rng):
    real = rng.normal(size=(120, 60))
    perfect = PooledGram(real, rng.normal(size=(100, 60))).null_band(60, rng)
    assert perfect.images == 60
    assert perfect.low < perfect.observed < perfect.high
    assert perfect.permutation_p > 0.05
    # The band itself is far from zero: that is what few images do to the distance.
    assert perfect.low > 10
    bad = PooledGram(real, rng.normal(0.5, 1, size=(100, 60))).null_band(60, rng)
    assert bad.observed > bad.high
    assert bad.permutation_p < 0.03


def test_standard_error_is_the_spread_over_draws():
    values, errors = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        gram = PooledGram(rng.normal(size=(60, 10)), rng.normal(0.5, 1.3, size=(80, 10)))
        values.append(gram.frechet(gram.real_rows, gram.fake_rows))
        if seed < 10:
            errors.append(gram.frechet_standard_error(60, rng))
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.35)


def test_three_images_are_too_few():
    with pytest.raises(InputError, match="at least 4 images a side"):
        PooledGram(np.zeros((3, 2)), np.zeros((9, 2)))


def test_same_seed_same_numbers(rng):
    gram = PooledGram(rng.normal(size=(20, 8)), rng.normal(size=(20, 8)))
    bands = [gram.null_band(20, np.random.default_rng(5)) for _ in range(2)]
    assert bands[0] == bands[1]


def test_extrapolation_removes_the_bias():
    found = []
    d = 32
    for seed in range(8):
        rng = np.random.default_rng(seed)
        scale = np.sqrt(1 / np.arange(1, d + 1))
        real, fake = (rng.normal(size=(6 * d, d)) * scale for _ in range(2))
        result = frechet_at_infinity(real, fake, rng)
        found.append(
            (result.value, result.standard_error, frechet_distance_of_features(real, fake))
        )
    value, error, plain = np.mean(found, axis=0)
    variance = np.square(scale).sum()
    assert plain > 0.03 * variance
    assert abs(value) < 0.01 * variance
    assert np.std([f[0] for f in found]) < 2 * error


def test_extrapolation_is_refused_where_it_misleads(rng):
    with pytest.raises(InputError, match=r"100 images a side are too few .* 128 are needed"):
        frechet_at_infinity(rng.normal(size=(100, 64)), rng.normal(size=(300, 64)), rng)


def test_below_that_bound_the_line_ends_far_from_the_truth(monkeypatch):
    """Why it is refused: with fewer images than features the answer for 0 is far above 0."""
    monkeypatch.setattr("fid.infinity._LEAST_RATIO", 0.1)
    rng = np.random.default_rng(0)
    scale = np.sqrt(1 / np.arange(1, 129))
    real, fake = (rng.normal(size=(64, 128)) * scale for _ in range(2))
    assert frechet_at_infinity(real, fake, rng).value > 0.1 * np.square(scale).sum()


def test_sliced_distance_of_shifted_sets_is_their_shift(rng):
    """E over directions of (u . s)^2 is |s|^2 / d, so MIND of a shift is 3 |s|^2."""
    features = rng.normal(size=(200, 10))
    shift = rng.normal(size=10)
    value = sliced_distance(features, features + shift, rng, directions=4000)
    # Both sides are thinned in another order; sorted, they are the same again.
    assert value == pytest.approx(3 * shift @ shift, rel=0.06)
    assert sliced_distance(features, features, rng) == pytest.approx(0, abs=1e-20)


def test_sliced_distance_of_one_dimension_is_wasserstein(rng):
    first, second = rng.normal(size=(50, 1)), rng.normal(1, 2, size=(50, 1))
    gap = np.sort(first[:, 0]) - np.sort(second[:, 0])
    assert sliced_distance(first, second, rng) == pytest.approx(3 * np.square(gap).mean())


def test_the_standard_error_of_a_small_side_is_not_cut_to_nothing():
    """40 and 800 images: the error may be too large with few images, but not by three."""
    values, errors = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        gram = PooledGram(rng.normal(size=(40, 64)), rng.normal(size=(800, 64)))
        values.append(gram.frechet(gram.real_rows, gram.fake_rows))
        if seed < 4:
            errors.append(gram.frechet_standard_error(40, rng))
    ratio = np.mean(errors) / np.std(values, ddof=1)
    assert 0.8 < ratio < 2.2
