"""A trained classifier: images in, logits, probabilities and features out."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classify.augmentation import five_crops
from classify.joint_features import JointFeatures
from classify.networks.network import Network
from classify.networks.registry import NetworkSpecification
from classify.normalisation import Normalisation
from classify.training_config import TrainingConfig
from galaxies.errors import InputError
from galaxies.image_set import ImageSet, PixelsInMemory

EVALUATION_BATCH = 256


@dataclass
class TrainedClassifier:
    """A network with all that its numbers depend on.

    Attributes
    ----------
    network : Network
        In evaluation mode, on ``device``.
    specification : NetworkSpecification
        Rebuilds the network.
    class_names : tuple of str
    size : int
        Side of the images that it takes, in pixels; a network with ``crops`` sees their centre.
    normalisation : Normalisation
        Applied once, here, to stored pixels.
    config : TrainingConfig
    mirror_pairs : tuple of (str, str)
    history : list of dict
        One entry per look at the validation side.
    temperature : float
        Logits are divided by it before the softmax; 1 until it is fitted.
    record : dict
        JSON-able: data fingerprint, metrics, calibration.
    joint_features : JointFeatures or None
        Of a network that sees a table row beside each image.
    """

    network: Network
    specification: NetworkSpecification
    class_names: tuple[str, ...]
    size: int
    normalisation: Normalisation
    config: TrainingConfig
    mirror_pairs: tuple[tuple[str, str], ...] = ()
    history: list[dict[str, Any]] = field(default_factory=list)
    temperature: float = 1.0
    record: dict[str, Any] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    joint_features: JointFeatures | None = None

    @property
    def channels(self) -> int:
        """Channels of the images that it takes."""
        return self.specification.channels

    @property
    def takes_flux(self) -> bool:
        """Whether the images are float32 flux rather than uint8."""
        return self.normalisation.stretch is not None

    def network_input(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) stored pixels to what the network sees, on the device."""
        scaled = self.normalisation(pixels.to(self.device))
        if self.config.crops:
            scaled = five_crops(scaled, self.config.crops, None)
        return scaled.contiguous(memory_format=torch.channels_last)

    def logits(self, images: ImageSet | torch.Tensor) -> torch.Tensor:
        """(n, K) float32 logits on the CPU, before the temperature.

        Parameters
        ----------
        images
            An image set, or (n, C, H, W) stored pixels, of the size it was trained on.
        """
        return self._map(images, self.network)

    def features(self, images: ImageSet | torch.Tensor) -> torch.Tensor:
        """(n, d) float32 penultimate features on the CPU."""
        return self._map(images, self.network.features)

    def probabilities(self, images: ImageSet | torch.Tensor) -> torch.Tensor:
        """(n, K) float64 probabilities on the CPU; rows sum to 1."""
        return self.probabilities_of(self.logits(images))

    def probabilities_of(self, logits: torch.Tensor) -> torch.Tensor:
        """(n, K) logits to float64 probabilities, at the fitted temperature."""
        return torch.softmax(logits.double() / self.temperature, dim=1)

    def save(self, folder: Path, *, overwrite: bool = False) -> None:
        """Write the checkpoint folder; see `classify.checkpoint`."""
        from classify.checkpoint import save_classifier

        save_classifier(self, folder, overwrite=overwrite)

    def refuse_other_images(self, images: ImageSet | torch.Tensor) -> None:
        """Raise `InputError` unless the images have the size and channels of the training."""
        shape = tuple(images.shape[-3:])
        expected = (self.channels, self.size, self.size)
        if shape != expected:
            raise InputError(
                f"this classifier takes images of {self.size}x{self.size} with {self.channels} "
                f"channels, got {shape[2]}x{shape[1]} with {shape[0]}"
            )

    @torch.no_grad()
    def _map(self, images: ImageSet | torch.Tensor, function: Any) -> torch.Tensor:
        self.refuse_other_images(images)
        self.network.eval()
        if isinstance(images, torch.Tensor):
            if self.joint_features is not None:
                raise InputError(
                    f"this classifier needs {len(self.joint_features.names)} features beside each "
                    "image; give it an image set that holds them"
                )
            images = _unlabelled(images, self)
        table = None
        if self.joint_features is not None:
            table = torch.from_numpy(self.joint_features(images)).to(self.device)
        parts = []
        for start in range(0, len(images), EVALUATION_BATCH):
            stop = min(start + EVALUATION_BATCH, len(images))
            seen = self.network_input(images.read(np.arange(start, stop)))
            answer = function(seen) if table is None else function(seen, table[start:stop])
            parts.append(answer.float())
        return torch.cat(parts).cpu() if parts else torch.zeros(0, len(self.class_names))


def with_temperature(classifier: TrainedClassifier, temperature: float) -> TrainedClassifier:
    """Copy that shares the network and divides its logits by another temperature."""
    return dataclasses.replace(classifier, temperature=temperature)


def _unlabelled(pixels: torch.Tensor, classifier: TrainedClassifier) -> ImageSet:
    return ImageSet(
        store=PixelsInMemory(pixels.cpu()),
        labels=np.zeros(len(pixels), np.int64),
        class_names=classifier.class_names,
        ids=np.arange(len(pixels)).astype(str),
        mirror_pairs=classifier.mirror_pairs,
        stretch=classifier.normalisation.stretch,
    )
