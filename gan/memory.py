"""Memory that does not suffice, in one line."""

import contextlib
from collections.abc import Iterator

import torch

from galaxies.errors import InputError

_OF_THE_HOST = ("can't allocate memory", "not enough memory")
"""What torch's allocator on the CPU says, in a plain ``RuntimeError``."""


@contextlib.contextmanager
def short_memory_in_words(advice: str) -> Iterator[None]:
    """Raise `InputError` with ``advice`` where memory runs out, on a graphics card or the host."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise InputError(f"the memory of the graphics card does not suffice; {advice}") from None
    except MemoryError:
        raise InputError(f"the memory of this machine does not suffice; {advice}") from None
    except RuntimeError as error:
        if not any(words in str(error) for words in _OF_THE_HOST):
            raise
        raise InputError(f"the memory of this machine does not suffice; {advice}") from None
