"""``card.md`` of a table classifier: its rows, its columns, its numbers, its failures."""

from classify.card import class_numbers, counts_table, failures
from classify.conformal import CoverageReport
from classify.metrics import Metrics
from classify.tabular.classifier import TableClassifier
from classify.tabular.exchangeability import Exchangeability
from classify.tabular.options import TABLE_MODELS


def table_card(
    classifier: TableClassifier,
    metrics: Metrics,
    coverage: CoverageReport | None,
    monitor: Exchangeability | None,
) -> str:
    """The card in Markdown, with a YAML head."""
    data, training = classifier.record["data"], classifier.record["training"]
    config = classifier.config
    left_out = data["provenance"].get("left_out", {})
    missing = data["provenance"].get("missing", {})
    lines = [
        "---",
        "tags: [galaxy-augment, tabular-classification]",
        f"model: {config.model}",
        f"classes: {len(classifier.class_names)}",
        "---",
        "",
        f"# {config.model} for {len(classifier.class_names)} classes",
        "",
        f"{TABLE_MODELS[config.model]}. "
        + (f"{classifier.parameters:,} parameters. " if classifier.parameters else "")
        + f"{training['rows']:,} training rows"
        + (
            f", {training['rows_after_balancing']:,} after balancing "
            f"({config.resample if config.resample != 'none' else config.balance})"
            if training["rows_after_balancing"] != training["rows"]
            else f", balance {config.balance}"
        )
        + (f", kept epoch {training['kept_step']}" if "kept_step" in training else "")
        + (f", posterior {config.bayesian}" if config.bayesian != "none" else "")
        + f", seed {config.seed}.",
        "",
        "## Data",
        "",
        f"Source `{data['source']}`, sha256 `{data['provenance'].get('sha256', '')[:16]}`.",
        "",
        f"Features ({len(classifier.feature_names)}): {', '.join(classifier.feature_names)}.",
        "",
    ]
    if left_out:
        named = "; ".join(f"{name} ({reason})" for name, reason in left_out.items())
        lines += [f"Left out: {named}.", ""]
    if data.get("forced"):
        lines += [
            f"**Forced in although they give the class away or name a row: "
            f"{', '.join(data['forced'])}. The numbers below are not those of a survey without "
            "spectra.**",
            "",
        ]
    if missing:
        named = ", ".join(f"{name} {count}" for name, count in missing.items())
        lines += [f"Not measured (filled with the training median): {named}.", ""]
    lines += [
        *counts_table(classifier.class_names, data["counts"]),
        "",
        *class_numbers(metrics, "rows"),
        "",
        f"Temperature {classifier.temperature:.3f}.",
        "",
    ]
    if coverage is not None:
        lines += [f"## Prediction sets at {100 * coverage.level:g} %", ""]
        lines += [f"- {line}" for line in coverage.lines()]
        if monitor is not None:
            lines.append(f"- {monitor.in_words()}")
        lines.append("")
    lines += ["## Known failures", "", *(f"- {line}" for line in failures(metrics)), ""]
    return "\n".join(lines)
