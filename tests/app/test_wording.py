"""Plain words: what a volunteer reads instead of class names and sets."""

import pytest

from app.wording import (
    describe_probability,
    describe_record,
    describe_set,
    readable,
    reason_for_people,
    with_article,
)


@pytest.mark.parametrize(
    ("name", "words", "phrase"),
    [
        ("merger", "merger", "a merger"),
        ("edge_on", "edge-on", "an edge-on galaxy"),
        ("spiral_anticlockwise", "anticlockwise spiral", "an anticlockwise spiral"),
        ("Barred Spiral Galaxies", "barred spiral galaxy", "a barred spiral galaxy"),
        (
            "Edge-on Galaxies without Bulge",
            "edge-on galaxy without bulge",
            "an edge-on galaxy without bulge",
        ),
        ("GALAXY", "galaxy", "a galaxy"),
        ("QSO", "QSO", "a QSO"),
        ("class 3", "class 3", "“class 3”"),
    ],
)
def test_class_names_become_words(name: str, words: str, phrase: str) -> None:
    assert readable(name) == words
    assert with_article(name) == phrase


def test_prediction_sets_of_every_size() -> None:
    classes = ["merger", "spiral", "edge_on"]
    assert describe_set(["merger"], classes) == "A merger."
    two = "A merger or a spiral; not enough to say which."
    assert describe_set(["merger", "spiral"], classes) == two
    assert "any of the classes" in describe_set(classes, classes)
    nothing = "No class is clear enough at this confidence. Most like a merger."
    assert describe_set([], classes, (), "merger") == nothing
    four = describe_set(["merger", "spiral", "star"], [*classes, "star"])
    assert four == "A merger, a spiral or a star; not enough to say which."


def test_a_class_that_stands_in_every_set_is_not_laid_to_the_image() -> None:
    """Too few calibration images are the classifier's fault, whatever the galaxy looks like."""
    classes = ["merger", "spiral", "edge_on"]
    too_few = "It was checked on too few galaxies to rule out a merger."
    assert describe_set(["spiral", "merger"], classes, ["merger"]) == f"A spiral. {too_few}"
    alone = describe_set(["merger"], classes, ["merger"], "spiral")
    assert alone.startswith("No class is clear enough")
    assert alone.endswith(too_few)
    assert "this image does not let it say" not in describe_set(classes, classes, classes)
    every = describe_set(classes, classes, classes, "spiral")
    assert "too few galaxies" in every
    assert every.endswith("Most like a spiral.")


def test_probabilities_claim_no_certainty_they_do_not_have() -> None:
    shown = [describe_probability(value) for value in (0.0, 0.004, 0.5, 0.996, 1.0)]
    assert shown == ["0 %", "<1 %", "50 %", ">99 %", "100 %"]


def test_the_record_of_a_class_counts_images() -> None:
    assert describe_record("merger", 12, 21, "recall") == (
        "Of 21 test images of the class merger, it found 12."
    )
    assert "it called merger, 12 were right" in describe_record("merger", 12, 60, "precision")
    assert "never tested" in describe_record("merger", 0, 0, "recall")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            "a.png is 3x4, not square; pass --crop to cut a square",
            "is 3x4, not square; cut a square around the galaxy",
        ),
        ("a.png is 9x9, smaller than --crop 212", "is 9x9, smaller than crop 212"),
        ("a.png: 60 % of the pixels are NaN", "60 % of the pixels are NaN"),
    ],
)
def test_reasons_name_no_flags(message: str, reason: str) -> None:
    assert reason_for_people(message, "a.png") == reason
