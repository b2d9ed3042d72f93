"""Trainings per minute of augment-and-eval: one after the other, and several at once.

Small networks leave a GPU (and, with one thread each, a processor) idle; several trainings at a
time fill it. Prints one row per number of workers, the ratio to one worker, and the share of the
time that went into the loops of training (the rest is overhead: reading, generating and filtering
images, probabilities, storing), and checks that the probabilities are the same.

    python benchmarks/repeats_per_minute.py --data gz1.h5 --class merger --workers 1 4 8 12
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from classify.experiment.arms import parse_arms
from classify.experiment.division import Setting
from classify.experiment.laboratory import Laboratory
from classify.experiment.opening import UNITS_FILE, OpenLaboratory, open_experiment_set
from classify.experiment.planner import GeneratorSource, Planner
from classify.experiment.runner import run_units
from classify.experiment.units import UnitStore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="simulated")
    parser.add_argument("--class", dest="class_name", default="0")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=8, help="of two arms, or three with --gan")
    parser.add_argument("--gan", help="a checkpoint: adds the arm gan@1+filtered")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = open_experiment_set(arguments.data, 0)
    first: dict[str, bytes] = {}
    alone = 0.0
    print("| workers | trainings per minute | times one worker | of it training | same bytes |")
    print("| --- | --- | --- | --- | --- |")
    for workers in arguments.workers:
        with tempfile.TemporaryDirectory() as folder:
            setting = Setting(
                Path(folder), images.class_index(arguments.class_name), 0, 0, device, 1,
                {"model": "small", "steps": arguments.steps, "validate_every": arguments.steps},
            )  # fmt: skip
            laboratory = Laboratory(images, setting)
            np.save(Path(folder) / UNITS_FILE, laboratory.units)
            sources: dict[tuple[str, int, int | None], GeneratorSource] = {}
            if arguments.gan:
                source = GeneratorSource("gan", arguments.gan, sha256="of the benchmark")
                sources = {("gan", 0, None): source}
            arms = parse_arms("plain,balanced" + ",gan@1+filtered" * bool(sources), ["gan"])
            units = Planner(laboratory, sources).units(arms, arguments.repeats)
            store = UnitStore(Path(folder))
            begun = time.perf_counter()
            run_units(
                units, laboratory, store, workers=workers,
                open_laboratory=OpenLaboratory(arguments.data, setting),
            )  # fmt: skip
            seconds = time.perf_counter() - begun
            outputs = {unit.key: store.load(unit.key) for unit in units}
        rate = 60 * len(units) / seconds
        alone = alone or rate
        training = sum(output.metrics["training_seconds"] for output in outputs.values())
        found = {k: o.predictions.test_probabilities.tobytes() for k, o in outputs.items()}
        first = first or found
        print(
            f"| {workers} | {rate:.1f} | {rate / alone:.2f} | "
            f"{100 * training / (seconds * min(workers, len(units))):.0f} % | {found == first} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
