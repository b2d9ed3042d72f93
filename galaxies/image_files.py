"""Image files: which ones a folder holds, and decoding one by stated rules.

The rules: grey stays one channel, colour becomes RGB, a set of colour files whose channels are
equal in every pixel of every image is grey, an opaque alpha channel is dropped, and nothing is
ever clipped: 16-bit grey is refused unless it is to be scaled (``value / 257``, rounded, so
65535 becomes 255), and 16-bit colour is refused.
"""

import io
import os
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from galaxies.device import cores
from galaxies.eight_bits import bits_per_channel, to_eight_bits
from galaxies.errors import InputError
from galaxies.fits_images import fits_shape, is_fits_file, read_fits
from galaxies.resize import crop_box

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".ppm", ".pgm")

IMAGE_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF")
"""Pillow's names of the formats that are opened, whatever a file is called. Others stay shut:
EPS, for one, would be handed to a PostScript interpreter. GIF is opened to say why it is not
taken when it moves."""

_EIGHT_BIT_MODES = {"1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr"}
_GREY_MODES = {"1", "L", "LA", "I", "F"}  # and those that begin with "I;"

_UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, struct.error,
    zipfile.BadZipFile,
)  # fmt: skip
"""What Pillow raises of damaged files; a TIFF without a width, for one, is a `TypeError`."""
_TOO_LARGE = Image.DecompressionBombError
_MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 2**26


class BadImageError(InputError):
    """One image cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class Decoding:
    """How a file becomes pixels.

    Attributes
    ----------
    crop : int or None
        Side of the central square that is kept, in pixels of the file.
    size : int or None
        Side after resizing with antialiasing (Pillow's bicubic, whose support grows with the
        reduction), in pixels.
    channels : int or None
        1 or 3 to convert to; ``None`` keeps grey grey and colour colour.
    scale_16_bit : bool
        Divide 16-bit values by 257 instead of refusing them.
    """

    crop: int | None = None
    size: int | None = None
    channels: int | None = None
    scale_16_bit: bool = False

    def __post_init__(self) -> None:
        for name, value in (("crop", self.crop), ("size", self.size)):
            if value is not None and value < 1:
                raise InputError(f"--{name} must be at least 1 pixel, got {value}")


@dataclass(frozen=True)
class Header:
    """What a file says about its image before a pixel is decoded."""

    width: int
    height: int
    channels: int


def list_image_files(folder: Path, *, recursive: bool = False) -> list[Path]:
    """Image files of a folder, sorted by name.

    Raises
    ------
    InputError
        If there is none: says what was found instead, also below the folder; or if a folder
        below cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} {'is not a folder' if folder.exists() else 'does not exist'}")
    here = sorted(
        path for path in folder.iterdir() if is_image_file(path.name) and not path.is_dir()
    )
    if here and not recursive:
        return here
    below = sorted(
        Path(root) / name for root, names in _walk(folder) for name in names if is_image_file(name)
    )
    found = below if recursive else here
    if not found:
        others = sum(1 for path in folder.iterdir() if path.is_file())
        raise InputError(
            f"{folder} holds no image: 0 here, {len(below)} below, {others} other files "
            f"(endings looked for: {' '.join(IMAGE_ENDINGS)})"
            + ("; pass --recursive to take those below" if below else "")
        )
    return found


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders with the names of their files; links to folders are followed, each folder once."""

    def refuse(error: OSError) -> NoReturn:
        raise InputError(f"{error.filename} cannot be read ({error.strerror})")

    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        place = Path(root).stat()
        if (place.st_dev, place.st_ino) in seen:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders.sort()
        yield root, names


def is_image_file(name: str) -> bool:
    """Whether a file name has an ending that this project decodes; hidden files do not count."""
    name = Path(name).name
    return name.lower().endswith(IMAGE_ENDINGS) and not name.startswith(".")


def is_picture_or_fits(name: str) -> bool:
    """Whether a file of that name may be an image of a set."""
    return is_image_file(name) or is_fits_file(name)


def holds_flux(paths: Sequence[Path]) -> bool:
    """Whether the files of a set are FITS files: float32 flux, not 8-bit pictures.

    Raises
    ------
    InputError
        If some are and others are not.
    """
    fits = sum(is_fits_file(path.name) for path in paths)
    if 0 < fits < len(paths):
        raise InputError(
            f"{fits} of {len(paths)} images are FITS files and the others pictures; flux and "
            "8-bit pictures make no set together: keep one kind"
        )
    return fits > 0


def decode_image(source: Path | bytes, name: str, decoding: Decoding | None = None) -> np.ndarray:
    """Decode one image to (H, W, C) uint8, C 1 or 3; a FITS file to float32 flux, C 1 to 10.

    Raises
    ------
    BadImageError
        If the file is corrupt, truncated, not an image, animated, 16-bit (see `Decoding`),
        partly transparent, smaller than the crop, or flux that is NaN or infinite inside it.
    """
    decoding = decoding or Decoding()
    if isinstance(source, Path) and is_fits_file(source.name):
        return _decode_fits(source, name, decoding)
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=IMAGE_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise BadImageError(f"{name} has too many pixels to be a cut-out")
            return _decode_open_image(image, name, decoding)
    except BadImageError:
        raise
    except FileNotFoundError:
        raise BadImageError(f"{name} does not exist") from None
    except _TOO_LARGE:
        raise BadImageError(f"{name} has too many pixels to be a cut-out") from None
    except _UNREADABLE as error:
        raise BadImageError(f"{name} is corrupt or not an image ({_reason(error)})") from None


def _decode_fits(path: Path, name: str, decoding: Decoding) -> np.ndarray:
    try:
        flux = read_fits(path)
    except FileNotFoundError:
        raise BadImageError(f"{name} does not exist") from None
    except _UNREADABLE as error:
        raise BadImageError(f"{name} is corrupt or not FITS ({_reason(error)})") from None
    if decoding.channels not in (None, flux.shape[2]):
        raise BadImageError(
            f"{name} has {flux.shape[2]} bands, and most others {decoding.channels}; "
            "one number is needed"
        )
    height, width = flux.shape[:2]
    if decoding.crop is not None:
        if min(height, width) < decoding.crop:
            raise BadImageError(f"{name} is {width}x{height}, smaller than --crop {decoding.crop}")
        left, top, right, bottom = crop_box(width, height, decoding.crop)
        flux = flux[top:bottom, left:right]
    if not np.isfinite(flux).all():
        share = 1 - np.isfinite(flux).mean()
        raise BadImageError(f"{name} is NaN or infinite in {share:.1%} of its pixels")
    if decoding.size is None or flux.shape[:2] == (decoding.size, decoding.size):
        return flux
    if flux.shape[0] != flux.shape[1]:
        raise BadImageError(f"{name} is {width}x{height}, not square; pass --crop to cut a square")
    side = (decoding.size, decoding.size)
    bands = [
        np.asarray(Image.fromarray(flux[..., band]).resize(side, Image.Resampling.BICUBIC))
        for band in range(flux.shape[2])
    ]
    return np.stack(bands, axis=-1)


def read_header(path: Path) -> Header:
    """Size and channels of an image file, without decoding it.

    Raises
    ------
    BadImageError
        If the file is missing or not an image.
    """
    try:
        if is_fits_file(path.name):
            height, width, bands = fits_shape(path)
            return Header(width, height, bands)
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            return Header(image.width, image.height, 1 if _is_grey(image.mode) else 3)
    except FileNotFoundError:
        raise BadImageError(f"{path} does not exist") from None
    except _TOO_LARGE:
        raise BadImageError(f"{path} has too many pixels to be a cut-out") from None
    except _UNREADABLE as error:
        raise BadImageError(f"{path} is corrupt or not an image ({_reason(error)})") from None


def read_headers(paths: Sequence[Path]) -> list[Header | BadImageError]:
    """Read the headers of many files by threads; a bad file gives its error."""

    def attempt(path: Path) -> Header | BadImageError:
        try:
            return read_header(path)
        except BadImageError as error:
            return error

    with warnings.catch_warnings(), ThreadPoolExecutor(cores()) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return list(pool.map(attempt, paths))


def channels_of(paths: Sequence[Path], headers: Sequence[Header | BadImageError]) -> int:
    """Channels of a set of files: 3 where one image has colour, else 1.

    Grey pictures are often saved as colour files with three equal channels, so files are decoded
    until one shows colour; in a colour set that is nearly always the first. Of FITS files the
    most common number of bands counts.
    """
    if holds_flux(paths):
        bands = Counter(header.channels for header in headers if isinstance(header, Header))
        return bands.most_common(1)[0][0] if bands else 1
    candidates = [
        path
        for path, header in zip(paths, headers, strict=True)
        if isinstance(header, Header) and header.channels == 3
    ]

    def shows_colour(path: Path) -> bool:
        try:
            pixels = decode_image(path, str(path), Decoding(scale_16_bit=True))
        except BadImageError:
            return False  # it is named when the set is read
        return pixels.shape[2] == 3 and bool((pixels != pixels[..., :1]).any())

    window = 1
    with ThreadPoolExecutor(cores()) as pool:
        while candidates:
            if any(pool.map(shows_colour, candidates[:window])):
                return 3
            candidates, window = candidates[window:], min(2 * window, 64)
    return 1


def _decode_open_image(image: Image.Image, name: str, decoding: Decoding) -> np.ndarray:
    if getattr(image, "n_frames", 1) > 1:
        raise BadImageError(f"{name} holds {image.n_frames} frames; one is needed")  # type: ignore[attr-defined]
    if image.mode not in _EIGHT_BIT_MODES:
        image = _scale_grey_to_eight_bits(image, name, decoding)
    elif bits_per_channel(image) > 8:
        # Pillow has dropped the low byte already, without a word.
        raise BadImageError(
            f"{name} is 16-bit colour, which is not scaled here; convert it to 8 bits per channel"
        )
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("1", "L", "RGB") and "transparency" in image.info:
        _refuse_transparency(image.convert("RGBA"), name)  # one grey or colour stands for it
    if image.mode in ("RGBA", "LA"):
        _refuse_transparency(image, name)
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    channels = decoding.channels or (1 if image.mode in ("1", "L") else 3)
    image = image.convert("L" if channels == 1 else "RGB")
    image = _crop_and_resize(image, name, decoding)
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _refuse_transparency(image: Image.Image, name: str) -> None:
    if np.asarray(image.getchannel("A")).min() < 255:
        raise BadImageError(f"{name} is partly transparent; flatten it first")


def _scale_grey_to_eight_bits(image: Image.Image, name: str, decoding: Decoding) -> Image.Image:
    values = np.asarray(image)
    if not decoding.scale_16_bit or values.ndim != 2 or values.dtype.kind not in "iu":
        raise _too_deep(image.mode, name)
    if values.min() < 0 or values.max() > 65535:
        raise BadImageError(f"{name} has values outside 0 to 65535")
    return Image.fromarray(to_eight_bits(values))


def _too_deep(mode: str, name: str) -> BadImageError:
    if mode == "F":
        return BadImageError(
            f"{name} holds floating-point values (mode F); put flux into HDF5 or .npz as float32"
        )
    if not mode.startswith("I"):
        return BadImageError(f"{name} has the unusual mode {mode}; convert it to 8-bit RGB")
    return BadImageError(
        f"{name} has more than 8 bits per channel (mode {mode}); "
        "pass --scale-16-bit to divide by 257, or convert it yourself"
    )


def _is_grey(mode: str) -> bool:
    return mode in _GREY_MODES or mode.startswith("I;")


def _crop_and_resize(image: Image.Image, name: str, decoding: Decoding) -> Image.Image:
    if decoding.crop is not None:
        width, height = image.size
        if min(width, height) < decoding.crop:
            raise BadImageError(f"{name} is {width}x{height}, smaller than --crop {decoding.crop}")
        image = image.crop(crop_box(width, height, decoding.crop))
    if decoding.size is not None:
        if image.width != image.height:
            raise BadImageError(
                f"{name} is {image.width}x{image.height}, not square; pass --crop to cut a square"
            )
        if image.width != decoding.size:
            image = image.resize((decoding.size, decoding.size), Image.Resampling.BICUBIC)
    return image


def decode_all(
    sources: Sequence[Path],
    decoding: Decoding,
    *,
    skip_bad: bool = False,
    workers: int = 0,
    progress: bool = True,
    keep: Callable[[int, np.ndarray], None],
) -> list[int]:
    """Decode many files by threads, in order, passing each to ``keep(index, pixels)``.

    Returns
    -------
    list of int
        Indices of the files that were skipped; empty unless ``skip_bad``.

    Raises
    ------
    InputError
        If files are bad and ``skip_bad`` is false: one line that names every one.
    """
    workers = workers or cores()
    bad: dict[int, str] = {}

    def attempt(index: int) -> np.ndarray | str:
        try:
            return decode_image(sources[index], str(sources[index]), decoding)
        except BadImageError as error:
            return str(error)

    window = 16 * workers  # bounds the decoded images that wait for their turn
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(workers) as pool,
        tqdm(
            total=len(sources), desc="decode", unit="image", disable=not progress, leave=False
        ) as bar,
    ):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # such an image is bad
        for start in range(0, len(sources), window):
            indices = range(start, min(start + window, len(sources)))
            for index, result in zip(indices, pool.map(attempt, indices), strict=True):
                if isinstance(result, str):
                    bad[index] = result
                else:
                    keep(index, result)
                bar.update()
    if bad and not skip_bad:
        raise InputError(
            f"{len(bad)} of {len(sources)} images cannot be used "
            "(galaxy-set pack --skip-bad leaves them out): " + "; ".join(bad.values())
        )
    return sorted(bad)


@dataclass(frozen=True)
class PixelsInFiles:
    """A `PixelStore` over image files of one size, decoded by each read.

    uint8 of pictures; float32 of FITS files.
    """

    paths: tuple[Path, ...]
    decoding: Decoding
    shape: tuple[int, int, int, int]
    dtype: torch.dtype = torch.uint8

    def read(self, rows: np.ndarray) -> torch.Tensor:
        """Decode (n, C, H, W) pixels of ``rows``."""
        pixels = torch.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        _, channels, height, width = self.shape

        def keep(index: int, image: np.ndarray) -> None:
            if image.shape != (height, width, channels):
                raise InputError(
                    f"{self.paths[rows[index]]} is {image.shape[1]}x{image.shape[0]}, the first "
                    f"image is {width}x{height}; make them one size with: galaxy-set pack --size"
                )
            pixels[index] = torch.from_numpy(image.transpose(2, 0, 1).copy())

        sources = [self.paths[row] for row in rows]
        decode_all(sources, self.decoding, progress=False, keep=keep)
        return pixels


def encode_png(pixels: np.ndarray) -> bytes:
    """PNG bytes of (H, W, C) uint8 pixels, C 1 or 3."""
    if pixels.shape[-1] not in (1, 3):
        raise InputError(
            f"a PNG holds 1 or 3 channels, these images have {pixels.shape[-1]}; write .h5 instead"
        )
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _reason(error: BaseException) -> str:
    """An error's text without the memory address that Pillow puts in it."""
    text = str(error)
    return "unknown format" if "cannot identify image file" in text else text
