import mpmath
import numpy as np
import pytest
import scipy.linalg

from fid.frechet import (
    frechet_distance,
    frechet_distance_of_features,
    nuclear_norm,
    pivoted_cholesky,
)
from fid.statistics import FeatureStatistics, statistics_of_features
from galaxies.errors import InputError

mpmath.mp.dps = 50


def of_covariance(mean: np.ndarray, covariance: np.ndarray) -> FeatureStatistics:
    return FeatureStatistics(None, mean, covariance_only=covariance)


def rotation(rng: np.random.Generator, dimensions: int) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0]


def exact_commuting(first: np.ndarray, second: np.ndarray, gap: np.ndarray) -> float:
    """Sum of (sqrt a - sqrt b)^2 + |gap|^2 in 50 digits."""
    terms = [
        (mpmath.sqrt(mpmath.mpf(float(a))) - mpmath.sqrt(mpmath.mpf(float(b)))) ** 2
        for a, b in zip(first, second, strict=True)
    ]
    terms += [mpmath.mpf(float(g)) ** 2 for g in gap]
    return float(mpmath.fsum(terms))


def with_exact_covariance(eigenvalues: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """2 d samples around 0 whose covariance has these eigenvalues, exactly by construction."""
    axes = basis * np.sqrt(eigenvalues * (2 * len(eigenvalues) - 1) / 2)
    return np.concatenate([axes.T, -axes.T])


@pytest.mark.parametrize("condition", [1e3, 1e8, 1e14])
@pytest.mark.parametrize("seed", [0, 1])
def test_commuting_covariances_at_any_condition(condition, seed):
    rng = np.random.default_rng(seed)
    d = 128
    basis = rotation(rng, d)
    first = np.geomspace(1, 1 / condition, d)
    second = rng.permutation(first) * 3
    gap = rng.normal(size=d)
    expected = exact_commuting(first, second, gap)
    result = frechet_distance(
        of_covariance(np.zeros(d), basis * first @ basis.T),
        of_covariance(gap, basis * second @ basis.T),
    )
    assert result.value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rank", [5, 76])
def test_deficient_rank(rng, rank):
    d = 128
    basis = rotation(rng, d)
    first = np.where(np.arange(d) < rank, np.geomspace(1, 1e-3, d), 0)
    second = np.where(np.arange(d) < rank, rng.permutation(d) + 1.0, 0)
    expected = exact_commuting(first, second, np.zeros(d))
    result = frechet_distance(
        of_covariance(np.zeros(d), basis * first @ basis.T),
        of_covariance(np.zeros(d), basis * second @ basis.T),
    )
    assert result.value == pytest.approx(expected, rel=1e-12)
    assert result.rank == rank
    assert result.method == "factors"


def test_the_matrix_root_fails_where_this_does_not(rng):
    """The known-wrong way of the peers, kept to prove that the bounds here can tell."""
    d, rank = 128, 76
    basis = rotation(rng, d)
    first = np.where(np.arange(d) < rank, np.geomspace(1, 1e-3, d), 0)
    second = np.where(np.arange(d) < rank, rng.permutation(d) + 1.0, 0)
    product = (basis * first @ basis.T) @ (basis * second @ basis.T)
    theirs = first.sum() + second.sum() - 2 * np.trace(scipy.linalg.sqrtm(product).real)
    exact = exact_commuting(first, second, np.zeros(d))
    assert abs(theirs / exact - 1) > 1e-11


@pytest.mark.parametrize("count", [40, 400])
def test_equal_covariances_leave_the_means(rng, count):
    features = rng.normal(size=(count, 64))
    shift = rng.normal(size=64)
    value = frechet_distance_of_features(features, features + shift)
    assert value == pytest.approx(shift @ shift, rel=1e-12)


def test_dimensions_beyond_one_block_agree_with_the_factors(rng):
    d = 1100
    scale = np.geomspace(1, 0.05, d)
    sides = [rng.normal(size=(2 * d, d)) * scale, rng.normal(size=(2 * d, d)) * scale[::-1] + 0.1]
    whole = frechet_distance(*(statistics_of_features(side) for side in sides))
    assert whole.method == "generalised-eigenvalues"
    factors = [scipy.linalg.cholesky(np.cov(side, rowvar=False)) for side in sides]
    assert whole.cross_term == pytest.approx(
        scipy.linalg.svdvals(factors[0] @ factors[1].T).sum(), rel=1e-12
    )


def test_no_matrix_root_and_few_images_never_form_a_covariance(rng, monkeypatch):
    """What peers wait for, and what SciPy 1.18 took from them."""
    monkeypatch.setattr(scipy.linalg, "sqrtm", None)
    monkeypatch.setattr(FeatureStatistics, "covariance", None)
    result = frechet_distance(
        *(statistics_of_features(rng.normal(size=(n, 2048))) for n in (80, 90))
    )
    assert result.method == "cross-gram"
    assert result.rank == 79


@pytest.mark.parametrize("counts", [(30, 25), (30, 500), (500, 30), (500, 400)])
def test_every_way_agrees_with_the_square_root_by_eigenvectors(rng, counts):
    d = 64
    real = rng.normal(size=(counts[0], d)) * np.geomspace(1, 0.1, d)
    fake = rng.normal(size=(counts[1], d)) @ rotation(rng, d) + 0.1
    first, second = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T
    inner = np.linalg.eigvalsh(root @ second @ root)
    gap = real.mean(axis=0) - fake.mean(axis=0)
    expected = gap @ gap + np.trace(first) + np.trace(second)
    expected -= 2 * np.sqrt(np.clip(inner, 0, None)).sum()
    # The reference roots rounded zeros where the rank is deficient.
    tolerance = 1e-11 if min(counts) > d else 3e-6
    assert frechet_distance_of_features(real, fake) == pytest.approx(expected, rel=tolerance)


def test_samples_and_their_covariance_give_the_same_number(rng):
    real, fake = rng.normal(size=(200, 48)), rng.normal(size=(100, 48)) + 0.2
    by_samples = frechet_distance_of_features(real, fake)
    saved = [of_covariance(x.mean(axis=0), np.cov(x, rowvar=False)) for x in (real, fake)]
    assert frechet_distance(*saved).value == pytest.approx(by_samples, rel=1e-12)


@pytest.mark.parametrize("count", [10, 64, 200])
def test_a_set_against_itself_is_exactly_zero(rng, count):
    features = rng.normal(size=(count, 64)).astype(np.float32)
    assert frechet_distance_of_features(features, features) == 0.0
    assert frechet_distance_of_features(features, features.astype(np.float64)) == 0.0


@pytest.mark.parametrize("count", [10, 200])
def test_never_negative_for_nearly_equal_sets(rng, count):
    features = rng.normal(size=(count, 64))
    for _ in range(20):
        nearly = rng.permutation(features) * (1 + 1e-16 * rng.normal())
        value = frechet_distance_of_features(features, nearly)
        assert 0 <= value < 1e-11 * 64


def test_dead_features_change_nothing(rng):
    real, fake = rng.normal(size=(300, 32)), rng.normal(size=(300, 32)) + 0.3
    constant = np.full((300, 4), 7.0)
    expected = frechet_distance_of_features(real, fake)
    with_dead = frechet_distance_of_features(
        np.concatenate([real, constant], axis=1), np.concatenate([fake, constant], axis=1)
    )
    assert with_dead == pytest.approx(expected, rel=1e-12)
    one_sided = frechet_distance(
        statistics_of_features(np.concatenate([real, constant], axis=1)),
        statistics_of_features(np.concatenate([fake, rng.normal(7, 1, (300, 4))], axis=1)),
    )
    assert one_sided.value > expected + 3


def test_symmetric_in_its_sides(rng):
    real, fake = rng.normal(size=(90, 64)), rng.normal(size=(40, 64)) * 2
    assert frechet_distance_of_features(real, fake) == pytest.approx(
        frechet_distance_of_features(fake, real), rel=1e-13
    )


def test_collinear_features_are_no_trouble(rng):
    base = rng.normal(size=(500, 10))
    mixing = rng.normal(size=(10, 40))
    value = frechet_distance_of_features(base @ mixing, (base + 1) @ mixing)
    assert value == pytest.approx(float(np.square(mixing.sum(axis=0)).sum()), rel=1e-10)


def test_pivoted_cholesky_finds_the_rank(rng):
    factor = rng.normal(size=(7, 30))
    found = pivoted_cholesky(factor.T @ factor)
    assert found.shape == (7, 30)
    np.testing.assert_allclose(found.T @ found, factor.T @ factor, atol=1e-12)


def test_nuclear_norm_of_an_exact_matrix():
    value, rank = nuclear_norm(np.diag([3.0, 2.0, 0.0]))
    assert value == pytest.approx(5, rel=1e-15)
    assert rank == 2


def test_one_image_and_other_networks_are_refused(rng):
    with pytest.raises(InputError, match="at least 2"):
        frechet_distance_of_features(rng.normal(size=(1, 8)), rng.normal(size=(5, 8)))
    with pytest.raises(InputError, match="8 features, the fake side 9"):
        frechet_distance_of_features(rng.normal(size=(5, 8)), rng.normal(size=(5, 9)))


@pytest.mark.slow
def test_within_a_thousandth_of_pytorch_fid_from_4096_images(rng):
    """And below, within 1e-4 of the exact value of its own features."""
    fid_score = pytest.importorskip("pytorch_fid.fid_score", reason="needs pytorch-fid")
    d = 384
    real = np.maximum(rng.normal(size=(4096, d)) * np.geomspace(2, 0.02, d), 0)
    fake = np.maximum(rng.normal(size=(4096, d)) * np.geomspace(2, 0.03, d) + 0.05, 0)
    theirs = _pytorch_fid(fid_score, real, fake)
    assert frechet_distance_of_features(real, fake) == pytest.approx(theirs, abs=1e-3)

    few = real[:100], fake[:100]
    centred = [x - x.mean(axis=0) for x in few]
    root = np.linalg.svd(centred[0] @ centred[1].T / 99, compute_uv=False).sum()
    gap = few[0].mean(axis=0) - few[1].mean(axis=0)
    traces = sum(np.square(c).sum() / 99 for c in centred)
    exact = gap @ gap + traces - 2 * root
    assert frechet_distance_of_features(*few) == pytest.approx(exact, abs=1e-4, rel=1e-12)


def _pytorch_fid(fid_score, real, fake):
    try:
        return fid_score.calculate_frechet_distance(
            real.mean(axis=0),
            np.cov(real, rowvar=False),
            fake.mean(axis=0),
            np.cov(fake, rowvar=False),
        )
    except TypeError:
        pytest.skip("pytorch-fid does not run with this SciPy (sqrtm has lost an argument)")
