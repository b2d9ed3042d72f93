"""Statistics on disk: mean and covariance, with what must agree before they are compared.

An ``.npz`` with ``mu`` and ``sigma``, as pytorch-fid writes and reads, and beside them the count,
the samples where they are few, and a header: features, hash of the weights, recipe.
"""

import dataclasses
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fid.statistics import FeatureStatistics
from galaxies.atomic import whole_file
from galaxies.errors import InputError

_VERSION = 1


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
    """

    features: str
    weights_sha256: str
    recipe: str


def save_statistics(
    path: Path, statistics: FeatureStatistics, origin: Origin | None, *, overwrite: bool = False
) -> None:
    """Write statistics as one ``.npz`` file that is whole or absent."""
    if path.suffix.lower() != ".npz":
        raise InputError(f"{path}: statistics are saved as .npz")
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
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a readable .npz file ({error})") from None
    if not is_statistics_file(list(found)):
        raise InputError(f"{path} holds no statistics (mu and sigma are needed)")
    mean = found["mu"].astype(np.float64)
    sigma = found["sigma"].astype(np.float64)
    if mean.ndim != 1 or sigma.shape != (len(mean), len(mean)):
        raise InputError(f"{path}: mu is {mean.shape} and sigma {sigma.shape}; they do not fit")
    if not (np.isfinite(mean).all() and np.isfinite(sigma).all()):
        raise InputError(f"{path}: mu or sigma is not finite")
    if "header" not in found:
        return FeatureStatistics(None, mean, covariance_only=sigma), None
    header = json.loads(str(found["header"]))
    if header.get("version") != _VERSION:
        raise InputError(
            f"{path} has format {header.get('version')}, this program reads {_VERSION}; "
            "make it anew"
        )
    origin = Origin(**header["origin"]) if header["origin"] else None
    if "rows" in found or "scatter" in found:
        return (
            FeatureStatistics(
                header["count"], mean, scatter=found.get("scatter"), rows=found.get("rows")
            ),
            origin,
        )
    return FeatureStatistics(header["count"], mean, covariance_only=sigma), origin
