"""Whether the quality measures of generated images say what the images do to recall.

For each generator (in a cross-fitted experiment for that of each fold) the cheap measures stand
beside the gain that its arms brought, with a rank correlation per measure over the generators.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from classify.determinism import numpy_generator_for
from classify.experiment.comparison import compare, compare_in_fold
from classify.experiment.laboratory import Laboratory
from classify.experiment.measures import gain_in_words
from classify.experiment.planner import GeneratorSource
from classify.experiment.record import ArmRecord, ExperimentRecord
from classify.experiment.scoring import ALL, Scores
from classify.experiment.statistics import holm_adjusted
from classify.features import ClassifierFeatures, digest_of
from fid.features import FeatureExtractor, load_extractor
from fid.frechet import frechet_distance_of_features
from fid.full_precision import precision_of
from fid.kernel import kernel_distance
from fid.manifold import precision_recall_density_coverage
from fid.nearest import nearest_under_symmetries
from fid.physical_distance import compare_physics
from fid.physics import flux_scale
from fid.physics import measure as measure_physics
from galaxies.errors import InputError
from galaxies.image_set import ImageSet

IMAGES = 500
"""Generated images that are measured."""

AT_A_TIME = 50
"""Images of which features are taken together."""

CORRELATED_FROM = 4
"""Fewer generators than this have no rank correlation worth a name."""

EXACT_UP_TO = 8
"""Pairs whose orders are all counted."""

MEASURE_WORDS: dict[str, str] = {
    "frechet_distance": "Fréchet distance",
    "kernel_distance": "kernel distance (KID)",
    "precision": "precision of the images",
    "recall": "recall of the images",
    "density": "density",
    "coverage": "coverage",
    "nearness": "nearness to training images",
    "physics": "distance of physical properties",
    "physics_differing": "physical properties that differ",
    "gan_test": "GAN-test",
    "cas": "CAS of the class",
}
"""Name -> words. *Nearness* is the median distance of generated images to the nearest training
image over that of held-out real images: well below 1 the generator copies. *Physics* is the mean
Wasserstein distance of `fid.physics`' measurements in real standard deviations. *GAN-test* is the
share of generated images that a classifier of real images calls the class. *CAS of the class* is
what the verdict's measure comes to when generated images stand in for all real ones."""


def measure_quality(
    features: str,
    feature_weights: Path | None,
    laboratory: Laboratory,
    sources: Mapping[tuple[str, int, int | None], GeneratorSource],
    record: ExperimentRecord | None,
    keep: int | None,
) -> dict[str, Any]:
    """Measure every generator and relate quality to gain.

    Parameters
    ----------
    features, feature_weights
        As ``--features``; ``classifier`` is a judge of the first fold's training images.
    record
        A finished experiment; ``None`` measures without gains.
    keep
        Limit of real images in the main experiment.

    Returns
    -------
    dict
        ``features``, ``points``, ``floor``, ``relations``, ``sentence``.
    """
    extractor = _extractor(features, feature_weights, laboratory, keep)
    points: list[dict[str, Any]] = []
    for (name, fold, of_keep), source in sources.items():
        if of_keep != keep:
            continue
        measures = measures_of(laboratory, extractor, source, fold, keep)
        label = f"fold {fold}" if laboratory.setting.folds else name
        points.append(
            {"name": label, "generator": name, "fold": fold, "sha256": source.sha256,
             "training": _training_of(source.path),
             "images": laboratory.at_hand(source.path, IMAGES), "measures": measures,
             "gain": None, "interval": None, "arm": None}
        )  # fmt: skip
    quality = {
        "features": extractor.name,
        "weights_sha256": extractor.weights_sha256,
        "images": IMAGES,
        "points": points,
        "floor": _floor(laboratory, extractor, keep),
    }
    return quality | related_to_gains(points, laboratory.setting.folder, record)


def related_to_gains(
    points: list[dict[str, Any]], folder: Path, record: ExperimentRecord | None
) -> dict[str, Any]:
    """``points`` with the gains under the record's measure, and which quality went with them."""
    gain = "recall"
    if record is not None:
        _add_gains(points, folder, record)
        gain = gain_in_words(record.settings["measure"])
    counted = _each_once(points)
    relations: list[dict[str, Any]] = [
        {
            "measure": name,
            "words": words,
            **rank_correlation(_column(counted, name), _gains(counted)),
        }
        for name, words in MEASURE_WORDS.items()
        if any(point["measures"].get(name) is not None for point in points)
    ]
    adjusted = holm_adjusted([math.nan if r["p"] is None else r["p"] for r in relations])
    for relation, p in zip(relations, adjusted.tolist(), strict=True):
        relation["p_holm"] = None if math.isnan(p) else p
    sentence = _sentence(counted, relations, gain)
    return {"points": points, "relations": relations, "sentence": sentence}


def refuse_features(features: str, weights: Path | None, laboratory: Laboratory) -> None:
    """Load the extractor once before anything trains, so that a wrong one costs no hours."""
    if features != "classifier":
        load_extractor(features, weights, laboratory.device)
    elif weights is not None:
        raise InputError(
            f"--feature-weights {weights} is for --features inception or timm:NAME; the features "
            "are those of a classifier that is trained here"
        )


def measures_of(
    laboratory: Laboratory,
    extractor: FeatureExtractor,
    source: GeneratorSource,
    fold: int,
    keep: int | None,
) -> dict[str, float | None]:
    """The cheap measures of one generator, against its own training and validation images."""
    index = laboratory.setting.class_index
    sides = laboratory.folds(keep)[fold]
    train = laboratory.image_set.select(sides.train).of_classes([index])
    held_out = laboratory.image_set.select(sides.validation).of_classes([index])
    made = laboratory.generated_up_to(source.path, IMAGES, 2)
    real = np.concatenate((features_of(extractor, train), features_of(extractor, held_out)))
    found: dict[str, float | None] = dict(_distances(real, features_of(extractor, made)))
    found["nearness"] = nearness(made, held_out, laboratory.class_and_twin(sides.train))
    found |= _physics(laboratory, train, made)
    probabilities = laboratory.selector(fold, keep).probabilities(made)
    found["gan_test"] = float((probabilities.argmax(dim=1) == index).double().mean())
    return {name: v if v is not None and math.isfinite(v) else None for name, v in found.items()}


def nearness(made: ImageSet, held_out: ImageSet, train: ImageSet) -> float:
    """Median distance to the nearest training image, over that of held-out real images."""
    ours = nearest_under_symmetries(_flat(made), _flat(train)).distance
    theirs = nearest_under_symmetries(_flat(held_out), _flat(train)).distance
    return float(np.median(ours) / max(1e-9, float(np.median(theirs))))


def rank_correlation(
    quality: Sequence[float | None], gain: Sequence[float | None]
) -> dict[str, Any]:
    """Spearman's correlation with a 95 % interval and p, over the pairs that are both known.

    The interval is Bonett and Wright's (2000), Psychometrika 65, 23: Fisher's z with variance
    ``(1 + r^2 / 2) / (n - 3)``, at most ``1 - 1/n`` in size before the transformation, so that a
    perfect order of a few is not taken for certain. p is exact up to 8 pairs: 4 pairs cannot go
    below .083.
    """
    pairs = [(q, g) for q, g in zip(quality, gain, strict=True) if q is not None and g is not None]
    count = len(pairs)
    nothing = {"correlation": None, "interval": None, "p": None, "count": count}
    if count < CORRELATED_FROM:
        return nothing
    left, right = np.array(pairs).T
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return nothing
    rho, p = (float(value) for value in stats.spearmanr(left, right))
    if count <= EXACT_UP_TO:
        ranks = stats.rankdata(left), stats.rankdata(right)
        orders = np.array(list(itertools.permutations(ranks[0] - ranks[0].mean())))
        products = np.abs(orders @ (ranks[1] - ranks[1].mean()))
        p = float(np.mean(products >= products[0] - 1e-9))
    bound = 1 - 1 / count
    z = math.atanh(max(-bound, min(bound, rho)))
    half = 1.96 * math.sqrt((1 + rho**2 / 2) / (count - 3))
    return {
        "correlation": rho,
        "interval": [math.tanh(z - half), math.tanh(z + half)],
        "p": p,
        "count": count,
    }


def _extractor(
    features: str, weights: Path | None, laboratory: Laboratory, keep: int | None
) -> FeatureExtractor:
    if features != "classifier":
        return load_extractor(features, weights, laboratory.device)
    classifier = laboratory.judge(0, keep)
    return ClassifierFeatures(classifier, digest_of(classifier.network.state_dict()))


def features_of(extractor: FeatureExtractor, images: ImageSet) -> np.ndarray:
    """(N, d) float64; a few images at a time, because networks enlarge them."""
    with precision_of(extractor):
        parts = [
            extractor(few).double().cpu().numpy()
            for _, block in images.blocks()
            for few in block.split(AT_A_TIME)
        ]
    return np.concatenate(parts)


def _distances(real: np.ndarray, fake: np.ndarray) -> dict[str, float | None]:
    few = min(len(real), len(fake)) <= 5
    manifold = None if few else precision_recall_density_coverage(real, fake)
    return {
        "frechet_distance": frechet_distance_of_features(real, fake),
        "kernel_distance": kernel_distance(real, fake).value
        if min(len(real), len(fake)) > 2
        else None,
        "precision": None if manifold is None else manifold.precision,
        "recall": None if manifold is None else manifold.recall,
        "density": None if manifold is None else manifold.density,
        "coverage": None if manifold is None else manifold.coverage,
    }


def _physics(laboratory: Laboratory, real: ImageSet, made: ImageSet) -> dict[str, float | None]:
    """Mean distance of physical properties in real standard deviations, and how many differ."""
    rng = numpy_generator_for(laboratory.setting.seed, "physics")
    try:
        scale = flux_scale(real.pixels)  # 1 for pictures
        ours, theirs = (
            measure_physics(one.pixels if scale == 1 else one.pixels / scale)
            for one in (made, real)
        )
        compared = compare_physics(theirs, ours, rng)
    except InputError:  # too few images with an object
        return {"physics": None, "physics_differing": None}
    distances = np.array([item.distance for item in compared.measurements])
    finite = distances[np.isfinite(distances)]
    return {
        "physics": float(finite.mean()) if len(finite) else None,
        "physics_differing": float(compared.differing),
    }


def _floor(
    laboratory: Laboratory, extractor: FeatureExtractor, keep: int | None
) -> dict[str, float | None]:
    """What held-out real images score in the place of generated ones.

    Left out is what depends on the number of images: a dozen held-out ones would look worse than
    hundreds of generated ones for their number alone.
    """
    index = laboratory.setting.class_index
    sides = laboratory.folds(keep)[0]
    train = laboratory.image_set.select(sides.train).of_classes([index])
    held_out = laboratory.image_set.select(sides.validation).of_classes([index])
    found: dict[str, float | None] = dict.fromkeys(MEASURE_WORDS)
    distances = _distances(features_of(extractor, train), features_of(extractor, held_out))
    found["kernel_distance"] = distances["kernel_distance"]  # unbiased at any number
    found["nearness"] = 1.0
    probabilities = laboratory.selector(0, keep).probabilities(held_out)
    found["gan_test"] = float((probabilities.argmax(dim=1) == index).double().mean())
    return found


def _add_gains(points: list[dict[str, Any]], folder: Path, record: ExperimentRecord) -> None:
    """What the arm of each generator gained over the same arm without images."""
    scores = Scores(folder, record)
    rng = np.random.default_rng(record.settings["seed"] + 2)
    name, index = record.settings["measure"], record.class_index
    for point in points:
        arm = _arm_of(record, point["generator"])
        if arm is not None:
            ours, base = scores.arm(arm), scores.arm(record.arm(arm.base))
            point["arm"] = arm.name
            if record.folds:
                estimate = compare_in_fold(ours, base, name, index, point["fold"])
                point["gain"] = None if estimate is None else estimate.difference
                point["interval"] = None if estimate is None else list(estimate.interval)
            else:
                result = compare(ours, base, name, index, rng=rng)
                if result is not None:
                    point["gain"] = result.estimate.difference
                    point["interval"] = list(result.estimate.interval)
        instead = _arm_of(record, point["generator"], instead=True)
        if instead is not None:
            # Under the verdict's measure: recall alone is bought by calling more images the class.
            values = scores.arm(instead).fold_values(name, index)
            own = values[:, point["fold"] if record.folds else 0]
            own = own[np.isfinite(own)]
            point["measures"]["cas"] = float(own.mean()) if len(own) else None


def _arm_of(record: ExperimentRecord, generator: str, instead: bool = False) -> ArmRecord | None:
    """The arm of a generator whose dose is nearest to 1: its plain dose, or its ``only`` arm."""
    single = len({source["name"] for source in record.sources}) == 1
    own = [
        arm
        for arm in record.arms
        if arm.kind == "gan"
        and (arm.generator == generator or (single and not arm.generator))
        and ALL in arm.units
        and (("only" in arm.name.split("+")) if instead else arm.plain_dose)
    ]
    # The arm with the fewest parts: the CAS of filtered images is another one.
    return min(own, key=lambda arm: (abs(arm.dose - 1), arm.name.count("+")), default=None)


def _training_of(path: str) -> str:
    """The run that a generator comes from: its snapshots share one training."""
    from gan.checkpoint import run_and_step

    return str(run_and_step(Path(path))[0])


def _each_once(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without generators that were given twice; those of older results are not told apart."""
    found: dict[str, dict[str, Any]] = {}
    for place, point in enumerate(points):
        found.setdefault(point.get("sha256") or str(place), point)
    return list(found.values())


def _column(points: list[dict[str, Any]], name: str) -> list[float | None]:
    return [point["measures"].get(name) for point in points]


def _gains(points: list[dict[str, Any]]) -> list[float | None]:
    return [point["gain"] for point in points]


def _sentence(points: list[dict[str, Any]], relations: list[dict[str, Any]], gain: str) -> str:
    known = [r for r in relations if r["correlation"] is not None]
    count = sum(point["gain"] is not None for point in points)
    if not known and count >= CORRELATED_FROM:
        return (
            f"{count} generators with equal gains or equal measures: nothing to rank, so nothing "
            f"is said of which measure predicts the change in {gain}."
        )
    if not known:
        return (
            f"{count} generator{'s' if count != 1 else ''} with a known change in {gain}: at least "
            f"{CORRELATED_FROM} are needed to ask which measure predicts it."
        )
    best = min(known, key=lambda r: (r["p_holm"], r["p"], -abs(r["correlation"])))
    p = best["p_holm"]
    found = (
        f"{best['words']} goes furthest with the change in {gain} (rank correlation "
        f"{best['correlation']:.2f}, 95 % interval {best['interval'][0]:.2f} to "
        f"{best['interval'][1]:.2f}, p {p:.3f} by Holm over {len(known)} measures)"
    )
    found = f"no measure is shown to predict {gain}; {found}" if p > 0.05 else found
    return f"Over {best['count']} generators {found}.{_dependence(points)}"


def _dependence(points: list[dict[str, Any]]) -> str:
    """What p and interval take for granted, where it does not hold."""
    trainings = [point.get("training") for point in points if point["gain"] is not None]
    if None in trainings or len(set(trainings)) == len(trainings):
        return ""
    count = len(set(trainings))
    return (
        f" They come from {count} training{'s' if count > 1 else ''} only: snapshots of one "
        "training are not independent, so interval and p promise more than they hold, and say "
        "nothing of generators that are trained otherwise."
    )


def _flat(images: ImageSet) -> torch.Tensor:
    return images.pixels if images.stretch is None else images.stretch.compress(images.pixels)
