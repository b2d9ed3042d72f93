"""A trained generator, and the discriminator that judged it, read from a checkpoint."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from galaxies.class_names import class_index
from galaxies.errors import InputError
from gan.build import build_discriminator, build_generator
from gan.checkpoint import (
    RunDescription,
    read_description,
    read_stored_weights,
    run_and_step,
)


@dataclass(frozen=True)
class LoadedGenerator:
    """A generator ready to sample.

    Attributes
    ----------
    network : nn.Module
        In evaluation mode, on ``device``.
    description : RunDescription
        The ``config.json`` of its run.
    conditioning : float
        How much the class mattered when the weights were saved: 1 after the ramp.
    device : torch.device
        Where it runs.
    checkpoint : Path or None
        Its folder; ``None`` inside a run.
    step : int or None
        Step of the snapshot that it is; ``None`` for the weights that the run chose.
    sha256 : str or None
        Digest of the file that its weights were read from; ``None`` inside a run.
    """

    network: nn.Module
    description: RunDescription
    conditioning: float
    device: torch.device
    checkpoint: Path | None = None
    step: int | None = None
    sha256: str | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """All classes of the set that it was trained on."""
        return self.description.data.class_names

    @property
    def made_classes(self) -> tuple[str, ...]:
        """Classes that it can make."""
        return tuple(self.class_names[index] for index in self.description.data.made)

    @property
    def training_classes(self) -> tuple[str, ...]:
        """Classes that its run was asked for."""
        return tuple(self.class_names[index] for index in self.description.data.chosen)

    @property
    def channels(self) -> int:
        """Channels of its images."""
        return self.description.shape.channels

    @property
    def size(self) -> int:
        """Side of its images, in pixels."""
        return self.description.shape.size

    def class_index(self, name: str | int) -> int:
        """Index, in the training set, of a class that this generator makes.

        Raises
        ------
        InputError
            If it cannot make it; lists those that it can.
        """
        names = self.class_names
        try:
            index = class_index(name, names)
        except InputError:
            index = -1
        if index not in self.description.data.made:
            able = ", ".join(f"{i} {names[i]}" for i in self.description.data.made)
            raise InputError(f"this generator cannot make class {name!r}; it makes: {able}")
        return index


def load_generator(
    checkpoint: Path | str, device: torch.device | str = "cpu", step: int | None = None
) -> LoadedGenerator:
    """Load a checkpoint of ``gan-train``, or its snapshot of ``step``; no code in it runs.

    Parameters
    ----------
    checkpoint
        Folder of the run, or a file in its ``snapshots/``.
    device
        Where it shall run.
    step
        Of a snapshot; without it the weights that the run chose.

    Raises
    ------
    InputError
        If it is not a checkpoint, or is damaged.
    """
    folder, step = run_and_step(Path(checkpoint), step)
    description = read_description(folder)
    stored = read_stored_weights(folder, step)
    tensors = stored.tensors
    network = build_generator(description.shape, description.parts, torch.Generator())
    _load_part(network, tensors, "generator.", folder)
    return LoadedGenerator(
        network=network.eval().requires_grad_(False).to(device),
        description=description,
        conditioning=float(tensors["conditioning"]),
        device=torch.device(device),
        checkpoint=folder,
        step=step,
        sha256=stored.sha256,
    )


def load_discriminator(loaded: LoadedGenerator) -> nn.Module:
    """The discriminator that judged this generator when its weights were saved.

    Raises
    ------
    InputError
        If the run goes on and has replaced its weights since the generator was loaded.
    """
    assert loaded.checkpoint is not None
    description = loaded.description
    stored = read_stored_weights(loaded.checkpoint, loaded.step)
    if stored.sha256 != loaded.sha256:
        raise InputError(
            f"{loaded.checkpoint} is being trained and has just replaced its weights; try again, "
            "or name a snapshot with --step"
        )
    tensors = stored.tensors
    network = build_discriminator(description.shape, description.parts, torch.Generator())
    _load_part(network, tensors, "discriminator.", loaded.checkpoint)
    return network.eval().requires_grad_(False).to(loaded.device)


def _load_part(network: nn.Module, tensors: dict[str, Tensor], prefix: str, folder: Path) -> None:
    own = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        raise InputError(
            f"{folder}: weights and config.json do not belong together ("
            f"{str(error).splitlines()[0]})"
        ) from None
