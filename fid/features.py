"""One contract for whatever turns images into features, and one registry of it.

A new kind of features is one function ``(argument, weights, device) -> FeatureExtractor`` and
one line in the entry-point group ``galaxy_augment.features`` of any installed package.
"""

import re
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from galaxies.errors import InputError
from galaxies.image_set import ImageSet

FEATURES_GROUP = "galaxy_augment.features"
TRAINERS_GROUP = "galaxy_augment.feature_trainers"


class FeatureExtractor(Protocol):
    """Images to features, and what must be known to repeat it."""

    @property
    def name(self) -> str:
        """``inception``, a timm model's name, ``classifier``: what the distance is named by."""
        ...

    @property
    def dimensions(self) -> int:
        """Number of features, d."""
        ...

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights' file."""
        ...

    @property
    def recipe(self) -> str:
        """Name of the way from pixels to the network; equal names mean equal steps."""
        ...

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) uint8 to (n, d) float32, on the extractor's device."""
        ...


Loader = Callable[[str, Path | None, torch.device], FeatureExtractor]
"""(argument after the colon, weights, device) to an extractor."""


def load_extractor(
    specification: str, weights: Path | None = None, device: torch.device | str = "cpu"
) -> FeatureExtractor:
    """Make the extractor that a user names.

    Parameters
    ----------
    specification
        ``KIND`` or ``KIND:ARGUMENT``: ``inception``, ``inception:RECIPE``, ``timm:NAME``,
        ``classifier:CHECKPOINT``, or a kind that another package registered.
    weights
        File of weights; ``None`` uses the kind's own place.
    device
        Where the network runs.

    Raises
    ------
    InputError
        If there is no such kind, or its weights cannot be used.
    """
    kind, _, argument = specification.partition(":")
    loaders = registered_loaders()
    if kind not in loaders:
        raise InputError(
            f"there are no features {kind!r}; choose from {', '.join(sorted(loaders))} "
            "(--features KIND or KIND:ARGUMENT)"
        )
    return loaders[kind]()(argument, weights, torch.device(device))


def registered_loaders() -> dict[str, Callable[[], Loader]]:
    """Kinds of features: name -> function that imports and returns the loader."""

    def inception() -> Loader:
        from fid.inception_features import load

        return load

    def timm() -> Loader:
        from fid.timm_features import load

        return load

    loaders: dict[str, Callable[[], Loader]] = {"inception": inception, "timm": timm}
    for entry in entry_points(group=FEATURES_GROUP):
        if entry.name in loaders:
            raise RuntimeError(f"features {entry.name!r} are registered twice: {entry.value}")
        loaders[entry.name] = cast(Callable[[], Loader], entry.load)
    return loaders


def train_extractor(
    train: ImageSet, *, seed: int, device: torch.device | str, progress: bool
) -> FeatureExtractor:
    """Train a judge on a training split, by the package that registered itself for it.

    Raises
    ------
    InputError
        If no installed package can train one.
    """
    trainers = sorted(entry_points(group=TRAINERS_GROUP), key=lambda entry: entry.name)
    if not trainers:
        raise InputError(
            f"no installed package trains features (entry-point group {TRAINERS_GROUP}); "
            "reinstall galaxy-augment"
        )
    trainer: Callable[..., Any] = trainers[0].load()
    return cast(
        FeatureExtractor,
        trainer(train, seed=seed, device=torch.device(device), progress=progress),
    )


def distance_name(extractor: FeatureExtractor) -> str:
    """Name of a Fréchet distance on these features."""
    return name_of_distance(extractor.name, extractor.weights_sha256)


def name_of_distance(features: str, weights_sha256: str) -> str:
    """FID for the published network alone, else ``FD(...)``.

    A timm model loses its tag and a trailing ``_NNN`` (width or input side), so
    ``mobilenetv2_100.ra_in1k`` gives ``FD(mobilenetv2)``.
    """
    from fid.inception import WEIGHTS_SHA256

    if features == "inception" and weights_sha256 == WEIGHTS_SHA256:
        return "FID"
    return f"FD({short_name(features)})"


def short_name(model: str) -> str:
    """A model's name without its pretrained tag and trailing ``_NNN``."""
    return re.sub(r"_\d{3}$", "", model.partition(".")[0])
