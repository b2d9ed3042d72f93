"""A path between two generated images of one class, to see whether the way makes sense.

Latents move along the great circle between their two ends (White 2016, arXiv:1609.04468), since
the middle of a straight line is shorter than any latent that the generator was trained on. The
pixel noise and the symmetry stay those of the first image, so only the galaxy changes.
"""

import torch
from torch import Tensor

from galaxies.pixels import to_storage
from gan.sampling import Drawn, LoadedGenerator, draw_chunk, render


def great_circle(start: Tensor, end: Tensor, frames: int) -> Tensor:
    """(frames, n) float32 from ``start`` (n,) to ``end`` (n,), both included.

    The length changes evenly from that of the one to that of the other.
    """
    share = torch.linspace(0, 1, frames).unsqueeze(1)
    cosine = torch.dot(start, end) / (start.norm() * end.norm())
    angle = torch.acos(cosine.clamp(-1, 1))
    if torch.sin(angle) < 1e-6:
        return start.lerp(end, share)
    directions = (
        torch.sin((1 - share) * angle) * start / start.norm()
        + torch.sin(share * angle) * end / end.norm()
    ) / torch.sin(angle)
    return directions * start.norm().lerp(end.norm(), share)


def latent_walk(
    loaded: LoadedGenerator, class_index: int, seed: int, frames: int = 8, truncation: float = 1.0
) -> Tensor:
    """Images along the way from the first to the second image of a seed.

    Parameters
    ----------
    loaded
        The generator.
    class_index
        Index of the class in the training set.
    seed
        As in `gan.sampling.generate`.
    frames
        Number of images, both ends included; at least 2.
    truncation
        As in `gan.sampling.generate`.

    Returns
    -------
    Tensor
        (frames, C, S, S) uint8, or float32 flux where the training set was flux, on the CPU.
    """
    random = torch.Generator().manual_seed(seed * 1_000_003 + class_index)
    drawn = draw_chunk(loaded, random)
    path = Drawn(
        latent=great_circle(drawn.latent[0], drawn.latent[1], frames),
        noise=None if drawn.noise is None else drawn.noise[:1].expand(frames, -1),
        elements=drawn.elements[:1].expand(frames),
    )
    images = render(loaded, path, class_index, truncation)
    return to_storage(images, loaded.description.data.flux_stretch).cpu()
