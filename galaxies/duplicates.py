"""Duplicates in an image set, and what crosses its split: images, copies of images, groups.

A copy in the test split of an image in the training split makes every number too good. Exact
duplicates have equal pixels; near ones are the same picture rotated, mirrored, re-encoded or
slightly shifted (`galaxies.likeness`). Two exposures of one object are neither: their noise
differs, and only a group column can keep them together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from galaxies.image_set import SPLITS, ImageSet
from galaxies.likeness import (
    CLOSEST_HASH,
    CLOSEST_SPECTRUM,
    HASH_BITS,
    SAME_PIXELS,
    Signatures,
    same_pixels,
    signatures,
)
from galaxies.symmetry import is_mirrored

_BLOCK = 1024  # most images compared with all others at a time
_BLOCK_PAIRS = 2**24  # and most pairs: half a dozen float32 values of each are in memory
_PAIRS = 256  # pairs whose pixels are compared at a time
_MOST_PAIRS_PER_IMAGE = 12  # bounds the work on sets of blank or identical images


@dataclass(frozen=True)
class Pair:
    """Two rows of a set that show the same picture.

    Attributes
    ----------
    first, second : int
        Rows, ``first < second``.
    exact : bool
        Whether their pixels are equal.
    mirrored : bool
        Whether one is a mirror image of the other.
    """

    first: int
    second: int
    exact: bool
    mirrored: bool


@dataclass(frozen=True)
class LeakReport:
    """What is wrong with a set, as pairs of rows and as sentences.

    Attributes
    ----------
    pairs : tuple of Pair
        Every exact and near duplicate that was found.
    crossing_pairs : tuple of Pair
        Those that stand on two sides of the split.
    crossing_groups : tuple of str
        Groups that stand on two sides of the split.
    conflicting_pairs : tuple of Pair
        Duplicates with different classes (a mirror image may have its twin's class).
    problems : tuple of str
        One sentence each, for people.
    """

    pairs: tuple[Pair, ...]
    crossing_pairs: tuple[Pair, ...]
    crossing_groups: tuple[str, ...]
    conflicting_pairs: tuple[Pair, ...]
    problems: tuple[str, ...]

    @property
    def crosses_split(self) -> bool:
        """Whether a duplicate or a group stands on two sides of the split."""
        return bool(self.crossing_pairs or self.crossing_groups)

    @property
    def exact(self) -> tuple[Pair, ...]:
        """The pairs with equal pixels."""
        return tuple(pair for pair in self.pairs if pair.exact)

    @property
    def near(self) -> tuple[Pair, ...]:
        """The pairs that are copies, but not equal."""
        return tuple(pair for pair in self.pairs if not pair.exact)


def leaks(image_set: ImageSet, *, near: bool = True, progress: bool = True) -> LeakReport:
    """Find duplicates, and what of them and of the groups crosses the split.

    Parameters
    ----------
    image_set
        With or without a split; without one nothing crosses.
    near
        Also look for near duplicates; without, pixels are only hashed.
    progress
        Show bars on stderr.
    """
    pairs = _exact_pairs(image_set.fingerprints())
    if near:
        pairs += near_duplicates(image_set, known=pairs, progress=progress)
    split = image_set.split
    crossing: list[Pair] = []
    groups: tuple[str, ...] = ()
    if split is not None:
        crossing = [pair for pair in pairs if split[pair.first] != split[pair.second]]
        if image_set.group is not None:
            groups = _crossing_groups(image_set.group, split)
    twin = image_set.mirror_permutation().numpy()
    labels = image_set.labels
    conflicting = [
        pair
        for pair in pairs
        if labels[pair.first] != labels[pair.second]
        and not (pair.mirrored and twin[labels[pair.first]] == labels[pair.second])
    ]
    return LeakReport(
        tuple(pairs),
        tuple(crossing),
        groups,
        tuple(conflicting),
        tuple(_sentences(image_set, crossing, groups, conflicting)),
    )


def near_duplicates(
    image_set: ImageSet, *, known: Sequence[Pair] = (), progress: bool = True
) -> list[Pair]:
    """Pairs of rows that show the same picture under a symmetry, a re-encoding or a small shift.

    Of equal images (``known``) only the first is compared with others.
    """
    repeated = {pair.second for pair in known if pair.exact}
    rows = np.array([row for row in range(len(image_set)) if row not in repeated], dtype=np.int64)
    if len(rows) < 2:
        return []
    looked_at = _signatures_of(image_set.select(rows), progress)
    found: list[Pair] = []
    candidates = _candidates(looked_at, progress)
    for start in range(0, len(candidates), _PAIRS):
        first, second = candidates[start : start + _PAIRS].T
        likeness, element = same_pixels(looked_at.residuals[first], looked_at.residuals[second])
        mirrored = is_mirrored(torch.from_numpy(element)).numpy()
        found += [
            Pair(int(rows[i]), int(rows[j]), False, bool(mirror))
            for i, j, like, mirror in zip(first, second, likeness, mirrored, strict=True)
            if like >= SAME_PIXELS
        ]
    return found


def duplicate_groups(image_set: ImageSet, pairs: Sequence[Pair]) -> np.ndarray:
    """Return (N,) str groups that keep duplicates, and the set's own groups, together."""
    if image_set.group is None:
        start = np.arange(len(image_set))
    else:
        start = np.unique(image_set.group, return_inverse=True)[1]
    parent = np.arange(len(image_set))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = int(parent[node])
        return node

    for pair in pairs:
        parent[root(int(start[pair.second]))] = root(int(start[pair.first]))
    merged = np.array([root(int(node)) for node in start])
    if image_set.group is None:
        return image_set.ids[merged]
    return np.unique(image_set.group)[merged]


def _signatures_of(image_set: ImageSet, progress: bool) -> Signatures:
    whole: Signatures | None = None
    done = 0  # a disabled bar does not count
    with tqdm(
        total=len(image_set), desc="compare", unit="image", disable=not progress, leave=False
    ) as bar:
        for _, block in image_set.blocks():
            for piece in block.split(_BLOCK):
                part = signatures(piece)
                whole = whole or _room_for(part, len(image_set))
                rows = slice(done, done + len(piece))
                done += len(piece)
                whole.hashes[:, rows] = part.hashes
                whole.spectra[rows] = part.spectra
                whole.residuals[rows] = part.residuals
                bar.update(len(piece))
    assert whole is not None
    # What all images of a set share (sky, compression, sampling) tells nothing about a pair.
    spectra = whole.spectra
    mean, spread = spectra.mean(0), spectra.std(0).clamp(min=1e-6)
    spectra.sub_(mean).div_(spread)
    spectra.sub_(spectra.mean(1, keepdim=True))
    spectra.div_(spectra.norm(dim=1, keepdim=True).clamp(min=1e-6))
    return whole


def _room_for(part: Signatures, count: int) -> Signatures:
    """Of ``count`` images, to be filled: parts beside their concatenation take twice the memory."""
    return Signatures(
        part.hashes.new_empty((part.hashes.shape[0], count, part.hashes.shape[2])),
        part.spectra.new_empty((count, part.spectra.shape[1])),
        np.empty((count, *part.residuals.shape[1:]), part.residuals.dtype),
    )


def _candidates(looked_at: Signatures, progress: bool) -> np.ndarray:
    """(pairs, 2) int64 rows, first < second, that a signature holds for alike."""
    count = len(looked_at.spectra)
    chosen: list[np.ndarray] = []
    block = max(1, min(_BLOCK, _BLOCK_PAIRS // count))
    blocks = range(0, count, block)
    for start in tqdm(blocks, desc="pairs", disable=not progress, leave=False):
        stop = min(start + block, count)
        # Each pair is met once: rows of the block against all rows that follow its first.
        agreement = torch.full((stop - start, count - start), -float(HASH_BITS))
        for version in looked_at.hashes:
            product = looked_at.hashes[0, start:stop] @ version[start:].T
            torch.maximum(agreement, product, out=agreement)
        spectrum = looked_at.spectra[start:stop] @ looked_at.spectra[start:].T
        alike = (agreement >= HASH_BITS - 2 * CLOSEST_HASH) | (spectrum >= CLOSEST_SPECTRUM)
        alike &= torch.ones_like(alike).triu(1)
        score = torch.maximum(agreement / HASH_BITS, spectrum).masked_fill(~alike, -1)
        chosen += _best_of_each(score, start)
    return np.concatenate(chosen) if chosen else np.zeros((0, 2), np.int64)


def _best_of_each(score: torch.Tensor, start: int) -> Iterator[np.ndarray]:
    """The most alike partners of each row of a block, at most so many."""
    most = min(_MOST_PAIRS_PER_IMAGE, score.shape[1])
    values, columns = score.topk(most, dim=1)
    rows = torch.arange(len(score))[:, None].expand_as(columns)
    kept = values >= 0
    yield torch.stack([rows[kept], columns[kept]], dim=1).numpy() + start


def _exact_pairs(fingerprints: np.ndarray) -> list[Pair]:
    """The first of equal images paired with each other one."""
    _, first, inverse = np.unique(fingerprints, return_index=True, return_inverse=True)
    original = first[inverse]
    repeated = np.flatnonzero(original != np.arange(len(fingerprints)))
    return [Pair(int(original[row]), int(row), True, False) for row in repeated]


def _crossing_groups(group: np.ndarray, split: np.ndarray) -> tuple[str, ...]:
    names, members = np.unique(group, return_inverse=True)
    sides = np.zeros((len(names), len(SPLITS)), dtype=bool)
    sides[members, split] = True
    return tuple(str(name) for name in names[sides.sum(axis=1) > 1])


def _sentences(
    image_set: ImageSet,
    crossing: Sequence[Pair],
    groups: Sequence[str],
    conflicting: Sequence[Pair],
) -> Iterator[str]:
    for exact, kind in ((True, "exact"), (False, "near")):
        some = [pair for pair in crossing if pair.exact is exact]
        if some:
            yield (
                f"{len(some)} {kind} duplicate{'s stand' if len(some) > 1 else ' stands'} on two "
                f"sides of the split, such as {_shown(image_set, some[0])}; split anew with: "
                "galaxy-set split SET.h5 --overwrite --duplicates-together"
            )
    if groups:
        yield (
            f"{len(groups)} group{'s stand' if len(groups) > 1 else ' stands'} on two sides of "
            f"the split, such as {groups[0]}; split anew with: galaxy-set split SET.h5 --overwrite"
        )
    if conflicting:
        pair = conflicting[0]
        names = [image_set.class_names[image_set.labels[row]] for row in (pair.first, pair.second)]
        yield (
            f"{len(conflicting)} duplicate{'s carry' if len(conflicting) > 1 else ' carries'} two "
            f"classes, such as {_shown(image_set, pair)} ({names[0]} and {names[1]}); "
            "look at them and correct the catalogue"
        )


def _shown(image_set: ImageSet, pair: Pair) -> str:
    return f"{image_set.ids[pair.first]} and {image_set.ids[pair.second]}"
