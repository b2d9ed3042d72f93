"""A checkpoint folder that cannot be read is one clear line, whatever part of it is broken."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from galaxies.errors import InputError


@contextlib.contextmanager
def refuse_damaged(folder: Path, what: str) -> Iterator[None]:
    """Turn what readers of JSON, safetensors, zip and tensors raise into an `InputError`."""
    try:
        yield
    except (
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
        OSError,
        RuntimeError,
        SafetensorError,
        zipfile.BadZipFile,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{folder} is a damaged {what} ({reason})") from None
