"""``fid-score --all``: every measure of a small set, each beside what a perfect one would score."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from fid.cli import ScoreConfig
from fid.contact_sheet import write_contact_sheet
from fid.gram import GRAM_IMAGES, PooledGram
from fid.image_sources import ImageSource, LooseImages, SetImages
from fid.infinity import frechet_at_infinity
from fid.inputs import ReadingRules, Side, open_set, open_side, parse_selection
from fid.manifold import precision_recall_density_coverage
from fid.memorisation import COPY_RATIO, measure_memorisation
from fid.nearest import reduce_images
from fid.one_stretch import seen_through, stretch_in_force
from fid.physical_distance import compare_physics, share_without_object
from fid.physics import flux_scale, measure
from fid.score import Scored
from fid.sliced import DIRECTIONS, sliced_distance
from galaxies.errors import InputError

COMPARED_IMAGES = 1000
"""Most generated images that are compared pixel by pixel, and most a side for physics."""

TRAINING_IMAGES = 20_000
"""Most training images that copies are looked for among."""

_READ_IMAGES = 256
_LEAST_HELD_OUT = 20
_SPLITS = 10


@dataclasses.dataclass(frozen=True)
class _Material:
    config: ScoreConfig
    rules: ReadingRules
    sides: tuple[Side, Side]
    scored: Scored

    def rng(self, stream: int) -> np.random.Generator:
        """A generator of its own for each measure: one more measure changes no other."""
        return np.random.default_rng([self.config.seed, stream])

    def features(self, most: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
        """Features of both sides, at most so many images each."""
        picked = []
        for offset, side in enumerate((self.scored.real, self.scored.fake)):
            count = len(side.features)
            if count == 0:
                raise InputError("saved statistics hold no single images")
            rows = np.arange(count)
            if count > most:
                rng = self.rng(100 * stream + offset)
                rows = np.sort(rng.choice(count, most, replace=False))
            picked.append(side.features[rows].astype(np.float64))
        return picked[0], picked[1]

    def images(self, which: int) -> ImageSource:
        """The pixels of a side."""
        side = self.sides[which]
        if not isinstance(side, SetImages | LooseImages):
            raise InputError(f"{side.name} holds no images")
        return side


def full_report(
    config: ScoreConfig, rules: ReadingRules, sides: tuple[Side, Side], scored: Scored
) -> dict[str, Any]:
    """Keys to add to the headline; a measure that cannot be taken says why under ``refused``."""
    material = _Material(config, rules, sides, scored)
    report: dict[str, Any] = {}
    lines: list[str] = []
    with tqdm(total=len(_MEASURES), desc="measures", disable=False, leave=False) as bar:
        for name, take in _MEASURES.items():
            bar.set_postfix_str(name)
            try:
                values, text = take(material)
            except InputError as error:
                values, text = {"refused": str(error)}, [f"{name}: refused: {error}"]
            report[name] = values
            lines += text
            bar.update()
    return report | {"lines": lines}


Result = tuple[dict[str, Any], list[str]]


def _null(material: _Material) -> Result:
    gram = PooledGram(*material.features(GRAM_IMAGES, 1))
    permutations = material.config.permutations
    band = gram.null_band(permutations, material.rng(2))
    error = gram.frechet_standard_error(max(50, permutations // 2), material.rng(3))
    value = material.scored.value
    values = dataclasses.asdict(band) | {
        "permutations": permutations,
        "standard_error": error,
        "interval": [value - 1.96 * error, value + 1.96 * error],
    }
    n, m = band.permutation_images
    text = [
        f"null band: {band.observed:.4g} at {band.images} images a side, where a perfect "
        f"generator scores {band.low:.4g} to {band.high:.4g}; permutation p = "
        f"{band.permutation_p:.3g} ({permutations} relabellings of {n} and {m} images)",
        f"interval: {value:.4g} ± {1.96 * error:.2g} (95 %, spread at {len(gram.real_rows)} and "
        f"{len(gram.fake_rows)} images, not the bias; with more images the value spreads less)",
    ]
    return values, text


def _kid(material: _Material) -> Result:
    gram = PooledGram(*material.features(GRAM_IMAGES, 1))
    distance = gram.kernel()
    p = gram.kernel_permutation_p(max(1000, material.config.permutations), material.rng(4))
    low, high = distance.interval()
    values = {
        "value": distance.value,
        "standard_error": distance.standard_error,
        "interval": [low, high],
        "permutation_p": p,
        "n": [len(gram.real_rows), len(gram.fake_rows)],
    }
    text = (
        f"KID: {distance.value:.5g} ± {distance.standard_error:.2g} (standard error; 95 % "
        f"{low:.4g} to {high:.4g}); permutation p = {p:.3g}; unbiased, 0 for a perfect generator"
    )
    return values, [text]


def _infinity(material: _Material) -> Result:
    real, fake = material.features(10**9, 5)
    result = frechet_at_infinity(real, fake, material.rng(5))
    text = (
        f"{material.scored.name} at infinitely many images: {result.value:.4g} ± "
        f"{result.standard_error:.2g} (line through {result.least} to {result.most} images)"
    )
    return dataclasses.asdict(result), [text]


def _manifold(material: _Material) -> Result:
    real, fake = material.features(GRAM_IMAGES, 6)
    rng, k = material.rng(6), material.config.k
    count, half = min(len(real), len(fake)), min(len(real) // 2, len(fake))
    names = ("precision", "recall", "density", "coverage")

    def shares(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        found = precision_recall_density_coverage(first, second, k)
        return np.array([getattr(found, name) for name in names])

    at_half, floor = [], []
    for first, second, generated in _halves(real, fake, half, rng):
        at_half.append(shares(first, generated))
        floor.append(shares(first, second))
    whole = shares(*(side[rng.permutation(len(side))[:count]] for side in (real, fake)))
    values: dict[str, Any] = dict(zip(names, whole.tolist(), strict=True)) | {
        "k": k,
        "convention": "the image itself is no neighbour; a distance equal to the radius counts",
        "images": count,
    }
    at, against = np.mean(at_half, axis=0), np.mean(floor, axis=0)
    for key, shown in (("at_half", at), ("real_against_real", against)):
        values[key] = dict(zip(names, shown.tolist(), strict=True)) | {"images": half}
    text = ", ".join(
        f"{name} {at[index]:.3f} (real against real {against[index]:.3f})"
        for index, name in enumerate(names)
    )
    return values, [f"manifold: {text}; k = {k}, {half} images a side"]


def _mind(material: _Material) -> Result:
    real, fake = material.features(GRAM_IMAGES, 7)
    rng = material.rng(7)
    half = min(len(real) // 2, len(fake))
    at_half, floor = [], []
    for first, second, generated in _halves(real, fake, half, rng):
        at_half.append(sliced_distance(first, generated, rng, DIRECTIONS // _SPLITS))
        floor.append(sliced_distance(first, second, rng, DIRECTIONS // _SPLITS))
    values = {
        "value": sliced_distance(real, fake, rng),
        "images": min(len(real), len(fake)),
        "at_half": float(np.mean(at_half)),
        "real_against_real": float(np.mean(floor)),
        "half_images": half,
    }
    text = (
        f"MIND: {values['at_half']:.4g} (real against real {values['real_against_real']:.4g}; "
        f"{half} images a side)"
    )
    return values, [text]


def _halves(
    real: np.ndarray, fake: np.ndarray, half: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Two disjoint groups of real images and one of generated ones, a few times over."""
    for _ in range(_SPLITS):
        order = rng.permutation(len(real))
        generated = fake[rng.permutation(len(fake))[:half]]
        yield real[order[:half]], real[order[half : 2 * half]], generated


def _memorisation(material: _Material) -> Result:
    rng = material.rng(8)
    fake = _compared(material.images(1), COMPARED_IMAGES, rng)
    training, held_out, source = _training_images(material, rng)
    for others in (training, held_out):
        if others is not None and others.side != fake.side:
            raise InputError(
                f"{fake.source.name} holds images of {fake.side} pixels to a side and "
                f"{others.source.name} of {others.side}; they cannot be compared pixel by pixel"
            )
    unseen = None if held_out is None else held_out.reduced
    result = measure_memorisation(fake.reduced, training.reduced, unseen, rng=rng)
    most = result.closest()
    names = fake.names_of(most), training.names_of(result.nearest.index[most])
    closest = [
        {
            "fake": generated,
            "training": trained,
            "distance": float(result.nearest.distance[row]),
            "ratio": float(result.ratio[row]),
            "symmetry": int(result.nearest.symmetry[row]),
        }
        for row, generated, trained in zip(most, *names, strict=True)
    ]
    values: dict[str, Any] = {
        "copies": result.copies,
        "copies_of_unseen": result.copies_of_unseen,
        "copy_ratio": COPY_RATIO,
        "median_ratio": float(np.median(result.ratio)),
        "median_ratio_of_unseen": float(np.median(result.unseen_ratio)),
        "z": result.z,
        "p": result.p,
        "c_t": result.c_t,
        "c_t_p": result.c_t_p,
        "images": len(fake.rows),
        "training_images": len(training.rows),
        "training": source,
        "reference": result.reference,
        "closest": closest,
    }
    if result.held_out_ratio is not None:
        values["median_ratio_to_held_out"] = float(np.median(result.held_out_ratio))
    text = [
        f"copies: {result.copies:.1%} of {len(fake.rows)} generated images lie nearer to a "
        f"training image than half its distance to its own neighbour (unseen real images: "
        f"{result.copies_of_unseen:.1%}); eight symmetries, {len(training.rows)} training images "
        f"({source})",
        f"copying test: z = {result.z:+.2f}, one-sided p = {result.p:.3g} (below -3 speaks of "
        f"copying; C_T of the raw distances {result.c_t:+.2f}); reference: {result.reference}",
    ]
    if material.config.pairs is not None:
        shown = write_contact_sheet(
            material.config.pairs,
            result,
            fake.read(most),
            training.read(result.nearest.index[most]),
            names[1],
            overwrite=material.config.overwrite,
        )
        values["pairs"] = str(material.config.pairs)
        text.append(f"pairs: the {shown} closest are in {material.config.pairs}")
    return values, text


def _physics(material: _Material) -> Result:
    rng = material.rng(9)
    pixels = [_linear_pixels(material.images(which), rng) for which in (0, 1)]
    if pixels[0].shape[-2:] != pixels[1].shape[-2:]:
        raise InputError(
            f"images of {pixels[0].shape[-1]} and {pixels[1].shape[-1]} pixels: sizes and fluxes "
            "are measured in pixels; bring both to one size with galaxy-set pack"
        )
    if pixels[0].dtype != pixels[1].dtype:
        raise InputError("one side is flux and the other 8-bit pictures: their units differ")
    scale = flux_scale(pixels[0])
    real, fake = (measure(side if scale == 1 else side / scale) for side in pixels)
    empty = share_without_object(real), share_without_object(fake)
    compared = compare_physics(real, fake, rng)
    values = {
        "without_object": {"real": empty[0], "fake": empty[1]},
        "unit": "real standard deviations",
        "measurements": {
            item.name: dataclasses.asdict(item.in_unit(scale) if item.name == "flux" else item)
            for item in compared.measurements
        },
        "differing": compared.differing,
        "chance": compared.chance,
    }
    text = [
        f"physics: {item.name} {item.distance:.3f} ({item.low:.3f} to {item.high:.3f}); at "
        f"{item.count} images a side {item.at_floor_count:.3f}, real against real "
        f"{item.floor:.3f} (95 % below {item.floor_high:.3f})"
        + (" DIFFERS" if item.differs else "")
        for item in compared.measurements
    ]
    text.append(
        f"physics: {compared.differing} of {len(compared.measurements)} differ; splits of the "
        f"real set lie as far out in {compared.chance:.0%}"
    )
    if max(empty) > 0:
        text.append(
            f"physics: no object on {empty[0]:.1%} of the real and {empty[1]:.1%} of the "
            "generated images"
        )
    return values, text


_MEASURES: dict[str, Callable[[_Material], Result]] = {
    "null": _null,
    "kid": _kid,
    "infinity": _infinity,
    "manifold": _manifold,
    "mind": _mind,
    "memorisation": _memorisation,
    "physics": _physics,
}


def _linear_pixels(source: ImageSource, rng: np.random.Generator) -> torch.Tensor:
    """At most so many images: flux as it is, without the stretch that networks see it through."""
    if isinstance(source, SetImages) and source.image_set.store.dtype == torch.float32:
        return source.image_set.read(_thinned_rows(source, COMPARED_IMAGES, rng))
    return source.read(_thinned_rows(source, COMPARED_IMAGES, rng))


def _thinned_rows(source: ImageSource, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most so many usable rows, sorted."""
    rows = np.arange(len(source))
    if isinstance(source, LooseImages) and source.skip_bad:
        # Of a cached side, and of training images, nobody has looked for bad files yet.
        rows = np.setdiff1d(rows, source.bad_rows())
    if len(rows) > most:
        rows = np.sort(rng.choice(rows, most, replace=False))
    return rows


@dataclasses.dataclass(frozen=True)
class _Compared:
    """Some images of a source: reduced as they are compared, and where to read them whole."""

    source: ImageSource
    rows: np.ndarray
    reduced: torch.Tensor
    side: int

    def names_of(self, places: np.ndarray) -> list[str]:
        return self.source.names_of(self.rows[places])

    def read(self, places: np.ndarray) -> torch.Tensor:
        return self.source.read(self.rows[places])


def _compared(source: ImageSource, most: int, rng: np.random.Generator) -> _Compared:
    """At most so many images, of which only the reduced ones are ever all in memory."""
    rows = _thinned_rows(source, most, rng)
    parts, sides = [], set()
    for start in range(0, len(rows), _READ_IMAGES):
        images = source.read(rows[start : start + _READ_IMAGES])
        parts.append(reduce_images(images))
        height, width = images.shape[-2:]
        if height != width:
            raise InputError(
                f"{source.name} holds images of {width}x{height} pixels; pixel by pixel only "
                "square ones are compared (galaxy-set pack --crop)"
            )
        sides.add(width)
    if not parts:
        raise InputError(f"{source.name} holds no usable image")
    if len(sides) > 1:
        raise InputError(f"{source.name} holds images of {len(sides)} sizes")
    channels = max(part.shape[1] for part in parts)
    # Blocks of grey images among blocks of colour; `read` does the same within a block.
    parts = [part.expand(-1, channels, -1, -1) if len(part[0]) == 1 else part for part in parts]
    return _Compared(source, rows, torch.cat(parts), sides.pop())


def _training_images(
    material: _Material, rng: np.random.Generator
) -> tuple[_Compared, _Compared | None, str]:
    """Training images, held-out images if there are, and where the first come from."""
    config = material.config
    held_out = None
    if config.held_out is not None:
        held_out = _compared(_image_side(config.held_out, material), COMPARED_IMAGES, rng)
    if config.training is not None:
        source = _image_side(config.training, material)
        return _compared(source, TRAINING_IMAGES, rng), held_out, config.training
    real, fake = material.images(0), material.images(1)
    if isinstance(fake, SetImages) and len(fake.image_set.training_fingerprints):
        found = _named_by_generator(material, real, fake)
        if found is not None:
            training, unseen = found
            if held_out is None and unseen is not None and len(unseen) >= _LEAST_HELD_OUT:
                held_out = _compared(unseen, COMPARED_IMAGES, rng)
            seen = _compared(training, TRAINING_IMAGES, rng)
            return seen, held_out, "those that the generator names"
    return _compared(real, TRAINING_IMAGES, rng), held_out, "all of REAL"


def _named_by_generator(
    material: _Material, real: ImageSource, fake: SetImages
) -> tuple[SetImages, SetImages | None] | None:
    """The images of REAL's whole set that trained the generator, and those of REAL that did not."""
    if not isinstance(real, SetImages):
        return None
    selection = parse_selection(material.config.real)
    whole, _ = open_set(dataclasses.replace(selection, classes=(), split=None), material.rules)
    trained_on = set(fake.image_set.training_fingerprints.tolist())
    seen = np.array([print_ in trained_on for print_ in whole.fingerprints()], dtype=bool)
    if not seen.any():
        return None
    inside = np.array(
        [print_ in trained_on for print_ in real.image_set.fingerprints()], dtype=bool
    )
    unseen = None if inside.all() else SetImages(real.name, real.image_set.select(~inside))
    training = SetImages(selection.source, whole.select(seen))
    seen_through(training, stretch_in_force(*material.sides), real.name)
    return training, unseen


def _image_side(text: str, material: _Material) -> ImageSource:
    """Other images, their flux seen as that of FAKE is."""
    side = open_side(text, material.rules)
    if not isinstance(side, SetImages | LooseImages):
        raise InputError(f"{text} holds no images; pixels are needed here")
    seen_through(side, stretch_in_force(*material.sides), material.config.real)
    return side
