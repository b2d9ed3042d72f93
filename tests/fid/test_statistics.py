import numpy as np
import pytest

from fid.statistics import StatisticsAccumulator, merge, statistics_of_features
from fid.statistics_file import Origin, load_statistics, save_statistics
from galaxies.errors import InputError


def correlated(rng: np.random.Generator, count: int, dimensions: int) -> np.ndarray:
    mixing = rng.normal(size=(dimensions, dimensions))
    return rng.normal(size=(count, dimensions)) @ mixing + 100  # a mean that cancels in sums


@pytest.mark.parametrize("count", [5, 60, 64, 65, 400, 1000])
def test_covariance_is_that_of_numpy(rng, count):
    features = correlated(rng, count, 64)
    statistics = statistics_of_features(features)
    assert statistics.count == count
    expected = np.cov(features, rowvar=False)
    np.testing.assert_allclose(statistics.mean, features.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(statistics.covariance, expected, rtol=0, atol=1e-11 * expected.max())
    assert statistics.trace == pytest.approx(np.trace(expected), rel=1e-12)


@pytest.mark.parametrize("sizes", [(7, 3), (40, 40, 40), (500, 2, 300), (1, 700)])
def test_shards_merge_to_the_whole(rng, sizes):
    features = correlated(rng, sum(sizes), 64)
    cuts = np.cumsum(sizes)[:-1]
    merged = merge([statistics_of_features(part) for part in np.split(features, cuts)])
    whole = statistics_of_features(features)
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-13)
    limit = 1e-12 * np.abs(whole.covariance).max()
    np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=0, atol=limit)


def test_the_size_of_the_batches_changes_no_bit(rng):
    features = correlated(rng, 777, 32)
    results = []
    for batch in (1, 50, 777):
        accumulator = StatisticsAccumulator(32)
        for start in range(0, len(features), batch):
            accumulator.update(features[start : start + batch])
        results.append(accumulator.result())
    assert results[0].equals(results[1])
    assert results[0].equals(results[2])


def test_float32_sums_would_fail_the_test_above(rng):
    """The known-wrong way: uncentred sums in float32 lose the covariance."""
    features = correlated(rng, 777, 32).astype(np.float32)
    mean = features.sum(axis=0) / np.float32(777)
    wrong = (features.T @ features - 777 * np.outer(mean, mean)) / np.float32(776)
    right = statistics_of_features(features).covariance
    assert np.abs(wrong - right).max() / right.max() > 1e-6


def test_few_samples_keep_the_samples_and_many_do_not(rng):
    assert statistics_of_features(rng.normal(size=(64, 64))).rows is not None
    many = statistics_of_features(rng.normal(size=(65, 64)))
    assert many.rows is None
    assert many.scatter is not None


@pytest.mark.parametrize(
    ("features", "complaint"),
    [
        (np.array([[1.0, np.nan], [0, 1]]), "1 samples are not finite .* row 0"),
        (np.zeros(5), r"shape \(5,\)"),
        (np.array([["a", "b"]]), "numbers are needed"),
    ],
)
def test_unusable_features_are_named(features, complaint):
    with pytest.raises(InputError, match=complaint):
        statistics_of_features(features)


def test_different_dimensions_do_not_merge(rng):
    parts = [statistics_of_features(rng.normal(size=(5, d))) for d in (3, 4)]
    with pytest.raises(InputError, match="3 and 4 dimensions"):
        merge(parts)


@pytest.mark.parametrize("count", [10, 100])
def test_saved_statistics_come_back(rng, tmp_path, count):
    statistics = statistics_of_features(rng.normal(size=(count, 32)))
    origin = Origin("inception", "ab" * 32, "pytorch-fid")
    save_statistics(tmp_path / "real.npz", statistics, origin)
    loaded, found = load_statistics(tmp_path / "real.npz")
    assert found == origin
    assert loaded.equals(statistics)
    with pytest.raises(InputError, match="exists"):
        save_statistics(tmp_path / "real.npz", statistics, origin)


def test_files_of_pytorch_fid_are_read_and_ours_are_read_by_it(rng, tmp_path):
    features = rng.normal(size=(100, 32))
    mean, covariance = features.mean(axis=0), np.cov(features, rowvar=False)
    np.savez_compressed(tmp_path / "theirs.npz", mu=mean, sigma=covariance)
    loaded, origin = load_statistics(tmp_path / "theirs.npz")
    assert origin is None
    assert loaded.count is None
    np.testing.assert_array_equal(loaded.covariance, covariance)

    save_statistics(tmp_path / "ours.npz", statistics_of_features(features), None)
    fid_score = pytest.importorskip("pytorch_fid.fid_score", reason="needs pytorch-fid")
    theirs = fid_score.compute_statistics_of_path(str(tmp_path / "ours.npz"), None, 50, 32, "cpu")
    np.testing.assert_allclose(theirs[0], mean, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(theirs[1], covariance, rtol=0, atol=1e-13)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(InputError, match=r"cut\.npz is not a readable"):
        load_statistics(tmp_path / "cut.npz")


def test_a_header_of_another_program_is_none_of_ours(tmp_path):
    for header in ("made by hand", '{"version": 9}', "[1, 2]"):
        np.savez(tmp_path / "t.npz", mu=np.zeros(3), sigma=np.eye(3), header=np.array(header))
        loaded, origin = load_statistics(tmp_path / "t.npz")
        assert origin is None
        assert loaded.count is None
