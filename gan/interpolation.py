"""A walk through latents: neighbours must look alike, and no stop like a copy of the next."""

import dataclasses

import torch
from torch import Tensor

from gan.sampling import CHUNK, Drawn, LoadedGenerator, draw_chunk, render


def walk(
    loaded: LoadedGenerator,
    index: int,
    *,
    stops: int,
    between: int,
    seed: int,
    truncation: float = 1.0,
) -> Tensor:
    """A closed walk of ``stops`` latents with ``between`` images from one to the next.

    Noise and symmetry stay those of the first stop, so that only the galaxy changes. Latents
    are joined along great circles, where a normal latent has its usual length.

    Returns
    -------
    Tensor
        (stops * between, C, S, S) float32 around [-1, 1], on the CPU.
    """
    random = torch.Generator().manual_seed(seed * 1_000_003 + index)
    drawn = draw_chunk(loaded, random)
    anchors = drawn.latent[:stops]
    latents = torch.stack(
        [
            great_circle(anchors[stop], anchors[(stop + 1) % stops], part / between)
            for stop in range(stops)
            for part in range(between)
        ]
    )
    images = []
    for block in latents.split(CHUNK):
        same = torch.zeros(len(block), dtype=torch.int64)
        images.append(
            render(
                loaded,
                dataclasses.replace(
                    Drawn(block, None, same),
                    noise=None if drawn.noise is None else drawn.noise[same],
                ),
                index,
                truncation,
            ).cpu()
        )
    return torch.cat(images)


def great_circle(start: Tensor, end: Tensor, share: float) -> Tensor:
    """Spherical interpolation of two vectors (d,), their lengths interpolated linearly."""
    unit_start, unit_end = start / start.norm(), end / end.norm()
    angle = torch.arccos((unit_start * unit_end).sum().clamp(-1, 1))
    if angle < 1e-4:
        return start.lerp(end, share)
    direction = (
        torch.sin((1 - share) * angle) * unit_start + torch.sin(share * angle) * unit_end
    ) / torch.sin(angle)
    return direction * torch.lerp(start.norm(), end.norm(), share)
