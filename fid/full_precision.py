"""float32 arithmetic in full, whatever a graphics card would rather do."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Run convolutions and products of matrices without TF32; what was set before is restored.

    Newer cards take TF32 for convolutions by default: features then carry an error of 1e-3, and
    a number from one machine does not stand beside one from another.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    places: tuple[Any, ...] = (cudnn.conv, cudnn.rnn, matmul)  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    products = torch.get_float32_matmul_precision()
    try:
        _agree(convolutions_in_tf32=False, products="highest")
        for place in places:
            place.fp32_precision = "ieee"
        yield
    finally:
        _agree(before[0] == "tf32", products)
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def _agree(convolutions_in_tf32: bool, products: str) -> None:
    """Set by torch's older switches, which move the newer ones; the reverse is not so.

    Where the two disagree, torch raises in whatever asks for the older ones (its compiler does).
    """
    torch.backends.cudnn.allow_tf32 = convolutions_in_tf32
    torch.set_float32_matmul_precision(products)


def precision_of(features: object) -> contextlib.AbstractContextManager[None]:
    """`full_precision` for any extractor but one that says it is ``approximate``."""
    if getattr(features, "approximate", False):
        return contextlib.nullcontext()
    return full_precision()
