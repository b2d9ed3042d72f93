"""Images from a trained generator: the same bytes for the same seed, whatever the count.

Latents are drawn on the CPU in chunks of a fixed size, and the network runs on whole chunks, so
the first hundred images of five hundred are the hundred that a smaller request gives.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from galaxies.class_names import class_index
from galaxies.errors import InputError
from galaxies.image_set import ImageSet, PixelsInMemory
from galaxies.pixels import to_storage
from galaxies.symmetry import apply_symmetry, is_mirrored, mirror_permutation
from gan.build import build_discriminator, build_generator
from gan.checkpoint import (
    RunDescription,
    read_description,
    read_stored_weights,
    read_training_images,
    run_and_step,
)
from gan.tail_networks import StyleGenerator
from gan.training_data import allowed_symmetries, without_mirror

CHUNK = 64
"""Images that are drawn and computed together."""

TRUNCATION_SAMPLES = 4096


@dataclass(frozen=True)
class Drawn:
    """What one batch of images is made from.

    Attributes
    ----------
    latent : Tensor
        (n, latent) float32.
    noise : Tensor or None
        (n, noise_length) float32.
    elements : Tensor
        (n,) int64 symmetry applied to each finished image.
    """

    latent: Tensor
    noise: Tensor | None
    elements: Tensor


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


def draw_chunk(loaded: LoadedGenerator, random: torch.Generator) -> Drawn:
    """Draw what the next `CHUNK` images are made from, on the CPU."""
    description = loaded.description
    latent = torch.empty(CHUNK, description.parts.latent).normal_(generator=random)
    length: int = loaded.network.noise_length  # type: ignore[assignment]
    noise = torch.empty(CHUNK, length).normal_(generator=random) if length else None
    uniform = torch.empty(CHUNK).uniform_(generator=random)
    allowed = torch.zeros(1, dtype=torch.int64)
    if description.parts.fake_symmetries:
        allowed = torch.tensor(_symmetries_of(description))
    return Drawn(latent, noise, allowed[(uniform * len(allowed)).long()])


@torch.no_grad()
def render(loaded: LoadedGenerator, drawn: Drawn, index: int, truncation: float = 1.0) -> Tensor:
    """Images (n, C, S, S) float32 around [-1, 1], on the device, of class ``index`` of the set."""
    description, device = loaded.description, loaded.device
    made = list(description.data.made)
    mirror = mirror_permutation(description.data.class_names, description.data.mirror_pairs)
    # A mirrored image shows its twin's class, so the twin is made and then mirrored.
    twin = int(mirror[index])
    elements = drawn.elements if twin in made else without_mirror(drawn.elements)
    twin_label = made.index(twin) if twin in made else made.index(index)
    labels = torch.where(
        is_mirrored(elements), torch.tensor(twin_label), torch.tensor(made.index(index))
    ).to(device)
    conditioning = torch.tensor(loaded.conditioning, device=device)
    latent = drawn.latent.to(device)
    noise = None if drawn.noise is None else drawn.noise.to(device)
    network = loaded.network
    if truncation == 1.0:
        images = network(latent, labels, conditioning, noise)
    elif isinstance(network, StyleGenerator):
        images = _render_truncated(network, latent, labels, conditioning, noise, truncation)
    else:
        images = network(latent * truncation, labels, conditioning, noise)
    return apply_symmetry(images.float(), elements.to(device))


def generate(
    loaded: LoadedGenerator,
    class_index: int,
    count: int,
    seed: int,
    truncation: float = 1.0,
    progress: bool = False,
) -> Tensor:
    """Make ``count`` images of one class.

    Parameters
    ----------
    loaded
        The generator.
    class_index
        Index of the class in the training set.
    count
        Number of images.
    seed
        The same seed gives the same images; another class draws its own.
    truncation
        Below 1 pulls the styles towards the class's mean: prettier and more alike. 1 for
        augmentation, where diversity decides.

    Returns
    -------
    Tensor
        (count, C, S, S) uint8, or float32 flux where the training set was flux, on the CPU.
    """
    random = torch.Generator().manual_seed(seed * 1_000_003 + class_index)
    stretch = loaded.description.data.flux_stretch
    pieces = []
    for _ in tqdm(range(0, count, CHUNK), disable=not progress, unit="chunk", desc="generate"):
        images = render(loaded, draw_chunk(loaded, random), class_index, truncation)
        pieces.append(to_storage(images, stretch).cpu())
    if not pieces:
        dtype = torch.uint8 if stretch is None else torch.float32
        return torch.empty((0, loaded.channels, loaded.size, loaded.size), dtype=dtype)
    return torch.cat(pieces)[:count]


def generate_set(
    checkpoint: Path | str,
    classes: tuple[str | int, ...] = (),
    count: int = 500,
    seed: int = 0,
    truncation: float = 1.0,
    device: torch.device | str = "cpu",
    progress: bool = False,
    step: int | None = None,
) -> ImageSet:
    """A synthetic set: ``count`` images of each class, with the history of its generator.

    Parameters
    ----------
    checkpoint
        Folder of ``gan-train``, or a file in its ``snapshots/``.
    classes
        Names or indices of the training set; without any, the classes that the run was for.
    step
        Of a snapshot; without it the weights that the run chose.
    """
    loaded = load_generator(checkpoint, device, step)
    wanted = [loaded.class_index(name) for name in classes or loaded.training_classes]
    if len(set(wanted)) != len(wanted):
        raise InputError("a class is named twice")
    pieces = [generate(loaded, index, count, seed, truncation, progress) for index in wanted]
    return synthetic_set(loaded, wanted, pieces, seed, truncation)


def synthetic_set(
    loaded: LoadedGenerator, classes: list[int], images: list[Tensor], seed: int, truncation: float
) -> ImageSet:
    """Join generated images (one tensor per class) to labels, ids and provenance."""
    assert loaded.checkpoint is not None
    data = loaded.description.data
    fingerprints, ids = read_training_images(loaded.checkpoint)
    labels = np.concatenate(
        [np.full(len(part), index) for index, part in zip(classes, images, strict=True)]
    )
    names = [
        f"generated/{data.class_names[index]}/{seed}-{number:06d}"
        for index, part in zip(classes, images, strict=True)
        for number in range(len(part))
    ]
    return ImageSet(
        store=PixelsInMemory(torch.cat(images)),
        labels=labels.astype(np.int64),
        class_names=data.class_names,
        ids=np.array(names),
        mirror_pairs=data.mirror_pairs,
        stretch=data.flux_stretch,
        provenance={
            "source": f"generated by {loaded.checkpoint}",
            "generator": describe_generator(loaded, classes, seed, truncation),
        },
        training_fingerprints=np.array(fingerprints, dtype="U32"),
        training_ids=np.array(ids, dtype=str),
    )


def describe_generator(
    loaded: LoadedGenerator, classes: list[int], seed: int, truncation: float
) -> dict[str, Any]:
    """The ``provenance["generator"]`` of a synthetic set."""
    assert loaded.checkpoint is not None
    description = loaded.description
    return {
        "checkpoint": str(loaded.checkpoint),
        "checkpoint_sha256": loaded.sha256,
        **({} if loaded.step is None else {"step": loaded.step}),
        "recipe": description.command.get("recipe"),
        "recipe_parts": dataclasses.asdict(description.parts),
        "classes": [loaded.class_names[index] for index in classes],
        "seed": seed,
        "truncation": truncation,
        "trained_on": description.data.source,
        "training_images": dict(
            zip(loaded.made_classes, map(int, description.data.counts), strict=True)
        ),
    }


def mean_style(loaded: LoadedGenerator, labels: Tensor) -> Tensor:
    """(n, STYLE) mean style of the class of each label, over fixed latents."""
    network = loaded.network
    assert isinstance(network, StyleGenerator)
    conditioning = torch.tensor(loaded.conditioning, device=loaded.device)
    return _mean_style(network, labels, conditioning)


def _mean_style(network: StyleGenerator, labels: Tensor, conditioning: Tensor) -> Tensor:
    random = torch.Generator().manual_seed(0)
    latent = torch.empty(TRUNCATION_SAMPLES, network.latent).normal_(generator=random)
    latent = latent.to(labels.device)
    means = torch.stack(
        [
            network.styles(latent, torch.full_like(latent[:, 0], index).long(), conditioning).mean(
                0
            )
            for index in range(network.classes)
        ]
    )
    return means[labels]


def _render_truncated(
    network: StyleGenerator,
    latent: Tensor,
    labels: Tensor,
    conditioning: Tensor,
    noise: Tensor | None,
    truncation: float,
) -> Tensor:
    """Pull the styles towards the mean style of their class (Karras et al. 2019)."""

    def pulled(amount: Tensor) -> Tensor:
        mean = _mean_style(network, labels, amount)
        return mean.lerp(network.styles(latent, labels, amount), truncation)

    own = pulled(conditioning)
    shared = own if network.class_from <= 4 else pulled(torch.zeros_like(conditioning))
    return network.synthesise(own, shared, noise)


def _symmetries_of(description: RunDescription) -> list[int]:
    data = description.data
    permutation = mirror_permutation(data.class_names, data.mirror_pairs)
    return allowed_symmetries(description.parts.symmetries, list(data.made), permutation)


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
