"""Every network on one set: parameters, time per epoch, recall, precision, calibration, coverage.

    python benchmarks/classifier_table.py gz1.h5 --class merger --networks small small-d4 unam-cnn
    python benchmarks/classifier_table.py aries.h5 --class galaxy --leaking

Prints a Markdown table of means and standard deviations over seeds, then one of ensembles: over
the seeds of each network, over all networks of seed 0 (mean and stack), and over the symmetries.
``--leaking`` ignores the groups of the set when it is split again, as a random split would.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classify.calibration import fit_temperature
from classify.conformal import ConformalCalibration, coverage_report
from classify.ensemble import Ensemble, stack_weights
from classify.metrics import Metrics, evaluate
from classify.networks.network import count_parameters
from classify.repeated_views import symmetric_probabilities
from classify.training import TrainedClassifier, TrainingConfig, train_classifier
from classify.validation_parts import hold_out_calibration
from galaxies.image_set import ImageSet
from galaxies.sources import open_image_set
from galaxies.split import split_set, with_split

LEVEL = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--class", dest="rare", required=True)
    parser.add_argument("--networks", nargs="+", default=["small", "small-d4"])
    parser.add_argument(
        "--weights", nargs="*", default=[], help="NETWORK=FILE of pretrained weights"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--learning-rate", type=float, default=None)
    parser.add_argument("--leaking", action="store_true")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    image_set = open_image_set(options.data)
    if options.leaking:
        image_set = split_set(dataclasses.replace(image_set, group=None, split=None), seed=0)
    image_set = with_split(image_set).in_memory()
    rare = image_set.class_index(options.rare)
    chooser, calibration = hold_out_calibration(image_set.side("validation"), 0.5)
    assert chooser is not None
    assert calibration is not None
    weights = dict(pair.split("=", 1) for pair in options.weights)
    results: list[dict[str, Any]] = []
    trained: dict[str, list[TrainedClassifier]] = {}
    for name in options.networks:
        for seed in range(options.seeds):
            config = TrainingConfig(
                model=name,
                steps=options.steps,
                seed=seed,
                weights=weights.get(name),
                learning_rate=options.learning_rate or (5e-4 if name in weights else 2e-3),
            )
            started = time.perf_counter()
            classifier = train_classifier(
                image_set.side("train"), chooser, config, device=device, progress=False
            )
            seconds = time.perf_counter() - started
            classifier.temperature = fit_temperature(
                classifier.logits(calibration), calibration.labels
            )
            trained.setdefault(name, []).append(classifier)
            epochs = options.steps * config.batch_size / len(image_set.side("train"))
            row = judged(f"{name}", classifier.probabilities, image_set, calibration, rare)
            row |= {
                "seed": seed,
                "parameters": count_parameters(classifier.network),
                "seconds_per_epoch": seconds / epochs,
                "pretrained": name in weights,
            }
            results.append(row)
            print(f"{name} seed {seed}: {summary(row)} ({seconds:.0f} s)", flush=True)
    print("\n" + table_of(results, options.rare))
    ensembles = judged_ensembles(trained, image_set, chooser, calibration, rare)
    print("\n" + table_of(ensembles, options.rare))
    if options.json is not None:
        options.json.write_text(json.dumps({"networks": results, "ensembles": ensembles}, indent=1))


def judged(
    name: str, ask: Any, image_set: ImageSet, calibration: ImageSet, rare: int
) -> dict[str, Any]:
    """Numbers of one way to answer, on the test side."""
    test = image_set.side("test")
    probabilities = np.asarray(ask(test))
    metrics: Metrics = evaluate(probabilities, test.labels, test.class_names, resamples=0)
    known = ConformalCalibration(np.asarray(ask(calibration)), calibration.labels)
    sets = known.sets(probabilities, LEVEL)
    report = coverage_report(sets, test.labels, test.class_names, LEVEL, calibration=known)
    of_rare = metrics.per_class[rare]
    return {
        "name": name,
        "accuracy": metrics.accuracy,
        "macro_recall": metrics.balanced_accuracy,
        "recall": of_rare.recall,
        "precision": of_rare.precision,
        "average_precision": of_rare.average_precision,
        "calibration_error": metrics.calibration_error,
        "coverage": report.overall.covered / report.overall.images,
        "rare_coverage": report.per_class[rare].covered / report.per_class[rare].images,
        "set_size": report.overall.mean_size,
        "collapsed_to": metrics.collapsed_to,
        "recalls": [m.recall for m in metrics.per_class],
    }


def judged_ensembles(
    trained: dict[str, list[TrainedClassifier]],
    image_set: ImageSet,
    chooser: ImageSet,
    calibration: ImageSet,
    rare: int,
) -> list[dict[str, Any]]:
    rows = []

    def add(name: str, ask: Any) -> None:
        rows.append(judged(name, ask, image_set, calibration, rare))
        print(f"{name}: {summary(rows[-1])}", flush=True)

    for name, members in trained.items():
        first = members[0]
        add(
            f"{name}, mean over 8 symmetries",
            lambda images, first=first: symmetric_probabilities(first, images.pixels),
        )
        if len(members) > 1:
            add(f"{name}, mean over {len(members)} seeds", Ensemble(tuple(members)).probabilities)
    firsts = tuple(members[0] for members in trained.values())
    if len(firsts) > 1:
        mean = Ensemble(firsts)
        add("mean over the networks", mean.probabilities)
        found = stack_weights(mean.member_probabilities(chooser), chooser.labels)
        stack = dataclasses.replace(mean, combine="stack", weights=found[0], offsets=found[1])
        add("stack of the networks", stack.probabilities)
        everything = tuple(member for members in trained.values() for member in members)
        add("mean over networks and seeds", Ensemble(everything).probabilities)
    return rows


def summary(row: dict[str, Any]) -> str:
    collapsed = f", collapsed to {row['collapsed_to']}" if row["collapsed_to"] else ""
    return (
        f"accuracy {row['accuracy']:.3f}, macro recall {row['macro_recall']:.3f}, rare recall "
        f"{row['recall']:.3f}, AP {row['average_precision']:.3f}{collapsed}"
    )


def table_of(rows: list[dict[str, Any]], rare: str) -> str:
    """Markdown: one row per name, mean and standard deviation over its seeds."""
    lines = [
        f"| network | parameters | s / epoch | accuracy | macro recall | {rare} recall | "
        f"{rare} precision | {rare} AP | calibration error | coverage at 90 % | of {rare} | "
        "set size |",
        "| --- |" + " --- |" * 11,
    ]
    for name in dict.fromkeys(row["name"] for row in rows):
        same = [row for row in rows if row["name"] == name]
        cells = [
            f"{same[0]['parameters']:,}" if "parameters" in same[0] else "",
            f"{np.median([r['seconds_per_epoch'] for r in same]):.2f}"
            if "seconds_per_epoch" in same[0]
            else "",
            *(
                mean_and_deviation([row[key] for row in same])
                for key in (
                    "accuracy", "macro_recall", "recall", "precision", "average_precision",
                    "calibration_error", "coverage", "rare_coverage", "set_size",
                )
            ),
        ]  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def mean_and_deviation(values: list[float]) -> str:
    known = np.array([value for value in values if np.isfinite(value)])
    if len(known) == 0:
        return "–"
    text = f"{known.mean():.3f}"
    return text + (f" ± {known.std(ddof=1):.3f}" if len(known) > 1 else "")


if __name__ == "__main__":
    main()
