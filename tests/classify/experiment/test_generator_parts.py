import pytest

from classify.experiment.generator_parts import parse_parts, refuse_unfit_generators
from galaxies.errors import InputError


def test_words_become_values_of_their_types() -> None:
    words = ["loss=relativistic", "--r2=9", "penalty-every=4", "start_at_sky=False"]
    found = parse_parts([*words, "augment=translation,flux"], "tail")
    assert found == {
        "loss": "relativistic",
        "r2": 9.0,
        "penalty_every": 4,
        "start_at_sky": False,
        "augment": ("translation", "flux"),
    }
    assert isinstance(found["penalty_every"], int)
    assert parse_parts([], "dcgan") == {}


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("loss", "give PART=VALUE"),
        ("sharpness=3", "parts are generator, "),
        ("loss=wasserstein", "must be hinge, logistic, relativistic"),
        ("augment=translation,mirror", "augment=mirror: must be "),
        ("r1=strong", "must be a number"),
        ("standardise=no", "must be True or False"),
        ("r1=-1", "--r1 must be 0 or more"),
    ],
)
def test_what_does_not_fit_is_one_line(word: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse_parts([word], "tail")


def test_a_batch_that_breaks_the_groups_is_refused_before_anything_trains() -> None:
    with pytest.raises(InputError, match=r"--gan-batch-size.* no multiple of 4"):
        refuse_unfit_generators("tail", (), 50)
    refuse_unfit_generators("tail", ("minibatch_deviation=False",), 50)
    refuse_unfit_generators("dcgan", (), 50)
