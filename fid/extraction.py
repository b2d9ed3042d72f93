"""Features of one side: streamed into statistics, kept where few, and remembered on disk.

A cache entry is found by the content of the images, the hash of the weights and the recipe, so
a changed file, other weights or another resize never meet an old number.
"""

import contextlib
import hashlib
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from fid.features import FeatureExtractor
from fid.full_precision import precision_of
from fid.image_sources import Batch, ImageSource, LooseImages, ahead
from fid.statistics import FeatureStatistics, StatisticsAccumulator, statistics_of_features
from fid.statistics_file import Origin, StretchOfOrigin
from galaxies.atomic import whole_file
from galaxies.command_line import warn
from galaxies.errors import InputError

KEPT_FEATURES = 10_000
"""Most images a side whose features are kept beside the statistics (80 MB at 2048 features)."""

_CACHE_VERSION = 3


@dataclass(frozen=True)
class SideFeatures:
    """What is known of one side.

    Attributes
    ----------
    statistics : FeatureStatistics
        Of all images.
    features : (k, d) float32
        Of ``rows``; all images where they are few, else a random part, or none.
    rows : (k,) int64
        Positions in the source.
    cached : bool
        Whether the network was spared.
    notes : list of str
        What a reader should know.
    """

    statistics: FeatureStatistics
    features: np.ndarray
    rows: np.ndarray
    cached: bool = False
    notes: list[str] = field(default_factory=list)


def origin_of(extractor: FeatureExtractor, stretch: StretchOfOrigin = None) -> Origin:
    """What must be equal on both sides; ``stretch`` says how flux became 8 bits."""
    return Origin(extractor.name, extractor.weights_sha256, extractor.recipe, stretch)


def features_of_array(features: np.ndarray, seed: int = 0) -> SideFeatures:
    """The same for features that the user computed."""
    rows = _rows_to_keep(len(features), seed)
    return SideFeatures(statistics_of_features(features), features[rows].astype(np.float64), rows)


def extract(
    source: ImageSource,
    extractor: FeatureExtractor,
    *,
    batch_size: int = 50,
    cache: Path | None = None,
    seed: int = 0,
    progress: bool = True,
) -> SideFeatures:
    """Run the network over a source, or remember what it said.

    Parameters
    ----------
    source
        Images.
    extractor
        Network.
    batch_size
        Images at a time on the device.
    cache
        Folder of remembered features; ``None`` neither reads nor writes one.
    seed
        Which images keep their features where there are more than `KEPT_FEATURES`.
    progress
        Show a bar on stderr.
    """
    entry = None if cache is None else cache / f"{_cache_key(source, extractor, seed)}.npz"
    if entry is not None and (found := _read_entry(entry, source)) is not None:
        return found
    wanted = np.zeros(len(source), dtype=bool)
    wanted[_rows_to_keep(len(source), seed)] = True
    accumulator: StatisticsAccumulator | None = None
    kept: list[np.ndarray] = []
    kept_rows: list[np.ndarray] = []
    with tqdm(
        total=len(source), desc=source.name, unit="image", disable=not progress, leave=False
    ) as bar:
        for batch in ahead(source.batches(batch_size)):
            rows, features = _features_of_batch(batch, extractor)
            if len(rows):
                accumulator = accumulator or StatisticsAccumulator(features.shape[1])
                accumulator.update(features)
                kept.append(features[wanted[rows]])
                kept_rows.append(rows[wanted[rows]])
            bar.update(min(batch_size, len(source) - bar.n))
    if accumulator is None:
        accumulator = StatisticsAccumulator(extractor.dimensions)
        kept, kept_rows = [np.zeros((0, extractor.dimensions), np.float32)], [np.zeros(0, int)]
    result = SideFeatures(
        accumulator.result(),
        np.concatenate(kept),
        np.concatenate(kept_rows),
        notes=source.notes(),
    )
    if entry is not None:
        try:
            _write_entry(entry, result, source)
        except (InputError, OSError) as error:  # hours of network must not go with a full disk
            warn(f"the features are not kept for the next run: {error}")
    return result


def _features_of_batch(batch: Batch, extractor: FeatureExtractor) -> tuple[np.ndarray, np.ndarray]:
    """(n,) rows in order and their (n, d) float32 features."""
    if not batch.rows:
        return np.zeros(0, dtype=np.int64), np.zeros((0, extractor.dimensions), np.float32)
    with precision_of(extractor):  # those of other packages need not think of it
        features = torch.cat([extractor(images).cpu() for images in batch.images]).numpy()
    rows = np.concatenate(batch.rows)
    order = np.argsort(rows)
    return rows[order], features[order]


def _rows_to_keep(count: int, seed: int) -> np.ndarray:
    if count <= KEPT_FEATURES:
        return np.arange(count)
    chosen = np.random.default_rng(seed).choice(count, KEPT_FEATURES, replace=False)
    return np.sort(chosen)


def _cache_key(source: ImageSource, extractor: FeatureExtractor, seed: int) -> str:
    origin = origin_of(extractor)
    parts = (
        _CACHE_VERSION,
        source.digest(),
        origin.features,
        origin.weights_sha256,
        origin.recipe,
        seed if len(source) > KEPT_FEATURES else 0,
    )
    return hashlib.blake2b(repr(parts).encode(), digest_size=20).hexdigest()


def _write_entry(path: Path, result: SideFeatures, source: ImageSource) -> None:
    statistics = result.statistics
    header: dict[str, Any] = {"count": statistics.count}
    if isinstance(source, LooseImages):
        header["learnt"] = source.learnt()
    arrays: dict[str, np.ndarray] = {
        "header": np.array(json.dumps(header)),
        "features": result.features,
        "rows": result.rows,
    }
    if statistics.scatter is not None:
        arrays |= {"mean": statistics.mean, "scatter": statistics.scatter}
    elif statistics.rows is not None and statistics.count != len(result.features):
        arrays |= {"mean": statistics.mean, "samples": statistics.rows}
    with whole_file(path, overwrite=True) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _read_entry(path: Path, source: ImageSource) -> SideFeatures | None:
    """A remembered side; a damaged entry, or one that is out of date, is as good as none."""
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        with np.load(path, allow_pickle=False) as arrays:
            header = json.loads(str(arrays["header"]))
            features, rows = arrays["features"], arrays["rows"]
            if "scatter" in arrays.files:
                statistics = FeatureStatistics(
                    header["count"], arrays["mean"], scatter=arrays["scatter"]
                )
            elif "samples" in arrays.files:
                statistics = FeatureStatistics(
                    header["count"], arrays["mean"], rows=arrays["samples"]
                )
            else:
                statistics = statistics_of_features(features)
        if isinstance(source, LooseImages) and not source.recall(header["learnt"]):
            return None
        return SideFeatures(statistics, features, rows, cached=True, notes=source.notes())
    return None
