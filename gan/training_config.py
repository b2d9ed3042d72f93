"""The flags of ``gan-train``: the single source of its defaults, help and ``config.json``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from galaxies.errors import InputError
from gan.recipes import PartChoices, RecipeName


@dataclass(frozen=True)
class RunChoices:
    """The flags of a run, beside the parts of its recipe."""

    classes: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="class", metavar="CLASS")
    ] = ()
    """Class to make, by index or name; may be repeated."""
    data: str = "simulated"
    """Image set: a packed .h5, a folder per class, .npz, or `simulated`, the embedded survey."""
    recipe: RecipeName = "tail"
    """`tail`: for classes of a hundred images; `dcgan`: the plain published architecture."""
    scope: Literal["all", "class"] = "all"
    """`all` trains on every class and draws the rare ones more often; `class` sees only the
    chosen ones."""
    steps: int = 6000
    """Steps of both networks."""
    batch_size: int = 64
    """Images per step, over all processes together."""
    size: int | None = None
    """Side of the generated images: 32, 64, 128 or 256; a set of another size is resized. Default
    64, or 32 for a set of smaller images."""
    width: float | None = None
    """Factor on the channels of both networks: the cost grows with its square. Default 1; for
    `tail` on a CPU 0.25, which is several times faster and makes good images in an hour."""
    out: Path | None = None
    """Folder of the run; default checkpoints/RECIPE-CLASS."""
    resume: bool = False
    """Go on with the run in --out, or without it with the one of --class in checkpoints/; only
    --steps may be raised, any other change is refused."""
    overwrite: bool = False
    """Replace the run in --out."""
    seed: int = 0
    """Initial weights and every draw."""
    device: Annotated[str, tyro.conf.arg(metavar="{auto,cpu,cuda,cuda:N}")] = "auto"
    """`auto`: CUDA where there is one; `cuda:1` is the second."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of convolutions and matrix products; `auto` times two steps of each on a CPU and takes
    bfloat16 on CUDA. Name it where two runs must have the same bytes."""
    cuda_graphs: bool = True
    """Capture the step as CUDA graphs; no effect on a CPU or with several processes."""
    log_every: int = 50
    """Steps between two lines of the log."""
    evaluate_every: int | None = None
    """Steps between two sample grids and judgements; default a twentieth of --steps."""
    evaluation_images: int = 256
    """Images per chosen class that are judged each time, at least 4."""
    judge: Literal["classifier", "none"] = "classifier"
    """Choose the checkpoint by class KID on features of a classifier trained on the training
    split, or keep the last one."""
    save_seconds: float = 60.0
    """Seconds between two saves of the state that --resume needs; no effect on the result."""
    snapshots: bool = False
    """Keep the averaged weights of every evaluation, for `gan-generate --step`."""
    guards: Literal["warn", "stop", "off"] = "warn"
    """What to do when a guard finds that the discriminator has won, a class has collapsed, is
    copied from the training images, or comes out as another."""
    dry_run: bool = False
    """Print the whole configuration, the parameters, the memory and an estimate of the time;
    train nothing."""
    json: bool = False
    """Print one JSON object on stdout."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("log_every", 1), ("evaluation_images", 4)):
            if getattr(self, name) < least:
                raise InputError(f"--{name.replace('_', '-')} must be at least {least}")
        if self.batch_size < 2:
            raise InputError("--batch-size must be at least 2")
        if self.width is not None and not 0.05 <= self.width <= 8:
            raise InputError(f"--width must be from 0.05 to 8, got {self.width}")
        if self.evaluate_every is not None and self.evaluate_every < 1:
            raise InputError("--evaluate-every must be at least 1")


@dataclass(frozen=True)
class TrainConfig(PartChoices, RunChoices):
    """Train a conditional GAN on the training split of an image set.

    `gan-train --class 0` is enough: the recipe `tail` on the simulated survey. Every part of a
    recipe is one flag, `None` meaning as the recipe has it. Ctrl-C saves; --resume goes on, bit
    for bit where it stopped.
    """

    @property
    def steps_between_evaluations(self) -> int:
        """Steps between two judgements."""
        return self.evaluate_every or max(1, self.steps // 20)


CPU_WIDTH = 0.25


def default_size(size_of_images: int) -> int:
    """64 pixels, or 32 where the images have fewer: an enlargement adds no detail."""
    return 64 if size_of_images >= 64 else 32


def default_width(recipe: RecipeName, device_type: str) -> float:
    """The width where none was asked for; `dcgan` keeps its published size everywhere."""
    return CPU_WIDTH if recipe == "tail" and device_type == "cpu" else 1.0


RUN_ONLY = (
    "resume",
    "overwrite",
    "dry_run",
    "json",
    "out",
    "device",
    "save_seconds",
    "data",
    "cuda_graphs",
    "guards",
    "snapshots",
)
"""Fields that do not change what is learned (the images themselves are compared instead)."""
