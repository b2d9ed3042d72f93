import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.experiment.arms import (
    GROUPS,
    MODIFIERS,
    TECHNIQUES,
    TO_BALANCE,
    AddedItems,
    parse_arm,
    parse_arms,
)
from classify.training_config import TrainingConfig
from galaxies.errors import InputError


def test_an_arm_with_images_stands_on_balanced_unless_it_names_its_own_base() -> None:
    gan = parse_arm("gan@0.5")
    assert gan.settings == parse_arm("balanced").settings
    assert gan.base == "balanced"
    assert gan.added == AddedItems("gan", 0.5)
    own = parse_arm("focal+gan@1")
    assert own.settings["loss"] == "focal"
    assert own.settings["balance"] == "none"
    assert own.base == "focal"
    assert parse_arm("plain+gan").base == "plain"


def test_parts_compose() -> None:
    arm = parse_arm("balanced+mixup@0.2+gan@2+filtered@0.7+finish+weight@0.3")
    assert arm.settings == {
        "balance": "sampling", "symmetries": True, "mixup": 0.2,
        "synthetic_until": 0.75, "synthetic_weight": 0.3,
    }  # fmt: skip
    assert arm.added == AddedItems("gan", 2.0, keep_above=0.7)
    assert arm.base == "balanced+mixup@0.2"


def test_baselines_are_put_in_and_nothing_twice() -> None:
    names = [arm.name for arm in parse_arms("balanced+mixup+gan@1,gan,gan")]
    assert names == ["plain", "balanced+mixup", "balanced+mixup+gan@1", "balanced", "gan"]


def test_several_generators_give_an_arm_each() -> None:
    names = [arm.name for arm in parse_arms("gan@1,placebo", ["a", "b"])]
    assert names == ["plain", "balanced", "gan:a@1", "gan:b@1", "placebo"]
    assert parse_arm("gan:b@1").added == AddedItems("gan", 1.0, generator="b")
    with pytest.raises(InputError, match="there is no generator 'c'; there are: a, b"):
        parse_arms("gan:c@1", ["a", "b"])


def test_dose_counts() -> None:
    assert AddedItems("gan", 0.5).count(53, 1500) == 26
    assert AddedItems("gan", 0.001).count(53, 1500) == 1
    images = parse_arm("gan@balance").added
    assert images is not None
    assert images.dose == TO_BALANCE
    assert images.count(53, 1500) == 1447


def test_best_takes_the_recipe_and_keeps_its_own_images() -> None:
    best = parse_arm("symmetries+logit-adjusted@0.5")
    arm = parse_arm("best+gan@1+finish").standing_on(best)
    assert arm.settings == {"balance": "none", "symmetries": True, "synthetic_until": 0.75}
    assert arm.adjust_logits == 0.5
    assert arm.base == best.name
    assert arm.added == AddedItems("gan", 1.0)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("gna@1", "there is no arm 'gna'"),
        ("gan@much", "'much' after @ is not a number"),
        ("gan@0", "must be above 0"),
        ("class-weights+sampling", "two parts set balance differently"),
        ("filtered", "needs added images"),
        ("balanced+finish", "needs added images"),
        ("best", "best takes added images alone"),
        ("best+mixup+gan", "best takes added images alone"),
        ("gan+placebo", "two kinds of images"),
        ("balanced+logit-adjusted-loss", "has no effect on balanced draws"),
        ("plain@3", "takes no value"),
        ("mixup+mixup", "names a part twice"),
        ("placebo+filtered", "only generated images"),
        ("smote+only", "cannot take their place"),
        ("gan@1+only+finish", "only leaves no real images of the class"),
        ("plain+gan@1+only+share", "only leaves no real images of the class"),
        ("gan@1+own-statistics", "own-statistics needs every-class"),
    ],
)
def test_a_wrong_arm_is_refused_in_words(name: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        parse_arm(name)


def test_every_group_and_part_is_a_valid_training() -> None:
    for group in GROUPS:
        for arm in parse_arms(group):
            TrainingConfig(**arm.settings)
            assert arm.words
    for part in TECHNIQUES:
        TrainingConfig(**parse_arm(part).settings)
    for modifier in MODIFIERS:
        needed = "every-class+" if modifier == "own-statistics" else ""
        TrainingConfig(**parse_arm(f"gan@1+{needed}{modifier}").settings)


def test_modifiers_fill_the_settings_of_a_training() -> None:
    arm = parse_arm("gan@1+every-class+own-statistics+share@0.2+weight@0.3")
    assert {k: v for k, v in arm.settings.items() if k.startswith("synthetic_")} == {
        "synthetic_statistics": "own", "synthetic_share": 0.2, "synthetic_weight": 0.3,
    }  # fmt: skip


@given(st.text(alphabet="abgn+@.:,1-", max_size=12))
def test_any_text_is_an_arm_or_one_clear_line(text: str) -> None:
    with contextlib.suppress(InputError):
        assert parse_arms(text)[0].name == "plain"


def test_the_same_arm_again_takes_other_seeds_and_stands_against_itself() -> None:
    arm = parse_arm("balanced+again")
    assert arm.again
    assert arm.base == "balanced"
    assert arm.settings == parse_arm("balanced").settings
