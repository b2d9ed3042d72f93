"""Statistics on disk: mean and covariance, with what must agree before they are compared.

An ``.npz`` with ``mu`` and ``sigma``, as pytorch-fid writes and reads, and beside them the count,
the samples where they are few, and a header: features, hash of the weights, recipe.
"""

import contextlib
import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fid.statistics import FeatureStatistics
from galaxies.atomic import refuse_existing, whole_file
from galaxies.errors import UNREADABLE, InputError

_VERSION = 1


UNKNOWN_STRETCH = "unknown"
"""Of statistics whose file does not say how flux became 8 bits."""

StretchOfOrigin = tuple[float, float, float] | str | None


@dataclass(frozen=True)
class Origin:
    """Where features come from; only equal origins may be compared.

    Attributes
    ----------
    features : str
        Name of the extractor.
    weights_sha256 : str
    recipe : str
        The way from pixels to the network.
    stretch : (black, white, softening), None or `UNKNOWN_STRETCH`
        How flux became 8 bits; ``None`` for images that had 8 bits.
    """

    features: str
    weights_sha256: str
    recipe: str
    stretch: StretchOfOrigin = UNKNOWN_STRETCH

    def agrees_with(self, other: "Origin") -> bool:
        """Whether features of both may be compared, as far as both are known.

        Pictures of 8 bits may stand beside flux: a generator's are the view through a stretch.
        """
        stretches = {s for s in (self.stretch, other.stretch) if isinstance(s, tuple)}
        return (
            self.features == other.features
            and self.weights_sha256 == other.weights_sha256
            and _recipes_agree(self.recipe, other.recipe)
            and len(stretches) < 2
        )

    def joined_with(self, other: "Origin") -> "Origin":
        """The origin of features of both, which agree: what is known of either."""
        for stretch in (self.stretch, other.stretch):
            if isinstance(stretch, tuple):
                return dataclasses.replace(self, stretch=stretch)
        return self if self.stretch == UNKNOWN_STRETCH else other

    def describe(self) -> str:
        """In a few words, for a line of output."""
        black_white = ""
        if isinstance(self.stretch, tuple):
            black_white = ", flux from {:.4g} to {:.4g}, linear up to {:.4g}".format(*self.stretch)
        return f"{self.features} {self.weights_sha256[:8]} ({self.recipe}{black_white})"


_OWN_NORMALISATION = re.compile(r", own (mean|std) [^,]*")


def _recipes_agree(first: str, second: str) -> bool:
    """Equal; files of an earlier version do not name a model's own mean and deviation."""
    bare = [_OWN_NORMALISATION.sub("", recipe) for recipe in (first, second)]
    return first == second or (bare[0] == bare[1] and bool({first, second} & set(bare)))


def refuse_output(path: Path, *, overwrite: bool) -> None:
    """Raise `InputError` where statistics cannot be saved as ``path``, before they are measured."""
    if path.suffix.lower() != ".npz":
        raise InputError(f"{path}: statistics are saved as .npz")
    refuse_existing(path, overwrite=overwrite)


def save_statistics(
    path: Path, statistics: FeatureStatistics, origin: Origin | None, *, overwrite: bool = False
) -> None:
    """Write statistics as one ``.npz`` file that is whole or absent."""
    refuse_output(path, overwrite=overwrite)
    header = {
        "version": _VERSION,
        "count": statistics.count,
        "origin": None if origin is None else dataclasses.asdict(origin),
    }
    arrays = {"mu": statistics.mean, "sigma": statistics.covariance}
    if statistics.rows is not None:
        arrays["rows"] = statistics.rows
    elif statistics.scatter is not None:
        arrays["scatter"] = statistics.scatter
    with whole_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        np.savez(file, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]


def is_statistics_file(names: Sequence[str]) -> bool:
    """Whether the arrays of an ``.npz`` are statistics."""
    return "mu" in names and "sigma" in names


def load_statistics(path: Path) -> tuple[FeatureStatistics, Origin | None]:
    """Statistics of a file; the origin is ``None`` where another program wrote it.

    Raises
    ------
    InputError
        If the file is damaged or its shapes disagree.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found: dict[str, Any] = {name: arrays[name] for name in arrays.files}
    except (*UNREADABLE, ValueError) as error:
        raise InputError(f"{path} is not a readable .npz file ({error})") from None
    if not is_statistics_file(list(found)):
        raise InputError(f"{path} holds no statistics (mu and sigma are needed)")
    mean = found["mu"].astype(np.float64)
    sigma = found["sigma"].astype(np.float64)
    if mean.ndim != 1 or sigma.shape != (len(mean), len(mean)):
        raise InputError(f"{path}: mu is {mean.shape} and sigma {sigma.shape}; they do not fit")
    if not (np.isfinite(mean).all() and np.isfinite(sigma).all()):
        raise InputError(f"{path}: mu or sigma is not finite")
    header = _header(found)
    if header is None:
        return FeatureStatistics(None, mean, covariance_only=sigma), None
    if header.get("version") != _VERSION:
        raise InputError(
            f"{path} has format {header.get('version')}, this program reads {_VERSION}; "
            "make it anew"
        )
    origin = _origin_of_header(header["origin"]) if header["origin"] else None
    if "rows" in found or "scatter" in found:
        return (
            FeatureStatistics(
                header["count"], mean, scatter=found.get("scatter"), rows=found.get("rows")
            ),
            origin,
        )
    return FeatureStatistics(header["count"], mean, covariance_only=sigma), origin


def _header(found: dict[str, Any]) -> dict[str, Any] | None:
    """What this program wrote beside the statistics; another's may have a ``header`` too."""
    with contextlib.suppress(KeyError, ValueError):
        header = json.loads(str(found["header"]))
        if isinstance(header, dict) and {"version", "count", "origin"} <= set(header):
            return header
    return None


def _origin_of_header(values: dict[str, Any]) -> Origin:
    stretch = values.get("stretch", UNKNOWN_STRETCH)
    if isinstance(stretch, list):
        stretch = (float(stretch[0]), float(stretch[1]), float(stretch[2]))
    return Origin(**values | {"stretch": stretch})
