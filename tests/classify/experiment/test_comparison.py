import dataclasses

import numpy as np
import pytest

from classify.experiment.comparison import ImageResamples, ScoredArm, compare
from classify.experiment.measures import (
    FoldPredictions,
    OperatingPoints,
    RunPredictions,
    join_folds,
    measure,
)
from classify.experiment.null_simulation import (
    EqualRecipesInGroups,
    ExchangeableRecipes,
    SameRecipe,
    false_claims,
    sharpness,
)
from classify.experiment.operating_points import average_precision
from classify.experiment.verdict import ClaimRule


def _runs(
    rng: np.random.Generator, repeats: int, lift: float, folds: int = 1
) -> list[RunPredictions]:
    labels = np.repeat([0, 1, 2], 40)
    fold = np.arange(120) % folds
    truth = np.eye(3)[labels]
    runs = []
    for _ in range(repeats):
        logits = rng.normal(size=(120, 3)) + truth * np.array([lift, 1.0, 1.0])
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        half = FoldPredictions(
            np.arange(120), labels, probabilities, np.arange(120), labels, probabilities
        )
        joined = join_folds([half], OperatingPoints(0.1, 0.6))
        thresholds = {key: np.repeat(value, folds) for key, value in joined.thresholds.items()}
        runs.append(RunPredictions(np.arange(120), labels, fold, probabilities, thresholds))
    return runs


def test_measures_are_their_definitions(rng: np.random.Generator) -> None:
    run = _runs(rng, 1, 1.0)[0]
    ones = np.ones((1, 120), np.float32)
    called, positive = run.probabilities.argmax(axis=1) == 0, run.labels == 0
    expected = {
        "recall": np.mean(called[positive]),
        "precision": np.mean(positive[called]),
        "false_positive_rate": np.mean(called[~positive]),
        "average_precision": average_precision(run.probabilities[:, 0], positive)[0],
    }
    for name, value in expected.items():
        assert measure(name, [run], 0, ones)[0, 0] == pytest.approx(value, abs=1e-7)
    accuracy = np.mean(run.probabilities.argmax(axis=1) == run.labels)
    assert measure("accuracy", [run], None, ones)[0, 0] == pytest.approx(accuracy)
    assert measure("macro_recall", [run], None, ones)[0, 0] == pytest.approx(accuracy)


def test_a_class_never_called_has_no_precision(rng: np.random.Generator) -> None:
    run = _runs(rng, 1, 1.0)[0]
    run.probabilities[:, 0] = 0
    ones = np.ones((1, 120), np.float32)
    assert np.isnan(measure("precision", [run], 0, ones)[0, 0])
    assert measure("recall", [run], 0, ones)[0, 0] == 0


def test_thresholds_come_from_validation_and_never_from_test(rng: np.random.Generator) -> None:
    labels = np.repeat([0, 1], 50)
    probabilities = rng.random((100, 2))
    first = FoldPredictions(
        np.arange(100), labels, probabilities, np.arange(100), labels, probabilities
    )
    second = FoldPredictions(
        np.arange(100), labels, probabilities, np.arange(100), 1 - labels, probabilities[::-1]
    )
    points = OperatingPoints(0.05, 0.7)
    assert join_folds([first], points).thresholds == join_folds([second], points).thresholds


def test_the_interval_of_a_mean_has_the_closed_form(rng: np.random.Generator) -> None:
    resamples = ImageResamples.draw(np.repeat([0, 1, 2], 40), np.zeros(120, int), None, 4000, rng)
    arm = ScoredArm("a", _runs(rng, 6, 2.0), resamples)
    baseline = ScoredArm("b", _runs(rng, 6, 1.0), resamples)
    result = compare(arm, baseline, "recall", 0, rng=rng)
    assert result is not None
    gains = np.stack([
        (a.probabilities.argmax(1) == 0)[:40] * 1.0 - (b.probabilities.argmax(1) == 0)[:40]
        for a, b in zip(arm.runs, baseline.runs, strict=True)
    ])  # fmt: skip
    assert result.estimate.difference == pytest.approx(gains.mean(), abs=1e-6)
    assert result.variance["repeats"] == pytest.approx(gains.mean(1).var(ddof=1) / 6, rel=1e-4)
    of_images = gains.mean(0).var(ddof=1) / 40
    assert result.variance["images"] == pytest.approx(of_images, rel=0.08)
    assert result.variance["folds"] == 0
    assert result.estimate.p < 0.05
    low, high = result.percentile_interval
    assert low < result.estimate.difference < high


def test_an_arm_against_itself_differs_by_nothing(rng: np.random.Generator) -> None:
    resamples = ImageResamples.draw(np.repeat([0, 1, 2], 40), np.zeros(120, int), None, 50, rng)
    arm = ScoredArm("a", _runs(rng, 4, 1.0), resamples)
    result = compare(arm, arm, "average_precision", 0, rng=rng)
    assert result is not None
    assert result.estimate.difference == 0
    assert result.estimate.p == 1
    # Nothing changed sides, but one of 40 images might have.
    assert result.estimate.standard_error == pytest.approx(1 / 40)
    assert result.estimate.interval[1] == pytest.approx(2.02 / 40, rel=0.01)
    assert ClaimRule().claim(result.estimate, 1.0, result.detectable) == "too small to tell"


def test_folds_that_differ_widen_the_interval(rng: np.random.Generator) -> None:
    labels, fold = np.repeat([0, 1, 2], 40), np.arange(120) % 4
    resamples = ImageResamples.draw(labels, fold, None, 500, rng)
    baseline = _runs(rng, 6, 1.0, folds=4)
    even = _runs(rng, 6, 1.0, folds=4)
    uneven = []
    for run in even:
        right, wrong = np.eye(3)[run.labels], run.probabilities[:, [1, 2, 0]]
        changed = np.where((run.fold < 2)[:, None], right, wrong)
        uneven.append(dataclasses.replace(run, probabilities=changed))
    base = ScoredArm("b", baseline, resamples)
    first = compare(ScoredArm("even", even, resamples), base, "recall", 0, rng=rng)
    second = compare(ScoredArm("uneven", uneven, resamples), base, "recall", 0, rng=rng)
    assert first is not None
    assert second is not None
    assert second.variance["folds"] > 10 * max(first.variance["folds"], 1e-4)
    assert second.over_folds is not None
    assert second.estimate.p > 0.05
    spread = 4 * second.variance["images"] + second.variance["folds"] / (1 / 4 + 1 / 2.4)
    assert second.over_folds.standard_error**2 == pytest.approx(spread * (1 / 4 + 1 / 2.4))
    # Each mean square with its own degrees of freedom, by hand.
    total = second.estimate.standard_error**2
    parts = second.variance
    weight = 4 * (1 / 4 + 1 / 2.4) - 1
    squares = second.over_folds.standard_error**4 / 3 + (weight * parts["images"]) ** 2 / 36
    squares += parts["repeats"] ** 2 / 5
    expected = max(3.0, total**2 / squares)
    assert second.estimate.degrees_of_freedom == pytest.approx(expected)


def test_two_folds_leave_few_degrees_of_freedom(rng: np.random.Generator) -> None:
    labels, fold = np.repeat([0, 1, 2], 40), np.arange(120) % 2
    resamples = ImageResamples.draw(labels, fold, None, 200, rng)
    arms = [ScoredArm(str(n), _runs(rng, 6, 1.0, folds=2), resamples) for n in range(2)]
    result = compare(arms[0], arms[1], "recall", 0, rng=rng)
    assert result is not None
    assert 1 <= result.estimate.degrees_of_freedom < 4  # 5 over the repeats, 39 over the images


def test_a_measure_of_other_images_has_their_number(rng: np.random.Generator) -> None:
    """No image changes sides: what one more could do depends on what the measure counts."""
    labels = np.repeat([0, 1, 2], 40)
    resamples = ImageResamples.draw(labels, np.zeros(120, int), None, 50, rng)
    runs = _runs(rng, 4, 1.0)
    arm, same = ScoredArm("a", runs, resamples), ScoredArm("b", runs, resamples)
    errors = {}
    for name in ("recall", "false_positive_rate", "precision"):
        result = compare(arm, same, name, 0, rng=rng)
        assert result is not None
        errors[name] = result.estimate.standard_error
    assert errors["recall"] == pytest.approx(1 / 40)
    assert errors["false_positive_rate"] == pytest.approx(1 / 80)
    calls = np.mean([(run.probabilities.argmax(axis=1) == 0).sum() for run in runs])
    assert errors["precision"] == pytest.approx(1 / calls)


def test_one_image_that_changes_sides_is_one_image_also_in_groups(
    rng: np.random.Generator,
) -> None:
    labels, group = np.repeat([0, 1, 2], 40), np.repeat(np.arange(10), 12).astype(str)
    resamples = ImageResamples.draw(labels, np.zeros(120, int), group, 50, rng)
    runs = _runs(rng, 4, 1.0)
    arm, same = ScoredArm("a", runs, resamples), ScoredArm("b", runs, resamples)
    result = compare(arm, same, "recall", 0, rng=rng)
    assert result is not None
    assert result.estimate.standard_error == pytest.approx(1 / 40)
    # Four groups hold the class: 12, 12, 12 and 4 of its images tell as much as 3.57 equal ones.
    assert result.estimate.degrees_of_freedom == pytest.approx(1600 / (3 * 144 + 16) - 1)


def test_what_a_matched_threshold_reached_is_measured(rng: np.random.Generator) -> None:
    run = _runs(rng, 1, 1.0)[0]
    ones = np.ones((1, 120), np.float32)
    above = run.probabilities[:, 0] > run.thresholds["false_positive_rate", 0][0]
    reached = measure("false_positive_rate_reached", [run], 0, ones)[0, 0]
    assert reached == pytest.approx(above[run.labels != 0].mean())
    assert reached <= 0.1  # chosen on these very images
    exact = run.probabilities[:, 0] > run.thresholds["precision", 0][0]
    found = measure("precision_reached", [run], 0, ones)[0, 0]
    assert found == pytest.approx((run.labels[exact] == 0).mean())
    assert found >= 0.6


def test_groups_are_drawn_whole(rng: np.random.Generator) -> None:
    labels, fold = np.tile([0, 1], 30), np.repeat([0, 1], 30)
    group = np.repeat(np.arange(12).astype(str), 5)
    resamples = ImageResamples.draw(labels, fold, group, 200, rng)
    by_group = resamples.weights.reshape(200, 12, 5)
    assert (by_group == by_group[:, :, :1]).all()
    assert by_group[:, :6, 0].sum(axis=1) == pytest.approx(6, rel=1e-6)
    assert len(set(resamples.clusters)) == 12


def test_resampling_by_image_keeps_the_count_of_each_class_in_each_fold(
    rng: np.random.Generator,
) -> None:
    labels, fold = np.repeat([0, 1], [7, 33]), np.arange(40) % 2
    weights = ImageResamples.draw(labels, fold, None, 100, rng).weights
    for label in (0, 1):
        for k in (0, 1):
            members = (labels == label) & (fold == k)
            assert weights[:, members].sum(axis=1) == pytest.approx(members.sum(), rel=1e-6)


@pytest.mark.parametrize("units", [2, 3, 8])
def test_the_bootstrap_of_few_units_has_the_variance_of_their_mean(
    units: int, rng: np.random.Generator
) -> None:
    """Drawing as many as there are would find (n - 1) / n of it, half of it for two."""
    values = rng.normal(size=units)
    fold = np.zeros(units, int)
    for group in (None, np.arange(units).astype(str)):
        weights = ImageResamples.draw(fold, fold, group, 40_000, rng).weights
        found = (weights @ values / units).var()
        assert found == pytest.approx(values.var(ddof=1) / units, rel=0.05)


def test_a_unit_alone_in_its_stratum_is_always_there(rng: np.random.Generator) -> None:
    weights = ImageResamples.draw(np.array([0, 1, 1]), np.zeros(3, int), None, 20, rng).weights
    assert (weights[:, 0] == 1).all()


def test_a_fold_without_a_value_in_some_repeat_still_counts_and_one_without_any_ends_it(
    rng: np.random.Generator,
) -> None:
    """A network that calls nothing the class in one fold has no precision there."""
    labels, fold = np.repeat([0, 1, 2], 40), np.arange(120) % 2
    resamples = ImageResamples.draw(labels, fold, None, 100, rng)

    def silent(run: RunPredictions) -> RunPredictions:
        changed = np.where((run.fold == 0)[:, None], np.eye(3)[1], run.probabilities)
        return dataclasses.replace(run, probabilities=changed)

    base = ScoredArm("b", _runs(rng, 5, 1.0, folds=2), resamples)
    runs = _runs(rng, 5, 1.5, folds=2)
    once = ScoredArm("once", [silent(runs[0]), *runs[1:]], resamples)
    always = ScoredArm("always", [silent(run) for run in runs], resamples)
    result = compare(once, base, "precision", 0, rng=rng)
    assert result is not None
    assert result.over_folds is not None
    assert compare(always, base, "precision", 0, rng=rng) is None


def test_the_mean_recall_is_as_uncertain_as_that_of_its_smallest_class(
    rng: np.random.Generator,
) -> None:
    labels = np.repeat([0, 1, 2], 40)
    keep = np.r_[0:5, 40:120]
    resamples = ImageResamples.draw(labels[keep], np.zeros(85, int), None, 50, rng)
    runs = [
        dataclasses.replace(
            run,
            rows=np.arange(85),
            labels=run.labels[keep],
            fold=run.fold[keep],
            probabilities=run.probabilities[keep],
        )
        for run in _runs(rng, 4, 1.0)
    ]
    arm, same = ScoredArm("a", runs, resamples), ScoredArm("b", runs, resamples)
    result = compare(arm, same, "macro_recall", None, rng=rng)
    assert result is not None
    assert result.estimate.standard_error == pytest.approx(1 / 15)  # one of five, a third of it
    assert result.estimate.degrees_of_freedom == pytest.approx(4)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(26,) * 9, (7, 15, 5, 4, 4, 12, 41, 11, 137)])
def test_luck_of_groups_is_rarely_a_claim_and_for_other_tests_often(
    sizes: tuple[int, ...], rng: np.random.Generator
) -> None:
    found = false_claims(EqualRecipesInGroups(sizes=sizes), 200, rng)
    assert found["claim of augment-and-eval"] <= 0.07
    assert found["test of augment-and-eval"] <= 0.09
    assert found["image bootstrap"] > 0.4


@pytest.mark.slow
def test_intervals_hold_an_effect_that_is_there_and_it_is_called_by_its_name(
    rng: np.random.Generator,
) -> None:
    many = ExchangeableRecipes(
        positives=400,
        negatives=1600,
        features=5,
        separation=0.7,
        advantage=0.3,
        fold_noise=0.1,
        training_noise=0.1,
    )
    told = sharpness(many, 60, rng)
    assert told.effect > 0.15
    assert told.coverage >= 0.88
    assert told.claims["helped"] > 0.6
    assert told.claims.get("harmed", 0) == 0


@pytest.mark.slow
def test_the_same_recipe_twice_is_rarely_a_claim_and_the_single_pair_method_often(
    rng: np.random.Generator,
) -> None:
    found = false_claims(SameRecipe(positives=216, training_spread=0.3), 200, rng)
    assert found["claim of augment-and-eval"] <= 0.07
    assert found["test of augment-and-eval"] <= 0.07
    assert 0.01 <= found["paired t over repeats"] <= 0.10
    assert found["single-pair McNemar"] > 0.14
    assert found["image bootstrap"] > 0.14


@pytest.mark.slow
def test_equal_recipes_on_new_data_are_rarely_a_claim_and_over_repeats_alone_often(
    rng: np.random.Generator,
) -> None:
    found = false_claims(ExchangeableRecipes(), 200, rng)
    assert found["claim of augment-and-eval"] <= 0.07
    assert found["test of augment-and-eval"] <= 0.09
    assert found["paired t over repeats"] > 0.2


@pytest.mark.slow
@pytest.mark.parametrize("folds", [2, 3])
def test_few_folds_with_unlucky_generators_claim_no_more(
    folds: int, rng: np.random.Generator
) -> None:
    found = false_claims(ExchangeableRecipes(folds=folds, fold_noise=2.0), 200, rng)
    assert found["claim of augment-and-eval"] <= 0.07
    assert found["test of augment-and-eval"] <= 0.09
    assert found["paired t over repeats"] > 0.4
