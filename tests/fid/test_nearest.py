import numpy as np
import pytest
import torch

from fid.memorisation import copying_test, measure_memorisation
from fid.nearest import nearest_under_symmetries
from galaxies.errors import InputError
from galaxies.symmetry import INVERSE, all_symmetries, apply_symmetry


@pytest.fixture
def images(tiny_set):
    return tiny_set.pixels


def test_each_of_the_eight_copies_is_found_at_zero(images):
    turned = all_symmetries(images[:5]).flatten(0, 1)
    found = nearest_under_symmetries(turned, images)
    assert found.index.tolist() == list(range(5)) * 8
    assert found.distance.max() == 0
    undone = apply_symmetry(turned, torch.from_numpy(found.symmetry))
    assert torch.equal(undone, images[:5].repeat(8, 1, 1, 1))
    assert INVERSE[torch.from_numpy(found.symmetry)].reshape(8, 5)[:, 0].tolist() == list(range(8))


def test_brute_force_at_sixteen_pixels(images):
    queries, references = images[:7], images[20:60]
    found = nearest_under_symmetries(queries, references)
    pool = torch.nn.functional.avg_pool2d
    small = pool(references.float() / 255, 4)
    for row in range(7):
        turned = pool(all_symmetries(queries[row : row + 1])[:, 0].float() / 255, 4)
        gaps = (turned[:, None] - small).flatten(2).square().mean(dim=2).sqrt()
        assert found.distance[row] == pytest.approx(gaps.min().item(), rel=1e-4)
        assert gaps[found.symmetry[row], found.index[row]].item() == pytest.approx(
            gaps.min().item(), rel=1e-4
        )


def test_an_excluded_image_is_not_found(images):
    rows = np.arange(10)
    found = nearest_under_symmetries(images[:10], images, exclude=rows)
    assert (found.index != rows).all()
    again = nearest_under_symmetries(
        images[:10], images, exclude=np.stack([rows, found.index], axis=1)
    )
    assert (again.distance >= found.distance).all()


@pytest.mark.parametrize("size", [5, 16, 50, 67])
def test_any_size_turns_exactly(generator, size):
    images = torch.randint(0, 256, (6, 2, size, size), dtype=torch.uint8, generator=generator)
    found = nearest_under_symmetries(images.rot90(1, (2, 3)).flip(3), images)
    assert found.index.tolist() == list(range(6))
    assert found.distance.max() < 1e-6


def test_other_shapes_and_no_references_are_refused(images):
    with pytest.raises(InputError, match="cannot be compared pixel by pixel"):
        nearest_under_symmetries(images[:2], images[:, :1])
    with pytest.raises(InputError, match="no image to compare with"):
        nearest_under_symmetries(images[:1], images[:1], exclude=np.array([0]))


def noisy(images: torch.Tensor, sigma: float, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)) * sigma
    return (images.float() + noise).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("held_out", [False, True])
def test_rotated_noisy_copies_are_caught_and_fresh_images_are_not(images, rng, held_out):
    order = torch.from_numpy(rng.permutation(len(images)))
    training, fresh, unseen = images[order[:50]], images[order[50:85]], images[order[85:]]
    unseen = unseen if held_out else None
    copies = noisy(training[:30].rot90(1, (2, 3)), 2)
    found = measure_memorisation(copies, training, unseen, rng=rng)
    assert found.copies > 0.95
    assert found.copies_of_unseen < 0.1
    assert found.z < -5
    assert found.p < 1e-6
    assert (found.held_out_ratio is not None) == held_out
    clean = measure_memorisation(fresh, training, unseen, rng=rng)
    assert clean.copies < 0.1
    assert abs(clean.z) < 3


def test_a_few_copies_among_fresh_images_are_counted(images, rng):
    order = torch.from_numpy(rng.permutation(len(images)))
    training, fresh = images[order[:60]], images[order[60:100]]
    mixed = torch.cat([noisy(training[:10].flip(3), 2), fresh])
    found = measure_memorisation(mixed, training, rng=rng)
    assert found.copies == pytest.approx(0.2, abs=0.03)
    assert set(found.closest(10)) == set(range(10))


def test_copying_test_is_the_mann_whitney_statistic(rng):
    scipy_stats = pytest.importorskip("scipy.stats")
    generated, unseen = rng.normal(size=40), rng.normal(0.5, 1, size=60)
    z, p = copying_test(generated, unseen)
    reference = scipy_stats.mannwhitneyu(
        generated, unseen, alternative="less", method="asymptotic", use_continuity=False
    )
    assert p == pytest.approx(reference.pvalue, rel=1e-9)
    assert z < 0


def test_copying_test_keeps_its_level():
    rng = np.random.default_rng(0)
    rejected = [
        copying_test(rng.normal(size=30), rng.normal(size=50))[1] < 0.05 for _ in range(1000)
    ]
    assert 0.03 < np.mean(rejected) < 0.07


def test_equal_training_images_do_not_divide_by_zero(images, rng):
    training = torch.cat([images[:10], images[:10]])
    found = measure_memorisation(images[:5], training, rng=rng)
    assert np.isfinite(found.ratio).all()
    assert found.copies == 1


def test_few_held_out_images_do_not_make_fresh_ones_look_copied(rng):
    """The nearest of 300 is nearer than the nearest of 20 also for a perfect generator."""
    pixels = torch.from_numpy(rng.integers(0, 256, (420, 1, 3, 3), dtype=np.uint8))
    training, held_out, fresh = pixels[:300], pixels[300:320], pixels[320:]
    found = measure_memorisation(fresh, training, held_out, rng=np.random.default_rng(0))
    assert np.median(found.held_out_ratio) == pytest.approx(1, abs=0.15)
    copied = measure_memorisation(training[:100], training[:20], held_out, rng=rng)
    assert copied.held_out_ratio[:20].max() == 0
