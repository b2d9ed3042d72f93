"""The validation side in two parts: one chooses, the other calibrates."""

from galaxies.command_line import warn
from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from galaxies.split import split_set


def hold_out_calibration(
    validation: ImageSet, share: float
) -> tuple[ImageSet | None, ImageSet | None]:
    """Part the validation side: one part chooses the weights, the other calibrates.

    Groups stay whole. Where the side is too small to be parted, both parts are all of it, and a
    warning says so.
    """
    if not share:
        return validation, None
    try:
        parted = split_set(validation, (1 - share, share, 0.0), seed=0)
        return parted.side("train"), parted.side("validation")
    except InputError as error:
        warn(
            f"the validation split cannot be parted ({error}); the same images choose the weights "
            "and calibrate, so prediction sets are slightly too sure"
        )
        return validation, validation
