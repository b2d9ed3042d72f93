import numpy as np
import pytest
import torch

from fid.physical_distance import compare_physics, share_without_object, wasserstein
from fid.physics import SCALARS, measure, segment_and_neighbours, sky_level, sky_noise
from galaxies.errors import InputError
from galaxies.symmetry import all_symmetries


def gaussians(
    widths: list[float],
    *,
    ratio: float = 1.0,
    size: int = 64,
    shift: tuple[float, float] = (0, 0),
    noise: float = 0.0,
    channels: int = 1,
) -> torch.Tensor:
    """Float images of Gaussian galaxies, peak 1 on a sky of 0.1."""
    axis = np.arange(size) - (size - 1) / 2
    y, x = np.meshgrid(axis - shift[0], axis - shift[1], indexing="ij")
    light = np.stack([np.exp(-(x**2 + (y / ratio) ** 2) / (2 * w**2)) for w in widths])
    random = np.random.default_rng(0)
    images = light[:, None].repeat(channels, axis=1) + 0.1
    return torch.from_numpy(images + noise * random.normal(size=images.shape)).float()


def test_closed_forms_of_a_gaussian():
    """Half the light of a Gaussian lies within 1.1774 sigma; r80 / r20 is 2.686."""
    table = measure(gaussians([3.0, 5.0, 7.0]))
    for row, width in enumerate((3.0, 5.0, 7.0)):
        assert table.column("half_light_radius")[row] == pytest.approx(1.1774 * width, rel=0.03)
        assert table.column("flux")[row] == pytest.approx(2 * np.pi * width**2, rel=0.03)
    expected = 5 * np.log10(np.sqrt(np.log(0.2) / np.log(0.8)))
    np.testing.assert_allclose(table.column("concentration"), expected, atol=0.08)
    assert table.column("asymmetry") == pytest.approx(0, abs=0.01)
    assert table.column("ellipticity") == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.8])
def test_ellipticity_of_an_ellipse(ratio):
    table = measure(gaussians([5.0], ratio=ratio))
    assert table.column("ellipticity")[0] == pytest.approx(1 - ratio, abs=0.03)


def test_asymmetry_and_m20_notice_a_second_nucleus():
    single = gaussians([4.0])
    double = single + gaussians([2.0], shift=(6, 8)) - 0.1
    table = measure(torch.cat([single, double]))
    asymmetry, m20 = table.column("asymmetry"), table.column("m20")
    assert asymmetry[1] > asymmetry[0] + 0.15
    assert m20[1] > m20[0] + 0.3


def test_measurements_are_the_same_under_the_eight_symmetries():
    image = gaussians([4.0], ratio=0.6) + gaussians([2.0], shift=(5, 3)) - 0.1
    table = measure(all_symmetries(image).flatten(0, 1))
    for name in table.names:
        np.testing.assert_allclose(table.column(name), table.column(name)[0], rtol=2e-3, atol=2e-3)


def test_colour_in_magnitudes():
    image = gaussians([5.0], channels=3)
    image[:, 1] = (image[:, 1] - 0.1) * 0.5 + 0.1
    table = measure(image)
    assert table.names == (*SCALARS, "colour_0_1", "colour_1_2")
    assert table.column("colour_0_1")[0] == pytest.approx(-2.5 * np.log10(2), abs=0.02)
    assert table.column("colour_1_2")[0] == pytest.approx(2.5 * np.log10(2), abs=0.02)


def test_a_neighbour_does_not_count():
    alone = gaussians([3.0], noise=0.01)
    with_neighbour = alone + gaussians([1.5], shift=(22, 22)) - 0.1
    table = measure(torch.cat([alone, with_neighbour]))
    flux = table.column("flux")
    assert flux[1] == pytest.approx(flux[0], rel=0.05)


def test_radial_profile_and_power_spectrum_follow_the_size():
    table = measure(gaussians([3.0, 8.0]))
    assert table.profile[0, 0] > 3
    assert (np.diff(table.profile[:, :8], axis=1) < 0).all()
    small, large = table.spectrum
    assert small[6] > large[6] + 1  # the smaller galaxy has more power at high frequency


def test_an_empty_image_measures_nothing():
    blank = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    table = measure(blank)
    assert np.isnan(table.values).all()
    assert share_without_object(table) == 1
    assert len(measure(blank[:0])) == 0


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("size", [32, 69])
def test_any_channels_and_sizes(channels, size):
    images = (gaussians([size / 12] * 3, size=size, channels=channels) * 200).to(torch.uint8)
    table = measure(images)
    assert np.isfinite(table.values).all()
    assert table.values.shape == (3, 7 + channels - 1)


def test_agrees_with_statmorph(monkeypatch):
    """On noisy galaxies of many shapes: rank correlation and a small median difference."""
    statmorph = pytest.importorskip("statmorph", reason="needs statmorph")
    needed = ["flux_circ", "rhalf_circ", "concentration", "asymmetry", "gini", "m20"]
    needed.append("ellipticity_centroid")
    monkeypatch.setattr("statmorph.statmorph._quantity_names", needed)  # the rest takes minutes
    scipy_stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    parts = []
    for _ in range(16):
        body = gaussians([rng.uniform(3, 7)], ratio=rng.uniform(0.3, 1))
        arm = gaussians([rng.uniform(1.5, 3)], shift=tuple(rng.uniform(-6, 6, 2)))
        cusp = gaussians([rng.uniform(0.8, 1.5)])
        parts.append(body + rng.uniform(0, 0.6) * (arm - 0.1) + rng.uniform(0, 2) * (cusp - 0.1))
    images = torch.cat(parts)
    images = images + 0.01 * torch.from_numpy(rng.normal(size=images.shape)).float()
    table = measure(images)
    flux = images - sky_level(images)[:, :, None, None]
    grey = flux.mean(dim=1)
    segment, neighbours = segment_and_neighbours(grey, sky_noise(grey))
    theirs = []
    for image, own, other in zip(grey, segment, neighbours, strict=True):
        result = statmorph.SourceMorphology(
            image.double().numpy(), own.int().numpy(), label=1, mask=other.numpy(), gain=100.0
        )
        theirs.append([getattr(result, name) for name in needed])
    reference = np.array(theirs)
    median_limit = dict(zip(SCALARS, (8.0, 0.1, 0.05, 0.03, 0.02, 0.05, 0.005), strict=True))
    for index, name in enumerate(SCALARS):
        ours = table.column(name)
        rank = scipy_stats.spearmanr(ours, reference[:, index]).statistic
        assert rank > 0.9, name
        assert np.median(np.abs(ours - reference[:, index])) < median_limit[name], name


def test_wasserstein_is_that_of_scipy(rng):
    scipy_stats = pytest.importorskip("scipy.stats")
    first, second, third = rng.normal(size=40), rng.normal(1, 2, size=40), rng.normal(size=25)
    for other in (second, third):
        expected = scipy_stats.wasserstein_distance(first, other)
        assert wasserstein(first[:, None], other[:, None]) == pytest.approx(expected, rel=1e-12)


def test_a_fresh_set_stays_near_the_floor_and_a_larger_one_does_not(rng):
    def sample(scale: float, seed: int) -> torch.Tensor:
        random = np.random.default_rng(seed)
        return torch.cat(
            [
                gaussians([random.normal(5, 0.7) * scale], ratio=random.uniform(0.4, 1))
                for _ in range(60)
            ]
        )

    real, fresh, larger = (measure(sample(s, i)) for i, s in enumerate((1.0, 1.0, 1.4)))
    same, other = compare_physics(real, fresh, rng), compare_physics(real, larger, rng)
    assert same.chance > 0.05
    assert other.chance < 0.05
    assert other.differing == sum(item.differs for item in other.measurements)
    assert other["half_light_radius"].differs
    assert other["flux"].differs
    assert not other["ellipticity"].differs
    radius = other["half_light_radius"]
    radii = [table.column("half_light_radius") for table in (real, larger)]
    expected = (radii[1].mean() - radii[0].mean()) / radii[0].std()
    assert radius.distance == pytest.approx(expected, rel=0.05)
    assert radius.low < radius.distance < radius.high
    assert radius.floor < radius.floor_high < radius.at_floor_count


def test_too_few_objects_are_refused(rng):
    table = measure(gaussians([4.0] * 5))
    with pytest.raises(InputError, match="only 5 real and 5 generated"):
        compare_physics(table, table, rng)


def test_a_measurement_that_never_varies_is_compared():
    """Grey images saved as colour have a colour of exactly 0 on both sides."""
    random = np.random.default_rng(0)
    widths = random.uniform(3, 6, 40).tolist()
    images = gaussians(widths, noise=0.01).repeat(1, 3, 1, 1)
    compared = compare_physics(measure(images[:20]), measure(images[20:]), random)
    assert not compared["colour_0_1"].differs
    tinted = images[20:].clone()
    tinted[:, 0] *= 2
    compared = compare_physics(measure(images[:20]), measure(tinted), random)
    assert compared["colour_0_1"].differs


def test_images_that_are_not_square_are_refused():
    with pytest.raises(InputError, match="48x64; physics needs square"):
        measure(torch.rand(4, 1, 64, 48))


@pytest.mark.parametrize(("side", "most"), [(64, 128), (128, 32), (1024, 1)])
def test_large_images_are_measured_few_at_a_time(side, most, monkeypatch):
    seen = []

    def note(images):
        seen.append(len(images))
        return np.zeros((len(images), 7)), np.zeros((len(images), 12)), np.zeros((len(images), 12))

    monkeypatch.setattr("fid.physics._measure_block", note)
    measure(torch.zeros((1, 1, 1, 1), dtype=torch.uint8).expand(130, 1, side, side))
    assert sum(seen) == 130
    assert max(seen) == most


@pytest.mark.parametrize("side", [2, 3])
def test_images_of_a_few_pixels_are_refused(side):
    with pytest.raises(InputError, match=f"images of {side} pixels to a side are too small"):
        measure(torch.zeros((3, 1, side, side), dtype=torch.uint8))
    assert len(measure(torch.zeros((3, 1, 4, 4), dtype=torch.uint8))) == 3
