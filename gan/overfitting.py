"""How far the discriminator knows its training images by heart, class by class.

Adaptive augmentation needs to see overfitting. The mean sign of the logits of real images (r_t of
Karras et al. 2020, arXiv:2006.06676) is taken over the whole batch, where a class of fifty images
among thousands does not show, and it is high as well for a class that the generator merely draws
badly. Held-out images tell the two apart (their r_v): a class is overfitted where its training
images are called real and held-out ones are not.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from galaxies.image_set import ImageSet
from galaxies.pixels import to_network
from gan.training_data import TrainingData

LEAST_HELD_OUT = 4
"""Held-out images without which a class cannot be watched and is augmented as the others are."""

MOST_HELD_OUT = 32
"""Held-out images of one class that are looked at."""

_GROUP = 4  # images that the minibatch deviation compares


class HeldOutImages:
    """Held-out images on the device, and as many training images of the same classes beside them.

    Parameters
    ----------
    images
        The validation side, at the network's size.
    classes
        Indices, in the set, of the classes that the discriminator knows, in its order.
    data
        The training images.
    """

    def __init__(self, images: ImageSet, classes: Sequence[int], data: TrainingData) -> None:
        device = data.pixels.device
        unwatched = unwatched_classes(images, classes)
        rows, labels, ranks = [], [], []
        for place, index in enumerate(classes):
            own = torch.from_numpy((images.labels == index).nonzero()[0])
            if index in unwatched:
                continue
            own = own[torch.linspace(0, len(own) - 1, min(len(own), MOST_HELD_OUT)).long()]
            rows.append(own)
            labels.append(torch.full_like(own, place))
            ranks.append(torch.arange(len(own)))
        if not rows:
            raise ValueError(f"no class has {LEAST_HELD_OUT} held-out images")
        # Classes mixed, as in a batch: the discriminator sees its neighbours.
        order = torch.randperm(sum(map(len, rows)), generator=torch.Generator().manual_seed(0))
        order = order[: len(order) // _GROUP * _GROUP]
        self.labels = torch.cat(labels)[order].to(device)
        self._pixels = images.pixels[torch.cat(rows)[order]].to(device)
        self._ranks = torch.cat(ranks)[order].to(device)
        self._data = data
        self.counts = torch.bincount(self.labels, minlength=data.classes)

    def overfitting(self, judge: Callable[[Tensor, Tensor], Tensor], turn: int) -> Tensor:
        """Half of how much higher the mean sign of the logits is for training images.

        Parameters
        ----------
        judge
            Logits (M,) of images (M, C, S, S) in [-1, 1] with labels (M,).
        turn
            Counts the calls, so that each sees other training images.

        Returns
        -------
        Tensor
            (K,) float32 in [-1, 1]: 0 where training images are judged as held-out ones are, 1
            where all of the first and none of the second are called real. A class with too few
            held-out images has the mean of the others.
        """
        data = self._data
        counts = data.counts[self.labels]
        own = (self._ranks + turn * self.counts[self.labels]) % counts
        beside = data.pixels[data.starts[self.labels] + own]
        known = judge(to_network(beside, data.stretch), self.labels).sign()
        unknown = judge(to_network(self._pixels, data.stretch), self.labels).sign()
        sums = torch.zeros(data.classes, device=known.device)
        sums.index_add_(0, self.labels, (known - unknown).float() / 2)
        seen = self.counts > 0
        means = sums / self.counts.clamp_min(1)
        return torch.where(seen, means, means.sum() / seen.sum())


def unwatched_classes(images: ImageSet, classes: Sequence[int]) -> list[int]:
    """Those of ``classes`` (indices of the set) with fewer held-out images than are needed."""
    counts = images.counts()
    return [index for index in classes if counts[index] < LEAST_HELD_OUT]


def has_held_out_images(images: ImageSet | None, classes: Sequence[int]) -> bool:
    """Whether at least one class has images enough to be watched."""
    return images is not None and len(unwatched_classes(images, classes)) < len(classes)
