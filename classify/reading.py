"""From a file, bytes, or an array to the pixels that a classifier was trained on."""

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from classify.fits_files import FitsReading, flux_to_bytes, is_fits, read_flux
from galaxies.image_files import IMAGE_FORMATS, BadImageError, Decoding, decode_image
from galaxies.resize import crop_and_resize


@dataclass(frozen=True)
class ImageReader:
    """Prepares images exactly as the training set was prepared.

    Attributes
    ----------
    size, channels : int
        What the classifier takes.
    crop : int or None
        Central square that was cut when the training set was packed. A file that already has the
        classifier's size is taken as it is.
    scale_16_bit : bool
        Whether 16-bit files were scaled.
    takes_flux : bool
        The classifier was trained on float32 flux; only FITS files and arrays hold that.
    fits : FitsReading
    """

    size: int
    channels: int
    crop: int | None = None
    scale_16_bit: bool = False
    takes_flux: bool = False
    fits: FitsReading = field(default_factory=FitsReading)

    def read(self, source: Path | bytes | np.ndarray, name: str) -> torch.Tensor:
        """(C, H, W) pixels, uint8 or float32 flux.

        Parameters
        ----------
        source
            A file, its bytes, or an array (H, W), (H, W, C) uint8.

        Raises
        ------
        BadImageError
            If it cannot be used: says which image and why.
        """
        if isinstance(source, np.ndarray):
            return self._fit(self._from_array(source, name), name)
        if is_fits(source, name):
            flux, _ = read_flux(source, name, self.fits)
            if self.takes_flux:
                return self._fit(torch.from_numpy(flux), name)
            pixels = flux_to_bytes(flux, self.fits.stretch)
            return self._fit(self._from_array(pixels, name), name)
        if self.takes_flux:
            raise BadImageError(f"{name}: this classifier takes flux; give FITS files or a set")
        if self.channels not in (1, 3):
            raise BadImageError(
                f"{name}: this classifier takes {self.channels} channels; give a FITS cube or a set"
            )
        as_it_is = _size_of(source) == (self.size, self.size)
        decoding = Decoding(
            crop=None if as_it_is else self.crop,
            size=None if as_it_is else self.size,
            channels=self.channels,
            scale_16_bit=self.scale_16_bit,
        )
        try:
            pixels = decode_image(source, name, decoding)
        except BadImageError as error:
            # What is scaled was settled when the training set was packed, by a flag of that.
            before, advice, _ = str(error).partition("; pass --scale-16-bit")
            if not advice:
                raise
            raise BadImageError(
                f"{before}; this classifier was trained on 8-bit images, so convert it to 8 bits"
            ) from None
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    def _from_array(self, array: np.ndarray, name: str) -> torch.Tensor:
        if array.ndim == 2:
            array = array[..., None]
        if array.ndim != 3 or array.dtype not in (np.uint8, np.float32):
            raise BadImageError(
                f"{name}: an array of {array.dtype} and shape {array.shape}; "
                "(H, W) or (H, W, C) uint8, or float32 flux, is needed"
            )
        if (array.dtype == np.float32) != self.takes_flux:
            wanted = "float32 flux" if self.takes_flux else "uint8"
            raise BadImageError(f"{name} is {array.dtype}; this classifier takes {wanted}")
        return torch.from_numpy(array.transpose(2, 0, 1).copy())

    def _fit(self, pixels: torch.Tensor, name: str) -> torch.Tensor:
        if pixels.shape[0] != self.channels:
            if pixels.shape[0] == 1 and self.channels == 3:
                pixels = pixels.expand(3, -1, -1)
            else:
                raise BadImageError(
                    f"{name} has {pixels.shape[0]} channels; this classifier takes {self.channels}"
                )
        height, width = pixels.shape[1:]
        if (height, width) == (self.size, self.size):
            return pixels.contiguous()
        if self.crop is not None and min(height, width) < self.crop:
            raise BadImageError(f"{name} is {width}x{height}, smaller than the crop {self.crop}")
        if self.crop is None and height != width:
            raise BadImageError(
                f"{name} is {width}x{height}, not square; pass --crop to cut a square"
            )
        return crop_and_resize(pixels[None].contiguous(), crop=self.crop, size=self.size)[0]


def _size_of(source: Path | bytes) -> tuple[int, int] | None:
    """(width, height) from the header; ``None`` where it cannot be read: decoding will say why."""
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=IMAGE_FORMATS) as image:
            return image.size
    except Exception:  # whatever Pillow raises here it raises again when the file is decoded
        return None
