"""The record of an experiment: what was asked, and under which keys the predictions lie."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from classify.experiment.arms import TO_BALANCE, Arm
from classify.experiment.cli import ExperimentConfig
from classify.experiment.division import Division
from classify.experiment.planner import Planner
from classify.experiment.record import ArmRecord, ExperimentRecord
from classify.experiment.scoring import ALL
from classify.experiment.sources import Sources

_SETTINGS = (
    "measure", "false_positive_rate", "precision", "smallest_effect", "sharp_enough", "draws",
    "seed", "model", "data", "gan_steps", "keep",
)  # fmt: skip
_OF_IMAGES = (
    "steps", "batch_size", "learning_rate", "best_by", "gan_recipe", "gan_scope", "gan_width",
    "gan_batch_size", "gan_parts",
)  # fmt: skip


def record_of(
    config: ExperimentConfig,
    laboratory: Division,
    planner: Planner,
    arms: list[Arm],
    keeps: list[int | None],
    sources: Sources,
    notes: list[str],
) -> ExperimentRecord:
    """What the analysis must know of a planned experiment."""
    items, main = laboratory.items, keeps[0]
    folds = laboratory.folds(main)
    classes = len(items.class_names)

    def counts(rows: np.ndarray) -> list[int]:
        return np.bincount(items.labels[rows], minlength=classes).tolist()

    names = {ALL if index == 0 else str(keep): keep for index, keep in enumerate(keeps)}
    tested = np.concatenate([fold.test for fold in folds])
    return ExperimentRecord(
        class_name=laboratory.class_name,
        class_index=laboratory.setting.class_index,
        class_names=list(items.class_names),
        repeats=config.repeats,
        folds=config.folds,
        counts={
            "train": counts(folds[0].train),
            "validation": counts(folds[0].validation),
            "test": counts(tested),
        },
        keeps=list(names),
        grouped=len(np.unique(laboratory.units)) < len(laboratory.units),
        sources=[dataclasses.asdict(source) for source in dict.fromkeys(sources.values())],
        settings={
            **{
                name: getattr(config, name)
                for name in (*_SETTINGS, *(_OF_IMAGES if laboratory.draws_from_sources else ()))
            },
            "level": 0.05,
            "data_sha256": laboratory.digest,
            "parameters": laboratory.training_of(arms[0], config.seed),
        },
        arms=[arm_record_of(arm, laboratory, planner, config.repeats, names) for arm in arms],
        notes=notes,
        noun=laboratory.noun,
        generator_per_unit=not laboratory.draws_from_sources
        and any(arm.generated for arm in arms),
        mirror_permutation=laboratory.mirror_permutation,
    )  # fmt: skip


def arm_record_of(
    arm: Arm,
    laboratory: Division,
    planner: Planner,
    repeats: int,
    keeps: dict[str, int | None],
    on: Sequence[Arm] = (),
) -> ArmRecord:
    """Where an arm's predictions lie; ``on`` gives the arm it becomes in each fold."""
    main = keeps[ALL]
    folds = len(laboratory.folds(main))
    per_fold = list(on) or [arm] * folds
    dose = 0.0
    if arm.added is not None:
        dose = arm.added.dose
        if dose == TO_BALANCE:
            labels = laboratory.items.labels[laboratory.folds(main)[0].train]
            counts = np.bincount(labels)
            dose = float(counts.max() / counts[laboratory.setting.class_index] - 1)
    plain_dose = arm.added is not None and not (
        arm.added.keep_above
        or arm.added.every_class
        or arm.added.instead
        or arm.on_best
        or any(key.startswith("synthetic_") for key in arm.settings)
    )
    return ArmRecord(
        name=arm.name,
        words=arm.words,
        base=arm.base,
        kind=arm.added.kind if arm.added else "",
        dose=dose,
        generator=arm.added.generator if arm.added else "",
        plain_dose=plain_dose,
        role=_role(arm),
        adjust_logits=[each.adjust_logits for each in per_fold],
        stands_on=[each.base for each in on],
        units={
            name: [
                [planner.unit(per_fold[f], repeat, f, keep).key for f in range(folds)]
                for repeat in range(repeats)
            ]
            for name, keep in keeps.items()
        },
    )


def _role(arm: Arm) -> str:
    if arm.again or (arm.added is not None and (arm.added.instead or arm.added.kind == "real")):
        return "other"
    return "generated" if arm.generated else "classic"
