"""``summary.csv``: every number of the report, to load elsewhere."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from classify.experiment.measures import MEASURES
from galaxies.atomic import write_text

SUMMARY = "summary.csv"


def write_summary(folder: Path, results: dict[str, Any]) -> None:
    """One row per value, per comparison, and per point of every curve and table of the report.

    ``kind`` is ``value`` (one per arm, class, measure and repeat), ``difference``, ``verdict``,
    ``verdict_other`` (its other measures), ``reached``, ``cost``, ``wilson`` (recall with its
    interval), ``dose``, ``exchange_rate``, ``learning_curve``, ``quality`` or ``relation``.
    """
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
    for row in _further_rows(results):
        out.writerow(["" if cell is None else cell for cell in row])
    write_text(folder / SUMMARY, table.getvalue())


def _further_rows(results: dict[str, Any]) -> Iterator[list[Any]]:
    """Rows of what is neither a value of an arm nor one of all comparisons."""
    name, verdict, measure = results["class"], results["verdict"], results["measure"]
    sides = [verdict.get("arm"), verdict.get("baseline")]

    def row(
        kind: str, of: list[Any], about: str, what: str, found: dict[str, Any] | None, key: Any = ""
    ) -> list[Any]:
        entry = found or {}
        low, high = entry.get("interval") or ("", "")
        return [kind, *of, about, what, key, entry.get("difference"), low, high, entry.get("p"), ""]

    if verdict["claim"]:
        yield [*row("verdict", sides, name, measure, verdict["comparison"]), verdict["claim"]]
        for other, found in verdict["at_other_measures"].items():
            yield [*row("verdict_other", sides, name, other, found), ""]
        for other, found in verdict["reached"].items():
            yield [*row("reached", sides, name, other, found), ""]
        for class_name, found in verdict["cost"].items():
            yield [*row("cost", sides, class_name, "recall", found), ""]
    for arm, classes in results["arms"].items():
        for class_name, found in classes.items():
            pairs = zip(found["recall"], found["recall_wilson"], strict=True)
            for repeat, (value, interval) in enumerate(pairs):
                entry = {"difference": value, "interval": interval}
                yield [*row("wilson", [arm, ""], class_name, "recall", entry, repeat), ""]
    for point in results["dose_response"]:
        of = [point["arm"], point["baseline"]]
        yield [*row("dose", of, name, measure, point[measure], point["dose"]), ""]
    for rate in results["exchange_rate"]:
        entry = {"difference": rate["worth"], "interval": rate["interval"]}
        yield [*row("exchange_rate", [rate["arm"], rate["real"]], name, measure, entry), ""]
    for point in results["learning_curve"]:
        of = [point["arm"], point["baseline"]]
        yield [*row("learning_curve", of, name, measure, point, point["real_images"]), ""]
    quality = results.get("quality") or {"points": [], "relations": []}
    for point in quality["points"]:
        for what, value in point["measures"].items():
            yield [*row("quality", [point["name"], ""], name, what, {"difference": value}), ""]
    for relation in quality["relations"]:
        entry = relation | {"difference": relation["correlation"]}
        found = row("relation", ["", ""], name, relation["measure"], entry)
        yield [*found[:-1], relation.get("p_holm"), ""]
