"""Classifiers of a fold's real images that filter and judge: trained once and kept on disk."""

from typing import Protocol

import torch

from classify.determinism import derived_seed
from classify.experiment.division import Setting
from classify.experiment.protocol import Fold
from classify.experiment.training_names import as_named, identity, with_own_precision
from classify.experiment.units import UnitStore, digest
from classify.joint_features import JOINT_NETWORKS
from classify.training import TrainedClassifier, TrainingConfig, load_classifier
from galaxies.image_set import ImageSet

IMAGE_SELECTOR = "small"
"""What filters and judges where the arms' network needs features beside each image."""


class TrainFunction(Protocol):
    """The signature of `classify.training.train_classifier` that units use."""

    def __call__(
        self,
        train: ImageSet,
        validation: ImageSet | None,
        config: TrainingConfig,
        *,
        synthetic: ImageSet | None = None,
        device: torch.device | str = "cpu",
        progress: bool = True,
    ) -> TrainedClassifier:
        """Train one classifier."""
        ...


def selector_training(setting: Setting, fold: int) -> TrainingConfig:
    """Balanced sampling and symmetries, seed of its own, and a network that sees images alone."""
    own = {"model": IMAGE_SELECTOR} if setting.training["model"] in JOINT_NETWORKS else {}
    return TrainingConfig(
        **{
            **setting.training,
            "balance": "sampling",
            "symmetries": True,
            "seed": derived_seed(setting.seed, "selector", fold) % 2**31,
            **own,
        }
    )


class KeptClassifiers:
    """The ``selectors`` folder of a results folder.

    Parameters
    ----------
    images, data
        The real images, and their digest.
    setting
        Shared by all units.
    train
        As `classify.training.train_classifier`.
    """

    def __init__(self, images: ImageSet, data: str, setting: Setting, train: TrainFunction) -> None:
        self.images, self.data, self.setting = images, data, setting
        self._train = train
        self._loaded: dict[str, TrainedClassifier] = {}

    def get(
        self, what: str, sides: Fold, config: TrainingConfig, device: torch.device
    ) -> TrainedClassifier:
        """The classifier of a fold's training images, trained where it is not there yet."""
        config = with_own_precision(config, device.type)
        content = {
            "what": what,
            "data": self.data,
            "train": sides.train.tolist(),
            "validation": sides.validation.tolist(),
            "training": identity(config),
        }
        if device.type != "cpu":  # as for units: those from before the field are found again
            content["device"] = device.type
        key = digest(content)
        if key not in self._loaded:
            folder = self.setting.folder
            place = folder / "selectors" / key
            with UnitStore(folder).claim(key, wait=True):
                if place.is_dir():
                    self._loaded[key] = load_classifier(place, device)
                else:
                    torch.set_num_threads(self.setting.threads)
                    trained = self._train(
                        self.images.select(sides.train),
                        self.images.select(sides.validation),
                        as_named(config, device.type),
                        device=device,
                        progress=False,
                    )
                    trained.save(place)
                    self._loaded[key] = trained
        return self._loaded[key]
