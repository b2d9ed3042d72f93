"""From stored units to scored arms, and the choice of the best arms on validation images."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from classify.experiment.comparison import ImageResamples, ScoredArm
from classify.experiment.measures import (
    FoldPredictions,
    OperatingPoints,
    RunPredictions,
    join_folds,
)
from classify.experiment.operating_points import average_precision
from classify.experiment.record import ArmRecord, ExperimentRecord
from classify.experiment.units import UnitStore

GROUPS_FILE = "groups.npy"
ALL = "all"
BEST_CLASSIC = "best without generated {noun}"
BEST_GENERATED = "best with generated {noun}"


def adjusted(predictions: FoldPredictions, counts: Sequence[float], tau: float) -> FoldPredictions:
    """Logit adjustment after training: divide by the class frequencies to the power ``tau``.

    A. K. Menon et al. (2021), arXiv:2007.07314, equation 9.
    """
    if tau == 0:
        return predictions
    share = np.asarray(counts, dtype=np.float64) / np.sum(counts)
    factor = np.where(share > 0, np.maximum(share, 1e-12), 1.0) ** -tau

    def apply(probabilities: np.ndarray) -> np.ndarray:
        raised = probabilities.astype(np.float64) * factor
        return raised / raised.sum(axis=1, keepdims=True)

    return dataclasses.replace(
        predictions,
        validation_probabilities=apply(predictions.validation_probabilities),
        test_probabilities=apply(predictions.test_probabilities),
    )


def counts_seen(
    metrics: Mapping[str, Any],
    config: Mapping[str, Any],
    mirror_permutation: Sequence[int],
) -> np.ndarray:
    """(K,) class frequencies that a network learnt from: those that adjusted logits divide by.

    Parameters
    ----------
    metrics, config
        Of the stored unit.
    mirror_permutation
        (K,) class of the mirror image of each class, or empty. With symmetries half of the images
        of a class come as those of its twin.
    """
    counts = np.asarray(metrics["training_counts"], dtype=np.float64)
    training, images = config["training"], config.get("images") or {}
    follows_real = (
        training.get("synthetic_share") is not None or training.get("synthetic_until", 1.0) < 1
    )
    if follows_real and images.get("kind", "smote") != "smote":
        note = metrics["added"]
        added = np.zeros_like(counts)
        added[config["class_index"]] = note["count"]
        counts = counts - np.asarray(note.get("per_class", added))
    if training.get("symmetries") and len(mirror_permutation):
        counts = (counts + counts[list(mirror_permutation)]) / 2
    return counts


class Scores:
    """Predictions of every arm of an experiment, read once.

    Parameters
    ----------
    folder
        The results folder.
    record
        What was run.
    """

    def __init__(self, folder: Path, record: ExperimentRecord) -> None:
        self.folder = folder
        self.record = record
        self.store = UnitStore(folder)
        self.points = OperatingPoints(
            record.settings["false_positive_rate"], record.settings["precision"]
        )
        self._resamples: dict[str, ImageResamples] = {}
        self._loaded: dict[tuple[str, str], list[list[FoldPredictions]]] = {}

    def predictions(self, arm: ArmRecord, keep: str = ALL) -> list[list[FoldPredictions]]:
        """[repeat][fold] predictions of an arm, logits adjusted."""
        place = (arm.name, keep)
        if place not in self._loaded:
            self._loaded[place] = [
                [self._fold(arm, key, fold) for fold, key in enumerate(keys)]
                for keys in arm.units[keep]
            ]
        return self._loaded[place]

    def _fold(self, arm: ArmRecord, key: str, fold: int) -> FoldPredictions:
        output = self.store.load(key)
        tau = arm.adjust_logits[fold]
        if tau == 0:
            return output.predictions
        mirrored = self.record.mirror_permutation
        counts = counts_seen(output.metrics, self.store.config(key), mirrored)
        return adjusted(output.predictions, counts.tolist(), tau)

    def arm(self, arm: ArmRecord, keep: str = ALL) -> ScoredArm:
        """An arm ready to be compared."""
        runs = [join_folds(folds, self.points) for folds in self.predictions(arm, keep)]
        return ScoredArm(arm.name, runs, self.resamples(runs[0], keep))

    def chosen(self, role: str, name: str, keep: str = ALL) -> tuple[ScoredArm, list[str]]:
        """The arm made of the best arm of a role in each fold, and their names.

        The choice of a fold rests on its own validation images, so the images that it tests had
        no say in it.
        """
        choice = choose_best(self, role, keep)
        by_fold = [self.predictions(self.record.arm(best), keep) for best in choice]
        runs = [
            join_folds([by_fold[f][r][f] for f in range(len(choice))], self.points)
            for r in range(self.record.repeats)
        ]
        name = name.format(noun=self.record.noun)
        label = choice[0] if len(set(choice)) == 1 else name
        return ScoredArm(label, runs, self.resamples(runs[0], keep)), choice

    def border(self) -> dict[str, float]:
        """Where training ends and validation begins, over the repeats of the main experiment.

        Returns
        -------
        dict
            ``choosing_share``: mean share of the first fold's validation images that choose
            weights and thresholds, the others being trained on. ``different``: how many
            different borders the repeats have, least over the folds. ``different_of_class``: the
            same of the images of the class alone, whose border ``--keep`` holds in place.
        """
        by_repeat = self.predictions(next(arm for arm in self.record.arms if ALL in arm.units))
        index, whole = self.record.class_index, sum(self.record.counts["validation"])
        shares = [len(folds[0].validation_rows) / max(1, whole) for folds in by_repeat]
        different, of_class = [], []
        for of_fold in zip(*by_repeat, strict=True):
            own = [fold.validation_rows[fold.validation_labels == index] for fold in of_fold]
            different.append(len({frozenset(fold.validation_rows.tolist()) for fold in of_fold}))
            of_class.append(len({frozenset(rows.tolist()) for rows in own}))
        return {
            "choosing_share": float(np.mean(shares)),
            "different": min(different),
            "different_of_class": min(of_class),
        }

    def resamples(self, run: RunPredictions, keep: str) -> ImageResamples:
        """Bootstrap weights, the same for all arms."""
        if keep not in self._resamples:
            group = None
            if self.record.grouped:
                group = np.load(self.folder / GROUPS_FILE, allow_pickle=False)[run.rows]
            self._resamples[keep] = ImageResamples.draw(
                run.labels,
                run.fold,
                group,
                self.record.settings["draws"],
                np.random.default_rng(self.record.settings["seed"]),
            )
        return self._resamples[keep]


def choose_best(
    scores: Scores, role: str, keep: str = ALL, *, without_added: bool = False
) -> list[str]:
    """Per fold, the arm of ``role`` with the highest average precision on validation images.

    ``without_added`` leaves out arms that add items: nothing can stand on them.
    """
    candidates = [
        arm for arm in scores.record.arms if arm.role == role and not (without_added and arm.kind)
    ]
    index = scores.record.class_index
    folds = len(candidates[0].units[keep][0])
    best = []
    for fold in range(folds):
        means = []
        for arm in candidates:
            runs = scores.predictions(arm, keep)
            means.append(np.mean([validation_average_precision(run[fold], index) for run in runs]))
        best.append(candidates[int(np.argmax(means))].name)
    return best


def validation_average_precision(predictions: FoldPredictions, index: int) -> float:
    """Average precision of a class on the validation images of one unit."""
    positive = predictions.validation_labels == index
    if not positive.any():
        return 0.0
    scores = predictions.validation_probabilities[:, index].astype(np.float64)
    return float(average_precision(scores, positive)[0])
