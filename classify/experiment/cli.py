"""``augment-and-eval``: its flags and its entry point."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from classify.tabular.options import ColumnOptions
from galaxies.command_line import named_on_command_line, run_command
from galaxies.errors import InputError

MINIMUM_REPEATS = 2

Measure = Literal[
    "recall_at_false_positive_rate", "recall_at_precision", "recall", "average_precision"
]


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Prove whether generated images raised the recall of a class, and at what cost.

    Trains every arm several times with paired seeds and the same number of optimiser steps, and
    ends with a verdict in words: helped, harmed, no detectable effect, or too small to tell.
    Killed at any point, the same command goes on where it was.
    """

    data: str = "simulated"
    """Image set: a packed .h5, a folder per class, .npz, or `simulated`, the embedded survey. Or
    a table of photometry (CSV, Parquet, FITS, .npz): its arms add generated rows."""
    table: Annotated[ColumnOptions, tyro.conf.arg(name="")] = field(default_factory=ColumnOptions)
    """Choices that concern a table."""
    colours: bool = False
    """Tables: add differences of neighbouring magnitudes (u-g, g-r, ...)."""
    classes: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="class", metavar="CLASS")
    ] = ()
    """The class whose recall is at stake, by index or name (default 0; the rarest of a table)."""
    gan: tuple[Path, ...] = ()
    """Checkpoint of gan-train; several ones are compared, and their quality is held against what
    they bring."""
    synthetic: Path | None = None
    """A generated set (.h5 or folder of gan-generate) instead of --gan."""
    arms: str = "plain,balanced,gan"
    """Comma-separated arms, such as plain,balanced,gan@0.5,gan@1+filtered; groups: classic,
    doses, generated, full. Baselines that an arm needs are added."""
    repeats: int = 10
    """Paired trainings of each arm (2 or more; below 5 the intervals are very wide)."""
    folds: int = 0
    """Cross-fit over so many folds, with one generator trained per fold: every image is tested
    once by models that never saw it. The recommended form for a rare class. 0 uses the set's own
    split."""
    steps: int = 800
    """Optimiser steps of each training, the same in every arm."""
    out: Path | None = None
    """Results folder; default results/DATA-CLASS."""
    overwrite: bool = False
    """Use --out though another experiment stands there; finished runs that fit are kept."""
    report_only: bool = False
    """Recompute statistics and report from the stored probabilities; train nothing."""
    json: bool = False
    """Print results.json's verdict and comparisons as one JSON object on stdout."""

    measure: Measure = "recall_at_false_positive_rate"
    """What the verdict is about. At one false-positive rate, recall cannot be bought by calling
    more images the class; recall alone can."""
    false_positive_rate: float = 0.02
    """Rate at which recalls are matched; thresholds are chosen on validation images."""
    precision: float = 0.5
    """Precision at which recalls are matched; thresholds are chosen on validation images."""
    smallest_effect: float = 0.02
    """Smallest effect of interest: a difference below it does not matter in practice."""
    sharp_enough: float = 0.05
    """A null is called "no detectable effect" only where an effect of this size would have been
    seen (power .8)."""
    draws: int = 1000
    """Bootstrap draws of the test images."""

    model: str | None = None
    """Classifier, by a name that classify-train knows; default `small`, or `gradient-boosting` for
    a table, where an algorithm is a part of an arm as well (random-forest+gan@1)."""
    batch_size: int = 64
    """Images per step."""
    learning_rate: float = 2e-3
    """Peak learning rate."""
    best_by: Literal["balanced-accuracy", "loss", "last"] = "balanced-accuracy"
    """What chooses the weights of each training on its validation images."""

    gan_recipe: Literal["tail", "dcgan"] = "tail"
    """Recipe of the generators that --folds trains."""
    gan_steps: int | None = None
    """Steps of the generators that --folds trains (6000), or that make rows of a table (2000)."""
    gan_width: float | None = None
    """Factor on their channels; the cost grows with its square. Default 1; 0.25 on a CPU."""
    gan_batch_size: int = 64
    """Images per step of those generators."""
    gan_scope: Literal["all", "class"] = "all"
    """Images that those generators learn from: all classes, or the chosen one."""
    gan_parts: tuple[str, ...] = ()
    """Further flags of gan-train for those generators, such as loss=relativistic r2=9."""
    keep: int = 0
    """Limit the real training images of the class, to induce an imbalance; 0 keeps all. The
    others are held back, for arms such as real@1."""
    real_counts: str = ""
    """Learning curve: repeat the experiment with so many real images, such as 25,50,100."""
    screen: bool = False
    """Measure the generators cheaply and say what earlier experiments predict of them, instead
    of running the arms."""
    screen_from: tuple[Path, ...] = ()
    """Results folders that --screen learns from; default all of results/."""
    features: str = "classifier"
    """Features of the quality measures: `classifier` (trained on the training images),
    `inception`, or `timm:NAME`."""
    feature_weights: Path | None = None
    """File of weights for --features."""

    workers: int = 0
    """Processes that train at the same time; 0: one per CPU core, or 6 on a GPU."""
    threads: int = 1
    """CPU threads of each training. The results do not depend on --workers, but their last
    digits depend on this."""
    dask: str | None = None
    """Address of a Dask scheduler (tcp://…) that trains instead of local workers."""
    dask_resources: tuple[str, ...] = ()
    """What each training occupies of a Dask worker, such as GPU=1."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where there is one."""
    seed: int = 0
    """Seed of folds, borders, initial weights and every draw."""
    allow_leak: bool = False
    """Go on though images or groups cross the split; the report is marked."""

    def __post_init__(self) -> None:
        if self.repeats < MINIMUM_REPEATS:
            raise InputError(
                f"--repeats must be at least {MINIMUM_REPEATS}, got {self.repeats}: fewer paired "
                "trainings have no usable interval"
            )
        if len(self.classes) > 1:
            raise InputError("one experiment is about one class; pass --class once")
        if self.gan and self.synthetic is not None:
            raise InputError("--gan and --synthetic contradict each other; pass one of them")
        if self.folds and (self.gan or self.synthetic is not None):
            raise InputError(
                "--folds trains a generator per fold, because a ready one may have seen images "
                "that a fold tests; drop --gan or --synthetic, or drop --folds"
            )
        if self.folds == 1 or self.folds < 0:
            raise InputError(f"--folds must be 0 or at least 2, got {self.folds}")
        for name in ("steps", "draws", "threads", "gan_steps", "gan_batch_size", "batch_size"):
            if (getattr(self, name) or 1) < 1 or getattr(self, name) == 0:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1")
        for name in ("keep", "workers"):
            if getattr(self, name) < 0:
                raise InputError(f"--{name} must not be negative, got {getattr(self, name)}")
        for name in ("false_positive_rate", "precision"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} must lie between 0 and 1")
        if self.gan_width is not None and not 0.05 <= self.gan_width <= 8:
            raise InputError(f"--gan-width must be from 0.05 to 8, got {self.gan_width}")
        for name in ("smallest_effect", "sharp_enough"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} must lie between 0 and 1")
        self.real_count_values()
        self.dask_resource_values()

    def real_count_values(self) -> list[int]:
        """The numbers of ``--real-counts``."""
        try:
            counts = [int(part) for part in self.real_counts.split(",") if part.strip()]
        except ValueError:
            raise InputError(
                f"--real-counts is a list such as 25,50, got {self.real_counts!r}"
            ) from None
        if any(count < 2 for count in counts):
            raise InputError("--real-counts must be 2 or more")
        return sorted(set(counts))

    def dask_resource_values(self) -> dict[str, float]:
        """The pairs of ``--dask-resources``."""
        try:
            pairs = [word.split("=") for word in self.dask_resources]
            return {name: float(amount) for name, amount in pairs}
        except ValueError:
            raise InputError("--dask-resources is a list such as GPU=1") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run_command(
        ExperimentConfig, lambda config: _run(config, words), words, program="augment-and-eval"
    )


def _run(config: ExperimentConfig, words: Sequence[str]) -> None:
    from classify.experiment.command import run

    run(config, named=named_on_command_line(words))


if __name__ == "__main__":
    raise SystemExit(main())
