"""Every number of ``results.json``, from stored probabilities alone."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from classify.experiment.comparison import (
    PairedDifference,
    ScoredArm,
    compare,
    detectable_in_family,
)
from classify.experiment.curves import (
    dose_response,
    exchange_rate,
    learning_curve,
    mean_precision_recall,
)
from classify.experiment.filtering import filtered_arms, filtered_notes
from classify.experiment.measures import LOWER_IS_BETTER, MEASURES, OVERALL_MEASURES
from classify.experiment.operating_points import brier_score, expected_calibration_error
from classify.experiment.record import ExperimentRecord
from classify.experiment.scoring import BEST_CLASSIC, BEST_GENERATED, Scores
from classify.experiment.statistics import holm_adjusted, planned_detectable_effect
from classify.experiment.verdict import ClaimRule, in_points, interval_in_points
from classify.intervals import clopper_pearson_interval, wilson_interval

COST_MEASURES = ("recall", "precision")
"""Measured for every class; the others for the augmented class alone."""


def analyse(folder: Path, record: ExperimentRecord) -> dict[str, Any]:
    """Recompute all results of an experiment.

    Parameters
    ----------
    folder
        The results folder with its ``runs``.
    record
        What was run.

    Returns
    -------
    dict
        The content of ``results.json``; undefined numbers are ``None``.
    """
    scores = Scores(folder, record)
    arms = {arm.name: scores.arm(arm) for arm in record.arms}
    rule = claim_rule(record)
    rng = np.random.default_rng(record.settings["seed"] + 1)
    pairs = _pairs(record)
    comparisons = _compare_all(record, arms, pairs, rule, rng)
    test_positives = record.counts["test"][record.class_index]
    verdict, sides = _verdict(record, scores, rule, rng)
    filtered = filtered_arms(scores)
    border = scores.border()
    shown = arms | {side.name: side for side in sides}
    results: dict[str, Any] = {
        "class": record.class_name,
        "class_names": record.class_names,
        "repeats": record.repeats,
        "folds": record.folds,
        "counts": record.counts,
        "measure": record.settings["measure"],
        "matched": {
            "false_positive_rate": record.settings["false_positive_rate"],
            "precision": record.settings["precision"],
        },
        "rule": {
            "level": rule.level,
            "smallest_effect": rule.smallest_effect,
            "sharp_enough": rule.sharp_enough,
            "in_words": rule.in_words(),
        },
        "planned_detectable_effect": _number(
            planned_detectable_effect(test_positives, record.repeats)
        ),
        "arms": {name: _per_class(record, arm) for name, arm in arms.items()},
        "overall": {name: _overall(arm) for name, arm in arms.items()},
        "chosen_by_fold": {
            side.name: {"classes": _per_class(record, side), "overall": _overall(side)}
            for side in sides
            if side.name not in arms
        },
        "comparisons": [c for c in comparisons if c["measure"] == "recall"],
        "other_comparisons": [c for c in comparisons if c["measure"] != "recall"],
        "verdict": verdict,
        "dose_response": dose_response(record, arms, rng),
        "exchange_rate": exchange_rate(record, arms, rng),
        "learning_curve": learning_curve(record, scores, rng),
        "precision_recall": {
            name: mean_precision_recall(arm, record.class_index) for name, arm in shown.items()
        },
        "confusion": {name: _confusion(record, arm) for name, arm in shown.items()},
        "filtered": filtered,
        "border": border,
        "covered": sources_of_variance(record, border),
        "sources": record.sources,
        "notes": [*record.notes, *record.afterthoughts(), *filtered_notes(filtered)],
        "grouped": record.grouped,
        "noun": record.noun,
        "generator_per_unit": record.generator_per_unit,
        "settings": record.settings,
        "arms_in_words": {arm.name: arm.words for arm in record.arms},
    }
    return results


def claim_rule(record: ExperimentRecord) -> ClaimRule:
    """The rule that was stated before the run."""
    return ClaimRule(
        record.settings["level"],
        record.settings["smallest_effect"],
        record.settings["sharp_enough"],
    )


def sources_of_variance(record: ExperimentRecord, border: dict[str, float]) -> dict[str, list[str]]:
    """Which sources of variance the intervals cover, and which they do not.

    ``border`` as `Scores.border` gives it.
    """
    noun = record.noun
    generated = any(arm.kind == "gan" for arm in record.arms)
    covered = [
        "seed of the training" if noun == "rows" else f"initial weights and order of the {noun}",
        *([f"draw of the generated {noun}"] if generated else []),
        f"draw of the test {noun}" + (" (by group)" if record.grouped else ""),
    ]
    of_sides = f"draw of the training and validation {noun}"
    missed = ["other surveys, instruments and class definitions"]
    if generated and (record.folds or record.generator_per_unit):
        covered.append("training of the generator")
    elif generated:
        several = len({source["sha256"] for source in record.sources}) > 1
        which = "ready ones, each as it is" if several else "one ready generator"
        missed.insert(0, f"training of the generator ({which})")
    moved = "border between training and validation"
    if border["different"] > 1:
        if border["different"] < record.repeats:
            moved += f" ({border['different']} different ones in {record.repeats} repeats)"
        if border["different_of_class"] < 2:
            moved += f" (that of {record.class_name} stays)"
        covered.insert(1, moved)
    else:
        missed.insert(0, f"{moved} (large groups or few {noun}: it could not move)")
    if record.folds:
        covered.append(of_sides)
    else:
        missed.insert(0, of_sides)
    return {"covered": covered, "not_covered": missed}


def as_entry(result: PairedDifference) -> dict[str, Any]:
    """A paired difference as JSON."""
    estimate = result.estimate
    return {
        "difference": estimate.difference,
        "interval": list(estimate.interval),
        "p": estimate.p,
        "standard_error": estimate.standard_error,
        "degrees_of_freedom": _number(estimate.degrees_of_freedom),
        "per_repeat": result.per_repeat.tolist(),
        "over_repeats": {
            "interval": list(result.over_repeats.interval),
            "p": result.over_repeats.p,
            "p_sign_flip": result.p_sign_flip,
        },
        "over_folds": None
        if result.over_folds is None
        else {"interval": list(result.over_folds.interval), "p": result.over_folds.p},
        "percentile_interval": list(result.percentile_interval),
        "minimum_detectable_effect": result.detectable,
        "variance": result.variance,
    }


def _pairs(record: ExperimentRecord) -> list[tuple[str, str]]:
    """(arm, baseline): each against plain, and against itself without its images."""
    pairs: list[tuple[str, str]] = []
    names = {arm.name for arm in record.arms}
    for arm in record.arms:
        for baseline in dict.fromkeys(("plain", arm.base)):
            if baseline in names and baseline != arm.name:
                pairs.append((arm.name, baseline))
    return pairs


def _compare_all(
    record: ExperimentRecord,
    arms: dict[str, ScoredArm],
    pairs: list[tuple[str, str]],
    rule: ClaimRule,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """All comparisons; Holm within (baseline, measure), the augmented class and others apart."""
    target = record.class_index
    entries: list[dict[str, Any]] = []
    families: dict[tuple[str, str, bool], list[int]] = {}
    wanted: list[tuple[str, int | None]] = [(name, target) for name in MEASURES]
    wanted += [
        (name, index)
        for name in COST_MEASURES
        for index in range(len(record.class_names))
        if index != target and record.counts["test"][index]
    ]
    wanted += [(name, None) for name in OVERALL_MEASURES]
    details: list[PairedDifference | None] = []
    for arm, baseline in pairs:
        for name, index in wanted:
            result = compare(arms[arm], arms[baseline], name, index, rng=rng)
            families.setdefault((baseline, name, index == target), []).append(len(entries))
            details.append(result)
            entry: dict[str, Any] = {
                "arm": arm,
                "baseline": baseline,
                "class": None if index is None else record.class_names[index],
                "measure": name,
            }
            entry |= (
                {"difference": None, "interval": None, "p": None}
                if result is None
                else as_entry(result)
            )
            entries.append(entry)
    for members in families.values():
        adjusted = holm_adjusted([_nan(entries[i]["p"]) for i in members])
        found = [details[i] for i in members]
        beyond = holm_adjusted(
            [math.nan if d is None else rule.p_beyond(d.estimate) for d in found]
        )
        for i, p, p_beyond in zip(members, adjusted, beyond, strict=True):
            result = details[i]
            entries[i]["p_holm"] = _number(float(p))
            entries[i]["p_beyond_holm"] = _number(float(p_beyond))
            entries[i]["family_size"] = len(members)
            entries[i]["claim"] = (
                "too small to tell"
                if result is None
                else rule.claim(
                    result.estimate,
                    float(p),
                    detectable_in_family(result.estimate, rule.level, len(members)),
                    beyond_adjusted=float(p_beyond),
                    lower_is_better=entries[i]["measure"] in LOWER_IS_BETTER,
                )
            )
    return entries


def _verdict(
    record: ExperimentRecord, scores: Scores, rule: ClaimRule, rng: np.random.Generator
) -> tuple[dict[str, Any], list[ScoredArm]]:
    """The one comparison that was fixed before the test images were read, and its two sides."""
    if not any(arm.role == "generated" for arm in record.arms):
        nothing = f"No arm added generated {record.noun}, so there is no verdict on them."
        return {"claim": None, "sentence": nothing}, []
    generated, chosen = scores.chosen("generated", BEST_GENERATED)
    classic, rivals = scores.chosen("classic", BEST_CLASSIC)
    target, measure = record.class_index, record.settings["measure"]
    result = compare(generated, classic, measure, target, rng=rng)
    others = {
        name: compare(generated, classic, name, target, rng=rng)
        for name in ("recall", "precision", "recall_at_precision", "average_precision")
    }
    reached = {
        name: compare(generated, classic, name, target, rng=rng)
        for name in ("false_positive_rate_reached", "precision_reached")
    }
    costs = {
        record.class_names[index]: compare(generated, classic, "recall", index, rng=rng)
        for index in range(len(record.class_names))
        if index != target and record.counts["test"][index]
    }
    verdict: dict[str, Any] = {
        "arm": generated.name,
        "baseline": classic.name,
        "chosen_per_fold": chosen,
        "baseline_per_fold": rivals,
        "measure": measure,
        "comparison": None if result is None else as_entry(result),
        "at_other_measures": {k: None if v is None else as_entry(v) for k, v in others.items()},
        "reached": {k: None if v is None else as_entry(v) for k, v in reached.items()},
        "cost": {k: None if v is None else as_entry(v) for k, v in costs.items()},
        "minimum_claimable_effect": None
        if result is None
        else rule.smallest_effect + result.detectable,
    }
    if result is None:
        claim = "too small to tell"
        main = f"the {MEASURES[measure]} was not defined in some repeat"
    else:
        # One comparison, fixed in advance by arms chosen on validation: a family of one.
        claim = rule.claim(
            result.estimate,
            result.estimate.p,
            result.detectable,
            lower_is_better=measure in LOWER_IS_BETTER,
        )
        main = _change(MEASURES[measure], result, record)
    verdict["claim"] = claim
    subject = _subject(record, chosen, rivals)
    aside = ""
    best = record.arm(chosen[0])
    base = best.base
    one_base = len(set(chosen)) == 1 and len(set(best.stands_on)) <= 1
    if one_base and not _same_but_for_images(record, chosen, rivals):
        own = compare(generated, scores.arm(record.arm(base)), measure, target, rng=rng)
        if own is not None:
            verdict["against_own_base"] = {"baseline": base, **as_entry(own)}
            aside = f"; against the same training without those images ({base}) by {_by(own)}"
    verdict["sentence"] = _sentence(record, f"{subject} {main}{aside}", others, costs, claim)
    return verdict, [generated, classic]


def _same_but_for_images(
    record: ExperimentRecord, chosen: Sequence[str], rivals: Sequence[str]
) -> bool:
    """Whether the two sides of the verdict differ by generated images alone, in every fold."""
    for fold, (name, rival) in enumerate(zip(chosen, rivals, strict=True)):
        arm = record.arm(name)
        base = arm.stands_on[fold] if arm.stands_on else arm.base
        if base != rival:
            return False
    return True


def _subject(record: ExperimentRecord, chosen: Sequence[str], rivals: Sequence[str]) -> str:
    """What made the change: the images, or all in which the two best arms differ."""
    arm, baseline = _by_fold(chosen), _by_fold(rivals)
    if not _same_but_for_images(record, chosen, rivals):
        return (
            f"The best arm with generated {record.noun} of {record.class_name} ({arm}) against the "
            f"best without ({baseline}) changed"
        )
    doses = {record.arm(name).dose for name in chosen}
    real = record.counts["train"][record.class_index]
    count = f"{round(doses.pop() * real)} " if len(doses) == 1 else ""  # folds chose differently
    return (
        f"Adding {count}generated {record.noun} of {record.class_name} ({arm} against {baseline}) "
        "changed"
    )


def _by_fold(names: Sequence[str]) -> str:
    different = list(dict.fromkeys(names))
    return different[0] if len(different) == 1 else f"by fold {' or '.join(different)}"


def _sentence(
    record: ExperimentRecord,
    text: str,
    others: dict[str, PairedDifference | None],
    costs: dict[str, PairedDifference | None],
    claim: str,
) -> str:
    argmax, precision = others["recall"], others["precision"]
    if argmax is not None and record.settings["measure"] != "recall":
        text += f"; {_change('recall at the largest probability', argmax, record)}"
    if precision is not None:
        text += f"; precision by {_by(precision, brief=True)}"
    known = {name: cost for name, cost in costs.items() if cost is not None}
    if known:
        worst = min(known, key=lambda name: known[name].estimate.difference)
        text += (
            f"; the most costly change elsewhere, of {len(known)}, is "
            f"{_by(known[worst], brief=True)} of recall of {worst}"
        )
    return f"{text}: {claim}."


def _change(name: str, result: PairedDifference, record: ExperimentRecord) -> str:
    rate = record.settings["false_positive_rate"]
    name = name.replace("the matched false-positive rate", f"{100 * rate:g} % false positives")
    name = name.replace("the matched precision", f"precision {record.settings['precision']:g}")
    return f"{name} by {_by(result)}"


def _by(result: PairedDifference, *, brief: bool = False) -> str:
    return (
        f"{in_points(result.estimate.difference)} points "
        f"({'' if brief else '95 % interval '}{interval_in_points(result.estimate.interval)})"
    )


def _per_class(record: ExperimentRecord, arm: ScoredArm) -> dict[str, Any]:
    found: dict[str, Any] = {}
    called = np.stack([run.probabilities.argmax(axis=1) for run in arm.runs])
    for index, class_name in enumerate(record.class_names):
        positives = int((arm.labels == index).sum())
        if positives == 0:
            continue
        names = MEASURES if index == record.class_index else COST_MEASURES
        values = {name: [_number(v) for v in arm.values(name, index)] for name in names}
        hits = (called[:, arm.labels == index] == index).sum(axis=1)
        found[class_name] = {
            **values,
            "positives": positives,
            "recall_wilson": [list(wilson_interval(int(k), positives)) for k in hits],
            "recall_clopper_pearson": [
                list(clopper_pearson_interval(int(k), positives)) for k in hits
            ],
        }
    return found


def _overall(arm: ScoredArm) -> dict[str, Any]:
    return {
        **{name: arm.values(name, None).tolist() for name in OVERALL_MEASURES},
        "calibration_error": [
            expected_calibration_error(run.probabilities, run.labels) for run in arm.runs
        ],
        "brier_score": [brier_score(run.probabilities, run.labels) for run in arm.runs],
    }


def _confusion(record: ExperimentRecord, arm: ScoredArm) -> list[list[float]]:
    """Mean count over repeats; rows are the truth, columns what was called."""
    classes = len(record.class_names)
    total = np.zeros((classes, classes))
    for run in arm.runs:
        np.add.at(total, (run.labels, run.probabilities.argmax(axis=1)), 1)
    return (total / len(arm.runs)).tolist()


def _number(value: float) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
