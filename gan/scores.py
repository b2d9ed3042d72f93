"""Up to three scores of each generated image, and choosing the best by one of them.

A generator makes good and bad images; a judge that never saw them can throw out the bad. Too
strict a choice returns what the judge already knows, so the share is stated with the set.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from galaxies.pixels import to_network
from gan.judge import class_probabilities_of, nearest_distance, thumbnails, views_of_class
from gan.judge_training import trained_extractor
from gan.loaded_generator import LoadedGenerator, load_discriminator
from gan.networks import MinibatchDeviation
from gan.training_data import resize_set

SCORE_NAMES = ("discriminator", "classifier", "distance")
"""The discriminator's logit; the probability of the class; the distance to the nearest training
image of the class, in units of that between training images."""

_BATCH = 64
_MOST_COMPARED = 100  # training images whose own nearest neighbour is looked for


class Scorer:
    """Scores images of one generator.

    Only what ``names`` needs is read and computed: the discriminator's logits need the checkpoint
    alone. For the others the training images are read again from the set that the checkpoint
    names, and checked against the fingerprints that it holds. A generator of one class has no
    classifier, so its images have NaN in that column.

    Parameters
    ----------
    loaded
        The generator.
    by
        Score that images are to be chosen by.
    names
        Scores to compute, of `SCORE_NAMES`: the columns of `score`.
    data
        The set of the training images; ``None`` for the one that the checkpoint names.

    Raises
    ------
    InputError
        If the images are to be chosen ``by`` a classifier that there cannot be, or the training
        images are needed and not there.
    """

    def __init__(
        self,
        loaded: LoadedGenerator,
        *,
        by: str | None = None,
        names: Sequence[str] = SCORE_NAMES,
        data: str | None = None,
    ) -> None:
        assert loaded.checkpoint is not None
        self.loaded, self.names = loaded, tuple(names)
        self.probabilities: Callable[[Tensor], np.ndarray] | None = None
        if "discriminator" in names:
            self.discriminator = load_discriminator(loaded)
        if not {"classifier", "distance"} & set(names):
            return
        self.train = training_images(loaded, loaded.checkpoint, data)
        if "classifier" not in names:
            return
        if len(np.unique(self.train.labels)) > 1:
            extractor = trained_extractor(
                loaded.checkpoint,
                self.train,
                seed=int(loaded.description.command["seed"]),
                device=loaded.device,
                progress=True,
            )
            self.probabilities = class_probabilities_of(extractor, self.train)
        elif by == "classifier":
            raise InputError(
                f"{loaded.checkpoint} was trained on one class, and a classifier needs two; "
                "choose --by discriminator or --by distance"
            )

    def score(self, index: int, images: Tensor) -> np.ndarray:
        """(n, len(names)) float64 scores of (n, C, S, S) stored pixels of class ``index``."""
        measures = {
            "discriminator": self._logits,
            "classifier": self._certainties,
            "distance": self._distances,
        }
        return np.stack([measures[name](index, images) for name in self.names], axis=1)

    def _certainties(self, index: int, images: Tensor) -> np.ndarray:
        if self.probabilities is None:
            return np.full(len(images), np.nan)
        return self.probabilities(images)[:, index]

    @torch.no_grad()
    def _logits(self, index: int, images: Tensor) -> np.ndarray:
        description, device = self.loaded.description, self.loaded.device
        label = list(description.data.made).index(index)
        conditioning = torch.tensor(self.loaded.conditioning, device=device)
        logits = []
        # Whole groups of four, as in training; the last one is filled with the first images.
        filled = -(-len(images) // MinibatchDeviation.GROUP) * MinibatchDeviation.GROUP
        for block in images[torch.arange(filled) % len(images)].split(_BATCH):
            seen = to_network(block.to(device), description.data.flux_stretch)
            labels = torch.full((len(block),), label, device=device)
            logits.append(self.discriminator(seen, labels, conditioning).cpu())
        return torch.cat(logits)[: len(images)].double().numpy()

    def _distances(self, index: int, images: Tensor) -> np.ndarray:
        twin = int(self.train.mirror_permutation()[index])
        shown = self.train.of_classes(sorted({index, twin}))
        pixels, labels = thumbnails(shown.pixels, shown.stretch), shown.labels
        references = views_of_class(pixels, labels, index, twin)
        own = references.parts[0][0][:_MOST_COMPARED]
        usual = nearest_distance(own, references, torch.arange(len(own)))
        distances = nearest_distance(thumbnails(images, shown.stretch), references)
        return (distances / usual.median().clamp_min(1e-12)).double().numpy()


def chosen_rows(scores: np.ndarray, count: int) -> np.ndarray:
    """Rows of the ``count`` highest of (n,) scores, in their own order."""
    order = np.argsort(-scores, kind="stable")
    return np.sort(order[:count])


def training_images(loaded: LoadedGenerator, checkpoint: Path, data: str | None = None) -> ImageSet:
    """The generator's training images, read from ``data``, or the set that its config names.

    Raises
    ------
    InputError
        If the set is not there any more, or holds other images.
    """
    from galaxies.sources import open_image_set
    from gan.checkpoint import read_training_images

    source = data or loaded.description.data.source
    fingerprints, ids = read_training_images(checkpoint)
    try:
        images = open_image_set(source)
    except InputError as error:
        raise InputError(
            f"these scores need the training images of {checkpoint}, named {source!r} "
            f"(--by discriminator alone does not): {error}; if it has moved, pass --data"
        ) from None
    position = {str(name): row for row, name in enumerate(images.ids)}
    absent = [name for name in ids if name not in position]
    if absent:
        raise InputError(
            f"{source} no longer holds {len(absent)} of the {len(ids)} training images of "
            f"{checkpoint}, such as {absent[0]!r}"
        )
    own = images.select(np.array([position[name] for name in ids]))
    if own.fingerprints().tolist() != fingerprints:
        raise InputError(f"{source} holds other pixels than those {checkpoint} was trained on")
    return resize_set(own, loaded.size).in_memory()
