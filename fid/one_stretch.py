"""Equal flux must become equal pixels: which stretch the sides of a comparison are seen through."""

import dataclasses

import torch

from fid.image_sources import SetImages
from fid.inputs import SavedStatistics, Side
from fid.statistics_file import UNKNOWN_STRETCH, StretchOfOrigin
from galaxies.pixels import Stretch


def stretch_of_origin(side: Side) -> StretchOfOrigin:
    """What the origin of a side's features says of its stretch."""
    if not _is_flux(side):
        return None
    stretch = side.image_set.stretch  # type: ignore[union-attr]
    return None if stretch is None else (stretch.black, stretch.white, stretch.softening)


def see_through_one_stretch(real: Side, fake: Side) -> list[str]:
    """See flux through the stretch of saved statistics, which cannot change, else through REAL's.

    Returns
    -------
    list of str
        What a reader should know; sides of images are changed where they are.
    """
    sides = (real, fake)
    saved = [side for side in sides if isinstance(side, SavedStatistics)]
    notes = [
        f"{side.name} does not say through which stretch flux was seen; if it was another one, "
        "the sides were not measured alike"
        for side in saved
        if _unknown(side) and any(_is_flux(each) or _stretch(each) is not None for each in sides)
    ]
    for deciding in (*saved, *sides):
        stretch = _stretch(deciding)
        if stretch is not None:
            return notes + [
                note
                for side in sides
                if side is not deciding
                for note in seen_through(side, stretch, deciding.name)
            ]
    return notes


def seen_through(side: Side, stretch: Stretch | None, whose: str) -> list[str]:
    """Make a side of flux be seen through a stretch; a sentence where it had another one."""
    if stretch is None or not isinstance(side, SetImages) or not _is_flux(side):
        return []
    own = side.image_set.stretch
    if own == stretch:
        return []
    side.image_set = dataclasses.replace(side.image_set, stretch=stretch)
    if own is None:
        return [f"{side.name}: it has no stretch of its own; that of {whose} was used"]
    return [f"{side.name}: its own stretch ({own}) was left aside for that of {whose}"]


def stretch_in_force(real: Side, fake: Side) -> Stretch | None:
    """The stretch through which other flux must be seen to be compared with FAKE."""
    return _stretch(fake) or _stretch(real)


def _stretch(side: Side) -> Stretch | None:
    if isinstance(side, SavedStatistics):
        known = None if side.origin is None else side.origin.stretch
        return Stretch(*known) if isinstance(known, tuple) else None
    return side.image_set.stretch if isinstance(side, SetImages) and _is_flux(side) else None


def _unknown(side: SavedStatistics) -> bool:
    return side.origin is None or side.origin.stretch == UNKNOWN_STRETCH


def _is_flux(side: Side) -> bool:
    return isinstance(side, SetImages) and side.image_set.store.dtype == torch.float32
