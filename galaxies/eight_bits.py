"""16-bit pixels: how they are noticed, scaled or refused, and never clipped without a word."""

from typing import Any

import numpy as np
from PIL import Image


def to_eight_bits(values: np.ndarray) -> np.ndarray:
    """0 to 65535 of any shape to uint8: divided by 257 and rounded."""
    return np.rint(values / 257).astype(np.uint8)


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
