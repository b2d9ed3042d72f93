"""Writing generated images: an HDF5 set, a folder of PNG files, or a walk through latents."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from galaxies.atomic import whole_folder
from galaxies.command_line import warn
from galaxies.errors import InputError
from galaxies.hdf5 import HDF5_ENDINGS, write_hdf5
from galaxies.image_files import encode_png
from galaxies.image_set import ImageSet
from gan.generate import FILM, MARKS, PROVENANCE, GenerateConfig
from gan.interpolation import closed_walk
from gan.loaded_generator import LoadedGenerator
from gan.pictures import grid, save_film, save_picture
from gan.sampling import generate
from gan.scores import SCORE_NAMES, Scorer, chosen_rows
from gan.synthetic_set import synthetic_set

MOST_BYTES = 255
"""Of a folder's name, on the file systems there are."""


def write_synthetic_set(
    loaded: LoadedGenerator, classes: list[int], choices: GenerateConfig
) -> dict[str, Any]:
    """Generate, filter, score and write; returns what was done, for ``--json``."""
    assert choices.out is not None
    as_set = choices.out.suffix.lower() in HDF5_ENDINGS
    if not as_set:
        _refuse_what_png_cannot_hold(loaded)
        _refuse_names_of_no_folder([loaded.class_names[index] for index in classes])
    names = SCORE_NAMES if choices.scores else (choices.by,) if choices.by else ()
    scorer = Scorer(loaded, by=choices.by, names=names, data=choices.data) if names else None
    needed = -(-choices.count // choices.keep) if choices.keep < 1 else choices.count
    images: list[torch.Tensor] = []
    scores: list[np.ndarray | None] = []
    removed: dict[str, dict[str, Any]] = {}
    for index in classes:
        made = generate(loaded, index, int(needed), choices.seed, choices.truncation, progress=True)
        table = None if scorer is None else scorer.score(index, made)
        if choices.by is not None:
            assert table is not None
            judged = table[:, names.index(choices.by)]
            rows = chosen_rows(judged, choices.count)
            name = loaded.class_names[index]
            removed[name] = {
                "generated": len(made),
                "kept": len(rows),
                "by": choices.by,
                "least_score_kept": float(judged[rows].min()),
            }
            made, table = made[torch.from_numpy(rows)], table[rows]
        images.append(made)
        scores.append(table)
    image_set = synthetic_set(loaded, classes, images, choices.seed, choices.truncation)
    if removed:
        image_set.provenance["generator"]["filter"] = removed
    if scorer is not None:
        tables = [table for table in scores if table is not None]
        image_set = _with_scores(image_set, scorer.names, tables)
    if as_set:
        write_hdf5(image_set, choices.out, overwrite=choices.overwrite)
    else:
        _write_folder(image_set, choices.out, overwrite=choices.overwrite)
    listed = ", ".join(loaded.class_names[index] for index in classes)
    sentence = f"{choices.out}: {len(image_set)} images of {listed}"
    for name, how in removed.items():
        sentence += (
            f"; {name}: the best {how['kept']} of {how['generated']} by {how['by']}, "
            f"{how['generated'] - how['kept']} removed"
        )
    return {
        "out": str(choices.out),
        "images": len(image_set),
        "filter": removed,
        "generator": image_set.provenance["generator"],
        "sentence": sentence,
    }


def write_interpolation(
    loaded: LoadedGenerator, classes: list[int], choices: GenerateConfig
) -> dict[str, Any]:
    """Write ``strip.png`` and ``film.gif``: a closed walk through latents of each class."""
    assert choices.out is not None
    strips: list[torch.Tensor] = []
    films: list[torch.Tensor] = []
    for index in classes:
        for pieces, stops, between in ((strips, 4, 2), (films, 6, 16)):
            path = closed_walk(
                loaded,
                index,
                stops=stops,
                between=between,
                seed=choices.seed,
                truncation=choices.truncation,
            )
            pieces.append(path)
    with whole_folder(choices.out, overwrite=choices.overwrite, marks=MARKS) as folder:
        save_picture(grid(torch.cat(strips), len(strips[0])), folder / "strip.png")
        save_film(torch.cat(films), folder / FILM)
    names = ", ".join(loaded.class_names[index] for index in classes)
    sentence = f"{choices.out}: strip.png and film.gif of {names}"
    return {"out": str(choices.out), "sentence": sentence}


def _with_scores(image_set: ImageSet, names: tuple[str, ...], tables: list[np.ndarray]) -> ImageSet:
    import dataclasses

    return dataclasses.replace(
        image_set,
        features=np.concatenate(tables).astype(np.float32),
        feature_names=names,
    )


def _refuse_what_png_cannot_hold(loaded: LoadedGenerator) -> None:
    if loaded.channels not in (1, 3):
        raise InputError(
            f"a PNG holds 1 or 3 channels, this generator makes {loaded.channels}; "
            "write a set: --out NAME.h5"
        )
    if loaded.description.data.stretch is not None:
        raise InputError(
            "this generator makes float32 flux, which a PNG cannot hold; write --out NAME.h5"
        )


def _refuse_names_of_no_folder(names: list[str]) -> None:
    """Before anything is generated."""
    for name in names:
        if not name or "/" in name or name.startswith(".") or len(name.encode()) > MOST_BYTES:
            raise InputError(f"class {name!r} cannot name a folder; write a set: --out NAME.h5")


def _write_folder(image_set: ImageSet, out: Path, *, overwrite: bool) -> None:
    """One sub-folder per class, and ``provenance.json``; opens as a set again."""
    with whole_folder(out, overwrite=overwrite, marks=MARKS) as folder:
        pixels = image_set.pixels.permute(0, 2, 3, 1).contiguous().numpy()
        counters: dict[int, int] = {}
        for row in tqdm(range(len(image_set)), unit="image", desc="write"):
            label = int(image_set.labels[row])
            name = image_set.class_names[label]
            (folder / name).mkdir(exist_ok=True)
            number = counters.get(label, 0)
            counters[label] = number + 1
            (folder / name / f"{number:06d}.png").write_bytes(encode_png(pixels[row]))
        record = {
            **image_set.provenance,
            "class_names": list(image_set.class_names),
            "mirror_pairs": image_set.mirror_pairs,
            "training_fingerprints": image_set.training_fingerprints.tolist(),
            "training_ids": image_set.training_ids.tolist(),
        }
        if image_set.feature_names:
            record["feature_names"] = list(image_set.feature_names)
            record["features"] = image_set.features.tolist()
        (folder / PROVENANCE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if len(image_set.class_names) != len(counters):
        warn(
            f"{out} holds sub-folders of {len(counters)} of the {len(image_set.class_names)} "
            "classes; read alone they are numbered anew (an .h5 output keeps the numbers)"
        )
