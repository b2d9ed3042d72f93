"""Reading: crops, grey and colour, FITS with its traps."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from classify.fits_files import FitsReading, flux_to_bytes, measured_stretch, read_flux
from classify.reading import ImageReader
from galaxies.image_files import BadImageError, Decoding, decode_image
from galaxies.pixels import Stretch


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def picture(side: int, channels: int = 3) -> np.ndarray:
    shape = (side, side, 3) if channels == 3 else (side, side)
    return np.random.default_rng(side).integers(0, 255, shape, dtype=np.uint8)


def test_the_crop_of_the_training_set_is_cut_from_files() -> None:
    reader = ImageReader(size=16, channels=3, crop=20)
    large = picture(40)
    pixels = reader.read(png(large), "large.png")
    centre = Image.fromarray(large[10:30, 10:30]).resize((16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(centre))


def test_a_file_that_has_the_size_already_is_taken_as_it_is() -> None:
    reader = ImageReader(size=16, channels=3, crop=20)
    small = picture(16)
    pixels = reader.read(png(small), "small.png")
    np.testing.assert_array_equal(pixels.permute(1, 2, 0).numpy(), small)


def test_grey_and_colour_are_converted_to_what_was_trained_on() -> None:
    grey, colour = picture(16, 1), picture(16)
    assert ImageReader(size=16, channels=3).read(png(grey), "g.png").shape == (3, 16, 16)
    assert ImageReader(size=16, channels=1).read(png(colour), "c.png").shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("reader", "source", "complaint"),
    [
        (ImageReader(size=16, channels=5), png(picture(16)), "FITS cube or a set"),
        (ImageReader(size=16, channels=3, takes_flux=True), png(picture(16)), "takes flux"),
        (ImageReader(size=16, channels=3, crop=20), png(picture(18)), "smaller than"),
        (ImageReader(size=16, channels=3), np.zeros((16, 12, 3), np.uint8), "not square"),
        (ImageReader(size=16, channels=3), np.zeros((16, 16, 3)), "float64"),
        (ImageReader(size=16, channels=3), np.zeros((16, 16, 2), np.uint8), "2 channels"),
    ],
)
def test_what_cannot_be_used_says_why(
    reader: ImageReader, source: bytes | np.ndarray, complaint: str
) -> None:
    with pytest.raises(BadImageError, match=complaint):
        reader.read(source, "image.png")


@pytest.fixture
def fits_path(tmp_path: Path) -> Path:
    """An empty first HDU, a table, two images, the second with NaN; row 0 is the bottom."""
    fits = pytest.importorskip("astropy.io.fits")
    first = np.zeros((12, 12), np.float32)
    first[0, 0] = 5.0
    second = np.ones((12, 12), np.float32)
    second[3, 4] = np.nan
    column = fits.Column(name="x", format="E", array=np.zeros(2))
    units = [fits.PrimaryHDU(), fits.BinTableHDU.from_columns([column])]
    units += [fits.ImageHDU(first), fits.ImageHDU(second)]
    path = tmp_path / "galaxy.fits"
    fits.HDUList(units).writeto(path)
    return path


def test_rows_of_fits_are_turned_to_those_of_pictures(fits_path: Path) -> None:
    flux, masked = read_flux(fits_path, "galaxy.fits", FitsReading())
    assert flux.shape == (1, 12, 12)
    assert flux[0, 11, 0] == 5.0
    assert masked == 0


def test_the_hdu_is_chosen_and_nan_becomes_sky(fits_path: Path) -> None:
    flux, masked = read_flux(fits_path.read_bytes(), "galaxy.fits", FitsReading(hdu=3))
    assert (flux == 1).all()
    assert masked == pytest.approx(1 / 144)


def test_an_hdu_without_an_image_is_refused(fits_path: Path) -> None:
    with pytest.raises(BadImageError, match=r"HDU 1 is not an image \(images: 2, 3\)"):
        read_flux(fits_path, "galaxy.fits", FitsReading(hdu=1))


def test_a_fits_file_of_nan_is_refused(tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    path = tmp_path / "empty.fits"
    fits.PrimaryHDU(np.full((8, 8), np.nan, np.float32)).writeto(path)
    with pytest.raises(BadImageError, match="100 % of the pixels are NaN"):
        read_flux(path, "empty.fits", FitsReading())


def test_what_is_no_fits_is_refused() -> None:
    pytest.importorskip("astropy")
    with pytest.raises(BadImageError, match=r"bad\.fits is corrupt or not FITS"):
        read_flux(b"hello", "bad.fits", FitsReading())


def test_a_given_stretch_is_the_asinh_of_lupton() -> None:
    stretch = Stretch(black=0.0, white=10.0, softening=1.0)
    flux = np.array([[[0.0, 1.0, 10.0, 20.0]]], np.float32)
    expected = np.arcsinh(np.minimum(flux, 10)) / np.arcsinh(10) * 255
    np.testing.assert_allclose(flux_to_bytes(flux, stretch)[..., 0], np.rint(expected[0]), atol=1)


def test_a_measured_stretch_shows_sky_and_galaxy() -> None:
    rng = np.random.default_rng(0)
    flux = rng.normal(100, 2, (1, 64, 64)).astype(np.float32)
    flux[0, 28:36, 28:36] += 200
    pixels = flux_to_bytes(flux, None)[..., 0]
    assert 10 < np.median(pixels) < 90
    assert pixels[28:36, 28:36].mean() > 220
    assert measured_stretch(np.zeros((1, 4, 4), np.float32)).white > 0


def test_flux_classifiers_take_fits_as_flux(fits_path: Path) -> None:
    reader = ImageReader(size=12, channels=1, takes_flux=True)
    pixels = reader.read(fits_path, "galaxy.fits")
    assert pixels.dtype == torch.float32
    assert float(pixels.max()) == 5.0


@pytest.mark.parametrize("shape", [(24, 24), (1, 1, 24, 24), (3, 24, 24), (24, 24, 3)])
def test_a_fits_file_is_read_as_it_was_packed(
    tmp_path: Path, rng: np.random.Generator, shape: tuple[int, ...]
) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    path = tmp_path / "galaxy.fits"
    fits.PrimaryHDU(rng.normal(size=shape).astype(np.float32)).writeto(path)
    packed = decode_image(path, "galaxy.fits", Decoding(crop=20, size=16))
    reader = ImageReader(size=16, channels=packed.shape[2], crop=20, takes_flux=True)
    for source in (path, path.read_bytes()):
        pixels = reader.read(source, "galaxy.fits").permute(1, 2, 0).numpy()
        np.testing.assert_allclose(pixels, packed, atol=1e-5)


def test_a_fits_file_of_too_many_axes_says_so(tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    path = tmp_path / "cube.fits"
    fits.PrimaryHDU(np.zeros((2, 3, 8, 8), np.float32)).writeto(path)
    with pytest.raises(BadImageError, match=r"^cube\.fits: the image has the shape"):
        read_flux(path, "cube.fits", FitsReading())
