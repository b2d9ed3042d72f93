"""How often the discriminator's images are augmented: a probability of each class that adapts.

Augmentation costs sharpness where nothing is memorised yet and is needed where something is
(Karras et al. 2020, arXiv:2006.06676). Here each class has its own probability, moved by how
much more often the discriminator calls its training images real than held-out ones
(`gan.overfitting`); without held-out images one probability follows the mean sign of the logits
of all real images, as in the paper.
"""

from collections.abc import Callable

import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from gan.overfitting import HeldOutImages
from gan.recipes import Parts
from gan.synchronised_norm import is_distributed

SIGN_IMAGES = 100_000
"""Images in which the probability moves from 0 to 1 where it watches signs."""

SIGN_WEIGHT = 0.05
"""Of a step in the average over steps of the mean sign."""

WATCH_IMAGES = 1600
"""Training images between looks at held-out images: a class of fifty images is learnt by heart
within some ten thousand."""

WATCH_WEIGHT = 0.25
"""Of a look in the average over looks: one look at a dozen images is uncertain by .1 to .2."""

WATCH_GAIN = 0.5
"""Move of the probability at one look, per overfitting beyond the dead zone."""

MOST_MOVE = 0.05  # of the probability at one look

DEAD_ZONE = 0.02
"""Distance from the target within which nothing moves."""

MOST_PROBABILITY = 0.85


class AdaptiveAugmentation:
    """The probability of augmentation of each class, in tensors that stay in place.

    Parameters
    ----------
    parts
        ``augment_probability`` is where it begins, ``augment_target`` what it shall hold what is
        watched at; a target of 0 keeps it fixed.
    classes
        How many there are.
    batch_size
        Images per step over all processes.
    device
        Where the probabilities live.
    held_out
        Images to watch; without them it watches the signs of the logits.

    Attributes
    ----------
    probability : Tensor
        (K,) float32; without held-out images all are equal.
    overfitting : Tensor
        (K,) float32, running mean of what `gan.overfitting.HeldOutImages` measured.
    mean_sign : Tensor
        () float32, running mean of the sign of the logits of real images.
    """

    def __init__(
        self,
        parts: Parts,
        classes: int,
        batch_size: int,
        device: torch.device,
        held_out: HeldOutImages | None = None,
    ) -> None:
        self.target, self.batch_size, self.held_out = parts.augment_target, batch_size, held_out
        self.adapts = bool(parts.augment) and parts.augment_target > 0
        self.probability = torch.full((classes,), parts.augment_probability, device=device)
        self.overfitting = torch.full((classes,), parts.augment_target, device=device)
        self.mean_sign = torch.full((), parts.augment_target, device=device)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a later step depends on, by the name that a run's state gives it."""
        return {
            "probability": self.probability,
            "overfitting_average": self.overfitting,
            "mean_sign": self.mean_sign,
        }

    def observe(self, sign: Tensor) -> None:
        """Take up the mean ``sign`` () of one step's logits of real images.

        Moves the probabilities where nothing is held out; part of the CUDA graph.
        """
        self.mean_sign.lerp_(sign, SIGN_WEIGHT)
        if self.adapts and self.held_out is None:
            reach = self.batch_size / SIGN_IMAGES
            self._move(reach * (self.mean_sign - self.target).sign())

    @property
    def steps_between_looks(self) -> int:
        """Steps of about `WATCH_IMAGES` images together."""
        return max(1, round(WATCH_IMAGES / self.batch_size))

    def is_due(self, number: int) -> bool:
        """Whether held-out images are to be looked at after step ``number`` (from 1)."""
        return self.held_out is not None and number % self.steps_between_looks == 0

    @torch.no_grad()
    def look(self, judge: Callable[[Tensor, Tensor], Tensor], number: int) -> None:
        """Look at held-out images after step ``number``; outside the CUDA graph.

        Moves the probability of each class in proportion to how far its average over the last
        looks lies from the target.

        Parameters
        ----------
        judge
            Logits (M,) of images (M, C, S, S) in [-1, 1] with labels (M,), whose zero lies
            between real and generated.
        number
            Of the step, from 1; each look sees other training images.
        """
        assert self.held_out is not None
        measured = self.held_out.overfitting(judge, number // self.steps_between_looks)
        if is_distributed():  # the last bits of a logit may differ between devices
            distributed.all_reduce(measured)
            measured /= distributed.get_world_size()
        self.overfitting.lerp_(measured, WATCH_WEIGHT)
        move = WATCH_GAIN * F.softshrink(self.overfitting - self.target, DEAD_ZONE)
        self._move(move.clamp(-MOST_MOVE, MOST_MOVE))
        # What cannot be watched is too rare to be spared: as much as the most of the others.
        watched = self.held_out.counts > 0
        most = self.probability.where(watched, torch.zeros_like(self.probability)).max()
        self.probability.copy_(torch.where(watched, self.probability, most))

    def _move(self, move: Tensor) -> None:
        self.probability.copy_((self.probability + move).clamp(0, MOST_PROBABILITY))
