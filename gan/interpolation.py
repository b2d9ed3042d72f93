"""Paths through latents of one class: neighbours must look alike, and no stop like the next.

Latents are joined along great circles (White 2016, arXiv:1609.04468), since the middle of a
straight line is shorter than any latent that the generator was trained on. Pixel noise and
symmetry stay those of the first image, so that only the galaxy changes.
"""

import torch
from torch import Tensor

from galaxies.pixels import to_storage
from gan.loaded_generator import LoadedGenerator
from gan.sampling import CHUNK, Drawn, draw_chunk, render


def closed_walk(
    loaded: LoadedGenerator,
    index: int,
    *,
    stops: int,
    between: int,
    seed: int,
    truncation: float = 1.0,
) -> Tensor:
    """A walk through ``stops`` latents and back, ``between`` images from one to the next.

    Parameters
    ----------
    loaded
        The generator.
    index
        Class, as numbered in the training set.
    seed, truncation
        As in `gan.sampling.generate`.

    Returns
    -------
    Tensor
        (stops * between, C, S, S) float32 around [-1, 1], on the CPU.
    """
    drawn = _first_chunk(loaded, index, seed)
    anchors = drawn.latent[:stops]
    latents = [
        great_circle(anchors[stop], anchors[(stop + 1) % stops], part / between)
        for stop in range(stops)
        for part in range(between)
    ]
    return _images_on_path(loaded, index, drawn, torch.stack(latents), truncation)


def open_walk(
    loaded: LoadedGenerator, index: int, *, seed: int, frames: int = 8, truncation: float = 1.0
) -> Tensor:
    """Images from the first to the second image of a seed, both included.

    Parameters
    ----------
    loaded, index, seed, truncation
        As in `closed_walk`.
    frames
        Number of images, at least 2.

    Returns
    -------
    Tensor
        (frames, C, S, S) uint8, or float32 flux where the training set was flux, on the CPU.
    """
    drawn = _first_chunk(loaded, index, seed)
    start, end = drawn.latent[:2]
    latents = [great_circle(start, end, frame / (frames - 1)) for frame in range(frames)]
    images = _images_on_path(loaded, index, drawn, torch.stack(latents), truncation)
    return to_storage(images, loaded.description.data.flux_stretch)


def great_circle(start: Tensor, end: Tensor, share: float) -> Tensor:
    """Spherical interpolation of two vectors (d,), their lengths interpolated linearly."""
    unit_start, unit_end = start / start.norm(), end / end.norm()
    angle = torch.arccos((unit_start * unit_end).sum().clamp(-1, 1))
    if torch.sin(angle) < 1e-4:  # the same direction, or opposite ones, between which none leads
        return start.lerp(end, share)
    direction = (
        torch.sin((1 - share) * angle) * unit_start + torch.sin(share * angle) * unit_end
    ) / torch.sin(angle)
    return direction * torch.lerp(start.norm(), end.norm(), share)


def _first_chunk(loaded: LoadedGenerator, index: int, seed: int) -> Drawn:
    """The numbers behind the first images that `gan.sampling.generate` makes of a seed."""
    return draw_chunk(loaded, torch.Generator().manual_seed(seed * 1_000_003 + index))


def _images_on_path(
    loaded: LoadedGenerator, index: int, drawn: Drawn, latents: Tensor, truncation: float
) -> Tensor:
    images = []
    for block in latents.split(CHUNK):
        first = torch.zeros(len(block), dtype=torch.int64)
        noise = None if drawn.noise is None else drawn.noise[first]
        path = Drawn(block, noise, drawn.elements[first])
        images.append(render(loaded, path, index, truncation).cpu())
    return torch.cat(images)
