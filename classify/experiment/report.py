"""``report.html``: the results to look at."""

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from classify.experiment.curves import learning_sentences
from classify.experiment.figures import Series, chart, legend, strip
from classify.experiment.measures import MEASURES, gain_in_words
from classify.experiment.paper import protocol_text
from classify.experiment.verdict import in_points, interval_in_points
from galaxies.atomic import write_text

REPORT = "report.html"
TEMPLATE = "report.html.jinja"

TONES = {
    "helped": "helped",
    "harmed": "harmed",
    "no detectable effect": "none",
    "too small to tell": "unclear",
}
"""Claim -> CSS class."""

MOST_CURVES = 8
"""Precision-recall curves in one chart: more cannot be told apart."""


def write_report(folder: Path, results: dict[str, Any]) -> Path:
    """Write the self-contained page; pictures come from ``folder/pictures``."""
    environment = Environment(
        loader=PackageLoader("classify.experiment", "."),
        autoescape=select_autoescape(["jinja", "html"], default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "points": _points,
        "interval": lambda pair: "–" if pair is None else _minus(interval_in_points(pair)),
        "sentence": _minus,
        "three": lambda v: "–" if v is None else f"{v:.3f}",
        "parts": lambda arm: Markup("+<wbr>").join(arm.split("+")),
        "p": lambda v: "–" if v is None else ("< .001" if v < 0.001 else f"{v:.3f}"),
        "tone": lambda claim: TONES.get(claim, "unclear"),
    }
    page = environment.get_template(TEMPLATE).render(
        results=results,
        verdict=results["verdict"],
        verdict_strip=_verdict_strip(results),
        reached=_reached(results),
        rows=_arm_rows(results),
        forest=_forest(results),
        dose=_dose_chart(results),
        curves=_curves(results),
        costs=_costs(results),
        confusions=_confusions(results),
        pictures=_pictures(folder, results),
        quality=_quality_charts(results),
        learning=_learning_chart(results),
        learnt=learning_sentences(results["learning_curve"], results["rule"]["smallest_effect"]),
        protocol=protocol_text(results),
        measures=MEASURES,
        gain=gain_in_words(results["measure"]),
    )
    write_text(folder / REPORT, page)
    return folder / REPORT


def _points(value: float, signed: bool = True) -> str:
    return _minus(in_points(value, signed=signed))


def _minus(text: str) -> str:
    """Hyphens before digits as minus signs."""
    return re.sub(r"(?<![\w)])-(?=\d)", "\u2212", text)


def _verdict_strip(results: dict[str, Any]) -> Markup | None:
    found = results["verdict"].get("comparison")
    if not found:
        return None
    low, high = found["interval"]
    scale = _scale([low, high, results["rule"]["smallest_effect"]])
    return Markup(
        strip(low, found["difference"], high, scale=scale,
              region=results["rule"]["smallest_effect"],
              tone=TONES.get(results["verdict"]["claim"], "unclear"), ticks_below=True)
    )  # fmt: skip


def _arm_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    name = results["class"]
    rows = []
    by_fold = results["chosen_by_fold"]
    of_arms = results["arms"] | {arm: found["classes"] for arm, found in by_fold.items()}
    overall = results["overall"] | {arm: found["overall"] for arm, found in by_fold.items()}
    for arm, classes in of_arms.items():
        own = classes[name]
        words = results["arms_in_words"].get(arm, "chosen on validation in each fold")
        row: dict[str, Any] = {"arm": arm, "words": words, "cells": []}
        for measure in ("recall", "precision", "recall_at_false_positive_rate",
                        "average_precision"):  # fmt: skip
            row["cells"].append(_mean_and_spread(own[measure]))
        for measure in ("macro_recall", "calibration_error"):
            row["cells"].append(_mean_and_spread(overall[arm][measure]))
        rows.append(row)
    single = [row for row in rows if row["arm"] in results["arms"]]
    for column in range(len(rows[0]["cells"])):
        means = [row["cells"][column]["mean"] for row in single]
        known = [mean for mean in means if mean is not None]
        best = (min if column == len(rows[0]["cells"]) - 1 else max)(known, default=None)
        for row in single:
            cell = row["cells"][column]
            cell["best"] = cell["mean"] is not None and cell["mean"] == best
    return rows


def _mean_and_spread(values: list[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    if not known:
        return {"mean": None, "spread": None, "defined": 0, "of": len(values)}
    return {
        "mean": float(np.mean(known)),
        "spread": float(np.std(known, ddof=1)) if len(known) > 1 else 0.0,
        "defined": len(known),
        "of": len(values),
    }


def _forest(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of differences on the verdict's measure, one block per baseline."""
    entries = [
        entry
        for entry in results["comparisons"] + results["other_comparisons"]
        if entry["measure"] == results["measure"] and entry["class"] == results["class"]
        and entry["interval"] is not None
    ]  # fmt: skip
    if not entries:
        return []
    ends = [abs(end) for entry in entries for end in entry["interval"]]
    scale = _scale([*ends, results["rule"]["smallest_effect"]])
    blocks = []
    for baseline in dict.fromkeys(entry["baseline"] for entry in entries):
        members = [entry for entry in entries if entry["baseline"] == baseline]
        rows = []
        for place, entry in enumerate(members):
            low, high = entry["interval"]
            rows.append(
                {
                    **entry,
                    "strip": Markup(
                        strip(low, entry["difference"], high, scale=scale,
                              region=results["rule"]["smallest_effect"],
                              tone=TONES[entry["claim"]],
                              ticks_below=place == len(members) - 1)
                    ),
                }
            )  # fmt: skip
        blocks.append({"baseline": baseline, "rows": rows})
    return blocks


def _dose_chart(results: dict[str, Any]) -> Markup | None:
    measure, gain = results["measure"], gain_in_words(results["measure"])
    groups: dict[str, list[dict[str, Any]]] = {}
    for point in results["dose_response"]:
        if point[measure] is not None:
            name = " ".join(part for part in (point["kind"], point["generator"]) if part)
            groups.setdefault(f"{name} on {point['baseline']}", []).append(point)
    doses = sorted({point["dose"] for points in groups.values() for point in points})
    if sum(len(points) for points in groups.values()) < 2 or (
        len(doses) == 1 and len(groups) > MOST_CURVES  # many generators at one dose: no response
    ):
        return None
    series = []
    count = len(groups)
    for index, (name, points) in enumerate(groups.items()):
        shift = 0.015 * (index - (count - 1) / 2)
        series.append(
            Series(
                name,
                [np.log2(point["dose"]) + 4 * shift for point in points],
                [100 * point[measure]["difference"] for point in points],
                [100 * point[measure]["interval"][0] for point in points],
                [100 * point[measure]["interval"][1] for point in points],
                [point["arm"] for point in points],
            )
        )
    region = 100 * results["rule"]["smallest_effect"]
    drawn = chart(
        series,
        x_title=f"added {results['noun']} per real one of the class",
        y_title=f"change of {gain} (points)",
        band=(-region, region),
        zero=True,
        x_ticks=[(float(np.log2(dose)), f"{dose:.3g}") for dose in _apart(doses)],
        description=f"Change of {gain} over the dose of added {results['noun']}, 95 % intervals",
    )
    return Markup(drawn + legend(list(groups)))


def _apart(doses: Sequence[float]) -> list[float]:
    """Doses, or counts, whose labels do not overlap on a logarithmic axis."""
    shown: list[float] = []
    for dose in doses:
        if not shown or dose / shown[-1] > 1.3:
            shown.append(dose)
    return shown


def _reached(results: dict[str, Any]) -> str | None:
    """What the matched thresholds of the verdict came to on the test images."""
    verdict, name = results["verdict"], "false_positive_rate_reached"
    change = (verdict.get("reached") or {}).get(name)
    if not change:
        return None
    found = results["arms"] | {
        arm: one["classes"] for arm, one in results["chosen_by_fold"].items()
    }
    rates = [
        float(np.mean(found[side][results["class"]][name]))
        for side in (verdict["arm"], verdict["baseline"])
    ]
    rate = 100 * results["matched"]["false_positive_rate"]
    return _minus(
        f"The thresholds, chosen on validation {results['noun']} for {rate:g} % false positives, "
        f"came to {100 * rates[0]:.1f} % on the test {results['noun']} with generated "
        f"{results['noun']} and to {100 * rates[1]:.1f} % without (a difference of "
        f"{in_points(change['difference'])} points, {interval_in_points(change['interval'])})."
    )


def _curves(results: dict[str, Any]) -> Markup:
    names = list(results["precision_recall"])
    verdict = results["verdict"]
    first = [n for n in ("plain", verdict.get("baseline"), verdict.get("arm")) if n in names]
    chosen = list(dict.fromkeys([*first, *names]))[:MOST_CURVES]
    series = [
        Series(
            name,
            results["precision_recall"][name]["recall"],
            results["precision_recall"][name]["precision"],
            marks=False,
        )
        for name in chosen
    ]
    drawn = chart(
        series,
        x_title="recall",
        y_title="precision",
        x_range=(0, 1),
        y_range=(0, 1),
        description=f"Precision over recall of {results['class']} for each arm",
    )
    return Markup(drawn + legend(chosen))


def _costs(results: dict[str, Any]) -> dict[str, Any] | None:
    """Change of the recall of every class, each arm against its base."""
    classes = [name for name in results["class_names"] if name != results["class"]]
    rows = []
    entries = {(e["arm"], e["baseline"], e["class"]): e for e in results["comparisons"]}
    pairs = list(dict.fromkeys((e["arm"], e["baseline"]) for e in results["comparisons"]))
    for arm, baseline in pairs:
        cells = []
        for name in [results["class"], *classes]:
            entry = entries.get((arm, baseline, name))
            value = None if entry is None else entry["difference"]
            cells.append(
                {
                    "value": value,
                    "claim": None if entry is None else entry["claim"],
                    "shade": 0 if value is None else min(1.0, abs(value) / 0.2),
                    "down": value is not None and value < 0,
                }
            )
        rows.append({"arm": arm, "baseline": baseline, "cells": cells})
    return {"classes": [results["class"], *classes], "rows": rows} if rows else None


def _confusions(results: dict[str, Any]) -> list[dict[str, Any]]:
    verdict, arms = results["verdict"], results["confusion"]
    chosen = ("plain", verdict.get("baseline"), verdict.get("arm"))
    names = list(dict.fromkeys(name for name in chosen if name in arms)) or list(arms)[:3]
    found = []
    for name in names:
        rows = []
        for truth, counts in zip(results["class_names"], arms[name], strict=True):
            total = sum(counts)
            rows.append(
                {
                    "truth": truth,
                    "cells": [
                        {"count": count, "share": count / total if total else 0.0}
                        for count in counts
                    ],
                }
            )
        found.append({"arm": name, "rows": rows})
    return found


def _pictures(folder: Path, results: dict[str, Any]) -> list[dict[str, str]]:
    found = []
    for picture in results.get("pictures", []):
        path = folder / picture["file"]
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            found.append({**picture, "uri": f"data:image/png;base64,{data}"})
    return found


def _quality_charts(results: dict[str, Any]) -> list[dict[str, Any]]:
    """A scatter of each quality measure against the gain, where there are points enough."""
    quality = results.get("quality")
    if not quality:
        return []
    charts = []
    gain = gain_in_words(results["measure"])
    for relation in quality["relations"]:
        points = [
            point
            for point in quality["points"]
            if point["gain"] is not None and point["measures"].get(relation["measure"]) is not None
        ]
        if len(points) < 2:
            continue
        drawn = chart(
            [
                Series(
                    relation["measure"],
                    [point["measures"][relation["measure"]] for point in points],
                    [100 * point["gain"] for point in points],
                    [100 * point["interval"][0] for point in points],
                    [100 * point["interval"][1] for point in points],
                    [point["name"] for point in points],
                    line=False,
                )
            ],
            x_title=relation["words"],
            y_title=f"change of {gain} (points)",
            zero=True,
            description=f"Change of {gain} against {relation['words']}",
        )
        charts.append({**relation, "svg": Markup(drawn)})
    return charts


def _learning_chart(results: dict[str, Any]) -> Markup | None:
    points = results["learning_curve"]
    if not points:
        return None
    compared = [point for point in points if point["interval"]]
    names = list(dict.fromkeys(point["arm"] for point in compared))[:MOST_CURVES]
    counts = sorted({point["real_images"] for point in compared})
    if not counts:
        return None
    series = []
    for index, name in enumerate(names):
        own = [point for point in compared if point["arm"] == name]
        shift = 0.02 * (index - (len(names) - 1) / 2)  # intervals beside, not upon, each other
        series.append(
            Series(
                name,
                [float(np.log2(p["real_images"])) + shift for p in own],
                [100 * p["difference"] for p in own],
                [100 * p["interval"][0] for p in own],
                [100 * p["interval"][1] for p in own],
                [f"{p['real_images']} real {results['noun']}" for p in own],
            )
        )
    region = 100 * results["rule"]["smallest_effect"]
    gain = gain_in_words(results["measure"])
    drawn = chart(
        series,
        x_title=f"real training {results['noun']} of the class",
        y_title=f"change of {gain} (points)",
        band=(-region, region),
        zero=True,
        x_ticks=[(float(np.log2(count)), str(count)) for count in _apart(counts)],
        description=f"Change of {gain} over the number of real training {results['noun']}",
    )
    return Markup(drawn + legend(names))


def _scale(values: list[float]) -> float:
    """Half-width of a forest plot that holds all values, rounded up."""
    largest = max(abs(value) for value in values) * 1.08
    for candidate in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75):
        if largest <= candidate:
            return candidate
    return 1.0
