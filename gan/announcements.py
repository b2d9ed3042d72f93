"""What a run says on stderr beside its progress bar; with several processes the first alone."""

import sys

import torch
from tqdm import tqdm

from gan.overfitting import LEAST_HELD_OUT, unwatched_classes
from gan.preparation import Preparation
from gan.recipes import RECIPES
from gan.training_config import CPU_WIDTH, TrainConfig

TOLD_HOURS = 0.1  # from here on a user is told how long it will take
LONG_HOURS = 2.0  # from here on a CPU user is told what would shorten the wait


class Announcer:
    """Sentences of one run.

    Parameters
    ----------
    config, preparation
        What the run is about.
    device
        Where it trains.
    speaks
        Whether this process is the one that says things.
    progress
        Whether a person watches.
    """

    def __init__(
        self,
        config: TrainConfig,
        preparation: Preparation,
        device: torch.device,
        *,
        speaks: bool,
        progress: bool,
    ) -> None:
        self.config, self.preparation, self.device = config, preparation, device
        self.speaks, self.progress = speaks, progress
        self._looks = 0
        self._told_eager: str | None = None

    def say(self, sentence: str) -> None:
        """A warning, above the bar."""
        if self.speaks:
            tqdm.write(f"warning: {sentence}", file=sys.stderr)

    def what_is_missing(self, *, watches_held_out: bool) -> None:
        """Classes that are not trained on, and held-out images that the recipe would watch."""
        left_out = self.preparation.left_out
        if left_out:
            listed = ", ".join(f"{name!r} ({count})" for name, count in left_out.items())
            self.say(
                f"classes with fewer than 2 training images are left out: {listed}; the class of "
                "their mirror images, where there is one, is not mirrored"
            )
        usual, parts = RECIPES[self.config.recipe], self.preparation.parts
        if self.config.augment_watch is None and parts.augment_watch != usual.augment_watch:
            self.say(
                "no class has 4 validation images: the augmentation watches the signs of the "
                "logits of all classes together, and may not notice that a rare one is memorised"
            )
        if watches_held_out:
            assert self.preparation.validation is not None
            absent = unwatched_classes(self.preparation.validation, self.preparation.made)
            if absent:
                names = self.preparation.data.class_names
                self.say(
                    f"classes with fewer than {LEAST_HELD_OUT} validation images cannot be watched "
                    f"for memorising: {', '.join(repr(names[index]) for index in absent)}; they "
                    "are augmented as often as the class that needs it most"
                )

    def eager_steps(self, reason: str | None) -> None:
        """Why CUDA graphs are not used; plain and penalised steps may fail one by one."""
        if reason and reason != self._told_eager:
            self._told_eager = reason
            self.say(f"no CUDA graphs, so these steps are slower: {reason}")

    def time_left(self, steps_left: int, steps_per_second: float) -> None:
        """Once: the time to go, and on a CPU what would shorten it."""
        self._looks += 1
        # The first look of CUDA holds the choice of kernels and the capture of graphs.
        if self._looks != (2 if self.device.type == "cuda" else 1):
            return
        hours = steps_left / max(steps_per_second, 1e-9) / 3600
        time_left = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
        width = self.preparation.shape.width
        if hours > LONG_HOURS and self.device.type == "cpu" and width > CPU_WIDTH:
            self.say(
                f"at this speed {time_left} remain; --width {width / 2:g} takes "
                "about a quarter of it, and Ctrl-C saves what --resume goes on with"
            )
        elif hours > TOLD_HOURS and self.progress and self.speaks:
            tqdm.write(f"at this speed {time_left} remain", file=sys.stderr)
