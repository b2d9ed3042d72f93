"""From two sides to a report: the work behind ``fid-score``."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fid.cli import ScoreConfig
from fid.compatible import compatible_distance
from fid.extraction import SideFeatures, extract, features_of_array, origin_of
from fid.features import FeatureExtractor, load_extractor, name_of_distance
from fid.frechet import FrechetDistance, frechet_distance
from fid.image_sources import LooseImages, SetImages
from fid.inputs import FeatureArray, ReadingRules, SavedStatistics, Side, open_side
from fid.one_stretch import see_through_one_stretch, stretch_of_origin
from fid.recipes import channel_rule
from fid.statistics_file import Origin
from galaxies.command_line import print_json, warn
from galaxies.device import choose_device
from galaxies.errors import InputError
from galaxies.fetch import cache_folder
from galaxies.image_files import Decoding

ARRAY_FEATURES = "array"


@dataclass(frozen=True)
class Scored:
    """Both sides, measured."""

    real: SideFeatures
    fake: SideFeatures
    origin: Origin
    name: str
    distance: FrechetDistance
    value: float
    notes: list[str]


def run(config: ScoreConfig) -> None:
    """Measure and print."""
    _check(config)
    rules = reading_rules(config)
    sides = open_side(config.real, rules), open_side(config.fake, rules)
    scored = score_sides(config, *sides)
    report = headline(config, scored)
    if config.everything:
        from fid.report import full_report

        report |= full_report(config, rules, sides, scored)
    if config.json:
        print_json(report)
        for note in report["notes"]:
            warn(note)
        return
    print_report(report)


def reading_rules(config: ScoreConfig) -> ReadingRules:
    """How loose files are read."""
    return ReadingRules(
        recursive=config.recursive,
        skip_bad=config.skip_bad,
        decoding=Decoding(scale_16_bit=config.scale_16_bit),
    )


def score_sides(config: ScoreConfig, real: Side, fake: Side) -> Scored:
    """Features and distance of two sides."""
    one_stretch = see_through_one_stretch(real, fake)
    for side in (real, fake):
        _refuse_unusable(side)
    extractor = cache(lambda: build_extractor(config))
    origins = [_origin(side, extractor) for side in (real, fake)]
    origin = _one_origin(config, real, fake, origins)
    first, _ = measure_side(config, real, extractor)
    first.statistics.require_at_least_two(config.real)
    second, _ = measure_side(config, fake, extractor)
    second.statistics.require_at_least_two(config.fake)
    distance = frechet_distance(first.statistics, second.statistics)
    value = _compatible_value(config, first, second) if config.compat else distance.value
    notes = first.notes + second.notes + one_stretch + _channel_notes(config, real, fake)
    notes += _doubts(real, fake, first, second)
    name = name_of_distance(origin.features, origin.weights_sha256)
    return Scored(first, second, origin, name, distance, value, notes)


def build_extractor(config: ScoreConfig) -> FeatureExtractor:
    """The network that the flags ask for."""
    device = choose_device(config.device)
    kind = config.features.partition(":")[0]
    if kind != "inception":
        for flag, given in (
            ("--recipe", config.recipe is not None),
            ("--compat", config.compat),
            ("--approximate", config.approximate),
        ):
            if given:
                raise InputError(f"{flag} belongs to inception features, not to {config.features}")
        extractor = load_extractor(config.features, config.weights, device)
        if config.bands is not None:
            if not hasattr(extractor, "bands"):
                raise InputError(f"--bands cannot be chosen for {config.features}")
            extractor.bands = config.bands
        return extractor
    from fid.inception_features import load

    name = config.features if config.recipe is None else f"inception:{config.recipe}"
    if config.recipe is not None and config.features not in ("inception", name):
        raise InputError(f"--features {config.features} and --recipe {config.recipe} disagree")
    return load(
        name.partition(":")[2],
        config.weights,
        device,
        bands=config.bands,
        as_published=config.compat,
        approximate=config.approximate,
    )


def headline(config: ScoreConfig, scored: Scored) -> dict[str, Any]:
    """The number and everything that must stand beside it."""
    distance, real, fake = scored.distance, scored.real.statistics, scored.fake.statistics
    notes = scored.notes + _few_images(scored)
    return {
        "name": scored.name,
        "value": scored.value,
        "recipe": scored.origin.recipe,
        "features": scored.origin.features,
        "weights_sha256": scored.origin.weights_sha256,
        "stretch": scored.origin.stretch,
        "n_real": real.count,
        "n_fake": fake.count,
        "dimensions": real.dimensions,
        "rank": distance.rank,
        "mean_term": distance.mean_term,
        "trace_real": distance.trace_real,
        "trace_fake": distance.trace_fake,
        "cross_term": distance.cross_term,
        "method": "compatible" if config.compat else distance.method,
        "approximate": config.approximate,
        "real": config.real,
        "fake": config.fake,
        "cached": {"real": scored.real.cached, "fake": scored.fake.cached},
        "notes": notes,
    }


def print_report(report: dict[str, Any]) -> None:
    """One line per result on stdout, notes on stderr."""
    counts = [("?" if n is None else f"{n:,}") for n in (report["n_real"], report["n_fake"])]
    weights = report["weights_sha256"][:8] or "none"
    mark = "~" if report["approximate"] else ""
    print(
        f"{report['name']} {mark}{report['value']:.4f}  (recipe {report['recipe']}; weights "
        f"{weights}; {counts[0]} real, {counts[1]} fake; rank {report['rank']} of "
        f"{report['dimensions']})"
    )
    if "lines" in report:
        for line in report["lines"]:
            print(line)
    for note in report["notes"]:
        warn(note)


def _check(config: ScoreConfig) -> None:
    least = {"--k": (config.k, 1), "--permutations": (config.permutations, 20)}
    least["--batch-size"] = (config.batch_size, 1)
    for flag, (value, bound) in least.items():
        if value < bound:
            raise InputError(f"{flag} must be at least {bound}, got {value}")
    only_with_all = {
        "--training": config.training,
        "--held-out": config.held_out,
        "--pairs": config.pairs,
    }
    for flag, given in only_with_all.items():
        if given is not None and not config.everything:
            raise InputError(f"{flag} has an effect only with --all")
    if config.pairs is not None:
        from galaxies.atomic import refuse_existing

        if config.pairs.suffix.lower() != ".png":
            raise InputError(f"--pairs {config.pairs}: a name that ends in .png is needed")
        refuse_existing(config.pairs, overwrite=config.overwrite)


def _refuse_unusable(side: Side) -> None:
    """Before the network is loaded and run for nothing."""
    if isinstance(side, SetImages):
        is_flux = side.image_set.store.dtype == torch.float32
        if is_flux and side.image_set.stretch is None:
            raise InputError(
                f"{side.name} is flux (float32) without a stretch: nothing says which flux is "
                "black and which is white; galaxy-set pack SOURCE SET.h5 measures a stretch, or "
                "takes one by --stretch"
            )
    if isinstance(side, SetImages | LooseImages) and len(side) < 2:
        raise InputError(
            f"{side.name} holds 1 image; a distance between distributions needs at least 2"
        )


def _origin(side: Side, extractor: Callable[[], FeatureExtractor]) -> Origin | None:
    if isinstance(side, SavedStatistics):
        return side.origin
    if isinstance(side, FeatureArray):
        return None
    return origin_of(extractor(), stretch_of_origin(side))


def _one_origin(
    config: ScoreConfig, real: Side, fake: Side, origins: list[Origin | None]
) -> Origin:
    known = [origin for origin in origins if origin is not None]
    if len(known) == 2 and not known[0].agrees_with(known[1]):
        raise InputError(
            f"{config.real} and {config.fake} were not measured alike: {known[0].describe()} "
            f"against {known[1].describe()}; use one --features, --weights, --recipe and, "
            "of flux, one stretch for both (galaxy-set pack --stretch)"
        )
    if len(known) == 1:
        unknown = real if origins[0] is None else fake
        warn(
            f"{unknown.name} does not say which network and recipe made its features; "
            f"taken to be {known[0].describe()}"
        )
    if not known:
        return Origin(ARRAY_FEATURES, "", "as given")
    return known[0].joined_with(known[-1])


def measure_side(
    config: ScoreConfig, side: Side, extractor: Callable[[], FeatureExtractor]
) -> tuple[SideFeatures, Origin | None]:
    """Features and statistics of one side; the extractor is made only for images."""
    if isinstance(side, SavedStatistics):
        empty = np.zeros((0, side.statistics.dimensions))
        notes = []
        if side.statistics.count is None:
            notes.append(f"{side.name} does not say how many images it sums")
        measured = SideFeatures(side.statistics, empty, np.zeros(0, dtype=np.int64), notes=notes)
    elif isinstance(side, FeatureArray):
        measured = features_of_array(side.features, config.seed)
    else:
        measured = extract(
            side,
            extractor(),
            batch_size=config.batch_size,
            cache=feature_cache(config),
            seed=config.seed,
        )
    return measured, _origin(side, extractor)


def feature_cache(config: ScoreConfig) -> Path | None:
    """Folder of remembered features."""
    return None if config.no_cache else cache_folder() / "features"


def _compatible_value(config: ScoreConfig, real: SideFeatures, fake: SideFeatures) -> float:
    if any(side.statistics.count != len(side.features) for side in (real, fake)):
        raise InputError(
            "--compat needs the features of all images: no saved statistics, and no more than "
            "10,000 images a side"
        )
    recipe = config.recipe or config.features.partition(":")[2] or "pytorch-fid"
    return compatible_distance(recipe, real.features, fake.features)


def _channel_notes(config: ScoreConfig, real: Side, fake: Side) -> list[str]:
    if config.features.startswith("classifier"):
        return []
    notes = []
    for side in (real, fake):
        if isinstance(side, SetImages) and (side.image_set.channels != 3 or config.bands):
            rule = channel_rule(side.image_set.channels, config.bands)
            notes.append(f"{side.name}: the network sees {rule}")
        if isinstance(side, LooseImages) and any(shape[0] == 1 for shape in side.shapes):
            notes.append(f"{side.name}: the network sees grey images as {channel_rule(1)}")
    return notes


def _doubts(real: Side, fake: Side, first: SideFeatures, second: SideFeatures) -> list[str]:
    """What may have been meant otherwise: one set twice, or one class against all of them."""
    notes = []
    if len(first.features) and np.array_equal(first.features, second.features):
        notes.append(f"{real.name} and {fake.name} hold the same images: the value says nothing")
    if isinstance(real, SetImages) and isinstance(fake, SetImages):
        shown, generated = _classes(real), _classes(fake)
        if generated < shown and len(real.image_set.class_names) > 1:
            wanted = "".join(f"#class={name}" for name in sorted(generated))
            notes.append(
                f"{fake.name} holds only {', '.join(sorted(generated))}, and {real.name} also "
                f"{', '.join(sorted(shown - generated))}: the classes that are missing count as "
                f"distance; to compare like with like, write REAL as SOURCE{wanted}"
            )
    return notes


def _classes(side: SetImages) -> set[str]:
    """Names of the classes that have an image."""
    names = side.image_set.class_names
    return {names[label] for label in np.unique(side.image_set.labels)}


def _few_images(scored: Scored) -> list[str]:
    """Warn where the number says more about how many images there are than about them."""
    counts = [side.statistics.count for side in (scored.real, scored.fake)]
    dimensions = scored.real.statistics.dimensions
    few = min((count for count in counts if count is not None), default=dimensions)
    if few >= dimensions:
        return []
    note = (
        f"{few} images for {dimensions} features: the value is dominated by the small number of "
        "images, and must not be compared with values of other numbers of images"
    )
    halves = _distance_of_halves(scored.real)
    if halves is not None:
        note += f"; two halves of REAL ({halves[0]} images each) are {halves[1]:.4g} apart"
    return [note + "; --all prints the null band and KID, which do not depend on it"]


def _distance_of_halves(side: SideFeatures) -> tuple[int, float] | None:
    half = len(side.features) // 2
    if half < 2 or half > 2000:
        return None
    from fid.statistics import statistics_of_features

    order = np.random.default_rng(0).permutation(len(side.features))
    first, second = side.features[order[:half]], side.features[order[half : 2 * half]]
    return half, frechet_distance(
        statistics_of_features(first), statistics_of_features(second)
    ).value
