"""``fid-score REAL FAKE``: how far the generated images are from the real ones."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from galaxies.command_line import run_command


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """Fréchet distance between two sets of images, and with --all everything else that tells.

    A side is a folder, a zip, an image set (also one class or one side of its split, written
    SET.h5#class=merger#split=test), an .npy or .npz array of features, or saved statistics.
    """

    real: tyro.conf.Positional[str]
    """The real images."""
    fake: tyro.conf.Positional[str]
    """The generated images."""
    features: str = "inception"
    """inception, timm:NAME or classifier:CHECKPOINT; only inception with the published weights
    gives FID."""
    weights: Path | None = None
    """File of weights; without it the published Inception weights in torch's cache are used."""
    recipe: str | None = None
    """How images are resized for Inception: pytorch-fid (default), torch-fidelity, clean-fid or
    torchmetrics."""
    compat: bool = False
    """Compute in the order and with the rounding of the program that the recipe is named after."""
    everything: Annotated[bool, tyro.conf.arg(name="all")] = False
    """Report every measure: null band, KID, coverage, copies, physics and more."""
    k: int = 5
    """Neighbour that sets the radius of precision, recall, density and coverage (--all)."""
    permutations: int = 200
    """Permutations and splits behind the null band (--all)."""
    training: Annotated[str | None, tyro.conf.arg(metavar="SOURCE")] = None
    """Images that the generator was trained on, to look for copies (--all); default: those of
    REAL that FAKE names as its training images, else all of REAL."""
    held_out: Annotated[str | None, tyro.conf.arg(metavar="SOURCE")] = None
    """Real images that the generator never saw, to judge copies by (--all)."""
    pairs: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """Write the twenty closest pairs of generated and training image (with --all)."""
    recursive: bool = False
    """Take images of sub-folders too."""
    skip_bad: bool = False
    """Leave out files that cannot be decoded, and count them, instead of refusing all."""
    scale_16_bit: bool = False
    """Divide 16-bit values by 257 and round, instead of refusing them."""
    bands: tuple[int, int, int] | None = None
    """Channels to show the network as red, green and blue; default: see the report."""
    batch_size: int = 50
    """Images at a time on the device."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    approximate: bool = False
    """bfloat16 arithmetic: faster on a GPU, and the number is marked as approximate."""
    no_cache: bool = False
    """Neither use nor keep remembered features."""
    seed: int = 0
    """Of every random choice: permutations, subsets, directions."""
    overwrite: bool = False
    """Replace FILE.png where it exists."""
    json: bool = False
    """Print one JSON object."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``fid-score`` and return its exit status."""
    return run_command(ScoreConfig, _run, arguments, program="fid-score")


def _run(config: ScoreConfig) -> None:
    from fid.score import run

    run(config)
