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
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
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
            # One generator in two experiments has one set of measures, and is one generator.
            measured = {k: v for k, v in point["measures"].items() if k not in OF_THE_ARMS}
            if point["gain"] is not None:
                found.setdefault(tuple(sorted(measured.items())), point)
    return list(found.values())


def predict(points: Sequence[dict[str, Any]], measures: dict[str, float | None]) -> dict[str, Any]:
    """Predicted change of recall of one generator from its quality measures.

    Returns
    -------
    dict
        ``by_measure``: name -> ``prediction``, ``interval``, ``left_out_error``, ``count``;
        ``best``: the measure with the smallest error on generators left out, or ``None``.
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
    return {"by_measure": by_measure, "best": best}


def in_words(name: str, prediction: dict[str, Any]) -> str:
    """One sentence per generator."""
    best = prediction["best"]
    if best is None:
        return (
            f"{name}: no prediction; it needs {FEWEST} generators with finished experiments on "
            "these images (--screen-from RESULTS)"
        )
    found = prediction["by_measure"][best]
    return (
        f"{name}: {MEASURE_WORDS[best]} predicts {in_points(found['prediction'])} points of "
        f"recall (95 % prediction interval {interval_in_points(tuple(found['interval']))}, from "
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
