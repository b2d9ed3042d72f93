"""Pictures for the report: real beside generated images, and the nearest training image of each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from classify.determinism import numpy_generator_for
from classify.experiment.laboratory import Laboratory
from classify.experiment.planner import GeneratorSource
from fid.nearest import nearest_under_symmetries
from galaxies.atomic import whole_file
from galaxies.image_set import ImageSet
from galaxies.symmetry import apply_symmetry

FOLDER = "pictures"
COLUMNS, ROWS = 8, 3
PAIRS = 8
MEASURED = 64
"""Generated images whose nearest training images are looked for."""

GAP = 2
"""Pixels of white between two images of a grid."""


def collect_pictures(
    folder: Path,
    laboratory: Laboratory,
    sources: Mapping[tuple[str, int, int | None], GeneratorSource],
    keep: int | None,
) -> list[dict[str, Any]]:
    """Write PNG grids into ``folder/pictures`` and say what they show.

    Returns
    -------
    list of dict
        ``file``, ``title``, ``caption``.
    """
    fold = laboratory.folds(keep)[0]
    index = laboratory.setting.class_index
    real = laboratory.image_set.select(fold.train).of_classes([index])
    random = numpy_generator_for(laboratory.setting.seed, "pictures")
    shown = real.select(np.sort(random.permutation(len(real))[: COLUMNS * ROWS]))
    found = [
        _picture(
            folder,
            "real",
            grid(displayable(shown)),
            f"Real {laboratory.class_name}",
            f"{len(shown)} of {len(real)} training images, drawn at random.",
        )
    ]
    for number, source in enumerate(_one_per_name(sources, keep)):
        made = laboratory.generated_up_to(source.path, MEASURED, 1)
        first = np.arange(min(len(made), COLUMNS * ROWS))
        name = "" if len({key[0] for key in sources}) < 2 else f" by {source.name}"
        found.append(
            _picture(
                folder,
                f"generated-{number}",
                grid(displayable(made.select(first))),
                f"Generated{name}",
                f"The first {len(first)} images of seed 1, not chosen.",
            )
        )
        seen = laboratory.class_and_twin(fold.train)
        nearest = nearest_under_symmetries(_flat(made), _flat(seen))
        closest = np.argsort(nearest.distance)[:PAIRS]
        turned = apply_symmetry(
            displayable(made)[torch.from_numpy(closest)],
            torch.from_numpy(nearest.symmetry[closest]),
        )
        partner = displayable(seen.select(nearest.index[closest]))
        distances = ", ".join(f"{d:.3f}" for d in nearest.distance[closest])
        found.append(
            _picture(
                folder,
                f"nearest-{number}",
                grid(torch.cat((turned, partner))),
                f"Nearest training images{name}",
                f"Top: the {len(closest)} of {len(made)} generated images that are nearest to a "
                "training image "
                f"(turned to match it); bottom: that image. Root-mean-square distance of pixels "
                f"in [0, 1]: {distances}.",
            )
        )
    return found


def grid(images: torch.Tensor, columns: int = COLUMNS) -> torch.Tensor:
    """(H', W', 3) uint8: images (n, 3, H, W) side by side with white gaps."""
    count, _, height, width = images.shape
    rows = -(-count // columns)
    columns = min(columns, count)
    canvas = torch.full(
        (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, dtype=torch.uint8
    )
    for place, image in enumerate(images):
        top, left = (place // columns) * (height + GAP), (place % columns) * (width + GAP)
        canvas[top : top + height, left : left + width] = image.permute(1, 2, 0)
    return canvas


def displayable(images: ImageSet) -> torch.Tensor:
    """(n, 3, H, W) uint8: grey images thrice, the first three of more channels."""
    pixels = images.pixels
    if images.stretch is not None:
        pixels = images.stretch.compress(pixels).mul(255).round().to(torch.uint8)
    if pixels.shape[1] < 3:
        pixels = pixels[:, :1].repeat(1, 3, 1, 1)
    return pixels[:, :3]


def _flat(images: ImageSet) -> torch.Tensor:
    return images.pixels if images.stretch is None else images.stretch.compress(images.pixels)


def _one_per_name(
    sources: Mapping[tuple[str, int, int | None], GeneratorSource], keep: int | None
) -> list[GeneratorSource]:
    """The generator of the first fold for each name, from the main experiment."""
    first: dict[str, GeneratorSource] = {}
    for (name, _, of_keep), source in sources.items():
        if of_keep == keep:
            first.setdefault(name, source)
    return list(first.values())


def _picture(
    folder: Path, name: str, pixels: torch.Tensor, title: str, caption: str
) -> dict[str, Any]:
    path = folder / FOLDER / f"{name}.png"
    with whole_file(path, overwrite=True) as temporary:
        Image.fromarray(pixels.numpy()).save(temporary, format="PNG", optimize=True)
    return {"file": f"{FOLDER}/{name}.png", "title": title, "caption": caption}
