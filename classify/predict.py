"""``classify-predict``: the command line of asking a checkpoint about images."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from galaxies.command_line import run_command
from galaxies.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ClassifyPredict:
    """Say the class of images, how sure that is, and which classes cannot be ruled out."""

    checkpoint: tyro.conf.Positional[Path]
    """Folder that classify-train wrote, a classifier or an ensemble."""
    images: tyro.conf.Positional[tuple[str, ...]]
    """Image files (JPEG, PNG, TIFF, FITS), folders of them, sets (.h5, .npz), or patterns such
    as 'shards/*.h5'."""
    csv: Path | None = None
    """Also write a table: .csv, or .parquet (needs pyarrow)."""
    level: float = 0.9
    """Confidence of the prediction sets."""
    set_kind: Literal["per-class", "marginal"] = "per-class"
    """Whether sets keep their promise within every class, or only over all images."""
    average_symmetries: bool = False
    """Average over the eight symmetries of the square."""
    dropout_samples: int = 0
    """Average over so many passes with dropout on, and report their disagreement."""
    neighbours: int = 0
    """Name so many nearest training images."""
    grad_cam: Path | None = None
    """Folder for pictures of where the network found its class."""
    crop: int | None = None
    """Central square to cut from files, pixels; default what the training set was packed with."""
    hdu: int | None = None
    """HDU of FITS files; default the first image."""
    fits_range: tuple[float, float, float] | None = None
    """BLACK WHITE SOFTENING: asinh stretch of FITS flux; default measured on each image."""
    side: Literal["all", "train", "validation", "test"] = "all"
    """Which side of the split of a set."""
    evaluate: bool = False
    """The images are labelled (a set's classes, or the names of sub-folders): also report every
    class and the coverage of the sets."""
    recursive: bool = False
    """Take images below the given folders too."""
    skip_bad: bool = False
    """Leave out images that cannot be used, and count them."""
    shard: str | None = None
    """I/N: only every N-th image, from the I-th (1 to N), to share the work of many machines."""
    dask: str | None = None
    """Address of a Dask scheduler, such as tcp://host:8786, whose workers share the images (extra
    dask); they need to see the checkpoint and the images under the same paths."""
    batch_size: int = 256
    """Images in memory at once."""
    device: str = "auto"
    """auto, cpu, or cuda."""
    overwrite: bool = False
    """Replace an existing --csv."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON list on stdout."""

    def __post_init__(self) -> None:
        if not self.images:
            raise InputError("give at least one image, folder or set")
        if not 0 < self.level < 1:
            raise InputError(f"--level lies between 0 and 1, got {self.level}")
        if self.batch_size < 1:
            raise InputError(f"--batch-size must be at least 1, got {self.batch_size}")
        if self.neighbours < 0 or self.dropout_samples < 0:
            raise InputError("--neighbours and --dropout-samples must not be negative")
        if self.dropout_samples and self.average_symmetries:
            raise InputError("--dropout-samples and --average-symmetries contradict each other")
        if self.csv is not None and self.csv.suffix.lower() not in (".csv", ".parquet"):
            raise InputError(f"--csv {self.csv} must end in .csv or .parquet")
        if self.dask is not None and self.grad_cam is not None:
            raise InputError("--grad-cam writes its pictures on one machine; leave out --dask")
        if self.shard is not None:
            self.shard_numbers()

    def shard_numbers(self) -> tuple[int, int]:
        """(I, N) of ``--shard``; (1, 1) without it."""
        if self.shard is None:
            return 1, 1
        first, _, count = self.shard.partition("/")
        if not (first.isdigit() and count.isdigit() and 1 <= int(first) <= int(count)):
            raise InputError(f"--shard must be I/N with 1 <= I <= N, got {self.shard}")
        return int(first), int(count)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``classify-predict``."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""

    def command(config: ClassifyPredict) -> None:
        from classify.predict_command import classify_predict

        classify_predict(config)

    return run_command(ClassifyPredict, command, arguments, program="classify-predict")
