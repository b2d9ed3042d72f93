"""Published image sets: addresses, hashes, class names, and how to tell the Galaxy10 sets apart.

Addresses, hashes and names come from astroNN (``galaxy10.py``, ``galaxy10sdss.py`` and their
documentation) and from mwalmsley/galaxy_mnist.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from galaxies.errors import InputError


@dataclass(frozen=True)
class PublishedFile:
    """One file to download; ``side`` says which canonical side it holds, if the set has one.

    Attributes
    ----------
    url : str
    sha256, md5 : str or None
        Whichever is published.
    side : str or None
        ``train`` or ``test``.
    """

    url: str
    sha256: str | None = None
    md5: str | None = None
    side: str | None = None

    @property
    def name(self) -> str:
        """File name in the address."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class PublishedSet:
    """A published set.

    Attributes
    ----------
    name : str
        What ``galaxy-set fetch`` calls it.
    files : tuple of PublishedFile
    class_names : tuple of str
        In the order of the labels.
    size : int
        Side of the images in pixels.
    counts : tuple of int or None
        Images per class, where the page agrees with the file.
    columns : tuple of str
        Further columns (N,) of the file.
    citation : str
    """

    name: str
    files: tuple[PublishedFile, ...]
    class_names: tuple[str, ...]
    size: int
    citation: str
    counts: tuple[int, ...] | None = None
    columns: tuple[str, ...] = ()


_MNIST_CLASSES = ("smooth_round", "smooth_cigar", "edge_on_disk", "unbarred_spiral")
_MNIST_CITATION = "Walmsley et al. 2022, GalaxyMNIST; Galaxy Zoo DECaLS"
_DROPBOX = "https://dl.dropboxusercontent.com/s"

PUBLISHED_SETS = (
    PublishedSet(
        name="galaxy10-decals",
        files=(
            PublishedFile(
                "https://zenodo.org/records/10845026/files/Galaxy10_DECals.h5",
                sha256="19aefc477c41bb7f77ff07599a6b82a038dc042f889a111b0d4d98bb755c1571",
            ),
        ),
        class_names=(
            "Disturbed",
            "Merging",
            "Round Smooth",
            "In-between Round Smooth",
            "Cigar Shaped Smooth",
            "Barred Spiral",
            "Unbarred Tight Spiral",
            "Unbarred Loose Spiral",
            "Edge-on without Bulge",
            "Edge-on with Bulge",
        ),
        size=256,
        counts=(1081, 1853, 2645, 2027, 334, 2043, 1829, 2628, 1423, 1873),
        columns=("ra", "dec", "redshift", "pxscale"),
        citation="Leung & Bovy 2019; Walmsley et al. 2022, Galaxy Zoo DECaLS",
    ),
    PublishedSet(
        name="galaxy10-sdss",
        files=(
            PublishedFile(
                "https://zenodo.org/records/10844811/files/Galaxy10.h5",
                sha256="969a6b1cefcc36e09fffa86febd2f699a4aa19b837ba0427f01b0bc6ded458af",
            ),
        ),
        class_names=(
            "Disk Face-on No Spiral",
            "Smooth Completely round",
            "Smooth in-between round",
            "Smooth Cigar shaped",
            "Disk Edge-on Rounded Bulge",
            "Disk Edge-on Boxy Bulge",
            "Disk Edge-on No Bulge",
            "Disk Face-on Tight Spiral",
            "Disk Face-on Medium Spiral",
            "Disk Face-on Loose Spiral",
        ),
        size=69,
        citation="Leung & Bovy 2019; Lintott et al. 2008, 2011, Galaxy Zoo",
    ),
    PublishedSet(
        name="galaxy-mnist",
        files=(
            PublishedFile(
                f"{_DROPBOX}/5a14de0o7slyif9/train_dataset.hdf5.gz",
                md5="e408ae294e9b975482dc1abffeb373a6",
                side="train",
            ),
            PublishedFile(
                f"{_DROPBOX}/5rza12nn24cwd2k/test_dataset.hdf5.gz",
                md5="7a940e4cea64a8b7cb60339098f74490",
                side="test",
            ),
        ),
        class_names=_MNIST_CLASSES,
        size=64,
        citation=_MNIST_CITATION,
    ),
    PublishedSet(
        name="galaxy-mnist-224",
        files=(
            PublishedFile(
                f"{_DROPBOX}/xenuo0ekgyi10ru/train_dataset.hdf5.gz",
                md5="3391dcddac14d5b4055db73fb600ae63",
                side="train",
            ),
            PublishedFile(
                f"{_DROPBOX}/lczri4sb4bbcgyh/test_dataset.hdf5.gz",
                md5="fb272c4e94000b4d99a09d638977b0b9",
                side="test",
            ),
        ),
        class_names=_MNIST_CLASSES,
        size=224,
        citation=_MNIST_CITATION,
    ),
)

_SDSS_LENGTHS = (21785, 25753)  # of the published file and of an older one


def published_set(name: str) -> PublishedSet:
    """The published set of that name.

    Raises
    ------
    InputError
        If there is none; lists those that exist.
    """
    for known in PUBLISHED_SETS:
        if known.name == name:
            return known
    raise InputError(
        f"there is no published set {name!r}; choose from "
        f"{', '.join(known.name for known in PUBLISHED_SETS)}"
    )


def recognise_galaxy10(
    size: int, labels: np.ndarray, columns: Sequence[str] = ()
) -> PublishedSet | None:
    """Say which Galaxy10 set an array of images is, or ``None`` where it is neither.

    Parameters
    ----------
    size
        Side of the images in pixels: DECaLS has 256, SDSS 69.
    labels
        (N,) labels: both sets have ten classes; counts or length tell a whole set.
    columns
        Names of further columns; only DECaLS has ``ra``, ``dec``, ``redshift`` and ``pxscale``.
    """
    decals, sdss = published_set("galaxy10-decals"), published_set("galaxy10-sdss")
    if len(labels) and labels.max() >= len(decals.class_names):
        return None
    counts = tuple(np.bincount(labels, minlength=len(decals.class_names)).tolist())
    if counts == decals.counts or (size == decals.size and set(decals.columns) <= set(columns)):
        return decals
    if size == sdss.size and (
        len(labels) in _SDSS_LENGTHS or not set(decals.columns) & set(columns)
    ):
        return sdss if len(set(labels.tolist())) == len(sdss.class_names) else None
    return None


def refuse_foreign_names(class_names: Sequence[str], recognised: PublishedSet | None) -> None:
    """Refuse the class names of one Galaxy10 set on the images of the other.

    Both sets have ten classes, and none of the names at one index means the same.
    """
    if recognised is None:
        return
    for other in PUBLISHED_SETS:
        if tuple(class_names) == other.class_names != recognised.class_names:
            raise InputError(
                f"the class names are those of {other.name}, but the images are those of "
                f"{recognised.name}; use its names: {', '.join(recognised.class_names)}"
            )
