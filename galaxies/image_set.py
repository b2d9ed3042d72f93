"""The one concept that travels the whole way: images, labels, classes, split, provenance.

An `ImageSet` keeps its labels and names in memory and reads its pixels through a `PixelStore`,
so the same code serves a set in memory, one in an HDF5 file that is larger than memory, and a
folder of files.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from galaxies.class_names import class_index
from galaxies.errors import InputError
from galaxies.pixels import Stretch
from galaxies.symmetry import default_mirror_pairs, mirror_permutation

SPLITS = ("train", "validation", "test")
"""Names of the values 0, 1, 2 of ``split``."""

BLOCK_BYTES = 16 * 2**20
"""Most pixel bytes that one step of `ImageSet.blocks` holds: the bound on streaming memory."""


class PixelStore(Protocol):
    """Where the pixels of a set are: memory, an HDF5 file, or image files."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """uint8, or float32 for flux."""
        ...

    def read(self, rows: np.ndarray) -> torch.Tensor:
        """(n, C, H, W) pixels of ``rows`` (int64, any order, repeats allowed)."""
        ...


@dataclass(frozen=True)
class PixelsInMemory:
    """A `PixelStore` over one tensor (N, C, H, W), uint8 or float32."""

    pixels: torch.Tensor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        count, channels, height, width = self.pixels.shape
        return count, channels, height, width

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the tensor."""
        return self.pixels.dtype

    def read(self, rows: np.ndarray) -> torch.Tensor:
        """Copy the pixels of ``rows``."""
        return self.pixels[torch.from_numpy(np.asarray(rows, dtype=np.int64))]


@dataclass(frozen=True)
class _SelectedPixels:
    """Some rows of another store, without reading them."""

    store: PixelStore
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.rows), *self.store.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return self.store.dtype

    def read(self, rows: np.ndarray) -> torch.Tensor:
        return self.store.read(self.rows[rows])


def images_with_finite_pixels(pixels: torch.Tensor) -> np.ndarray:
    """(n,) bool: which of (n, C, H, W) images hold neither NaN nor infinity."""
    if pixels.dtype == torch.uint8:
        return np.ones(len(pixels), dtype=bool)
    return torch.isfinite(pixels).flatten(1).all(1).numpy()


@dataclass(frozen=True)
class ImageSet:
    """Labelled square images with their classes, split, ids and history.

    Attributes
    ----------
    store : PixelStore
        Pixels (N, C, H, W), uint8, or float32 flux with ``stretch``.
    labels : (N,) int64
        Class index of each image.
    class_names : tuple of str
        Name of each class, in the order of the indices.
    ids : (N,) str
        Name of each image in its source; unique.
    split : (N,) int8 or None
        0 train, 1 validation, 2 test; ``None`` before the set is split.
    group : (N,) str or None
        Images of one group (a field, an exposure, a source) never stand on two sides of a split.
    features : (N, F) float32
        Tabular features; F may be 0.
    feature_names : tuple of str
        F names.
    mirror_pairs : tuple of (str, str)
        Classes that a mirror turns into each other. ``None`` at construction means the default:
        names that differ only in clockwise against anticlockwise.
    stretch : Stretch or None
        How float32 flux becomes network input; ``None`` for uint8.
    provenance : dict
        JSON-able history: the source and each step; for a synthetic set its generator.
    training_fingerprints, training_ids : (M,) str
        For a synthetic set: `fingerprints` and ids of the images that its generator was trained
        on; empty for a real one.
    """

    store: PixelStore
    labels: np.ndarray
    class_names: tuple[str, ...]
    ids: np.ndarray
    split: np.ndarray | None = None
    group: np.ndarray | None = None
    features: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    feature_names: tuple[str, ...] = ()
    mirror_pairs: tuple[tuple[str, str], ...] | None = None
    stretch: Stretch | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    training_fingerprints: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype="U32"))
    training_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype="U1"))

    def __post_init__(self) -> None:
        count = self.store.shape[0]
        if self.features.size == 0 and not self.feature_names:
            object.__setattr__(self, "features", np.zeros((count, 0), np.float32))
        if self.mirror_pairs is None:
            object.__setattr__(self, "mirror_pairs", default_mirror_pairs(self.class_names))
        self._check()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.store.shape[1:]

    @property
    def channels(self) -> int:
        """Number of channels, C."""
        return self.shape[0]

    @property
    def size(self) -> int:
        """Side of the square images, in pixels."""
        return self.shape[1]

    def __len__(self) -> int:
        return self.store.shape[0]

    @property
    def pixel_bytes(self) -> int:
        """Bytes that all pixels take in memory."""
        return int(np.prod(self.store.shape)) * self.store.dtype.itemsize

    @property
    def is_synthetic(self) -> bool:
        """Whether a generator made these images."""
        return "generator" in self.provenance

    def counts(self) -> np.ndarray:
        """Return (classes,) int64: images per class, also for classes with none."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    def class_index(self, name: str | int) -> int:
        """Index of a class given by name or index, as `galaxies.class_names.class_index` does.

        Raises
        ------
        InputError
            If there is no such class; lists those that exist.
        """
        return class_index(name, self.class_names)

    def select(self, rows: np.ndarray) -> "ImageSet":
        """The images of ``rows`` (int64 or bool), in that order; pixels are not read yet."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        return dataclasses.replace(
            self,
            store=_SelectedPixels(self.store, rows),
            labels=self.labels[rows],
            ids=self.ids[rows],
            split=None if self.split is None else self.split[rows],
            group=None if self.group is None else self.group[rows],
            features=self.features[rows],
        )

    def side(self, name: str) -> "ImageSet":
        """The images of one side of the split: ``train``, ``validation`` or ``test``.

        Raises
        ------
        InputError
            If the set is not split yet, or that side is empty.
        """
        if name not in SPLITS:
            raise InputError(f"there is no split {name!r}; choose from {', '.join(SPLITS)}")
        if self.split is None:
            raise InputError("the set has no split yet; make one with: galaxy-set split SET.h5")
        rows = np.flatnonzero(self.split == SPLITS.index(name))
        if len(rows) == 0:
            source = str(self.provenance.get("source", "the set"))
            raise InputError(
                f"the {name} side of the split of {source} holds no image; give each side a share "
                "with: galaxy-set split SET.h5 --fractions 0.6 0.15 0.25 --overwrite"
            )
        return self.select(rows)

    def of_classes(self, names: Sequence[str | int]) -> "ImageSet":
        """The images of the named classes; labels and class names stay as they are."""
        return self.select(np.isin(self.labels, [self.class_index(name) for name in names]))

    def without_classes(self, names: Sequence[str | int]) -> "ImageSet":
        """Leave classes out; the others keep their order and are numbered anew."""
        dropped = {self.class_index(name) for name in names}
        kept = [index for index in range(len(self.class_names)) if index not in dropped]
        new_index = np.full(len(self.class_names), -1)
        new_index[kept] = np.arange(len(kept))
        rest = self.select(np.isin(self.labels, kept))
        names_left = tuple(self.class_names[index] for index in kept)
        pairs = tuple(p for p in self.mirror_pairs or () if set(p) <= set(names_left))
        return dataclasses.replace(
            rest, labels=new_index[rest.labels], class_names=names_left, mirror_pairs=pairs
        )

    def read(self, rows: np.ndarray) -> torch.Tensor:
        """Read (n, C, H, W) pixels of ``rows``.

        Raises
        ------
        InputError
            If flux is NaN or infinite; names the first such image.
        """
        rows = np.asarray(rows, dtype=np.int64)
        return self._finite(rows, self.store.read(rows))

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield (rows, pixels) in the order of the disk, at most ``block_bytes`` at a time."""
        image_bytes = max(1, self.pixel_bytes // max(1, len(self)))
        step = max(1, block_bytes // image_bytes)
        for start in range(0, len(self), step):
            rows = np.arange(start, min(start + step, len(self)))
            yield rows, self.read(rows)

    def in_memory(self) -> "ImageSet":
        """Copy with all pixels in one tensor."""
        if isinstance(self.store, PixelsInMemory):
            self._finite(np.arange(len(self)), self.store.pixels)
            return self
        pixels = torch.empty(self.store.shape, dtype=self.store.dtype)
        for rows, block in self.blocks():
            pixels[rows[0] : rows[-1] + 1] = block
        return dataclasses.replace(self, store=PixelsInMemory(pixels))

    @property
    def pixels(self) -> torch.Tensor:
        """All pixels (N, C, H, W); reads them where they are not in memory."""
        loaded = self.in_memory().store
        assert isinstance(loaded, PixelsInMemory)
        return loaded.pixels

    def fingerprints(self) -> np.ndarray:
        """Return (N,) str: 128 bits of BLAKE2b over shape, dtype and pixels of each image."""
        prints: list[str] = []
        header = f"{self.shape}{self.store.dtype}".encode()
        for _, block in self.blocks():
            prints += [
                hashlib.blake2b(header + image.tobytes(), digest_size=16).hexdigest()
                for image in block.numpy()
            ]
        return np.array(prints, dtype="U32")

    def mirror_permutation(self) -> torch.Tensor:
        """Return (classes,) int64: the class of the mirror image of each class."""
        return mirror_permutation(self.class_names, self.mirror_pairs or ())

    def _finite(self, rows: np.ndarray, pixels: torch.Tensor) -> torch.Tensor:
        """Give ``pixels`` back, or refuse flux that is none."""
        finite = images_with_finite_pixels(pixels)
        if not finite.all():
            first = self.ids[rows[~finite][0]]
            raise InputError(
                f"{(~finite).sum()} of {len(rows)} images hold pixels that are NaN or infinite, "
                f"such as {first}; leave them out with: galaxy-set pack SOURCE SET.h5 --skip-bad"
            )
        return pixels

    def _check(self) -> None:
        count, channels, height, width = self.store.shape
        if not 1 <= channels <= 10:
            raise InputError(f"images have {channels} channels; 1 to 10 are supported")
        if height != width:
            raise InputError(f"images are {height}x{width}; square ones are needed (use --crop)")
        if self.store.dtype not in (torch.uint8, torch.float32):
            raise InputError(f"images are {self.store.dtype}; uint8 or float32 flux is needed")
        if len(set(self.class_names)) != len(self.class_names):
            raise InputError(f"class names repeat: {', '.join(self.class_names)}")
        columns = {
            "labels": self.labels,
            "ids": self.ids,
            "split": self.split,
            "group": self.group,
            "features": self.features,
        }
        for name, column in columns.items():
            if column is not None and len(column) != count:
                raise InputError(f"{count} images but {len(column)} {name}")
        if self.features.shape[1] != len(self.feature_names):
            raise InputError(
                f"{self.features.shape[1]} feature columns, {len(self.feature_names)} names"
            )
        if count and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise InputError(
                f"labels run from {self.labels.min()} to {self.labels.max()}, "
                f"but there are {len(self.class_names)} class names"
            )
        if self.split is not None and not np.isin(self.split, (0, 1, 2)).all():
            raise InputError("split holds values other than 0 train, 1 validation, 2 test")
