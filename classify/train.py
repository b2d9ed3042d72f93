"""``classify-train``: the command line of training one classifier."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from classify.tabular.options import TableOptions
from classify.training_config import TrainingConfig
from galaxies.command_line import named_on_command_line, run_command
from galaxies.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ClassifyTrain(TrainingConfig):
    """Train one classifier on the training split and report every class of the test split.

    The validation split chooses the weights; the test split is read once, at the end.
    """

    model: str = "small-d4"
    """Network by name: see --list-models; any timm name works too (extra timm)."""
    data: str = "simulated"
    """Image set (packed .h5, folder per class, or simulated, the embedded survey), or a table of
    photometry (CSV, Parquet, FITS, .npz)."""
    table: Annotated[TableOptions, tyro.conf.arg(name="")] = field(default_factory=TableOptions)
    """Choices that concern a table."""
    leave_out: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="CLASS")
    ] = ()
    """Class to leave out, by name or index; may be repeated."""
    synthetic: Path | None = None
    """Generated images (.h5 or folder of gan-generate) to train on beside the real ones."""
    out: Path | None = None
    """Checkpoint folder; default checkpoints/classifier-MODEL."""
    overwrite: bool = False
    """Replace an existing --out."""
    resume: bool = False
    """Continue an interrupted run of the same settings in --out."""
    ensemble: tuple[Path, ...] = ()
    """Make an ensemble of these trained checkpoints instead of training a network."""
    combine: Annotated[str, tyro.conf.arg(metavar="mean|stack")] = "mean"
    """How an ensemble joins its members: the mean of their probabilities, or a stack (multinomial
    regression on the validation split)."""
    calibration_share: float = 0.5
    """Share of the validation split that is kept out of choosing the weights and calibrates
    probabilities and prediction sets; 0 uses none."""
    examples: int = 2000
    """Training images kept in the checkpoint, to show nearest ones and flag unlike images."""
    tensorboard: bool = False
    """Also write the curves for TensorBoard, into --out (extra tensorboard)."""
    device: str = "auto"
    """auto, cpu, or cuda."""
    dry_run: bool = False
    """Build the network, count its parameters, and stop."""
    size: int | None = None
    """Side of the images, for --dry-run without data."""
    channels: int | None = None
    """Channels of the images, for --dry-run without data."""
    classes: int | None = None
    """Number of classes, for --dry-run without data."""
    list_models: bool = False
    """Print the networks by name, with what they need, and stop."""
    json: bool = False
    """Print one JSON object on stdout."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.combine not in ("mean", "stack"):
            raise InputError(f"--combine must be mean or stack, got {self.combine}")
        if not 0 <= self.calibration_share < 1:
            raise InputError(f"--calibration-share must be in [0, 1), got {self.calibration_share}")
        if self.examples < 0 or self.examples == 1:
            raise InputError(f"--examples must be 0 or at least 2, got {self.examples}")
        if self.ensemble and (self.synthetic is not None or self.resume):
            raise InputError(
                "--ensemble joins trained checkpoints; leave out --synthetic, --resume"
            )
        if self.overwrite and self.resume:
            raise InputError("--overwrite starts anew and --resume continues; choose one")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``classify-train``."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def command(config: ClassifyTrain) -> None:
        from classify.train_command import classify_train

        classify_train(config, named_on_command_line(words))

    return run_command(ClassifyTrain, command, words, program="classify-train")
