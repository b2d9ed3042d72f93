"""The nearest training image of each generated one, under the eight symmetries of the square.

A galaxy has no up: a generator that returns a training image rotated has copied it. Distances
are root-mean-square differences of pixels in [0, 1]. Candidates come from images reduced to at
most 16x16, where a copy is near whatever its noise; the 64 nearest are measured in full.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from fid.manifold import squared_distances
from galaxies.errors import InputError
from galaxies.symmetry import SYMMETRIES, all_symmetries, apply_symmetry

_COARSE_SIDE = 16
_CANDIDATES = 64
_QUERY_BLOCK = 64


@dataclass(frozen=True)
class NearestImages:
    """For each of m images its nearest among n others.

    Attributes
    ----------
    index : (m,) int64
        Which of the n.
    distance : (m,) float64
        Root-mean-square difference of pixels in [0, 1].
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
        (m,) int64: a reference that does not count for each query (-1 for none), such as the
        query itself.

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
    if len(references) < 1 + (exclude is not None):
        raise InputError("there is no image to compare with")
    coarse_references = _coarse(references)
    centre = coarse_references.mean(dim=0)
    coarse_references = coarse_references - centre
    count = len(queries)
    index = np.zeros(count, dtype=np.int64)
    distance = np.zeros(count)
    symmetry = np.zeros(count, dtype=np.int64)
    for start in range(0, count, _QUERY_BLOCK):
        rows = slice(start, min(start + _QUERY_BLOCK, count))
        block = queries[rows]
        excluded = None if exclude is None else torch.from_numpy(np.asarray(exclude[rows]))
        candidates, elements = _candidates(block, coarse_references, centre, excluded)
        exact = _exact_distances(block, references, candidates, elements)
        best = exact.argmin(dim=1)
        own = torch.arange(len(block))
        index[rows] = candidates[own, best].numpy()
        symmetry[rows] = elements[own, best].numpy()
        distance[rows] = exact[own, best].numpy()
    return NearestImages(index, distance, symmetry)


def _coarse(images: torch.Tensor) -> torch.Tensor:
    """(n, C*s*s) float32: mean pixels of s x s boxes, which turn with the image."""
    side = min(_COARSE_SIDE, images.shape[-1])
    blocks = [
        F.adaptive_avg_pool2d(_unit(images[start : start + 1024]), side).flatten(1)
        for start in range(0, len(images), 1024)
    ]
    return torch.cat(blocks)


def _unit(images: torch.Tensor) -> torch.Tensor:
    if images.dtype == torch.uint8:
        return images.to(torch.float32).div_(255)
    return images.to(torch.float32)


def _candidates(
    block: torch.Tensor,
    coarse_references: torch.Tensor,
    centre: torch.Tensor,
    excluded: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(b, k) indices of references and (b, k) symmetries of the query, nearest first."""
    count, references = len(block), len(coarse_references)
    turned = all_symmetries(block)  # 8 x b x C x H x H
    coarse = _coarse(turned.flatten(0, 1)) - centre
    distances = squared_distances(coarse, coarse_references).view(SYMMETRIES, count, references)
    # One symmetry a reference, its best: twins under symmetry would fill the list.
    nearest, element = distances.min(dim=0)
    if excluded is not None:
        own = torch.nonzero(excluded >= 0).flatten()
        nearest[own, excluded[own]] = torch.inf
    kept = min(_CANDIDATES, references - (excluded is not None))
    candidates = nearest.topk(kept, dim=1, largest=False).indices
    return candidates, element.gather(1, candidates)


def _exact_distances(
    block: torch.Tensor,
    references: torch.Tensor,
    candidates: torch.Tensor,
    elements: torch.Tensor,
) -> torch.Tensor:
    """(b, k) float64 root-mean-square differences."""
    distances = torch.empty(candidates.shape, dtype=torch.float64)
    for row, image in enumerate(block):
        turned = apply_symmetry(_unit(image).expand(SYMMETRIES, *image.shape), _EVERY)
        others = _unit(references[candidates[row]])
        gaps = (turned[elements[row]] - others).flatten(1)
        distances[row] = gaps.square().mean(dim=1).to(torch.float64).sqrt()
    return distances


_EVERY = torch.arange(SYMMETRIES)
