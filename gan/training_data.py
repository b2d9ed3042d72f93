"""The training images on the device, and batches drawn from them without the host.

A batch is a pure function of uniform random numbers, so it can be part of a CUDA graph, and a
process of several draws exactly its part of the common batch.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from galaxies.errors import InputError
from galaxies.image_set import ImageSet, PixelsInMemory
from galaxies.pixels import Stretch, to_network
from galaxies.symmetry import SYMMETRIES, apply_symmetry, is_mirrored, mirror_labels
from gan.augmentation import sky_level
from gan.recipes import Parts, SymmetryName

BATCH_DRAWS = 3
"""Uniform numbers that one real image takes: class, index within the class, symmetry."""

LEAST_IMAGES = 2


@dataclass(frozen=True)
class TrainingData:
    """Images of the classes that a generator makes, resident on one device.

    Attributes
    ----------
    pixels : Tensor
        (N, C, S, S) uint8, or float32 flux, sorted by class.
    starts, counts : Tensor
        (K,) int64: where each class begins in ``pixels`` and how many images it has.
    cumulative : Tensor
        (K,) float32: cumulative probability of the class draws.
    permutation : Tensor
        (K,) int64: class of a mirrored image.
    symmetries : Tensor
        (s,) int64: the symmetries that are drawn; only the identity where there are none.
    untwinned : Tensor or None
        (K,) bool: classes that are turned but never mirrored, because the class of their mirror
        image is not trained on; ``None`` where there are none.
    sky : Tensor
        (C,) float32 level of the sky in [-1, 1].
    contrast : Tensor
        Scalar float32: root mean square of the images above the sky.
    stretch : Stretch or None
        How flux becomes network input.
    """

    pixels: Tensor
    starts: Tensor
    counts: Tensor
    cumulative: Tensor
    permutation: Tensor
    symmetries: Tensor
    untwinned: Tensor | None
    sky: Tensor
    contrast: Tensor
    stretch: Stretch | None

    @property
    def classes(self) -> int:
        """Number of classes, K."""
        return len(self.counts)

    def batch(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Real images (N, C, S, S) in [-1, 1] and labels (N,) from (N, BATCH_DRAWS) uniforms."""
        drawn = torch.searchsorted(self.cumulative, draws[:, 0].contiguous(), right=True)
        classes = drawn.clamp_max(self.classes - 1)
        counts = self.counts[classes]
        within = (draws[:, 1] * counts).long()
        rows = self.starts[classes] + torch.minimum(within, counts - 1)
        images = to_network(self.pixels[rows], self.stretch)
        elements = self.draw_symmetries(draws[:, 2])
        return self.transform(images, classes, elements)

    def draw_symmetries(self, draws: Tensor) -> Tensor:
        """(N,) symmetries from (N,) uniforms."""
        positions = (draws * len(self.symmetries)).long()
        return self.symmetries[positions.clamp_max(len(self.symmetries) - 1)]

    def transform(self, images: Tensor, labels: Tensor, elements: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels under one symmetry each."""
        if len(self.symmetries) == 1:
            return images, labels
        if self.untwinned is not None:
            elements = torch.where(self.untwinned[labels], without_mirror(elements), elements)
        return apply_symmetry(images, elements), mirror_labels(labels, elements, self.permutation)


def class_probabilities(
    counts: np.ndarray, chosen: list[int], parts: Parts, twins: np.ndarray | None = None
) -> np.ndarray:
    """(K,) probability of drawing each class: n to a power, the chosen ones at least a share.

    Parameters
    ----------
    counts
        (K,) images of each class.
    chosen
        Places of the classes that ``parts.chosen_share`` of a batch must show.
    parts
        Uses ``balance`` and ``chosen_share``.
    twins
        (K,) place of the class that a class shows where it is mirrored, which half of a batch is;
        ``None`` where nothing is mirrored.
    """
    weights = np.where(counts > 0, counts.astype(float) ** parts.balance, 0.0)
    probabilities = weights / weights.sum()
    if twins is not None and set(twins[chosen]) != set(chosen):
        return _lifted_with_twins(probabilities, chosen, twins, parts.chosen_share)
    share = probabilities[chosen].sum()
    if 0 < share < parts.chosen_share:
        others = np.setdiff1d(np.arange(len(counts)), chosen)
        probabilities[chosen] *= parts.chosen_share / share
        probabilities[others] *= (1 - parts.chosen_share) / (1 - share)
    return probabilities


def _lifted_with_twins(
    probabilities: np.ndarray, chosen: list[int], twins: np.ndarray, least: float
) -> np.ndarray:
    """The chosen classes lifted to ``least`` together, as far as their twins leave room.

    Once half of a batch is mirrored it shows a class as often as its twin, so both are lifted.
    """
    shown = (probabilities + probabilities[twins]) / 2
    share = shown[chosen].sum()
    if not 0 < share < least:
        return probabilities
    lifted = np.union1d(chosen, twins[chosen])
    others = np.setdiff1d(np.arange(len(shown)), lifted)
    before = shown[lifted].sum()
    factor = min(least / share, 1 / before)
    shown[lifted] *= factor
    shown[others] *= max(0.0, 1 - factor * before) / max(shown[others].sum(), 1e-12)
    return shown


def allowed_symmetries(name: SymmetryName, classes: list[int], permutation: Tensor) -> list[int]:
    """The symmetries to draw; without mirrors where no class may be mirrored.

    A class whose twin is not trained on may not; where others may, `without_mirror` spares it.
    """
    if name == "none":
        return [0]
    elements = list(range(SYMMETRIES))
    if name == "rotations" or all(untwinned_classes(classes, permutation)):
        mirrored = is_mirrored(torch.tensor(elements)).tolist()
        elements = [element for element in elements if not mirrored[element]]
    return elements


def untwinned_classes(classes: list[int], permutation: Tensor) -> list[bool]:
    """Whether the class of a mirror image is missing, for each of the trained ``classes``."""
    return [int(permutation[index]) not in classes for index in classes]


def without_mirror(elements: Tensor) -> Tensor:
    """Symmetries (any shape, int64) with each mirrored one replaced by a rotation of its own."""
    return torch.where(is_mirrored(elements), elements ^ 1, elements)


def prepare_training_data(
    images: ImageSet, classes: list[int], chosen: list[int], parts: Parts, device: torch.device
) -> TrainingData:
    """Put the images of ``classes`` (indices of the set) on the device, sorted by class.

    Raises
    ------
    InputError
        If a class has fewer than two images.
    """
    counts = images.counts()[classes]
    for index, count in zip(classes, counts, strict=True):
        if count < LEAST_IMAGES and index in chosen:
            raise InputError(
                f"class {images.class_names[index]!r} has {count} training images; "
                f"at least {LEAST_IMAGES} are needed"
            )
    order = np.concatenate([np.flatnonzero(images.labels == index) for index in classes])
    pixels = images.pixels
    if not np.array_equal(order, np.arange(len(pixels))):  # sorted already: no second copy
        pixels = pixels[torch.from_numpy(order)].contiguous()
    _check_room(pixels, device)
    full_permutation = images.mirror_permutation()
    position = {index: place for place, index in enumerate(classes)}
    permutation = [
        position.get(int(full_permutation[index]), place) for place, index in enumerate(classes)
    ]
    untwinned = untwinned_classes(classes, full_permutation)
    symmetries = torch.tensor(allowed_symmetries(parts.symmetries, classes, full_permutation))
    twins = np.array(permutation) if is_mirrored(symmetries).any() else None
    probabilities = class_probabilities(counts, [position[index] for index in chosen], parts, twins)
    sample = to_network(pixels[:: max(1, len(pixels) // 1000)], images.stretch)
    sky = sky_level(sample)
    above = sample.sub_(sky[:, None, None])  # in place: large images take gigabytes
    return TrainingData(
        pixels=pixels.to(device),
        starts=torch.from_numpy(np.concatenate([[0], np.cumsum(counts)[:-1]])).to(device),
        counts=torch.from_numpy(counts).to(device),
        cumulative=torch.from_numpy(np.cumsum(probabilities)).float().to(device),
        permutation=torch.tensor(permutation, device=device),
        symmetries=symmetries.to(device),
        untwinned=torch.tensor(untwinned, device=device) if any(untwinned) else None,
        sky=sky.to(device),
        contrast=above.square_().mean().sqrt().clamp_min(1e-3).to(device),
        stretch=images.stretch,
    )


def resize_set(images: ImageSet, size: int) -> ImageSet:
    """The set at another size, resized with antialiasing (bicubic), in memory."""
    if images.size == size:
        return images
    store = torch.empty((len(images), images.channels, size, size), dtype=images.store.dtype)
    for rows, block in images.blocks():
        resized = F.interpolate(
            block.float(), size=(size, size), mode="bicubic", antialias=True, align_corners=False
        )
        if store.dtype == torch.uint8:
            resized = resized.round_().clamp_(0, 255)
        store[rows[0] : rows[-1] + 1] = resized.to(store.dtype)
    return dataclasses.replace(images, store=PixelsInMemory(store))


def _check_room(pixels: Tensor, device: torch.device) -> None:
    if device.type != "cuda":
        return
    free, _ = torch.cuda.mem_get_info(device)
    if pixels.nbytes > 0.7 * free:
        raise InputError(
            f"the training images take {pixels.nbytes / 2**30:.1f} GiB, the device has "
            f"{free / 2**30:.1f} GiB free; choose a smaller --size or --device cpu"
        )
