"""What an experiment refuses before it writes anything."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from classify.experiment.arms import TO_BALANCE, AddedItems, Arm
from classify.experiment.division import Division
from classify.experiment.laboratory import Laboratory
from classify.experiment.protocol import Fold
from classify.joint_features import JOINT_NETWORKS
from classify.tabular import algorithms
from galaxies.command_line import warn
from galaxies.errors import InputError
from gan.tables import FEWEST_ROWS

FEW_PASSES = 10
"""Passes over the training images below which a network is still learning what it will know."""

ENOUGH_PASSES = 15


def usable_arms(arms: Sequence[Arm], laboratory: Division, keep: int | None = None) -> list[Arm]:
    """Arms that make sense for this class and these models; the others are named in a warning.

    Parameters
    ----------
    keep
        Limit of real training items of the class in the main experiment.

    Raises
    ------
    InputError
        If only plain training is left of several arms.
    """
    counts = [_counts(laboratory, fold) for fold in laboratory.folds(keep)]
    index = laboratory.setting.class_index
    is_largest = any(own[index] == own.max() for own in counts)
    kept = []
    for arm in arms:
        why = ""
        if arm.added is not None and arm.added.dose == TO_BALANCE and is_largest:
            why = f"{laboratory.class_name} is as large as any class, there is nothing to balance"
        elif arm.settings["balance"] in ("class-weights", "effective-number") and (
            _model(arm, laboratory) in algorithms.WITHOUT_WEIGHTS
        ):
            why = f"{_model(arm, laboratory)} cannot weigh rows"
        elif (
            arm.added is not None
            and arm.added.kind == "smote"
            and (_model(arm, laboratory) in JOINT_NETWORKS)
        ):
            why = "SMOTE works on what a network sees in images, not on features beside them"
        if why:
            warn(f"arm {arm.name} is left out: {why}")
        else:
            kept.append(arm)
    if len(kept) < 2 <= len(arms):
        raise InputError("no arm is left to compare with plain; name others with --arms")
    return kept


def refuse_small(laboratory: Division, arms: Sequence[Arm], keeps: Sequence[int | None]) -> None:
    """Refuse sides, classes and pools that are too small for what the arms do with them."""
    classes = np.count_nonzero(np.bincount(laboratory.items.labels))
    if classes < 2:
        raise InputError("an experiment needs two classes or more")
    alone = next((arm.name for arm in arms if arm.added is not None and arm.added.instead), None)
    if alone is not None and classes == 2 and laboratory.noun == "images":
        raise InputError(
            f"arm {alone} leaves real images of one class only, and a classifier needs those of "
            "two; leave the arm out"
        )
    for keep in keeps:
        for fold in laboratory.folds(keep):
            _refuse_sides(laboratory, fold)
            if laboratory.noun == "rows":
                _refuse_rows(laboratory, fold, arms)
            for arm in arms:
                if arm.added is not None and arm.added.kind == "real":
                    _refuse_pool(laboratory, fold, arm, arm.added)


def refuse_untrainable(laboratory: Laboratory, arms: Sequence[Arm]) -> None:
    """Refuse settings and networks that would stop a training, before anything trains.

    An arm on the best classic one is tried on every arm that may be the best.
    """
    bases = [arm for arm in arms if arm.added is None]
    for arm in arms:
        for base in bases if arm.on_best else [None]:
            standing = arm if base is None else arm.standing_on(base)
            name = arm.name if base is None else f"{arm.name}, on {base.name},"
            try:
                laboratory.training_of(standing, 0)
            except InputError as error:
                raise InputError(f"arm {name} cannot be trained: {error}") from None
    laboratory.refuse_unbuildable()


def refuse_sizes(laboratory: Division, arms: Sequence[Arm], folds: int, scope: str) -> None:
    """Refuse images that the generators of folds cannot make: by size, or by ``--gan-scope``."""
    every = next((a.name for a in arms if a.added is not None and a.added.every_class), None)
    if folds and scope == "class" and every is not None:
        raise InputError(
            f"arm {every} adds images of every class, but with --gan-scope class the generators "
            "learn one; use --gan-scope all"
        )
    size, able = laboratory.generator_sizes
    if folds and able and size not in able and any(arm.generated for arm in arms):
        raise InputError(
            f"generators make images of {', '.join(map(str, able))} pixels, these have {size}; "
            "bring the set to one of them with: galaxy-set pack SET SET.h5 --size 64"
        )


def warn_of_short_trainings(laboratory: Division, keep: int | None = None) -> None:
    """Say so where the networks see every image a few times only; ``keep`` as in `usable_arms`."""
    training = laboratory.setting.training
    if laboratory.noun == "rows":
        return
    images = min(len(fold.train) for fold in laboratory.folds(keep))
    passes = training["steps"] * training["batch_size"] / images
    if passes < FEW_PASSES:
        enough = math.ceil(ENOUGH_PASSES * images / training["batch_size"])
        warn(
            f"{training['steps']} steps are {passes:.1f} passes over the {images:,} training "
            "images: in trainings this short any added image slows the learning of the real ones "
            f"and may look harmful for it; --steps {enough} makes {ENOUGH_PASSES}"
        )


def note_of_twin(laboratory: Laboratory, arms: Sequence[Arm], *, limited: bool) -> list[str]:
    """What a mirror twin of the class does to arms without, or with fewer, real images of it.

    Parameters
    ----------
    limited
        Whether real images of the class are held back.
    """
    index, names = laboratory.setting.class_index, laboratory.items.class_names
    permutation = laboratory.mirror_permutation
    twin = permutation[index] if permutation else index
    alone = [arm.name for arm in arms if arm.added is not None and arm.added.instead]
    if twin == index or not (limited or alone) or not (laboratory.items.labels == twin).any():
        return []
    consequences = [
        *(["the number of real images is less limited than it seems"] if limited else []),
        *([f"{alone[0]} does not learn from generated images alone"] if alone else []),
    ]
    return [
        f"{names[index]} has a mirror twin, {names[twin]}, and arms with symmetries (balanced is "
        f"one) take its mirrored images for {names[index]}: {' and '.join(consequences)}."
    ]


def refuse_missing_algorithms(laboratory: Division, arms: Sequence[Arm]) -> None:
    """Refuse an algorithm whose package is not installed."""
    for name in {_model(arm, laboratory) for arm in arms} & set(algorithms.CLASSICAL):
        algorithms.estimator(name, 0)


def _refuse_sides(laboratory: Division, fold: Fold) -> None:
    labels = laboratory.items.labels
    for side in ("train", "validation", "test"):
        own = int((labels[getattr(fold, side)] == laboratory.setting.class_index).sum())
        if own < 2:
            raise InputError(
                f"the {side} side of fold {fold.index} holds {own} {laboratory.noun} of "
                f"{laboratory.class_name}; an experiment needs 2 or more"
            )


def _refuse_rows(laboratory: Division, fold: Fold, arms: Sequence[Arm]) -> None:
    counts = _counts(laboratory, fold)
    models = {_model(arm, laboratory) for arm in arms}
    fewest, what = (algorithms.SVM_FOLDS, "svm") if "svm" in models else (2, "an experiment")
    for name, own in zip(laboratory.items.class_names, counts.tolist(), strict=True):
        if own < fewest:
            raise InputError(
                f"the training side of fold {fold.index} holds {own} rows of {name}; {what} "
                f"needs {fewest} or more of every class"
            )
    own = int(counts[laboratory.setting.class_index])
    learnt_from = own - int(algorithms.SET_ASIDE * own)  # boosting sets the others aside
    generated = next((arm.name for arm in arms if arm.generated), None)
    if generated is not None and learnt_from < FEWEST_ROWS:
        raise InputError(
            f"the training side of fold {fold.index} holds {own} rows of "
            f"{laboratory.class_name}; the generator of arm {generated} needs {FEWEST_ROWS} or "
            "more beside a tenth that is set aside; use smote@1 instead"
        )


def _refuse_pool(laboratory: Division, fold: Fold, arm: Arm, added: AddedItems) -> None:
    counts = _counts(laboratory, fold)
    needed = added.count(int(counts[laboratory.setting.class_index]), int(counts.max()))
    pool = len(fold.held_back)
    if pool == 0:
        raise InputError(
            f"arm {arm.name} adds real {laboratory.noun} that were held back, and none were; hold "
            "some back with --folds K --keep N"
        )
    if pool < needed:
        raise InputError(
            f"arm {arm.name} needs {needed} real {laboratory.noun} held back, fold {fold.index} "
            f"has {pool}; lower --keep or the dose"
        )


def _counts(laboratory: Division, fold: Fold) -> np.ndarray:
    items = laboratory.items
    return np.bincount(items.labels[fold.train], minlength=len(items.class_names))


def _model(arm: Arm, laboratory: Division) -> Any:
    return arm.settings.get("model", laboratory.setting.training.get("model"))
