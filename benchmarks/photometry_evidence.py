"""Stars, galaxies and quasars from photometry: the runs behind docs/results/photometry.md.

Each run is one small JSON file under ``--out`` and is never repeated, so the work can be cut into
slices:

    python benchmarks/photometry_evidence.py --photometry shared/data/photometry --part algorithms
    python benchmarks/photometry_evidence.py --photometry ... --part shift --minutes 5
    python benchmarks/photometry_evidence.py --summary        # the tables of the page

Parts: ``algorithms`` (every classifier on both tables, ten splits), ``coverage`` (of prediction
sets, over many splits), ``shift`` (prediction sets
calibrated on bright sources and tested on faint ones), ``bayesian`` (what approximate posteriors
say there), ``joint`` (image, table and both on the simulated survey). A repeat is a split and a
training seed; within a repeat all arms share both. Answers to imbalance are compared by
``augment-and-eval``.
"""

import argparse
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from classify.calibration import expected_calibration_error
from classify.conformal import ConformalCalibration, coverage_report
from classify.experiment.statistics import (
    corrected_paired_t,
    holm_adjusted,
    minimum_detectable_effect,
)
from classify.experiment.verdict import ClaimRule, in_points, interval_in_points
from classify.metrics import evaluate
from classify.tabular.classifier import TableTraining, train_table_classifier
from classify.tabular.dense import DenseConfig
from classify.tabular.exchangeability import (
    conformal_p_values,
    score_martingale,
    two_sample_monitor,
)
from classify.tabular.weighted_conformal import WeightedCalibration
from galaxies.tables import Table, TableColumns, read_table, split_table

REPEATS = 10
JOINT_STEPS = 500
MANY_SPLITS = 200
LEVEL = 0.9
_MEASURED = ("dered", "deVRad", "psffwhm", "extinction")
MARGNET_COLUMNS = (
    *(f"{name}_{band}" for band in "ugriz" for name in _MEASURED),
    *("u_g", "g_r", "r_i", "i_z"),
)
ALGORITHMS = (
    "dense", "gradient-boosting", "random-forest", "svm", "nearest-neighbours",
    "logistic-regression",
)  # fmt: skip


def sdss(folder: Path) -> Table:
    return read_table(folder / "sdss_dr14.csv", TableColumns(colours=True))


def margnet(folder: Path) -> Table:
    table = read_table(folder / "margnet_exp3.npz")
    return dataclasses.replace(table, feature_names=MARGNET_COLUMNS, class_names=("GALAXY", "STAR"))


TABLES: dict[str, Callable[[Path], Table]] = {"sdss_dr14": sdss, "margnet_exp3": margnet}


def halves(table: Table, seed: int) -> tuple[Table, Table]:
    """Two stratified halves: one chooses the epoch, the other calibrates."""
    parted = split_table(table, (0.5, 0.5, 0.0), seed)
    return parted.side("train"), parted.side("validation")


def algorithms(folder: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    for name, open_table in TABLES.items():
        table = open_table(folder)
        for model in ALGORITHMS:
            for repeat in range(REPEATS):
                yield (
                    f"{name}/{model}/{repeat}",
                    functools.partial(_algorithm, table, model, repeat),
                )


def _algorithm(table: Table, model: str, repeat: int) -> dict[str, Any]:
    parted = split_table(table, seed=repeat)
    chooser, calibration = halves(parted.side("validation"), repeat)
    started = time.perf_counter()
    classifier = train_table_classifier(
        parted.side("train"), chooser, TableTraining(model=model, seed=repeat, threads=1),
        progress=False,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    test = parted.side("test")
    found = classifier.probabilities(test)
    held = ConformalCalibration(classifier.probabilities(calibration), calibration.known_labels)
    report = coverage_report(held.sets(found, LEVEL), test.known_labels, test.class_names, LEVEL)
    return _scores(found, test) | {
        "seconds": seconds,
        "coverage": {c.name: c.covered / c.images for c in (report.overall, *report.per_class)},
        "set_size": report.overall.mean_size,
        "failures": len(report.failures),
    }


def _scores(probabilities: np.ndarray, test: Table) -> dict[str, Any]:
    metrics = evaluate(probabilities, test.known_labels, test.class_names, resamples=0)
    return {
        "accuracy": metrics.accuracy,
        "recall": {m.name: m.recall for m in metrics.per_class},
        "precision": {m.name: m.precision for m in metrics.per_class},
        "average_precision": {m.name: m.average_precision for m in metrics.per_class},
        "calibration_error": metrics.calibration_error,
        "log_loss": metrics.log_loss,
    }


def coverage(folder: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    table = sdss(folder)
    yield "sdss_dr14/0", lambda: _coverage(table)


def _coverage(table: Table) -> dict[str, Any]:
    """Coverage per class over many splits: one split of 64 calibrating rows scatters by points."""
    runs = [_algorithm(table, "gradient-boosting", 1000 + split) for split in range(MANY_SPLITS)]
    return {
        name: {
            "mean": float(np.mean([run["coverage"][name] for run in runs])),
            "deviation": float(np.std([run["coverage"][name] for run in runs], ddof=1)),
            "splits": MANY_SPLITS,
        }
        for name in runs[0]["coverage"]
    }


def shift(folder: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    for name, open_table in TABLES.items():
        table = open_table(folder)
        column = "dered_r" if name == "margnet_exp3" else "r"
        compact = "deVRad_r" if name == "margnet_exp3" else None
        for repeat in range(REPEATS):
            for kind in ("none", "soft", "hard") + (("compact",) if compact else ()):
                by = compact if kind == "compact" else column
                yield (
                    f"{name}/{kind}/{repeat}",
                    functools.partial(_shift, table, str(by), kind, repeat),
                )


def _known_and_new(table: Table, column: str, kind: str, repeat: int) -> tuple[Table, Table]:
    """Rows with labels, and rows to classify: alike, softly or sharply parted by brightness."""
    rng = np.random.default_rng(repeat)
    values = table.column(column)
    if kind == "none":
        known = rng.random(len(table)) < 0.5
    elif kind == "hard":
        known = values < np.median(values)
    else:  # the chance of a label falls smoothly with magnitude, or with size
        rank = values.argsort().argsort() / len(values)
        known = rng.random(len(table)) < 1 / (1 + np.exp((rank - 0.5) / 0.12))
    return table.select(known), table.select(~known)


def _shift(table: Table, column: str, kind: str, repeat: int) -> dict[str, Any]:
    known, new = _known_and_new(table, column, kind, repeat)
    parted = split_table(known, (0.5, 0.1, 0.4), seed=repeat)
    classifier = train_table_classifier(
        parted.side("train"), parted.side("validation"),
        TableTraining(model="gradient-boosting", seed=repeat, threads=1), progress=False,
    )  # fmt: skip
    calibration = parted.side("test")
    # A few of the new rows get labels, to show what that repairs; the rest is judged.
    labelled = np.zeros(len(new), bool)
    labelled[np.random.default_rng(repeat).permutation(len(new))[:300]] = True
    few, judged = new.select(labelled), new.select(~labelled)
    on_calibration = classifier.probabilities(calibration)
    on_new = classifier.probabilities(judged)
    held = ConformalCalibration(on_calibration, calibration.known_labels)
    monitor, ratio = two_sample_monitor(calibration.features, judged.features, seed=repeat)
    weighted = WeightedCalibration(held, ratio.calibration)
    from_few = ConformalCalibration(classifier.probabilities(few), few.known_labels)
    sets = {
        "marginal": held.sets(on_new, LEVEL, "marginal"),
        "per class": held.sets(on_new, LEVEL, "per-class"),
        "weighted": weighted.sets(on_new, ratio.new, LEVEL, "marginal"),
        "weighted per class": weighted.sets(on_new, ratio.new, LEVEL, "per-class"),
        "300 new labels": from_few.sets(on_new, LEVEL, "per-class"),
    }
    truth, names = judged.known_labels, judged.class_names
    result: dict[str, Any] = {"monitor": monitor.as_json(), "sets": {}}
    for name, found in sets.items():
        if name in ("marginal", "weighted"):
            report = coverage_report(found, truth, names, LEVEL, "marginal")
        else:
            report = coverage_report(found, truth, names, LEVEL, "per-class")
        result["sets"][name] = {
            "coverage": {
                c.name: c.covered / c.images
                for c in (report.overall, *report.per_class)
                if c.images
            },
            "size": report.overall.mean_size,
            "empty": report.overall.empty,
            "every_class": float(found.all(axis=1).mean()),
            "failures": len(report.failures),
        }
    own = 1 - on_calibration[np.arange(len(calibration)), calibration.known_labels]
    new_scores = 1 - on_new[np.arange(len(judged)), truth]
    p_values = conformal_p_values(own, new_scores, np.random.default_rng(repeat))
    order = np.random.default_rng(repeat).permutation(len(judged))  # the file is sorted by class
    wealth = score_martingale(p_values[order[:1000]])
    alarms = np.flatnonzero(wealth >= 2)
    result["martingale_alarm_after"] = int(alarms[0]) + 1 if len(alarms) else None
    result["accuracy"] = {
        "calibration": float((on_calibration.argmax(1) == calibration.known_labels).mean()),
        "new": float((on_new.argmax(1) == truth).mean()),
    }
    return result


def bayesian(folder: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    table = margnet(folder)
    for repeat in range(REPEATS):
        for kind in ("none", "mc-dropout", "laplace", "variational"):
            yield f"{kind}/{repeat}", functools.partial(_bayesian, table, kind, repeat)


def _bayesian(table: Table, kind: str, repeat: int) -> dict[str, Any]:
    from classify.abstention import abstention_curve

    known, new = _known_and_new(table, "dered_r", "hard", repeat)
    parted = split_table(known, (0.6, 0.15, 0.25), seed=repeat)
    classifier = train_table_classifier(
        parted.side("train"), parted.side("validation"),
        TableTraining(
            model="dense-small", bayesian=kind, seed=repeat,  # type: ignore[arg-type]
            dense=DenseConfig(epochs=100, patience=15),
        ),
        progress=False,
    )  # fmt: skip
    result: dict[str, Any] = {}
    for name, rows in (("bright", parted.side("test")), ("faint", new)):
        found = classifier.probabilities(rows)
        curve = abstention_curve(found, rows.known_labels)
        right = found.argmax(1) == rows.known_labels
        order = np.argsort(-found.max(1), kind="stable")
        result[name] = {
            "accuracy": float(right.mean()),
            "calibration_error": expected_calibration_error(found, rows.known_labels),
            "log_loss": float(-np.log(found[np.arange(len(rows)), rows.known_labels]).mean()),
            "confidence": float(found.max(1).mean()),
            "accuracy_of_surest_half": float(right[order[: len(rows) // 2]].mean()),
            "area": float(getattr(curve, "area", np.nan)),
        }
    return result


def joint(folder: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    for repeat in range(REPEATS):
        for arm in ("margnet-small", "margformer-small", "gradient-boosting"):
            yield f"{arm}/{repeat}", functools.partial(_joint, arm, repeat)


@functools.cache
def _survey() -> Any:
    from galaxies.simulate import simulate_survey

    return simulate_survey(3000, size=32, seed=0, progress=False)


def _joint(arm: str, repeat: int) -> dict[str, Any]:
    """One training on the simulated survey; MargNet's parts answer for the image and the table."""
    import torch

    from classify.training import TrainingConfig, train_classifier
    from galaxies.split import split_set

    parted = split_set(_survey(), seed=repeat)
    train, validation, test = (parted.side(s) for s in ("train", "validation", "test"))
    table = Table(
        test.features.astype(np.float64),
        test.feature_names,
        test.labels,
        test.class_names,
        test.ids,
    )
    if arm == "gradient-boosting":
        rows = Table(
            train.features.astype(np.float64), train.feature_names, train.labels,
            train.class_names, train.ids,
        )  # fmt: skip
        classifier = train_table_classifier(
            rows, None, TableTraining(model=arm, balance="class-weights", seed=repeat)
        )
        return {"table": _scores(classifier.probabilities(table), table)}
    config = TrainingConfig(model=arm, steps=JOINT_STEPS, batch_size=64, seed=repeat)
    trained = train_classifier(train, validation, config, progress=False)
    result = {"both": _scores(trained.probabilities(test).numpy(), table)}
    if arm == "margnet-small":
        parts = trained.features(test).double().numpy()  # probabilities of image, then table
        count = len(test.class_names)
        result["image"] = _scores(parts[:, :count], table)
        result["table"] = _scores(parts[:, count:], table)
    torch.set_grad_enabled(True)
    return result


PARTS: dict[str, Callable[[Path], Iterator[tuple[str, Callable[[], dict[str, Any]]]]]] = {
    "algorithms": algorithms,
    "coverage": coverage,
    "shift": shift,
    "bayesian": bayesian,
    "joint": joint,
}


# ------------------------------------------------------------------------------------- tables


def load(out: Path, part: str) -> dict[str, dict[int, dict[str, Any]]]:
    """``name of the arm`` -> repeat -> what its file holds."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for path in sorted((out / part).rglob("*.json")):
        relative = path.relative_to(out / part)
        found.setdefault(str(relative.parent), {})[int(path.stem)] = json.loads(path.read_text())
    return found


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}"


def summary(out: Path) -> None:
    _summarise_algorithms(load(out, "algorithms"))
    _summarise_coverage(load(out, "coverage"))
    _summarise_shift(load(out, "shift"))
    _summarise_bayesian(load(out, "bayesian"))
    _summarise_joint(load(out, "joint"))


def _summarise_algorithms(runs: dict[str, dict[int, dict[str, Any]]]) -> None:
    for name in TABLES:
        print(f"\n### {name}\n")
        arms = {arm: list(r.values()) for arm, r in runs.items() if arm.startswith(name + "/")}
        if not arms:
            continue
        classes = list(next(iter(arms.values()))[0]["recall"])
        print("| classifier | repeats | accuracy | " + " | ".join(f"recall {c}" for c in classes)
              + " | calibration error | coverage at 90 %, lowest class | set size | seconds |")  # fmt: skip  # noqa: E501
        print("| --- " * (7 + len(classes)) + "|")
        for arm, results in sorted(
            arms.items(), key=lambda a: np.mean([r["accuracy"] for r in a[1]])
        ):
            lowest = min(np.mean([r["coverage"][c] for r in results]) for c in classes)
            print(
                f"| {arm.split('/')[1]} | {len(results)} | {spread([r['accuracy'] for r in results])} | "  # noqa: E501
                + " | ".join(spread([r["recall"][c] for r in results]) for c in classes)
                + f" | {np.mean([r['calibration_error'] for r in results]):.3f} | {lowest:.3f} | "
                f"{np.mean([r['set_size'] for r in results]):.2f} | "
                f"{np.median([r['seconds'] for r in results]):.1f} |"
            )


def _summarise_coverage(runs: dict[str, dict[int, dict[str, Any]]]) -> None:
    print("\n### coverage of prediction sets at 90 %, per class\n")
    for name, by_repeat in runs.items():
        for label, found in by_repeat[0].items():
            error = found["deviation"] / np.sqrt(found["splits"])
            print(
                f"{name}, {label}: {found['mean']:.4f} ± {error:.4f} over {found['splits']} splits "
                f"of this table (one split ± {found['deviation']:.3f})"
            )


def _summarise_shift(runs: dict[str, dict[int, dict[str, Any]]]) -> None:
    print("\n### shift\n")
    print(
        "| table | new rows | monitor | accuracy known / new | sets | coverage | lowest class | size | every class |"  # noqa: E501
    )
    print("| --- " * 9 + "|")
    for arm, by_repeat in runs.items():
        results = list(by_repeat.values())
        auc = np.mean([r["monitor"]["auc"] for r in results])
        verdicts = [r["monitor"]["verdict"] for r in results]
        said = ", ".join(f"{v} {verdicts.count(v)}" for v in dict.fromkeys(verdicts))
        known, new = (np.mean([r["accuracy"][k] for r in results]) for k in ("calibration", "new"))
        for sets in results[0]["sets"]:
            own = [r["sets"][sets] for r in results]
            classes = [c for c in own[0]["coverage"] if c != "all"]
            lowest = min(classes, key=lambda c: np.mean([o["coverage"][c] for o in own]))
            print(
                f"| {arm.replace('/', ' | ')} | AUC {auc:.2f}: {said} | {known:.3f} / {new:.3f} | "
                f"{sets} | {spread([o['coverage']['all'] for o in own])} | "
                f"{lowest} {np.mean([o['coverage'][lowest] for o in own]):.3f} | "
                f"{np.mean([o['size'] for o in own]):.2f} | "
                f"{np.mean([o['every_class'] for o in own]):.2f} |"
            )
        alarms = [r["martingale_alarm_after"] for r in results]
        heard = [a for a in alarms if a is not None]
        print(
            f"\n{arm}: martingale alarms in {len(heard)} of {len(alarms)} streams"
            + (f", after {int(np.median(heard))} labelled rows (median)\n" if heard else "\n")
        )


def _summarise_bayesian(runs: dict[str, dict[int, dict[str, Any]]]) -> None:
    print("\n### bayesian\n")
    print(
        "| posterior | repeats | side | accuracy | calibration error | log loss | accuracy of the surest half |"  # noqa: E501
    )
    print("| --- " * 7 + "|")
    for kind, by_repeat in runs.items():
        for side in ("bright", "faint"):
            own = [r[side] for r in by_repeat.values()]
            print(f"| {kind} | {len(own)} | {side} | " + " | ".join(
                spread([o[m] for o in own])
                for m in ("accuracy", "calibration_error", "log_loss", "accuracy_of_surest_half")) + " |")  # fmt: skip  # noqa: E501


def _summarise_joint(runs: dict[str, dict[int, dict[str, Any]]]) -> None:
    print("\n### joint\n")
    arms = {
        f"{sees} ({arm})": {r: result[sees] for r, result in by_repeat.items()}
        for arm, by_repeat in runs.items()
        for sees in next(iter(by_repeat.values()))
    }
    if not arms:
        return
    classes = list(next(iter(next(iter(arms.values())).values()))["recall"])
    print("| sees | repeats | accuracy | mean recall | " + " | ".join(classes) + " |")
    print("| --- " * (4 + len(classes)) + "|")
    mean_recall = {
        arm: {r: float(np.mean(list(v["recall"].values()))) for r, v in by_repeat.items()}
        for arm, by_repeat in arms.items()
    }
    for arm, by_repeat in arms.items():
        own = list(by_repeat.values())
        print(
            f"| {arm} | {len(own)} | {spread([o['accuracy'] for o in own])} | "
            f"{spread(list(mean_recall[arm].values()))} | "
            + " | ".join(f"{np.mean([o['recall'][c] for o in own]):.3f}" for c in classes)
            + " |"
        )
    print("\n| both against | points of mean recall | 95 % interval | p (Holm) | verdict |")
    print("| --- " * 5 + "|")
    both = mean_recall.get("both (margnet-small)", {})
    found = []
    for arm, values in mean_recall.items():
        repeats = sorted(set(values) & set(both))
        if arm.startswith("both (margnet") or len(repeats) < 2:
            continue
        differences = np.array([both[r] - values[r] for r in repeats])
        found.append((arm, corrected_paired_t(differences, 0.25 / 0.6)))
    for (arm, estimate), p in zip(found, holm_adjusted([e.p for _, e in found]), strict=True):
        detectable = minimum_detectable_effect(estimate.standard_error, estimate.degrees_of_freedom)
        print(
            f"| {arm} | {in_points(estimate.difference)} | "
            f"{interval_in_points(estimate.interval)} | {p:.2g} | "
            f"{ClaimRule().claim(estimate, float(p), detectable)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photometry", type=Path, default=Path("../shared/data/photometry"))
    parser.add_argument("--part", choices=sorted(PARTS), action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path("results/photometry"))
    parser.add_argument("--minutes", type=float, default=1e9, help="start no run after so many")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--summary", action="store_true")
    arguments = parser.parse_args()
    started = time.perf_counter()
    runs = [
        (int(Path(key).name), part, key, run)
        for part in arguments.part
        for key, run in PARTS[part](arguments.photometry)
    ]
    # Repeat by repeat, so that whatever was reached is a whole experiment with fewer repeats.
    # The costly arms follow some repeats later.
    late = {"dense": 6, "svm": 6}
    runs.sort(key=lambda entry: entry[0] + late.get(entry[2].split("/")[-2], 0))
    for repeat, part, key, run in runs:
        path = arguments.out / part / f"{key}.json"
        if path.exists() or repeat >= arguments.repeats:
            continue
        if time.perf_counter() - started > 60 * arguments.minutes:
            print("time is up; run again to continue", file=sys.stderr)
            return
        begun = time.perf_counter()
        result = run()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(result))
        partial.replace(path)
        print(f"{part} {key}: {time.perf_counter() - begun:.1f} s", file=sys.stderr, flush=True)
    if arguments.summary:
        summary(arguments.out)


if __name__ == "__main__":
    main()
