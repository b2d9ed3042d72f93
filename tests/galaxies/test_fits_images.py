"""FITS cut-outs as a set: flux, bands in either order, radio axes, masked pixels."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from galaxies.errors import InputError
from galaxies.fits_images import fits_shape, is_fits_file, read_fits
from galaxies.image_files import Decoding, decode_image
from galaxies.sources import open_image_set

fits = pytest.importorskip("astropy.io.fits")


def write(path: Path, flux: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(flux).writeto(path)
    return path


@pytest.fixture
def flux_folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Four ``fri`` and three ``frii`` maps of 24x24, in the order of radio maps."""
    for name, count in (("fri", 4), ("frii", 3)):
        for index in range(count):
            flux = rng.normal(0, 1, (1, 1, 24, 24)).astype(">f4")
            write(tmp_path / "maps" / name / f"{index}.fits", flux)
    return tmp_path / "maps"


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((12, 16), (12, 16, 1)),
        ((3, 12, 16), (12, 16, 3)),
        ((12, 16, 3), (12, 16, 3)),
        ((1, 1, 12, 16), (12, 16, 1)),
        ((1, 5, 12, 16), (12, 16, 5)),
    ],
)
def test_axes_in_any_order(tmp_path, rng, shape, seen):
    flux = rng.normal(size=shape).astype(np.float64)
    path = write(tmp_path / "a.fits", flux)
    assert fits_shape(path) == seen
    read = read_fits(path)
    assert read.shape == seen
    assert read.dtype == np.float32
    height, width, bands = seen
    last = flux.reshape(height, width, bands)
    if shape[-1] != bands or bands == 1:
        last = flux.reshape(bands, height, width).transpose(1, 2, 0)
    np.testing.assert_array_equal(read, last[::-1].astype(np.float32))


def test_names_of_fits_files():
    assert is_fits_file("a.FITS")
    assert is_fits_file("a.fits.gz")
    assert not is_fits_file("._a.fits")
    assert not is_fits_file("a.png")


def test_an_image_in_an_extension_and_whole_numbers(tmp_path, rng):
    counts = rng.integers(0, 60000, (12, 12)).astype(np.uint16)
    units = fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(counts)])
    units.writeto(tmp_path / "a.fits.fz")
    np.testing.assert_array_equal(read_fits(tmp_path / "a.fits.fz")[::-1, :, 0], counts)


def test_a_folder_of_fits_is_packed_as_flux(flux_folder, galaxy_set, tmp_path):
    status, out, error = galaxy_set("pack", flux_folder, tmp_path / "o.h5", "--size", 16, "--json")
    assert status == 0, error
    assert json.loads(out)["classes"] == {"fri": 4, "frii": 3}
    packed = open_image_set(tmp_path / "o.h5")
    assert packed.stretch is not None
    assert packed.pixels.shape == (7, 1, 16, 16)
    whole = open_image_set(flux_folder)
    assert whole.ids.tolist() == packed.ids.tolist()
    expected = decode_image(flux_folder / "frii" / "2.fits", "2", Decoding(size=16))
    np.testing.assert_array_equal(packed.pixels[-1, 0].numpy(), expected[..., 0])
    status, out, _ = galaxy_set("info", flux_folder, "--json")
    assert status == 0
    assert json.loads(out)["dtype"] == "float32"
    words = ("pack", flux_folder, tmp_path / "o.h5", "--size", 16, "--overwrite")
    assert galaxy_set(*words, "--stretch", 0, 3, 1)[0] == 0
    stretch = open_image_set(tmp_path / "o.h5").stretch
    assert stretch is not None
    assert (stretch.black, stretch.white, stretch.softening) == (0, 3, 1)


def test_masked_pixels_are_refused_inside_the_crop(flux_folder, galaxy_set, tmp_path):
    flux = np.ones((24, 24), np.float32)
    flux[0, 0] = np.nan
    write(flux_folder / "fri" / "masked.fits", flux)
    (flux_folder / "frii" / "broken.fits").write_bytes(b"SIMPLE")
    words = ("pack", flux_folder, tmp_path / "o.h5", "--size", 16)
    status, _, error = galaxy_set(*words)
    assert status == 2
    assert "masked.fits is NaN or infinite in 0.2% of its pixels" in error
    assert "broken.fits is corrupt or not FITS" in error
    assert galaxy_set(*words, "--skip-bad")[0] == 0
    assert len(open_image_set(tmp_path / "o.h5")) == 7
    assert galaxy_set(*words, "--skip-bad", "--crop", 20, "--overwrite")[0] == 0
    assert len(open_image_set(tmp_path / "o.h5")) == 8


def test_other_numbers_of_bands_are_named(flux_folder, galaxy_set, tmp_path):
    write(flux_folder / "fri" / "cube.fits", np.ones((3, 24, 24), np.float32))
    status, _, error = galaxy_set("pack", flux_folder, tmp_path / "o.h5", "--size", 16)
    assert status == 2
    assert "cube.fits has 3 bands, and most others 1" in error


def test_pictures_beside_fits(flux_folder, tmp_path, capsys):
    (flux_folder / "labels.csv").write_text("file,class\nfri/0,a\nfri/1.fits,b\nx.png,a\n")
    Image.new("L", (24, 24)).save(flux_folder / "x.png")
    with pytest.raises(InputError, match="2 of 3 images are FITS files and the others pictures"):
        open_image_set(flux_folder)
    (flux_folder / "labels.csv").unlink()
    for name in ("fri", "frii"):
        Image.new("L", (24, 24)).save(flux_folder / name / "0.png")
    assert len(open_image_set(flux_folder)) == 2
    assert "left out 7 files" in capsys.readouterr().err
