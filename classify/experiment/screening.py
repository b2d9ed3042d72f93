"""An early answer: what earlier experiments predict of a new generator, before its arms are run.

A straight line per quality measure through the (quality, change of recall) pairs of finished
experiments on the same images, and a 95 % prediction interval around it. The measure whose line
predicts best when each generator is left out in turn gives the headline.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from classify.experiment.measures import gain_in_words
from classify.experiment.quality import MEASURE_WORDS
from classify.experiment.verdict import in_points, interval_in_points
from galaxies.command_line import warn

OF_THE_ARMS = ("cas",)
"""Measures that are known only once the arms have been trained."""

FEWEST = 4
"""Generators with known gain that a prediction needs."""


SAME_TRAINING = (
    "data_sha256", "measure", "model", "steps", "batch_size", "learning_rate", "best_by", "keep",
)  # fmt: skip
"""Settings on which a gain depends: those of two experiments must be the same."""

RATE_OF = {
    "recall_at_false_positive_rate": "false_positive_rate",
    "recall_at_precision": "precision",
}
"""Measure -> the setting that it depends on as well."""


def earlier_points(
    folders: Sequence[Path],
    class_name: str,
    settings: Mapping[str, Any],
    quality_now: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """(quality, gain) points of finished experiments that can be compared, each generator once.

    A gain is that of one dose on one recipe, so only arms of one kind are taken: those of which
    most generators are known.

    Parameters
    ----------
    folders
        Results folders; those that cannot be compared are named on stderr and left out.
    class_name
        The class at stake.
    settings
        `SAME_TRAINING` of the experiment that is to be predicted, and the rate of its measure.
    quality_now
        ``features`` and ``weights_sha256`` of the measures that shall predict.
    """
    by_recipe: dict[str, dict[Any, dict[str, Any]]] = {}
    for folder in folders:
        path = folder / "results.json"
        try:
            results = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            warn(f"{path} is no finished experiment; left out")
            continue
        quality = results.get("quality")
        if not quality:
            continue
        theirs = results.get("settings", {})
        names = [*SAME_TRAINING, *filter(None, [RATE_OF.get(settings["measure"])])]
        others = [name for name in names if theirs.get(name) != settings[name]]
        if results.get("class") != class_name:
            others.append("class")
        others += [n for n in ("features", "weights_sha256") if quality.get(n) != quality_now[n]]
        if others:
            warn(f"{path} cannot be compared, it has other {', '.join(others)}; left out")
            continue
        for point in quality["points"]:
            if point["gain"] is not None:
                found = by_recipe.setdefault(recipe_of(point.get("arm") or ""), {})
                found.setdefault(identity_of(point), point)
    if not by_recipe:
        return []
    most = max(by_recipe, key=lambda recipe: len(by_recipe[recipe]))
    for recipe, points in by_recipe.items():
        if recipe != most:
            warn(
                f"what {recipe} gained with {len(points)} generators is left out: the prediction "
                f"is about {most}"
            )
    return list(by_recipe[most].values())


def recipe_of(arm: str) -> str:
    """The name of an arm without that of its generator: ``gan:mergers@1`` becomes ``gan@1``."""
    parts = []
    for part in arm.split("+"):
        name, _, value = part.partition("@")
        is_added = name.partition(":")[0] == "gan"
        parts.append(f"gan@{value or 1}" if is_added else part)
    if len(parts) == 2 and parts[0] == "balanced":  # what gan stands on where nothing is named
        del parts[0]
    return "+".join(parts)


def identity_of(point: Mapping[str, Any]) -> Any:
    """What tells generators apart: their weights, in older results their measures."""
    measured = {k: v for k, v in point["measures"].items() if k not in OF_THE_ARMS}
    return point.get("sha256") or tuple(sorted(measured.items()))


def predict(points: Sequence[dict[str, Any]], measures: dict[str, float | None]) -> dict[str, Any]:
    """Predicted gain of one generator from its quality measures.

    Parameters
    ----------
    points
        From `earlier_points`, without the generator itself: what is known is no prediction.
    measures
        Of the generator.

    Returns
    -------
    dict
        ``by_measure``: name -> ``prediction``, ``interval``, ``left_out_error``, ``count``;
        ``best``: the measure with the smallest error on generators left out, or ``None``;
        ``arm``: the recipe whose gain it is; ``known``: generators whose gain is known.
    """
    by_measure: dict[str, Any] = {}
    for name in MEASURE_WORDS:
        value = measures.get(name)
        known = [(p["measures"].get(name), p["gain"]) for p in points]
        pairs = np.array([(q, g) for q, g in known if q is not None], dtype=float)
        if value is None or len(pairs) < FEWEST or np.ptp(pairs[:, 0]) == 0:
            continue
        centre, interval = _line(pairs[:, 0], pairs[:, 1], value)
        left_out = []
        for row in range(len(pairs)):
            others = np.delete(pairs, row, axis=0)
            guess = float(others[:, 1].mean())  # all that others of one quality can tell
            if np.ptp(others[:, 0]) > 0:
                guess, _ = _line(others[:, 0], others[:, 1], pairs[row, 0])
            left_out.append(guess - pairs[row, 1])
        by_measure[name] = {
            "prediction": centre,
            "interval": list(interval),
            "left_out_error": float(np.sqrt(np.mean(np.square(left_out)))),
            "count": len(pairs),
        }
    best = min(by_measure, key=lambda name: by_measure[name]["left_out_error"], default=None)
    arm = recipe_of(points[0].get("arm") or "") if points else ""
    return {"by_measure": by_measure, "best": best, "arm": arm, "known": len(points)}


def in_words(name: str, prediction: dict[str, Any], measure: str = "recall") -> str:
    """One sentence per generator; ``measure`` is that of the verdict."""
    best = prediction["best"]
    if best is None:
        return (
            f"{name}: no prediction; it needs {FEWEST} other generators with finished experiments "
            f"on these images (--screen-from RESULTS), and {prediction['known']} are known"
        )
    found = prediction["by_measure"][best]
    of_arm = f" for {prediction['arm']}" if prediction.get("arm") else ""
    return (
        f"{name}: {MEASURE_WORDS[best]} predicts {in_points(found['prediction'])} points of "
        f"{gain_in_words(measure)}{of_arm} (95 % prediction interval "
        f"{interval_in_points(tuple(found['interval']))}, from "
        f"{found['count']} generators; {MEASURE_WORDS[best]} was chosen among "
        f"{len(prediction['by_measure'])} measures for its small error on them, which the interval "
        "does not know of)"
    )


def _line(x: np.ndarray, y: np.ndarray, at: float) -> tuple[float, tuple[float, float]]:
    """Least-squares value at ``at`` and its 95 % prediction interval."""
    count = len(x)
    slope, offset = np.polyfit(x, y, 1)
    centre = float(slope * at + offset)
    if count < 3:
        return centre, (-math.inf, math.inf)
    spread = float(np.sum((y - slope * x - offset) ** 2) / (count - 2))
    distance = (at - x.mean()) ** 2 / np.sum((x - x.mean()) ** 2)
    error = math.sqrt(spread * (1 + 1 / count + distance))
    half = float(stats.t.isf(0.025, count - 2)) * error
    return centre, (centre - half, centre + half)
