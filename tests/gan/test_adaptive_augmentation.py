"""Each class has its own probability of augmentation, moved by what is measured of it."""

import pytest
import torch

from gan import adaptive_augmentation
from gan.overfitting import HeldOutImages
from gan.preparation import build_step, prepare


def look(step, measured: list[float], monkeypatch) -> None:
    """One look that finds ``measured``."""
    found = torch.tensor(measured)
    monkeypatch.setattr(HeldOutImages, "overfitting", lambda *_: found)
    step.watch(step.augmentation.steps_between_looks)


def test_each_class_moves_its_own_probability(make_step, monkeypatch):
    step = make_step(augment_probability=0.3)
    step.watch(step.augmentation.steps_between_looks - 1)
    assert step.augmentation.probability.tolist() == pytest.approx([0.3] * 3)
    for _ in range(40):
        look(step, [0.3, 0.0, 0.1], monkeypatch)
    assert step.augmentation.overfitting.tolist() == pytest.approx([0.3, 0.0, 0.1], abs=1e-4)
    assert step.augmentation.probability.tolist() == pytest.approx([0.85, 0.0, 0.3])


def test_a_class_that_cannot_be_watched_is_augmented_as_the_most_of_the_others(
    tiny_config, tiny_set, few_held_out, monkeypatch
):
    config = tiny_config(augment_probability=0.3)
    preparation = prepare(config, few_held_out(tiny_set, 0, 3))
    step = build_step(preparation, config, torch.device("cpu"), torch.float32)
    for _ in range(4):
        look(step, [0.0, 0.0, 0.5], monkeypatch)
    assert (
        step.augmentation.probability[1]
        < 0.3
        < step.augmentation.probability[2]
        == step.augmentation.probability[0]
    )


def test_a_look_moves_little_and_noise_hardly_at_all(make_step, monkeypatch):
    """Means over a dozen held-out images jump; each once moved the probability by .08 and more."""
    step = make_step(augment_probability=0.3)
    look(step, [1.0, -1.0, 0.17], monkeypatch)
    assert step.augmentation.probability.tolist() == pytest.approx(
        [0.35, 0.25, 0.3]
    )  # at most .05; dead zone
    step = make_step(augment_probability=0.3)
    probabilities = []
    for number in range(60):
        look(step, [0.1 + 0.1 * (-1) ** number] * 3, monkeypatch)
        probabilities.append(step.augmentation.probability[0].item())
    assert max(probabilities) - min(probabilities) < 0.01


def test_a_class_known_by_heart_reaches_the_top_within_forty_thousand_images(
    make_step, monkeypatch
):
    step = make_step()
    for _ in range(40_000 // adaptive_augmentation.WATCH_IMAGES):
        look(step, [0.8, 0.0, 0.0], monkeypatch)
    assert step.augmentation.probability[0] > 0.8


@pytest.mark.parametrize(("batch_size", "steps"), [(8, 200), (32, 50), (64, 25), (2048, 1)])
def test_looks_are_apart_by_images_not_by_steps(make_step, batch_size, steps):
    assert make_step(batch_size=batch_size).augmentation.steps_between_looks == steps


def test_looking_changes_nothing_else(make_step):
    step = make_step(discriminator="convolutional", spectral_norm=True, minibatch_deviation=False)
    before = step.snapshot()
    step.watch(step.augmentation.steps_between_looks)
    after = step.snapshot()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed <= {"overfitting_average", "probability"}
