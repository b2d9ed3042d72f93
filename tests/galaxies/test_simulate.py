"""The simulated survey: the same bytes, sensible physics, and the sense of its spirals."""

import numpy as np
import pytest

from galaxies.hdf5 import read_hdf5
from galaxies.morphology import Galaxy, Scene, add_spiral, population
from galaxies.observation import FEATURES, empty_scene, expose, measure
from galaxies.rendering import render_batch
from galaxies.simulate import CLASS_SHARES, class_counts, embedded_survey, simulate_survey


@pytest.fixture(scope="module")
def survey():
    return simulate_survey(150, seed=1, workers=2, progress=False)


def test_counts_are_imbalanced_and_exact(survey):
    assert class_counts(3000).tolist() == [90, 1080, 540, 540, 480, 270]
    assert class_counts(100).tolist()[0] == 3
    assert survey.counts().tolist() == class_counts(150).tolist()
    assert survey.class_names[0] == "disturbed"
    assert survey.mirror_pairs == (("spiral_clockwise", "spiral_anticlockwise"),)
    assert all((survey.split == side).any() for side in (0, 1, 2))
    for label in range(6):
        assert set(survey.split[survey.labels == label]) == {0, 1, 2}


def test_the_bytes_depend_on_the_seed_alone(survey):
    again = simulate_survey(150, seed=1, workers=1, progress=False)
    assert (again.pixels == survey.pixels).all()
    assert np.array_equal(again.features, survey.features)
    assert (again.labels == survey.labels).all()
    other = simulate_survey(100, seed=2, workers=1, progress=False)
    assert (other.pixels[:50] != survey.pixels[:50]).any()


def test_the_file_is_the_same_byte_for_byte(tmp_path, galaxy_set):
    for name in ("a.h5", "b.h5"):
        words = ("simulate", tmp_path / name, "--count", 100, "--size", 32, "--seed", 3)
        status, text, error = galaxy_set(*words)
        assert status == 0, error
    assert "100 images, 3x32x32, 6 classes (disturbed 3, elliptical" in text
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert read_hdf5(tmp_path / "a.h5").feature_names == FEATURES


def test_the_embedded_survey_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("GALAXY_AUGMENT_CACHE", str(tmp_path))
    monkeypatch.setattr("galaxies.simulate.DEFAULT_COUNT", 100)
    calls = []

    def simulate(*_: object, **__: object):
        calls.append(1)
        return simulate_survey(100, size=32, workers=1, progress=False)

    monkeypatch.setattr("galaxies.simulate.simulate_survey", simulate)
    first, second = embedded_survey(), embedded_survey()
    assert len(calls) == 1
    assert (first.pixels == second.pixels).all()
    assert first.split is not None


def chirality(image: np.ndarray) -> float:
    """Sign of the wave number of a two-armed logarithmic spiral that fits best.

    Positive where the azimuth of the arms, counted from right to top on the screen, grows
    outwards: the arms turn anticlockwise on their way out, the galaxy turns clockwise.
    """
    side = image.shape[0]
    axis = np.arange(side) - (side - 1) / 2
    x, y = axis[None, :], -axis[:, None]
    radius, azimuth = np.hypot(x, y), np.arctan2(y, x)
    ring = np.digitize(radius, np.arange(2, side / 2, 1.5))
    rough = image - np.array([image[ring == k].mean() for k in range(ring.max() + 1)])[ring]
    window = (radius > 3) & (radius < side / 2.5)
    waves = np.arange(1.0, 12.0, 0.5)
    power = [
        abs((rough * window * np.exp(-1j * (2 * azimuth - sign * p * np.log(radius + 0.1)))).sum())
        for sign in (1, -1)
        for p in waves
    ]
    return float(max(power[: len(waves)]) - max(power[len(waves) :]))


@pytest.mark.parametrize("sense", [1, -1])
def test_clockwise_spirals_turn_as_galaxy_zoo_says(sense):
    agreeing = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        scene = empty_scene(64)
        galaxy = Galaxy(flux=3e6, radius=4.5, angle=0.3, ratio=1.0)
        add_spiral(scene, galaxy, rng, sense, arms=0.6)
        agreeing += chirality(expose(scene, 64, rng).electrons[1]) * sense > 0
    assert agreeing >= 7


def test_mirrored_clockwise_has_the_other_sense():
    rng = np.random.default_rng(0)
    scene = empty_scene(64)
    add_spiral(scene, Galaxy(3e6, 4.5, 0.3, 1.0), rng, 1, arms=0.6)
    image = expose(scene, 64, rng).electrons[1]
    assert chirality(image) > 0
    assert chirality(image[:, ::-1]) < 0
    assert chirality(np.rot90(image)) > 0


def point_source(size: int = 64, flux: float = 2e5) -> Scene:
    scene = empty_scene(size)
    width = np.array([0.6 * scene.scale])
    spot = scene.spots(np.zeros(1), np.zeros(1), width, np.ones(1))
    scene.add(spot, flux, population("disc", np.random.default_rng(0), scatter=0))
    return scene


def test_photometry_recovers_flux_and_colours(rng):
    exposure = expose(point_source(), 64, rng)
    found = dict(zip(FEATURES, measure(exposure), strict=True))
    # 200,000 electrons at the zero point 29.9
    assert found["r_magnitude"] == pytest.approx(29.9 - 2.5 * np.log10(2e5), abs=0.06)
    assert found["g_magnitude"] - found["r_magnitude"] == pytest.approx(0.58, abs=0.06)
    assert found["r_magnitude"] - found["i_magnitude"] == pytest.approx(0.33, abs=0.06)
    assert found["u_error"] > found["r_error"] > 0
    # half of a Moffat profile of FWHM 1.25 arcsec lies within 0.8 arcsec
    assert 0.5 < found["half_light_radius"] < 1.1
    assert found["ellipticity"] < 0.12


def test_errors_of_magnitudes_are_honest():
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found.append(measure(expose(point_source(flux=4000.0), 64, rng)))
    table = np.array(found)
    scatter = table[:, FEATURES.index("r_magnitude")].std()
    claimed = np.median(table[:, FEATURES.index("r_error")])
    assert 0.5 < scatter / claimed < 2.2


def test_empty_sky_measures_finite():
    rng = np.random.default_rng(5)
    assert np.isfinite(measure(expose(empty_scene(64), 64, rng))).all()


def test_features_separate_what_they_should(survey):
    column = {name: survey.features[:, i] for i, name in enumerate(survey.feature_names)}
    assert np.isfinite(survey.features).all()
    red = column["g_magnitude"] - column["r_magnitude"]
    of = {name: survey.labels == index for index, name in enumerate(survey.class_names)}
    assert np.median(red[of["elliptical"]]) > np.median(red[of["spiral_clockwise"]]) + 0.1
    flat = column["ellipticity"]
    assert np.median(flat[of["edge_on"]]) > np.median(flat[of["elliptical"]]) + 0.2
    peaked = column["concentration"]
    assert np.median(peaked[of["elliptical"]]) > np.median(peaked[of["merger"]])


def test_pictures_have_a_dark_sky_and_unsaturated_galaxies(survey):
    pixels = survey.pixels.float()
    corner = pixels[:, :, :6, :6].flatten(2).median(dim=2).values
    assert 1 < corner.mean() < 8
    assert (pixels.amax(dim=(1, 2, 3)) < 255).float().mean() > 0.5
    assert pixels[:, :, 28:36, 28:36].mean() > 60


@pytest.mark.parametrize("size", [32, 96])
def test_any_size_shows_the_same_field(size):
    streams = np.random.SeedSequence(4).spawn(3)
    pictures, features = render_batch(["elliptical", "edge_on", "merger"], streams, size)
    assert pictures.shape == (3, 3, size, size)
    _, usual = render_batch(["elliptical", "edge_on", "merger"], streams, 64)
    radius = FEATURES.index("half_light_radius")
    assert features[:, radius] == pytest.approx(usual[:, radius], rel=0.35)


def test_class_shares_sum_to_one():
    assert sum(CLASS_SHARES.values()) == pytest.approx(1)
