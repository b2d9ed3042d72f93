"""Curves over doses, over real images, and over thresholds."""

from typing import Any

import numpy as np

from classify.experiment.comparison import ScoredArm, compare
from classify.experiment.operating_points import precision_recall_curve
from classify.experiment.record import ExperimentRecord
from classify.experiment.scoring import ALL, Scores

RECALLS = np.linspace(0.02, 1, 50)
"""Where precision-recall curves are averaged over repeats."""


def dose_response(
    record: ExperimentRecord, arms: dict[str, ScoredArm], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Gain over the same arm without added images, for each kind, generator and dose."""
    points = []
    for arm in record.arms:
        if not arm.plain_dose or arm.base not in arms:
            continue
        point: dict[str, Any] = {
            "arm": arm.name,
            "baseline": arm.base,
            "kind": arm.kind,
            "generator": arm.generator,
            "dose": arm.dose,
        }
        for measure in ("recall", record.settings["measure"], "average_precision"):
            result = compare(arms[arm.name], arms[arm.base], measure, record.class_index, rng=rng)
            point[measure] = (
                None
                if result is None
                else {
                    "difference": result.estimate.difference,
                    "interval": list(result.estimate.interval),
                }
            )
        points.append(point)
    return sorted(points, key=lambda point: (point["kind"], point["generator"], point["dose"]))


def exchange_rate(
    record: ExperimentRecord, arms: dict[str, ScoredArm], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """What one generated image was worth, in real ones: the ratio of gains at one dose.

    The interval is a bootstrap over repeats and images. Where the gain of real images is not
    clearly above 0 (the interval of `compare`, which also covers the folds) the ratio means
    nothing and is left out; the few draws in which real images gained nothing have no ratio. Both
    gains are differences from one baseline, whose luck they share: that draws the ratio towards
    one half (numerator and denominator rise together), the more the smaller the gains.
    """
    found = []
    real = [arm for arm in record.arms if arm.kind == "real" and arm.plain_dose]
    for ours in record.arms:
        if ours.kind != "gan" or not ours.plain_dose:
            continue
        for other in real:
            if abs(other.dose - ours.dose) > 0.01 or other.base != ours.base:
                continue
            base = arms[ours.base]
            name, index = record.settings["measure"], record.class_index
            gain = arms[ours.name].draws(name, index) - base.draws(name, index)
            rival = arms[other.name].draws(name, index) - base.draws(name, index)
            chosen = rng.integers(0, len(gain), (gain.shape[1], len(gain)))
            gain_of = np.take_along_axis(gain.T, chosen, axis=1).mean(axis=1)
            rival_of = np.take_along_axis(rival.T, chosen, axis=1).mean(axis=1)
            entry: dict[str, Any] = {"arm": ours.name, "real": other.name, "dose": ours.dose}
            certain = compare(arms[other.name], base, name, index, rng=rng)
            if certain is None or certain.estimate.interval[0] <= 0:
                entry |= {"worth": None, "interval": None}
            else:
                gained = rival_of > 0
                ratio = gain_of[gained] / rival_of[gained]
                low, high = np.nanquantile(ratio, (0.025, 0.975))
                means = [
                    np.mean(arms[n].values(name, index) - base.values(name, index))
                    for n in (ours.name, other.name)
                ]
                entry |= {
                    "worth": float(means[0] / means[1]),
                    "interval": [float(low), float(high)],
                }
            found.append(entry)
    return found


def learning_curve(
    record: ExperimentRecord, scores: Scores, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Value of every arm, and its gain, for each number of real images of the class.

    The last count is that of the main experiment. Nothing where it is the only one.
    """
    points: list[dict[str, Any]] = []
    if len(record.keeps) < 2:
        return points
    whole = record.counts["train"][record.class_index]
    counts = {keep: whole if keep == ALL else int(keep) for keep in record.keeps}
    for keep in sorted(record.keeps, key=lambda name: counts[name]):
        arms = {arm.name: scores.arm(arm, keep) for arm in record.arms if keep in arm.units}
        for arm in record.arms:
            if arm.name not in arms:
                continue
            name, index = record.settings["measure"], record.class_index
            point: dict[str, Any] = {
                "real_images": counts[keep],
                "arm": arm.name,
                "baseline": arm.base,
                name: float(np.nanmean(arms[arm.name].values(name, index))),
                "average_precision": float(
                    np.nanmean(arms[arm.name].values("average_precision", index))
                ),
                "difference": None,
                "interval": None,
            }
            if arm.base in arms and arm.base != arm.name:
                result = compare(arms[arm.name], arms[arm.base], name, index, rng=rng)
                if result is not None:
                    point["difference"] = result.estimate.difference
                    point["interval"] = list(result.estimate.interval)
            points.append(point)
    return points


def learning_sentences(points: list[dict[str, Any]], smallest_effect: float) -> list[str]:
    """Where the gain of each arm with a baseline stopped being more than too small to matter."""
    sentences = []
    for name in dict.fromkeys(point["arm"] for point in points if point["interval"]):
        own = [point for point in points if point["arm"] == name and point["interval"]]
        gained = [p["real_images"] for p in own if p["interval"][0] > smallest_effect]
        lost = [p["real_images"] for p in own if p["interval"][1] < -smallest_effect]
        others = [p["real_images"] for p in own if p["real_images"] not in {*gained, *lost}]
        parts = [
            f"{words} with {', '.join(map(str, counts))} real ones"
            for words, counts in (("gained", gained), ("lost", lost), ("not clear", others))
            if counts
        ]
        sentences.append(f"{name} against {own[0]['baseline']}: {'; '.join(parts)}")
    return sentences


def mean_precision_recall(arm: ScoredArm, index: int) -> dict[str, list[float]]:
    """Precision at fixed recalls, mean over repeats (and folds, weighted by positives)."""
    total = np.zeros(len(RECALLS))
    weight = 0.0
    for run in arm.runs:
        for fold in np.unique(run.fold):
            here = run.fold == fold
            positive = run.labels[here] == index
            if positive.any():
                curve = precision_recall_curve(run.probabilities[here, index], positive, RECALLS)
                total += curve * positive.sum()
                weight += float(positive.sum())
    return {"recall": RECALLS.tolist(), "precision": (total / max(weight, 1)).tolist()}
