"""What an image set is: opening, packing, splitting, fetching and simulating sets."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from galaxies.image_set import ImageSet

__all__ = ["ImageSet"]


def __getattr__(name: str) -> Any:
    """`ImageSet` is loaded when it is asked for: torch would cost every ``--help`` seconds."""
    if name == "ImageSet":
        from galaxies.image_set import ImageSet

        return ImageSet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
