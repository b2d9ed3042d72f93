"""The card of a checkpoint: its data, its quality, its limits."""

from pathlib import Path
from typing import Any

from galaxies.atomic import write_text
from galaxies.class_names import table_cell
from gan.build import parameter_count
from gan.checkpoint import CARD, RunDescription
from gan.step import TrainingStep


def write_card(
    folder: Path,
    description: RunDescription,
    rows: list[dict[str, Any]],
    best: dict[str, Any],
    step: TrainingStep,
) -> None:
    """Write ``card.md``."""
    data = description.data
    made = [data.class_names[index] for index in data.made]
    chosen = [data.class_names[index] for index in data.chosen]
    last = rows[-1]["step"] if rows else 0
    batch = description.command["batch_size"]
    lines = [
        f"# Generator of {', '.join(chosen)}",
        "",
        f"A conditional GAN (recipe `{description.command['recipe']}`) for "
        f"{description.shape.size}x{description.shape.size} images of "
        f"{_counted(description.shape.channels, 'channel')}, trained by `gan-train` of "
        "galaxy-augment.",
        "",
        *_pictures(rows, best),
        "## Data",
        "",
        f"Source: `{data.source}`, training split only"
        + (
            f", resized from {data.size_before} pixels"
            if data.size_before != description.shape.size
            else ""
        )
        + ".",
        "",
        "| class | training images | chosen |",
        "| --- | ---: | --- |",
        *(
            f"| {table_cell(name)} | {count} | {'yes' if name in chosen else ''} |"
            for name, count in zip(made, data.counts, strict=True)
        ),
        "",
        "Fingerprints and ids of all training images are in `training_images.json`, so that an "
        "evaluation can refuse to test on them.",
        "",
        "## Training",
        "",
        f"{last} steps of {batch} images ({last * batch:,} images), seed "
        f"{description.command['seed']}, {description.precision}. Generator "
        f"{parameter_count(step.generator):,} parameters, discriminator "
        f"{parameter_count(step.discriminator):,}.",
        "",
        "| part | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in description.parts.__dict__.items()),
        "",
        "## Quality",
        "",
        *_quality(rows, best, chosen),
        "",
        "## Known failures",
        "",
        *_failures(rows),
        "- Images resemble the training images; they hold no new astronomy, and nothing may be "
        "measured on them as if a telescope had seen them.",
        "- Biases of the training set (selection, labels, seeing) are kept.",
        "",
        "## Licence",
        "",
        "The weights derive from the training images: the terms of the set named above apply to "
        "them and to generated images. The code is BSD-3-Clause.",
        "",
    ]
    write_text(folder / CARD, "\n".join(lines))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _pictures(rows: list[dict[str, Any]], best: dict[str, Any]) -> list[str]:
    """Those of the kept step; nothing where a run was stopped before its first evaluation."""
    if not any(row["kind"] == "evaluation" and row["step"] == best["step"] for row in rows):
        return []
    return [
        f"![samples](samples/step-{best['step']:07d}.png)",
        "",
        "One row per class in the order below, three rows for each chosen class.",
        "",
    ]


def _quality(rows: list[dict[str, Any]], best: dict[str, Any], chosen: list[str]) -> list[str]:
    row = next(
        (r for r in rows if r["kind"] == "evaluation" and r["step"] == best["step"] and "kid" in r),
        None,
    )
    if row is None:
        kept = rows[-1]["step"] if best["rank"] is None and rows else best["step"]
        return [f"Not judged; the weights of step {kept} were kept."]
    looks = _counted(sum(r["kind"] == "evaluation" and "kid" in r for r in rows), "evaluation")
    table = [
        f"Weights of step {best['step']}, chosen by KID against the validation split on features "
        "of a classifier trained on the training split. KID 0 is perfect; diversity 1 is that of "
        f"real images; copying 0 is none. The KID is the least of {looks}, each as uncertain as "
        "its standard error says, so it flatters the generator; `fid-score --all` against the "
        "test split does not.",
        "",
        "| class | KID | standard error | diversity | copying | nearness | taken for it | real |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in chosen:
        verdict = row["verdicts"].get(name)
        if verdict:
            table.append(
                f"| {table_cell(name)} | {verdict['kid']:.4f} | {verdict['kid_error']:.4f} | "
                f"{verdict['diversity']:.2f} | {verdict['copying']:.2f} | "
                f"{verdict['nearness']:.2f} | {verdict['agreement']:.2f} | "
                f"{verdict['agreement_real']:.2f} |"
            )
    return [*table, "", "![curve](curve.png)"]


def _failures(rows: list[dict[str, Any]]) -> list[str]:
    found = [f"- Step {row['step']}: {row['sentence']}." for row in rows if row["kind"] == "guard"]
    found += [
        f"- Training became NaN at step {row['broken_at']} and went on from step {row['step']} "
        f"with {row['rate_factor']} times the rates."
        for row in rows
        if row["kind"] == "rollback"
    ]
    return found or ["- No guard fired during training."]
