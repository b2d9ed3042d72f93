"""``fid-statistics``: measure a set once, in parts where it is large, and keep the result."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import tyro

from galaxies.command_line import run_subcommands, warn
from galaxies.errors import InputError


@dataclasses.dataclass(frozen=True)
class SaveConfig:
    """Write the statistics of one side; fid-score takes the file in its place."""

    source: tyro.conf.Positional[str]
    """Images, as for fid-score."""
    out: tyro.conf.Positional[Path]
    """File to write, such as real.npz; pytorch-fid reads it too."""
    features: str = "inception"
    """inception, timm:NAME or classifier:CHECKPOINT."""
    weights: Path | None = None
    """File of weights; without it the published Inception weights in torch's cache are used."""
    recipe: str | None = None
    """How images are resized for Inception: pytorch-fid (default), torch-fidelity, clean-fid or
    torchmetrics."""
    recursive: bool = False
    """Take images of sub-folders too."""
    skip_bad: bool = False
    """Leave out files that cannot be decoded, and count them, instead of refusing all."""
    scale_16_bit: bool = False
    """Divide 16-bit values by 257 and round, instead of refusing them."""
    bands: tuple[int, int, int] | None = None
    """Channels to show the network as red, green and blue; default: as fid-score."""
    batch_size: int = 50
    """Images at a time on the device."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    overwrite: bool = False
    """Replace OUT where it exists."""


@dataclasses.dataclass(frozen=True)
class MergeConfig:
    """Join the statistics of parts of a set into those of the whole."""

    out: tyro.conf.Positional[Path]
    """File to write."""
    parts: tyro.conf.Positional[tuple[Path, ...]]
    """Files of disjoint parts, measured alike."""
    overwrite: bool = False
    """Replace OUT where it exists."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``fid-statistics`` and return its exit status."""
    return run_subcommands(
        {"save": (SaveConfig, save), "merge": (MergeConfig, merge_files)},
        arguments,
        program="fid-statistics",
        description="Save and merge the statistics that a Fréchet distance needs of a set.",
    )


def save(config: SaveConfig) -> None:
    """Measure and write one side."""
    from fid.cli import ScoreConfig
    from fid.inputs import open_side
    from fid.score import build_extractor, measure_side, reading_rules
    from fid.statistics_file import refuse_output, save_statistics

    refuse_output(config.out, overwrite=config.overwrite)
    shared = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(ScoreConfig)
        if hasattr(config, field.name)
    }
    score = ScoreConfig(real=config.source, fake=config.source, **shared)
    side = open_side(config.source, reading_rules(score))
    measured, origin = measure_side(score, side, functools.cache(lambda: build_extractor(score)))
    measured.statistics.require_at_least_two(config.source)
    save_statistics(config.out, measured.statistics, origin, overwrite=config.overwrite)
    print(f"{config.out}: statistics of {measured.statistics.count} images")
    for note in measured.notes:
        warn(note)


def merge_files(config: MergeConfig) -> None:
    """Read, merge and write."""
    from fid.statistics import merge
    from fid.statistics_file import (
        UNKNOWN_STRETCH,
        load_statistics,
        refuse_output,
        save_statistics,
    )

    if len(config.parts) < 2:
        raise InputError("name at least two files to merge")
    refuse_output(config.out, overwrite=config.overwrite)
    loaded = [load_statistics(path) for path in config.parts]
    whole_origin = loaded[0][1]
    for path, (statistics, origin) in zip(config.parts, loaded, strict=True):
        if statistics.count is None:
            raise InputError(f"{path} does not say how many images it sums; it cannot be merged")
        if origin is None or whole_origin is None:
            alike = origin is whole_origin
        else:
            alike = whole_origin.agrees_with(origin)
        if not alike:
            described = [
                known.describe() if known else "unknown" for known in (origin, whole_origin)
            ]
            raise InputError(
                f"{path} was not measured like {config.parts[0]}: {described[0]} against "
                f"{described[1]}; use one --features, --weights, --recipe and, of flux, one "
                "stretch (galaxy-set pack --stretch)"
            )
        whole_origin = whole_origin.joined_with(origin) if whole_origin and origin else None
    unknown = [
        str(path)
        for path, (_, origin) in zip(config.parts, loaded, strict=True)
        if origin is not None and origin.stretch == UNKNOWN_STRETCH
    ]
    if unknown and whole_origin is not None and isinstance(whole_origin.stretch, tuple):
        warn(
            f"{', '.join(unknown)}: not known through which stretch flux was seen; taken to be "
            f"that of the others: {whole_origin.describe()}"
        )
    whole = merge([statistics for statistics, _ in loaded])
    save_statistics(config.out, whole, whole_origin, overwrite=config.overwrite)
    print(f"{config.out}: statistics of {whole.count} images from {len(loaded)} files")
