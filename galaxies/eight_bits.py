"""16-bit pixels: how they are noticed, scaled or refused, and never clipped without a word."""

from typing import Any

import numpy as np
from PIL import Image


def to_eight_bits(values: np.ndarray) -> np.ndarray:
    """0 to 65535 of any shape to uint8: divided by 257 and rounded."""
    # In whole numbers, for a set of float64 takes eight times the memory; no half can occur.
    scaled = values.astype(np.uint32)
    scaled += 128
    scaled //= 257
    return scaled.astype(np.uint8)


def dark_after_scaling(brightest: int) -> str | None:
    """What to say where 16-bit values used less than a quarter of their range.

    Parameters
    ----------
    brightest
        The largest 8-bit value of the set, after `to_eight_bits`.
    """
    if brightest >= 64:
        return None
    return (
        f"after --scale-16-bit the brightest pixel is {brightest} of 255: data of 12 or 14 bits? "
        "Multiply them by 16 or 4 first, so that they fill 16 bits"
    )


def bits_per_channel(image: Image.Image) -> int:
    """16 where Pillow reads 16-bit colour into an 8-bit mode, else 8."""
    tags: Any = getattr(image, "tag_v2", None)
    if tags is not None and max(np.atleast_1d(tags.get(258, (8,)))) > 8:
        return 16
    for tile in getattr(image, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        for value in arguments:
            if isinstance(value, str) and ";16" in value:
                return 16
            if image.format == "PPM" and isinstance(value, int) and value > 255:
                return 16
    return 8
