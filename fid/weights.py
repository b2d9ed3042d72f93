"""Files of weights: their SHA-256 and their tensors, without running code from them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch

from galaxies.errors import InputError


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: Path) -> tuple[Mapping[str, torch.Tensor], str]:
    """State dict and SHA-256 of a ``.safetensors`` or torch file.

    Raises
    ------
    InputError
        If the file is absent, damaged or not a state dict.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file (--weights)")
    digest = file_sha256(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} holds no readable weights ({first_line})") from None
    if not isinstance(state, Mapping) or not all(torch.is_tensor(v) for v in state.values()):
        raise InputError(f"{path} is not a state dict: names and tensors are needed")
    return state, digest
