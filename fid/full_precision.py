"""float32 arithmetic in full, whatever a graphics card would rather do."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Run convolutions and products of matrices without TF32; what was set before is restored.

    Newer cards take TF32 for convolutions by default: features then carry an error of 1e-3, and
    a number from one machine does not stand beside one from another.
    """
    places = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def precision_of(features: object) -> contextlib.AbstractContextManager[None]:
    """`full_precision` for any extractor but one that says it is ``approximate``."""
    if getattr(features, "approximate", False):
        return contextlib.nullcontext()
    return full_precision()
