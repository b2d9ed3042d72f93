import numpy as np
import pytest

from fid.manifold import precision_recall_density_coverage
from galaxies.errors import InputError


def brute_force(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, ...]:
    def reach(points: np.ndarray) -> np.ndarray:
        distances = np.linalg.norm(points[:, None] - points, axis=2)
        np.fill_diagonal(distances, np.inf)
        return np.sort(distances, axis=1)[:, k - 1]

    across = np.linalg.norm(real[:, None] - fake, axis=2)
    in_real = across <= reach(real)[:, None]
    in_fake = across <= reach(fake)
    return (
        in_real.any(axis=0).mean(),
        in_fake.any(axis=1).mean(),
        in_real.sum(axis=0).mean() / k,
        in_real.any(axis=1).mean(),
    )


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("blocks", [5, 10_000])
def test_the_four_shares_by_brute_force(rng, monkeypatch, k, blocks):
    monkeypatch.setattr("fid.manifold._BLOCK_ROWS", blocks)
    real, fake = rng.normal(size=(60, 4)), rng.normal(size=(50, 4)) * 0.7 + 0.4
    result = precision_recall_density_coverage(real, fake, k)
    expected = brute_force(real, fake, k)
    found = (result.precision, result.recall, result.density, result.coverage)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_agrees_with_prdc(rng):
    prdc = pytest.importorskip("prdc", reason="needs prdc")
    real, fake = rng.normal(size=(200, 8)), rng.normal(size=(200, 8)) + 0.3
    theirs = prdc.compute_prdc(real_features=real, fake_features=fake, nearest_k=5)
    ours = precision_recall_density_coverage(real, fake, 5)
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(ours, name) == pytest.approx(theirs[name], abs=1e-6)


def test_precision_is_of_fakes_and_recall_of_reals(rng):
    """The convention that a widely used program had the wrong way round for two years."""
    real = rng.normal(size=(300, 2))
    collapsed = rng.normal(size=(300, 2)) * 0.05
    result = precision_recall_density_coverage(real, collapsed)
    assert result.precision > 0.95
    assert result.recall < 0.1
    assert result.coverage < 0.5
    scattered = rng.normal(size=(300, 2)) * 6
    result = precision_recall_density_coverage(real, scattered)
    assert result.precision < 0.5
    assert result.recall > 0.9


def test_too_few_images_for_k_are_refused(rng):
    with pytest.raises(InputError, match="k = 5 needs more than 5 images"):
        precision_recall_density_coverage(rng.normal(size=(5, 2)), rng.normal(size=(50, 2)))
