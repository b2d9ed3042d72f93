"""Real A/A experiments: the same arm against itself with other seeds, on real data.

Every class of every table or image set, with every model and several seeds of folds, goes through
``augment-and-eval --arms balanced,balanced+again``; a claim of any change is wrong. Beside it
stands what papers do with the same trainings: the exact McNemar test of one pair of classifiers.
Finished experiments are kept in ``--out``, so the work can be cut into slices:

    python benchmarks/a_a_real.py sdss_dr14.csv margnet_exp3.npz --models gradient-boosting \\
        logistic-regression --seeds 3 --out results/a-a
"""

import argparse
import contextlib
import io
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from classify.experiment.cli import ExperimentConfig
from classify.experiment.command import run
from classify.experiment.record import ExperimentRecord
from classify.experiment.scoring import Scores
from classify.experiment.statistics import single_pair_p
from galaxies.sources import open_image_set
from galaxies.table_files import is_table_file
from galaxies.tables import read_table

ARM, AGAIN = "balanced", "balanced+again"
LEVEL = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, help="of networks on images")
    parser.add_argument("--out", type=Path, default=Path("results/a-a"))
    options = parser.parse_args()
    counted: Counter[str] = Counter()
    smallest = 1.0
    for data in options.data:
        names = class_names(data)
        for model in options.models:
            for seed in range(options.seeds):
                for index in range(len(names)):
                    found = one_experiment(data, index, model, seed, options)
                    counted["experiments"] += 1
                    counted["claims"] += found["claims"]
                    counted["comparisons"] += found["comparisons"]
                    counted["significant"] += found["significant"]
                    counted["pairs"] += len(found["pairs"])
                    counted["pairs significant"] += sum(p <= LEVEL for p in found["pairs"])
                    smallest = min(smallest, found["smallest"])
                    print(f"{Path(data).name} {names[index]} {model} {seed}: {found['line']}",
                          flush=True)  # fmt: skip
    print(
        f"\n{counted['experiments']} real A/A experiments, {counted['comparisons']} comparisons of "
        f"the class at stake: augment-and-eval claims a change in {counted['claims']}, its p is at "
        f"most {LEVEL} in {counted['significant']} (smallest {smallest:.3f}). McNemar's test of "
        f"one pair: {counted['pairs significant']} of {counted['pairs']} pairs "
        f"({100 * counted['pairs significant'] / counted['pairs']:.0f} %)."
    )


def class_names(data: str) -> tuple[str, ...]:
    return (read_table(data) if is_table_file(data) else open_image_set(data)).class_names


def one_experiment(
    data: str, index: int, model: str, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """One experiment and what each method says of it."""
    out = options.out / f"{Path(data).stem}-{index}-{model}-{seed}"
    settings: dict[str, Any] = {} if options.steps is None else {"steps": options.steps}
    # The class does not enter the seeds of a training, so it must enter the experiment's: two
    # classes would else be two views of the same classifiers.
    config = ExperimentConfig(
        data=data, classes=(str(index),), arms=f"{ARM},{AGAIN}", model=model,
        seed=100 * index + seed,
        folds=options.folds, repeats=options.repeats, out=out, workers=1, draws=500, **settings,
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        results = run(config)
    own = [
        entry
        for entry in results["comparisons"] + results["other_comparisons"]
        if (entry["arm"], entry["baseline"]) == (AGAIN, ARM)
        and entry["class"] == results["class"]
        and entry["p"] is not None
    ]
    record = ExperimentRecord.read(out)
    scores = Scores(out, record)
    first, second = (scores.arm(record.arm(name)).runs for name in (ARM, AGAIN))
    pairs = []
    for one, other in zip(first, second, strict=True):
        positive = one.labels == record.class_index
        right = [
            run.probabilities[positive].argmax(axis=1) == record.class_index for run in (other, one)
        ]
        pairs.append(single_pair_p(right[0], right[1]))
    p_values = [entry["p"] for entry in own]
    recall = next((entry["difference"] for entry in own if entry["measure"] == "recall"), None)
    return {
        "claims": sum(entry["claim"] in ("helped", "harmed") for entry in own),
        "comparisons": len(own),
        "significant": int(np.sum(np.array(p_values) <= LEVEL)),
        "smallest": min(p_values, default=1.0),
        "pairs": pairs,
        "line": json.dumps(
            {
                "recall": None if recall is None else round(100 * recall, 2),
                "claims": [e["measure"] for e in own if e["claim"] in ("helped", "harmed")],
                "pairs": [round(p, 3) for p in pairs],
            }
        ),
    }


if __name__ == "__main__":
    main()
