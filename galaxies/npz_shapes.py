"""What an ``.npz`` file holds, read from the headers of its arrays alone."""

import zipfile
from pathlib import Path

import numpy as np

from galaxies.errors import UNREADABLE, InputError


def array_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each array of an ``.npz``, from the headers alone.

    Raises
    ------
    InputError
        If it is no ``.npz``.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    version = np.lib.format.read_magic(file)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shapes[name.removesuffix(".npy")] = read(file)[0]
    except (*UNREADABLE, ValueError) as error:
        raise InputError(f"{path} is not a readable .npz file ({error})") from None
    return shapes
