"""An evaluation: sample, judge, and decide which weights of a run are kept."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from galaxies.pixels import to_network
from gan import guards
from gan.judge import LEAST_VALIDATION, Extractor, Judge
from gan.judge_training import trained_extractor, why_no_judge
from gan.loaded_generator import LoadedGenerator
from gan.pictures import grid, save_picture
from gan.preparation import Preparation
from gan.sampling import CHUNK, draw_chunk, generate, render
from gan.training_config import TrainConfig

GRID_COLUMNS = 8
EVALUATION_SEED = 77


@dataclass
class Verdicts:
    """What one evaluation found.

    Attributes
    ----------
    row : dict
        What joins its line in the log; empty where nothing was judged.
    complaints : list of (str, str)
        Name and sentence of each guard that fired.
    """

    row: dict[str, Any] = field(default_factory=dict)
    complaints: list[tuple[str, str]] = field(default_factory=list)


def make_judge(
    preparation: Preparation,
    config: TrainConfig,
    folder: Path,
    device: torch.device,
    extractor: Extractor | None,
    *,
    progress: bool,
    say: Callable[[str], None],
) -> Judge | None:
    """The judge of a run; where there can be none, ``say`` why."""
    if extractor is None and config.judge == "none":
        return None
    reason = why_no_judge(preparation, has_features=extractor is not None)
    if reason:
        say(f"{reason}: the last checkpoint is kept")
        return None
    assert preparation.judge_validation is not None
    if extractor is None:
        extractor = trained_extractor(
            folder, preparation.judge_train, seed=config.seed, device=device, progress=progress
        )
    judge = Judge(extractor, preparation.judge_train, preparation.judge_validation)
    names = preparation.data.class_names
    unjudged = [repr(names[i]) for i in preparation.chosen if not judge.can_judge(i)]
    if unjudged:
        say(
            f"{', '.join(unjudged)} cannot be judged with fewer than {LEAST_VALIDATION} validation "
            "images: the other chosen classes alone decide which weights are kept"
        )
    return judge


def judge_images(
    judge: Judge, generator: LoadedGenerator, preparation: Preparation, images_each: int
) -> Verdicts:
    """Generate ``images_each`` images of every chosen class and judge them."""
    names = preparation.data.class_names
    kid: dict[str, float] = {}
    copied: list[str] = []
    verdicts: dict[str, Any] = {}
    found = Verdicts()
    for index in preparation.chosen:
        if not judge.can_judge(index):
            continue
        verdict = judge.judge(index, generate(generator, index, images_each, EVALUATION_SEED))
        kid[names[index]] = round(verdict.kid, 6)
        verdicts[names[index]] = verdict.as_json()
        copies = guards.has_memorised(names[index], verdict)
        if copies:
            copied.append(names[index])
        for key, sentence in (
            (f"diversity {index}", guards.has_collapsed(names[index], verdict)),
            (f"copying {index}", copies),
            (f"class {index}", guards.is_mistaken(index, names, verdict)),
        ):
            if sentence:
                found.complaints.append((key, sentence))
    if kid:
        found.row = {
            "kid": kid,
            "score": sum(kid.values()) / len(kid),
            "verdicts": verdicts,
            "copied": copied,
        }
    return found


def rank_of(row: dict[str, Any], *, early: bool) -> list[float]:
    """What an evaluation is compared by; the least is kept.

    Weights from before the class mattered fully (``early``) never win over later ones. Real
    training images would have a KID of 0, so a copy must not win by being one; where all copy,
    the one that does so least is kept. A KID that is not a number loses against every other.
    Without a judge the last weights are kept.
    """
    copied = row.get("copied", [])
    if copied:
        score = max(row["verdicts"][name]["copying"] for name in copied)
    else:
        score = row.get("score", -float(row["step"]))
    # NaN is less than nothing and more than nothing: it would be kept for ever.
    return [float(early), float(bool(copied)), math.inf if math.isnan(score) else float(score)]


def what_was_kept(best: dict[str, Any]) -> str | None:
    """What is wrong even with the best weights; ``None`` where nothing is."""
    if best["rank"] is None:
        return None
    early, copied, score = best["rank"]
    if copied:
        return (
            f"the weights that are kept, of step {best['step']}, copy training images "
            f"({100 * score:.0f} % more often nearest to them than chance), and every other "
            "judged step does so more: generated images add nothing new; train for fewer steps"
        )
    if early:
        return (
            f"the weights that are kept, of step {best['step']}, are from before the class "
            "mattered fully; train for more steps"
        )
    return None


def save_reals(preparation: Preparation, path: Path) -> None:
    """One row of training images per class, filled with sky where a class has few."""
    train = preparation.train
    pieces = []
    for index in preparation.made:
        own = train.of_classes([index])
        shown = own.read(np.arange(min(GRID_COLUMNS, len(own))))
        pieces.append(F.pad(shown, (0, 0, 0, 0, 0, 0, 0, GRID_COLUMNS - len(shown))))
    save_picture(grid(to_network(torch.cat(pieces), train.stretch), GRID_COLUMNS), path)


def save_grid(generator: LoadedGenerator, preparation: Preparation, path: Path) -> None:
    """One row per class, three rows for each chosen one, from the same latents every time."""
    drawn = draw_chunk(generator, torch.Generator().manual_seed(EVALUATION_SEED))
    pieces = []
    for index in preparation.made:
        rows = 3 if index in preparation.chosen else 1
        images = render(generator, drawn, index)
        pieces.append(images[: min(CHUNK, rows * GRID_COLUMNS)])
    save_picture(grid(torch.cat(pieces), GRID_COLUMNS), path)
