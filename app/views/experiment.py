"""The page Experiment: what adding generated images did, and how sure that is."""

import base64
import json
from pathlib import Path
from typing import Any

import streamlit as st

from app import served
from app.wording import readable

REPORT, RESULTS, SUMMARY = "report.html", "results.json", "summary.csv"
_REPORT_HEIGHT = 900
# A report is a document: it may hold styles and pictures, and reach for nothing else.
_ONLY_A_DOCUMENT = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "img-src data:; style-src 'unsafe-inline'\">"
)


def show() -> None:
    """Draw the page."""
    st.title("Did the new galaxies help?")
    folders = served.choices().results
    folder = folders[0]
    if len(folders) > 1:
        folder = st.selectbox("Experiment", folders, format_func=lambda path: path.name)
    try:
        results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        verdict = results["verdict"]
    except (OSError, ValueError, KeyError, TypeError):
        st.warning(f"{folder.name} holds no finished experiment yet; look again when it has run.")
        return
    st.markdown(
        f"A classifier was trained with and without generated images of the class "
        f"**{readable(results['class'])}**, {results['repeats']} times each, and both were tested "
        "on galaxies that neither had seen."
    )
    with st.container(border=True):
        if verdict.get("claim"):
            st.subheader(str(verdict["claim"]).capitalize())
        st.markdown(verdict["sentence"])
    _show_arms(results)
    _show_comparisons(results)
    _show_report(folder)


def _show_arms(results: dict[str, Any]) -> None:
    name = results["class"]
    words = results.get("arms_in_words") or {}
    rows = []
    for arm, classes in results["arms"].items():
        own = classes.get(name) or {}
        rows.append(
            {
                "Arm": arm,
                "Recall": _mean_percent(own.get("recall")),
                "Precision": _mean_percent(own.get("precision")),
                "What it is": words.get(arm, ""),
            }
        )
    st.markdown(
        f"**How many of the class {readable(name)} each found** (recall), and how many of those "
        "that it named were right (precision); the mean of the repeats."
    )
    bar = st.column_config.ProgressColumn(format="%.1f %%", min_value=0, max_value=100)
    st.dataframe(
        rows,
        hide_index=True,
        column_config={
            "Recall": bar,
            "Precision": bar,
        },
        alt="Mean recall and precision of every arm",
    )


def _show_comparisons(results: dict[str, Any]) -> None:
    rows = []
    for entry in results["comparisons"]:
        if entry.get("interval") is None:
            continue
        low, high = entry["interval"]
        rows.append(
            {
                "Arm": entry["arm"],
                "Against": entry["baseline"],
                "Class": readable(entry["class"] or "all"),
                "Difference in recall": 100 * entry["difference"],
                "From": 100 * low,
                "To": 100 * high,
                "p (Holm)": entry.get("p_holm"),
                "Claim": entry.get("claim") or "",
            }
        )
    if not rows:
        return
    with st.expander("Every comparison, with its 95 % interval in points"):
        points = st.column_config.NumberColumn(format="%+.1f")
        st.dataframe(
            rows,
            hide_index=True,
            column_config={
                "Difference in recall": points,
                "From": points,
                "To": points,
                "p (Holm)": st.column_config.NumberColumn(format="%.3f"),
            },
            alt="Differences in recall between arms",
        )


def _show_report(folder: Path) -> None:
    report = folder / REPORT
    if not report.is_file():
        return
    st.subheader("The full report")
    page = report.read_bytes()
    with st.container(horizontal=True):
        st.download_button(
            "Download the report", page, f"{folder.name}.html", "text/html", on_click="ignore"
        )
        if (folder / SUMMARY).is_file():
            st.download_button(
                "Download the table (CSV)",
                (folder / SUMMARY).read_bytes(),
                f"{folder.name}.csv",
                "text/csv",
                on_click="ignore",
            )
    guarded = page.replace(b"<head>", b"<head>" + _ONLY_A_DOCUMENT.encode(), 1)
    address = "data:text/html;charset=utf-8;base64," + base64.b64encode(guarded).decode()
    st.iframe(address, height=_REPORT_HEIGHT, alt="The report of augment-and-eval")


def _mean_percent(values: list[float | None] | None) -> float | None:
    known = [value for value in values or () if value is not None]
    return 100 * sum(known) / len(known) if known else None
