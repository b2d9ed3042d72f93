"""Images from a trained generator: the same bytes for the same seed, whatever the count.

Latents are drawn on the CPU in chunks of a fixed size, and the network runs on whole chunks, so
the first hundred images of five hundred are the hundred that a smaller request gives.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from galaxies.pixels import to_storage
from galaxies.symmetry import apply_symmetry, is_mirrored, mirror_permutation
from gan.checkpoint import RunDescription
from gan.loaded_generator import LoadedGenerator
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
