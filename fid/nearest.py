"""The nearest training image of each generated one, under the eight symmetries of the square.

A galaxy has no up: a generator that returns a training image rotated has copied it. Distances
are root-mean-square differences of images reduced to 16x16 means. There a copy is near whatever
its noise: on Galaxy Zoo ellipticals with noise of 8 grey levels all of 50 rotated copies are
found at 16x16, and 1 of 50 among all 64x64 pixels; no fresh galaxy is mistaken in either.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from fid.manifold import squared_distances
from galaxies.errors import InputError
from galaxies.symmetry import SYMMETRIES, all_symmetries

COMPARED_SIDE = 16
"""Pixels to a side at which images are compared; a smaller image is compared as it is."""

_QUERY_BLOCK = 256


@dataclass(frozen=True)
class NearestImages:
    """For each of m images its nearest among n others.

    Attributes
    ----------
    index : (m,) int64
        Which of the n.
    distance : (m,) float64
        Root-mean-square difference of the reduced images, pixels in [0, 1].
    symmetry : (m,) int64
        Symmetry that, applied to the query, brings it nearest (`galaxies.symmetry`).
    """

    index: np.ndarray
    distance: np.ndarray
    symmetry: np.ndarray


def nearest_under_symmetries(
    queries: torch.Tensor,
    references: torch.Tensor,
    *,
    exclude: np.ndarray | None = None,
) -> NearestImages:
    """Nearest reference of each query image.

    Parameters
    ----------
    queries, references
        (m, C, H, H) and (n, C, H, H), uint8, or float in [0, 1].
    exclude
        (m,) or (m, e) int64: references that do not count for each query, such as the query
        itself.

    Raises
    ------
    InputError
        If shapes differ or a query has no reference left.
    """
    if queries.shape[1:] != references.shape[1:]:
        raise InputError(
            f"images of {tuple(queries.shape[1:])} and {tuple(references.shape[1:])} "
            "(channels, height, width) cannot be compared pixel by pixel"
        )
    excluded = None
    if exclude is not None:
        excluded = torch.from_numpy(np.asarray(exclude, dtype=np.int64)).view(len(queries), -1)
    if len(references) <= (0 if excluded is None else excluded.shape[1]):
        raise InputError("there is no image to compare with")
    reduced = reduce_images(references).flatten(1)
    centre = reduced.mean(dim=0)  # keeps the squared distances from cancelling
    reduced -= centre
    parts = []
    for start in range(0, len(queries), _QUERY_BLOCK):
        rows = slice(start, start + _QUERY_BLOCK)
        barred = None if excluded is None else excluded[rows]
        parts.append(_nearest_of_block(queries[rows], reduced, centre, barred))
    if not parts:
        return NearestImages(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
    index, distance, symmetry = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return NearestImages(index, distance, symmetry)


def reduce_images(images: torch.Tensor) -> torch.Tensor:
    """(n, C, s, s) float32 means of boxes, which turn with the image; pixels in [0, 1].

    Reduced images may stand for the images themselves wherever those are compared.
    """
    side = min(COMPARED_SIDE, images.shape[-1])
    scale = 255 if images.dtype == torch.uint8 else 1
    # Sums of whole numbers are exact in any order, so a turned copy stays at a distance of 0.
    blocks = [
        F.adaptive_avg_pool2d(images[start : start + 1024].to(torch.float32), side) / scale
        for start in range(0, len(images), 1024)
    ]
    return torch.cat(blocks) if blocks else torch.zeros((0, images.shape[1], side, side))


def _nearest_of_block(
    queries: torch.Tensor,
    references: torch.Tensor,
    centre: torch.Tensor,
    excluded: torch.Tensor | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index, distance and symmetry of each query."""
    count = len(queries)
    turned = reduce_images(all_symmetries(queries).flatten(0, 1)).flatten(1) - centre
    distances = squared_distances(turned, references).view(SYMMETRIES, count, -1)
    nearest, element = distances.min(dim=0)
    if excluded is not None:
        nearest.scatter_(1, excluded, torch.inf)
    index = nearest.argmin(dim=1)
    symmetry = element.gather(1, index[:, None])[:, 0]
    # Once more without the matrix product, so that a copy is at exactly 0.
    best = turned.view(SYMMETRIES, count, -1)[symmetry, torch.arange(count)]
    gap = (best - references[index]).to(torch.float64).square().mean(dim=1).sqrt()
    return index.numpy(), gap.numpy(), symmetry.numpy()
