"""``galaxy-set``: look at, pack, split, simulate and fetch image sets."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from galaxies.command_line import print_json, run_subcommands

if TYPE_CHECKING:
    from galaxies.image_set import ImageSet

_Classes = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="CLASS")]
_Columns = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="COLUMN")]


@dataclasses.dataclass(frozen=True)
class PackConfig:
    """Write any source as one HDF5 file, cropped and resized."""

    source: tyro.conf.Positional[str]
    """Folder per class, folder with labels.csv, HDF5 (also Galaxy10) or .npz."""
    out: tyro.conf.Positional[Path]
    """HDF5 file to write, such as set.h5."""
    size: int = 64
    """Side of the written images in pixels; reduced with antialiasing."""
    crop: int | None = None
    """Side of the central square that is kept before resizing, in pixels of the source."""
    labels: Path | None = None
    """CSV catalogue of a folder; labels.csv inside it is found without being named."""
    file_column: str = "file"
    """Column of the CSV with the file names, relative to the folder."""
    class_column: str = "class"
    """Column of the CSV with the class names."""
    id_column: str = "id"
    """Column of the CSV with unique names; without it the file names serve."""
    split_column: str = "split"
    """Column of the CSV with a published split: train, validation or test."""
    group: Annotated[str, tyro.conf.arg(metavar="COLUMN")] = "group"
    """Column whose equal values (a field, an exposure, a source) a split keeps together."""
    exclude: _Classes = ()
    """Leave this class out; may be repeated."""
    skip_bad: bool = False
    """Leave out images that cannot be decoded, that a catalogue names and that do not exist, or
    whose flux is NaN or infinite somewhere, and count them, instead of refusing all."""
    scale_16_bit: bool = False
    """Divide 16-bit values by 257 and round, instead of refusing them."""
    stretch: Annotated[
        tuple[float, float, float] | None, tyro.conf.arg(metavar="BLACK WHITE SOFTENING")
    ] = None
    """Of float32 flux, in its unit: which flux is black, which white, and up to which the asinh
    between them is linear; default the stretch of the source, or one measured on its images."""
    mirror: Annotated[tuple[str, str] | None, tyro.conf.arg(metavar="CLASS CLASS")] = None
    """Two classes that a mirror turns into each other; found by itself where their names differ
    only in clockwise against anticlockwise."""
    table: Path | None = None
    """Table of photometry (CSV, Parquet, FITS, .npz) whose features are joined to the images."""
    table_id: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None
    """Column of the table that holds the ids of the images, or the names of their files."""
    table_exclude: _Columns = ()
    """Leave this column of the table out; may be repeated."""
    table_allow: _Columns = ()
    """Join this column although it gives the class away, such as a redshift; may be repeated."""
    table_colours: bool = False
    """Also join differences of neighbouring magnitudes: u-g, g-r, ..."""
    overwrite: bool = False
    """Replace OUT where it exists."""
    json: bool = False
    """Print one JSON object."""


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """Store a train, validation and test split in a packed file."""

    set: tyro.conf.Positional[Path]
    """Packed HDF5 file."""
    fractions: tuple[float, float, float] = (0.6, 0.15, 0.25)
    """Of train, validation and test; they sum to 1, and validation or test may be 0."""
    group: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None
    """Keep equal values of this column on one side; groups stored in the file always count."""
    keep_test: bool = False
    """Keep the published test side; split the rest into train and validation."""
    duplicates_together: bool = False
    """Keep exact and near duplicates on one side."""
    seed: int = 0
    """The same seed gives the same split."""
    overwrite: bool = False
    """Replace the split that the file holds."""
    json: bool = False
    """Print one JSON object."""


@dataclasses.dataclass(frozen=True)
class InfoConfig:
    """Report classes, counts, image sizes, duplicates, and what crosses the split."""

    source: tyro.conf.Positional[str]
    """Packed file, Galaxy10 HDF5, .npz, folder, or 'simulated'."""
    labels: Path | None = None
    """CSV catalogue of a folder; labels.csv inside it is found without being named."""
    file_column: str = "file"
    """Column of the CSV with the file names, relative to the folder."""
    class_column: str = "class"
    """Column of the CSV with the class names."""
    group: Annotated[str, tyro.conf.arg(metavar="COLUMN")] = "group"
    """Column of the CSV whose equal values a split keeps together."""
    exact_only: bool = False
    """Look for exact duplicates only; near ones take longer."""
    json: bool = False
    """Print one JSON object."""


@dataclasses.dataclass(frozen=True)
class SimulateConfig:
    """Simulate an imbalanced survey with GalSim, offline; the same seed gives the same bytes."""

    out: tyro.conf.Positional[Path]
    """HDF5 file to write."""
    count: int = 3000
    """Number of images, at least 100; the rare class 'disturbed' is 3 % of them."""
    size: int = 64
    """Side of the images in pixels, 32 to 256; the field is 25.6 arcseconds wide."""
    seed: int = 0
    """The same seed gives the same bytes."""
    overwrite: bool = False
    """Replace OUT where it exists."""
    json: bool = False
    """Print one JSON object."""


@dataclasses.dataclass(frozen=True)
class FetchConfig:
    """Download a published set, check it, and write it with its class names."""

    name: tyro.conf.Positional[str]
    """galaxy10-decals, galaxy10-sdss, galaxy-mnist or galaxy-mnist-224."""
    out: tyro.conf.Positional[Path]
    """HDF5 file to write."""
    files: Annotated[
        tyro.conf.UseAppendAction[tuple[Path, ...]],
        tyro.conf.arg(name="file", metavar="FILE"),
    ] = ()
    """The published file, downloaded elsewhere; repeated where a set has two."""
    overwrite: bool = False
    """Replace OUT where it exists."""
    json: bool = False
    """Print one JSON object."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``galaxy-set`` and return its exit status."""
    return run_subcommands(
        {
            "info": (InfoConfig, _info),
            "pack": (PackConfig, _pack),
            "split": (SplitConfig, _split),
            "simulate": (SimulateConfig, _simulate),
            "fetch": (FetchConfig, _fetch),
        },
        arguments,
        program="galaxy-set",
        description="Look at, pack, split, simulate and fetch sets of galaxy images.",
    )


def _pack(config: PackConfig) -> None:
    from galaxies.catalogue import CatalogueColumns
    from galaxies.pack import pack
    from galaxies.pixels import Stretch

    joined = None
    if config.table is not None:
        from galaxies.table_join import read_join

        joined = read_join(
            config.table,
            config.table_id,
            exclude=config.table_exclude,
            allow=config.table_allow,
            with_colours=config.table_colours,
        )
    packed = pack(
        config.source,
        config.out,
        size=config.size,
        crop=config.crop,
        labels=config.labels,
        columns=CatalogueColumns(
            file=config.file_column,
            label=config.class_column,
            group=config.group,
            id=config.id_column,
            split=config.split_column,
        ),
        exclude=config.exclude,
        skip_bad=config.skip_bad,
        scale_16_bit=config.scale_16_bit,
        stretch=None if config.stretch is None else Stretch(*config.stretch),
        mirror=config.mirror,
        joined=joined,
        overwrite=config.overwrite,
    )
    if config.json:
        more = {"skipped": packed.skipped, "excluded": packed.excluded}
        print_json(_facts(config.out, packed.image_set) | more)
        return
    left_out = f"; left out {packed.excluded} of excluded classes" if packed.excluded else ""
    if packed.skipped:
        left_out += f"; skipped {len(packed.skipped)} bad images: {_listed(packed.skipped)}"
    print(_facts_line(config.out, packed.image_set) + left_out)


def _split(config: SplitConfig) -> None:
    from galaxies.image_set import SPLITS
    from galaxies.split import store_split

    image_set = store_split(
        config.set,
        config.fractions,
        seed=config.seed,
        group=config.group,
        keep_test=config.keep_test,
        duplicates_together=config.duplicates_together,
        overwrite=config.overwrite,
    )
    table = {
        side: dict(zip(image_set.class_names, image_set.side(side).counts().tolist(), strict=True))
        for index, side in enumerate(SPLITS)
        if image_set.split is not None and (image_set.split == index).any()
    }
    if config.json:
        print_json({"set": config.set, "seed": config.seed, "sides": table})
        return
    for side, counts in table.items():
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        print(f"{side}: {sum(counts.values())} images ({listed})")


def _simulate(config: SimulateConfig) -> None:
    from galaxies.simulate import write_survey

    survey = write_survey(
        config.out,
        count=config.count,
        size=config.size,
        seed=config.seed,
        overwrite=config.overwrite,
    )
    if config.json:
        print_json(_facts(config.out, survey) | {"seed": config.seed})
    else:
        print(_facts_line(config.out, survey))


def _fetch(config: FetchConfig) -> None:
    from galaxies.fetch import fetch

    image_set = fetch(config.name, config.out, files=config.files, overwrite=config.overwrite)
    if config.json:
        print_json(_facts(config.out, image_set))
    else:
        print(_facts_line(config.out, image_set))


def _info(config: InfoConfig) -> None:
    from galaxies.catalogue import CatalogueColumns
    from galaxies.description import describe

    description = describe(
        config.source,
        labels=config.labels,
        columns=CatalogueColumns(
            file=config.file_column, label=config.class_column, group=config.group
        ),
        near=not config.exact_only,
    )
    if config.json:
        print_json(dataclasses.asdict(description))
    else:
        print("\n".join(description.lines()))


def _listed(names: Sequence[str], most: int = 50) -> str:
    """The names, as far as a line has room; ``--json`` has all."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _facts(path: Path, image_set: "ImageSet") -> dict[str, object]:
    return {
        "out": path,
        "images": len(image_set),
        "size": image_set.size,
        "channels": image_set.channels,
        "classes": dict(zip(image_set.class_names, image_set.counts().tolist(), strict=True)),
        "stretch": None if image_set.stretch is None else dataclasses.asdict(image_set.stretch),
    }


def _facts_line(path: Path, image_set: "ImageSet") -> str:
    counts = zip(image_set.class_names, image_set.counts(), strict=True)
    listed = ", ".join(f"{name} {count}" for name, count in counts)
    return (
        f"{path}: {len(image_set)} images, {image_set.channels}x{image_set.size}x{image_set.size}, "
        f"{len(image_set.class_names)} classes ({listed})"
        + ("" if image_set.stretch is None else f"; {image_set.stretch.describe()}")
    )
