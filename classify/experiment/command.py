"""The experiment from its flags to its verdict."""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from classify.experiment.analysis import analyse
from classify.experiment.arms import Arm, ArmVocabulary, parse_arms
from classify.experiment.checks import (
    note_of_twin,
    refuse_missing_algorithms,
    refuse_sizes,
    refuse_small,
    refuse_untrainable,
    usable_arms,
    warn_of_short_trainings,
)
from classify.experiment.cli import ExperimentConfig
from classify.experiment.division import Division, Setting
from classify.experiment.generator_parts import refuse_unfit_generators
from classify.experiment.laboratory import Laboratory
from classify.experiment.opening import UNITS_FILE, defaults_of, is_table, open_experiment
from classify.experiment.pictures import collect_pictures
from classify.experiment.planner import GeneratorSource, Planner
from classify.experiment.quality import (
    IMAGES,
    measure_quality,
    refuse_features,
    related_to_gains,
)
from classify.experiment.record import ExperimentRecord
from classify.experiment.recording import arm_record_of, record_of
from classify.experiment.report import write_report
from classify.experiment.runner import run_units
from classify.experiment.scoring import ALL, GROUPS_FILE, Scores, choose_best
from classify.experiment.screening import (
    RATE_OF,
    SAME_TRAINING,
    earlier_points,
    identity_of,
    in_words,
    predict,
)
from classify.experiment.sources import Sources, fold_sources, generator_names, ready_sources
from classify.experiment.statistics import planned_detectable_effect
from classify.experiment.summary import write_summary
from classify.experiment.units import UnitStore
from classify.experiment.verdict import in_points
from galaxies.atomic import whole_file, write_text
from galaxies.command_line import config_as_json, print_json, warn
from galaxies.errors import InputError

CONFIG = "config.json"
RESULTS = "results.json"
WORKERS_ON_GPU = 6
"""Small networks leave a GPU idle most of the time; this many trainings share it."""

FEW_FOLDS = 5
"""Fewer folds than this earn a warning."""

MAY_CHANGE = (
    "arms", "repeats", "gan", "synthetic", "workers", "dask", "dask_resources", "overwrite",
    "report_only", "json", "device", "allow_leak", "draws", "measure", "false_positive_rate",
    "precision", "smallest_effect", "sharp_enough", "screen", "screen_from", "features",
    "feature_weights", "real_counts", "out",
)  # fmt: skip
"""Flags that may differ when a results folder is gone on with: finished runs stay valid."""

GENERATOR_FLAGS = (
    "gan_recipe", "gan_steps", "gan_width", "gan_batch_size", "gan_scope", "gan_parts",
)  # fmt: skip
"""Flags of the generators of folds, without meaning where a ready one is given."""


def run(
    config: ExperimentConfig,
    *,
    named: Sequence[str] = (),
    build: Callable[..., Laboratory] = Laboratory,
) -> dict[str, Any]:
    """Run or continue the experiment.

    Parameters
    ----------
    config
        All flags.
    named
        Fields that stood on the command line: ``--report-only`` takes the others from the folder.
    build
        Makes the laboratory of this process; replaceable for other trainers, which then run with
        one worker.

    Returns
    -------
    dict
        The content of ``results.json``.
    """
    if config.report_only:
        return _report_only(config, named)
    if 0 < config.folds < FEW_FOLDS:
        warn(
            f"with {config.folds} folds the variance between folds has "
            f"{config.folds - 1} degree{'s' * (config.folds > 2)} of freedom, so intervals are wide"
            f"{'' if config.folds > 2 else ' and no claim is to be expected'}; {FEW_FOLDS} or more "
            "folds are better"
        )
    config = dataclasses.replace(config, **defaults_of(config))
    opened = open_experiment(config, build)
    laboratory = opened.laboratory
    folder = opened.folder
    refuse_unfit_generators(config.gan_recipe, config.gan_parts, config.gan_batch_size)
    main = config.keep or None
    keeps: list[int | None] = [main, *(n for n in config.real_count_values() if n != main)]
    arms = usable_arms(_arms_of(config, opened.arms), laboratory, main)
    refuse_small(laboratory, arms, keeps)
    refuse_missing_algorithms(laboratory, arms)
    refuse_sizes(laboratory, arms, config.folds, config.gan_scope)
    if isinstance(laboratory, Laboratory):
        refuse_untrainable(laboratory, arms)
        if any(arm.generated for arm in arms):
            refuse_features(config.features, config.feature_weights, laboratory)
    ready: Sources = {}
    notes = opened.notes
    if isinstance(laboratory, Laboratory):
        ready, doubts = ready_sources(config, laboratory, arms, keeps)
        limited = bool(config.keep or config.real_count_values())
        notes = [*notes, *doubts, *note_of_twin(laboratory, arms, limited=limited)]
    _prepare_folder(folder, config)
    _save_array(folder / UNITS_FILE, laboratory.units)
    store = UnitStore(folder)
    store.sweep()
    _print_plan(config, laboratory, arms)
    warn_of_short_trainings(laboratory, main)
    train = partial(
        run_units,
        laboratory=laboratory,
        store=store,
        workers=_workers(config, laboratory.setting),
        open_laboratory=opened.reopen,
        dask=config.dask,
        dask_resources=config.dask_resource_values() or None,
    )
    sources = ready or fold_sources(config, laboratory, arms, keeps, train)
    if config.screen:
        assert isinstance(laboratory, Laboratory)
        return _screen(config, laboratory, sources)
    planner = Planner(laboratory, sources)
    direct = [arm for arm in arms if not arm.on_best]
    train(planner.units(direct, config.repeats, keeps), title="arms")
    record = record_of(config, laboratory, planner, direct, keeps, sources, notes)
    late = [arm for arm in arms if arm.on_best]
    if late:
        record = _with_late_arms(config, folder, record, planner, late, direct, train)
    record = record.after(folder)
    if record.grouped:  # before the record, which says that they are there
        _save_array(folder / GROUPS_FILE, laboratory.units.astype(str))
    record.write(folder)
    results = analyse(folder, record)
    _write_results(folder, results)  # whatever happens to pictures and quality
    if isinstance(laboratory, Laboratory):
        results["pictures"] = collect_pictures(folder, laboratory, sources, keeps[0])
        if any(arm.generated for arm in arms):
            results["quality"] = measure_quality(
                config.features, config.feature_weights, laboratory, sources, record, keeps[0]
            )
    return _finish(config, folder, results)


def _save_array(path: Path, values: np.ndarray) -> None:
    with whole_file(path, overwrite=True) as temporary, temporary.open("wb") as file:
        np.save(file, values, allow_pickle=False)


def _report_only(config: ExperimentConfig, named: Sequence[str]) -> dict[str, Any]:
    if config.out is None:
        raise InputError("--report-only needs the results folder: pass --out results/NAME")
    record = ExperimentRecord.read(config.out)
    changed = {
        name: getattr(config, name)
        for name in ("measure", "false_positive_rate", "precision", "smallest_effect",
                     "sharp_enough", "draws")
        if name in named or getattr(config, name) != _default(name)
    }  # fmt: skip
    if changed:
        record = dataclasses.replace(record, settings={**record.settings, **changed})
    results = analyse(config.out, record)
    stored = _stored_results(config.out)
    if "pictures" in stored:
        results["pictures"] = stored["pictures"]
    if stored.get("quality"):  # the gains follow the measure, which may be another one now
        points = stored["quality"]["points"]
        results["quality"] = stored["quality"] | related_to_gains(points, config.out, record)
    return _finish(config, config.out, results)


def _write_results(folder: Path, results: dict[str, Any]) -> Path:
    """Numbers, summary and report; the path of the report."""
    write_text(folder / RESULTS, json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_summary(folder, results)
    return write_report(folder, results)


def _finish(config: ExperimentConfig, folder: Path, results: dict[str, Any]) -> dict[str, Any]:
    report = _write_results(folder, results)
    verdict = results["verdict"]
    if config.json:
        shown = ("class", "repeats", "arms", "comparisons", "verdict")
        told = {name: results[name] for name in shown}
        print_json({**told, "folder": str(folder), "report": str(report)})
    else:
        for line in terminal_table(results):
            print(line)
        print(verdict["sentence"])
        print(f"verdict: {verdict['claim'] or 'none'}")
        print(f"report: {report}")
    return results


def _screen(
    config: ExperimentConfig,
    laboratory: Laboratory,
    sources: dict[tuple[str, int, int | None], GeneratorSource],
) -> dict[str, Any]:
    """Cheap measures of the generators, and what finished experiments predict from them."""
    quality = measure_quality(
        config.features, config.feature_weights, laboratory, sources, None, config.keep or None
    )
    folders = config.screen_from or tuple(
        path.parent for path in sorted(Path("results").glob(f"*/{RESULTS}"))
    )
    settings = {
        "data_sha256": laboratory.digest,
        **{
            n: getattr(config, n) for n in (*SAME_TRAINING, *RATE_OF.values()) if hasattr(config, n)
        },
    }
    points = earlier_points(folders, laboratory.class_name, settings, quality)
    for point in quality["points"]:
        others = [other for other in points if identity_of(other) != identity_of(point)]
        count = point.get("images", IMAGES)
        alike = [other for other in others if other.get("images", IMAGES) == count]
        if len(alike) < len(others):
            warn(
                f"{point['name']} is measured on {count} images and {len(others) - len(alike)} "
                "earlier generators on another number, which moves most measures; they are left out"
            )
        point["predicted"] = predict(alike, point["measures"])
    if config.json:
        print_json(quality)
    else:
        for point in quality["points"]:
            shown = ", ".join(
                f"{name} {value:.3g}"
                for name, value in point["measures"].items()
                if value is not None
            )
            print(f"{point['name']}: {shown}")
            print(in_words(point["name"], point["predicted"], config.measure))
    return quality


def terminal_table(results: dict[str, Any]) -> list[str]:
    """One line per arm: what it scored on the augmented class."""
    name = results["class"]
    rate = f"recall at {100 * results['matched']['false_positive_rate']:g} % FP"
    width = max(len(arm) for arm in results["arms"])
    lines = [f"{'arm':<{width}}  recall  precision  {rate}  average precision  mean recall"]
    for arm, classes in results["arms"].items():
        own = classes.get(name, {})
        cells = [
            (_mean(own.get("recall")), 6),
            (_mean(own.get("precision")), 9),
            (_mean(own.get("recall_at_false_positive_rate")), len(rate)),
            (_mean(own.get("average_precision")), 17),
            (_mean(results["overall"][arm]["macro_recall"]), 11),
        ]
        lines.append(
            f"{arm:<{width}}  "
            + "  ".join(f"{'–' if v is None else format(v, '.3f'):>{w}}" for v, w in cells)
        )
    return lines


def _mean(values: Sequence[float | None] | None) -> float | None:
    known = [value for value in values or () if value is not None]
    return float(np.mean(known)) if known else None


def _default(name: str) -> Any:
    return next(f.default for f in dataclasses.fields(ExperimentConfig) if f.name == name)


def _stored_results(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _prepare_folder(folder: Path, config: ExperimentConfig) -> None:
    """Continue an experiment of the same kind; refuse another one."""
    path = folder / CONFIG
    wanted = config_as_json(config)
    if path.is_file() and not config.overwrite:
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}); pass --overwrite") from None
        flags = _flags(wanted)
        for name, value in _flags(stored).items():
            if name in GENERATOR_FLAGS and not config.folds and not is_table(config):
                continue
            if name not in MAY_CHANGE and name in flags and flags[name] != value:
                raise InputError(
                    f"{folder} holds an experiment with --{name.replace('_', '-')} "
                    f"{_written(value)}, not {_written(flags[name])}; choose another --out or "
                    "pass --overwrite"
                )
    elif folder.exists() and not path.is_file() and any(folder.iterdir()) and not config.overwrite:
        raise InputError(f"{folder} exists and is no experiment; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    if not (config.screen and path.is_file()):  # the flags there are those of the results
        write_text(path, json.dumps(wanted, indent=1) + "\n")


def _flags(stored: dict[str, Any]) -> dict[str, Any]:
    """Stored settings by the names of their flags: those about columns stand by themselves."""
    flags = {name: value for name, value in stored.items() if name not in ("table", "classes")}
    return flags | dict(stored.get("table") or {}) | {"class": stored.get("classes")}


def _written(value: Any) -> str:
    return " ".join(map(str, value)) or "(none)" if isinstance(value, list) else str(value)


def _arms_of(config: ExperimentConfig, vocabulary: ArmVocabulary) -> list[Arm]:
    if is_table(config):
        return parse_arms(config.arms, (), vocabulary)
    if config.gan:
        names = generator_names(config.gan)
    else:
        names = ["synthetic" if config.synthetic else "fold generator"]
    arms = parse_arms(config.arms, names, vocabulary)
    if not config.gan and config.synthetic is None and not config.folds:
        if config.screen:
            raise InputError("--screen measures generators: pass --gan CHECKPOINT or --folds K")
        generated = [arm.name for arm in arms if arm.generated]
        if generated:
            raise InputError(
                f"arm {generated[0]} adds generated images: pass --gan CHECKPOINT or --synthetic "
                "SET.h5, or --folds K to train a generator per fold"
            )
    if (config.keep or config.real_counts) and not config.folds:
        generated = [arm.name for arm in arms if arm.generated]
        if generated:
            raise InputError(
                f"--keep and --real-counts hold real images back, but the generator of arm "
                f"{generated[0]} saw them; use --folds, which trains generators without them"
            )
    return arms


def _workers(config: ExperimentConfig, setting: Setting) -> int:
    from galaxies.device import cores

    if config.workers:
        return config.workers
    if setting.device != "cpu":
        return max(1, min(WORKERS_ON_GPU, cores() // 2))
    return max(1, cores() // setting.threads)


def _with_late_arms(
    config: ExperimentConfig,
    folder: Path,
    record: ExperimentRecord,
    planner: Planner,
    late: list[Arm],
    direct: list[Arm],
    train: Any,
) -> ExperimentRecord:
    """Train the arms that stand on the best classic arm, chosen on validation in each fold."""
    best = choose_best(Scores(folder, record), "classic", without_added=True)
    by_name = {arm.name: arm for arm in direct}
    keep = config.keep or None
    units, records = [], []
    for arm in late:
        standing = [arm.standing_on(by_name[name]) for name in best]
        for repeat in range(config.repeats):
            units += [planner.unit(standing[f], repeat, f, keep) for f in range(len(best))]
        found = arm_record_of(
            arm, planner.laboratory, planner, config.repeats, {ALL: keep}, on=standing
        )
        base = best[0] if len(set(best)) == 1 else "plain"
        records.append(dataclasses.replace(found, base=base))
    train(units, title="arms on the best")
    return dataclasses.replace(record, arms=[*record.arms, *records])


def _print_plan(config: ExperimentConfig, laboratory: Division, arms: list[Arm]) -> None:
    """Say before the run what it can see."""
    folds = laboratory.folds(config.keep or None)
    labels = laboratory.items.labels
    index = laboratory.setting.class_index
    positives = sum(int((labels[fold.test] == index).sum()) for fold in folds)
    train = int((labels[folds[0].train] == index).sum())
    detectable = planned_detectable_effect(positives, config.repeats)
    noun = laboratory.noun
    where = f"{len(folds)} folds" if config.folds else "the stored split"
    print(
        f"{laboratory.class_name}: {train} training {noun}, {positives} test {noun} in {where}, "
        f"{len(arms)} arms x {config.repeats} repeats; this can see a change of about "
        f"{in_points(detectable, signed=False)} points of recall and claim one of "
        f"{in_points(detectable + config.smallest_effect, signed=False)} (power .8"
        f"{', and more where folds differ' if config.folds else ''})",
        file=sys.stderr,
    )
