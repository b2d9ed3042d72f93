"""``report.html`` and ``summary.csv``: the results to look at, and to load elsewhere."""

import base64
import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from classify.experiment.figures import Series, chart, legend, strip
from classify.experiment.measures import MEASURES
from classify.experiment.verdict import in_points, interval_in_points
from galaxies.atomic import write_text

REPORT = "report.html"
SUMMARY = "summary.csv"
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
        "p": lambda v: "–" if v is None else ("< .001" if v < 0.001 else f"{v:.3f}"),
        "tone": lambda claim: TONES.get(claim, "unclear"),
    }
    page = environment.get_template(TEMPLATE).render(
        results=results,
        verdict=results["verdict"],
        verdict_strip=_verdict_strip(results),
        rows=_arm_rows(results),
        forest=_forest(results),
        dose=_dose_chart(results),
        curves=_curves(results),
        costs=_costs(results),
        confusions=_confusions(results),
        pictures=_pictures(folder, results),
        quality=_quality_charts(results),
        learning=_learning_chart(results),
        protocol=protocol_text(results),
        measures=MEASURES,
    )
    write_text(folder / REPORT, page)
    return folder / REPORT


def write_summary(folder: Path, results: dict[str, Any]) -> None:
    """One row per arm, class, measure and repeat, and one per comparison."""
    table = io.StringIO()
    out = csv.writer(table, lineterminator="\n")
    out.writerow(
        ["kind", "arm", "baseline", "class", "measure", "repeat", "value", "low", "high", "p",
         "p_holm", "claim"]
    )  # fmt: skip
    for arm, classes in results["arms"].items():
        for name, found in classes.items():
            for measure in MEASURES:
                for repeat, value in enumerate(found.get(measure, [])):
                    out.writerow(["value", arm, "", name, measure, repeat, value, *[""] * 5])
        for measure, values in results["overall"][arm].items():
            for repeat, value in enumerate(values):
                out.writerow(["value", arm, "", "", measure, repeat, value, *[""] * 5])
    for entry in results["comparisons"] + results["other_comparisons"]:
        low, high = entry["interval"] or ("", "")
        out.writerow(
            ["difference", entry["arm"], entry["baseline"], entry["class"] or "",
             entry["measure"], "", entry["difference"], low, high, entry["p"], entry["p_holm"],
             entry["claim"]]
        )  # fmt: skip
    write_text(folder / SUMMARY, table.getvalue())


def protocol_text(results: dict[str, Any]) -> str:
    """The protocol in words, to be pasted into a paper."""
    settings, counts, noun = results["settings"], results["counts"], results["noun"]
    index = results["class_names"].index(results["class"])
    own_generators = results["generator_per_unit"]
    of_table = noun == "rows"
    if results["folds"]:
        with_generators = (
            ""
            if of_table
            else ", training one generator per fold on that fold's training images alone"
        )
        where = (
            f"We cross-fitted over {results['folds']} stratified folds (groups and exact "
            f"duplicates kept whole){with_generators}, so that each of the "
            f"{counts['test'][index]} {noun} of {results['class']} was tested once by models that "
            "never saw it."
        )
    else:
        where = (
            f"The stored split was kept: {counts['train'][index]} training, "
            f"{counts['validation'][index]} validation and {counts['test'][index]} test {noun} of "
            f"{results['class']} (of {sum(counts['train'])}, {sum(counts['validation'])} and "
            f"{sum(counts['test'])} in all)."
        )
        if not of_table:
            where += (
                " The generator saw training images only; this was checked by image fingerprints."
            )
    if own_generators:
        where += (
            " Each repeat and fold trained its own generator of rows "
            f"({settings['gan_steps']} steps), on the rows that its classifiers trained on."
        )
    if of_table:
        how = f"model {settings['model']} unless the arm names another, fitted to its own end"
        shared = "its seed"
    else:
        passes = settings["steps"] * settings["batch_size"] / sum(counts["train"])
        how = (
            f"network {settings['model']}, {settings['steps']} optimiser steps of "
            f"{settings['batch_size']} images in every arm ({passes:.1f} passes over the "
            "training images)"
        )
        shared = "its initial weights, its order of the real images"
    return (
        f"{where} Each of {len(results['arms'])} arms was trained {results['repeats']} times "
        f"({how}); repeat r of every arm shared {shared} and its border between training and "
        f"validation {noun}. In each repeat two thirds of the validation {noun} chose "
        f"{'thresholds' if of_table else 'weights and thresholds'}, and the rest joined the "
        "training. Doses and competing arms were chosen by validation average precision, in each "
        f"fold on its own validation {noun}. Test "
        f"{noun} were read once. Differences are means over paired repeats; their variance "
        "is the sum of the variance over repeats, of a bootstrap over "
        f"{'groups of ' if results['grouped'] else ''}test {noun}"
        + (
            f", and of what folds differ by beyond their {noun} with Nadeau and Bengio's factor"
            if results["folds"]
            else ""
        )
        + ", held against Student's t with Satterthwaite's degrees of freedom. p values are "
        "adjusted by Holm's method within each baseline and measure. "
        f"Recalls are matched at a false-positive rate of "
        f"{100 * results['matched']['false_positive_rate']:g} % with thresholds chosen on "
        f"validation {noun}. {results['rule']['in_words']} The intervals cover: "
        f"{'; '.join(results['covered']['covered'])}. They do not cover: "
        f"{'; '.join(results['covered']['not_covered'])}."
    )


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
    for arm, classes in results["arms"].items():
        own = classes[name]
        row: dict[str, Any] = {"arm": arm, "words": results["arms_in_words"][arm], "cells": []}
        for measure in ("recall", "precision", "recall_at_false_positive_rate",
                        "average_precision"):  # fmt: skip
            row["cells"].append(_mean_and_spread(own[measure]))
        for measure in ("macro_recall", "calibration_error"):
            row["cells"].append(_mean_and_spread(results["overall"][arm][measure]))
        rows.append(row)
    for column in range(len(rows[0]["cells"])):
        known = [r["cells"][column]["mean"] for r in rows if r["cells"][column]["mean"] is not None]
        best = (min if column == len(rows[0]["cells"]) - 1 else max)(known, default=None)
        for row in rows:
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
    measure = results["measure"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for point in results["dose_response"]:
        if point[measure] is not None:
            name = " ".join(part for part in (point["kind"], point["generator"]) if part)
            groups.setdefault(f"{name} on {point['baseline']}", []).append(point)
    if sum(len(points) for points in groups.values()) < 2:
        return None
    doses = sorted({point["dose"] for points in groups.values() for point in points})
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
        y_title="change of recall (points)",
        band=(-region, region),
        zero=True,
        x_ticks=[(float(np.log2(dose)), f"{dose:.3g}") for dose in _apart(doses)],
        description=f"Change of recall over the dose of added {results['noun']}, 95 % intervals",
    )
    return Markup(drawn + legend(list(groups)))


def _apart(doses: list[float]) -> list[float]:
    """Doses whose labels do not overlap on a logarithmic axis."""
    shown: list[float] = []
    for dose in doses:
        if not shown or dose / shown[-1] > 1.3:
            shown.append(dose)
    return shown


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
            y_title="change of recall (points)",
            zero=True,
            description=f"Change of recall against {relation['words']}",
        )
        charts.append({**relation, "svg": Markup(drawn)})
    return charts


def _learning_chart(results: dict[str, Any]) -> Markup | None:
    points = results["learning_curve"]
    if not points:
        return None
    measure = results["measure"]
    names = list(dict.fromkeys(point["arm"] for point in points))[:MOST_CURVES]
    series = []
    for name in names:
        own = [point for point in points if point["arm"] == name]
        series.append(
            Series(name, [p["real_images"] for p in own], [p[measure] for p in own],
                   labels=[f"{p['real_images']} real {results['noun']}" for p in own])
        )  # fmt: skip
    drawn = chart(
        series,
        x_title=f"real training {results['noun']} of the class",
        y_title="recall",
        description=f"Recall over the number of real training {results['noun']}, for each arm",
    )
    return Markup(drawn + legend(names))


def _scale(values: list[float]) -> float:
    """Half-width of a forest plot that holds all values, rounded up."""
    largest = max(abs(value) for value in values) * 1.08
    for candidate in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75):
        if largest <= candidate:
            return candidate
    return 1.0


__all__ = ["protocol_text", "write_report", "write_summary"]
