"""``gan-generate``: images of a class from a checkpoint, as a PNG folder or an image set."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from galaxies.command_line import print_json, run_command
from galaxies.errors import InputError

PROVENANCE, FILM = "provenance.json", "film.gif"
MARKS = (PROVENANCE, FILM)
"""What a folder of gan-generate holds."""

NO_FOLDERS = (".npz", ".npy", ".fits", ".fit", ".zip", ".tar", ".csv", ".png", ".jpg", ".gif")
"""Endings that nobody means a folder by."""


@dataclass(frozen=True)
class GenerateConfig:
    """Generate images of a class with a checkpoint of gan-train.

    The same seed gives the same images. The output remembers the checkpoint, the seed and the
    images that the generator was trained on.
    """

    checkpoint: tyro.conf.Positional[Path]
    """Folder that gan-train wrote."""
    classes: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="class", metavar="CLASS")
    ] = ()
    """Class to generate, by index or name; may be repeated. Default: those of the training."""
    step: int | None = None
    """Step of a snapshot that `gan-train --snapshots` kept, instead of the chosen weights."""
    count: int = 500
    """Images per class."""
    out: Path | None = None
    """`NAME.h5` writes an image set, any other name a folder of PNG files, one sub-folder per
    class."""
    seed: int = 0
    """The same seed gives the same images."""
    truncation: float = 1.0
    """Below 1 pulls towards the mean of the class: prettier, less diverse. Keep 1 for
    augmentation."""
    keep: float = 1.0
    """Share of the images that is kept: more are generated and the best of them chosen --by."""
    by: Literal["discriminator", "classifier", "distance"] | None = None
    """What chooses: the discriminator's logit, the classifier's certainty of the class, or the
    distance to the nearest training image (the nearest, possible copies, are removed)."""
    scores: bool = False
    """Store the three scores of each image in the set's features (slower)."""
    data: str | None = None
    """The set that the generator was trained on, where it lies elsewhere by now: read by --scores
    and by --by classifier or distance."""
    interpolation: bool = False
    """Write a film strip (strip.png) and a film (film.gif) that walk through latents instead."""
    overwrite: bool = False
    """Replace --out."""
    device: Annotated[str, tyro.conf.arg(metavar="{auto,cpu,cuda,cuda:N}")] = "auto"
    """`auto`: CUDA where there is one; `cuda:1` is the second."""
    json: bool = False
    """Print one JSON object on stdout."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"--count must be at least 1, got {self.count}")
        if not 0 < self.truncation <= 2:
            raise InputError(f"--truncation must be above 0, at most 2, got {self.truncation}")
        if not 0 < self.keep <= 1:
            raise InputError(f"--keep must be above 0, at most 1, got {self.keep}")
        if (self.keep < 1) != (self.by is not None):
            raise InputError("--keep below 1 and --by belong together, such as --keep 0.5 --by ...")
        if self.interpolation and (self.by is not None or self.scores):
            raise InputError("--interpolation shows a path: there is nothing to score or to choose")


def run(config: GenerateConfig) -> None:
    """Generate and write."""
    from galaxies.atomic import refuse_existing
    from galaxies.device import choose_device
    from galaxies.hdf5 import HDF5_ENDINGS
    from gan.loaded_generator import load_generator
    from gan.memory import short_memory_in_words
    from gan.output import write_interpolation, write_synthetic_set

    if config.out is None:
        raise InputError("name the output with --out: a folder, or a file that ends in .h5")
    ending = config.out.suffix.lower()
    if ending in NO_FOLDERS:
        raise InputError(
            f"{config.out} is named like a file that is not written here; end it in .h5 for a set, "
            "or give the name of a folder for PNG files"
        )
    is_file = ending in HDF5_ENDINGS
    if is_file and config.interpolation:
        raise InputError(
            f"--interpolation writes a folder of pictures; {config.out} is named like a set"
        )
    refuse_existing(config.out, overwrite=config.overwrite, marks=() if is_file else MARKS)
    loaded = load_generator(config.checkpoint, choose_device(config.device), config.step)
    classes = [loaded.class_index(name) for name in config.classes or loaded.training_classes]
    if len(set(classes)) != len(classes):
        raise InputError(f"--class names a class twice: {', '.join(config.classes)}")
    with short_memory_in_words(
        "lower --count (sets of other --seed add to it) or choose another --device"
    ):
        write = write_interpolation if config.interpolation else write_synthetic_set
        written = write(loaded, classes, config)
    if config.json:
        print_json(written)
        return
    print(written["sentence"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_command(GenerateConfig, run, arguments, program="gan-generate")


if __name__ == "__main__":
    sys.exit(main())
