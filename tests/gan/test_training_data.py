"""Batches: who is drawn how often, and symmetries that carry their labels along."""

import dataclasses

import numpy as np
import pytest
import torch

from galaxies.image_set import ImageSet, PixelsInMemory
from gan.recipes import DCGAN, TAIL
from gan.training_data import (
    BATCH_DRAWS,
    allowed_symmetries,
    class_probabilities,
    prepare_training_data,
    resize_set,
)

NAMES = ("clockwise", "anticlockwise", "smooth")


def arrows(per_class=(10, 90, 400)) -> ImageSet:
    """Images that tell their class and handedness: an L for clockwise, its mirror for anti."""
    images, labels = [], []
    for label, count in enumerate(per_class):
        image = np.zeros((1, 32, 32), np.uint8)
        image[:, 4:28, 4:8] = 200
        if label < 2:
            image[:, 24:28, 4:20] = 100
        if label == 1:
            image = image[:, :, ::-1]
        images += [image] * count
        labels += [label] * count
    order = np.random.default_rng(0).permutation(len(images))
    return ImageSet(
        PixelsInMemory(torch.from_numpy(np.stack(images)[order].copy())),
        np.array(labels)[order],
        NAMES,
        np.array([str(i) for i in range(len(images))]),
    )


def is_clockwise(image: torch.Tensor) -> bool:
    """Whether the image equals the clockwise one under some rotation."""
    reference = arrows().of_classes([0]).pixels[0].float().div(127.5).sub(1)
    return any(torch.allclose(torch.rot90(reference, k, (1, 2)), image) for k in range(4))


def test_class_probabilities_follow_the_power_and_lift_the_chosen():
    counts = np.array([25, 900, 100])
    free = class_probabilities(counts, [0], dataclasses.replace(TAIL, chosen_share=0.0))
    np.testing.assert_allclose(free, np.array([5, 30, 10]) / 45)
    lifted = class_probabilities(counts, [0], TAIL)
    np.testing.assert_allclose(lifted, [0.25, 0.75 * 0.75, 0.75 * 0.25])


@pytest.mark.parametrize(
    ("chosen", "recipe", "expected"),
    [
        ([0], TAIL, 0.25),  # its twin is shown as often
        ([0, 1], TAIL, 0.25),
        ([0], dataclasses.replace(TAIL, chosen_share=0.9), 0.5),  # more a twin cannot have
        ([0], dataclasses.replace(TAIL, symmetries="rotations"), 0.25),
    ],
)
def test_chosen_classes_have_their_share_once_half_is_mirrored(chosen, recipe, expected, generator):
    data = prepare_training_data(
        arrows((10, 30, 2000)), [0, 1, 2], chosen, recipe, torch.device("cpu")
    )
    assert data.cumulative[-1].item() == pytest.approx(1)
    _, labels = data.batch(torch.rand(20000, BATCH_DRAWS, generator=generator))
    shown = torch.isin(labels, torch.tensor(chosen)).double().mean().item()
    assert shown == pytest.approx(expected, abs=0.012)


def test_classes_without_twins_are_drawn_as_ever():
    """To the last bit, whether or not others have twins."""
    counts = np.array([25, 900, 100])
    twins = np.array([0, 2, 1])
    alone = class_probabilities(counts, [0], TAIL)
    assert class_probabilities(counts, [0], TAIL, twins).tobytes() == alone.tobytes()


def test_an_abundant_chosen_class_is_not_pushed_down():
    counts = np.array([900, 25])
    np.testing.assert_allclose(class_probabilities(counts, [0], TAIL), np.array([30, 5]) / 35)


def test_batches_have_the_promised_shares(generator):
    data = prepare_training_data(arrows(), [0, 1, 2], [0], DCGAN, torch.device("cpu"))
    _, labels = data.batch(torch.rand(20000, BATCH_DRAWS, generator=generator))
    shares = torch.bincount(labels, minlength=3) / 20000
    rest = np.sqrt([90, 400]) / np.sqrt([90, 400]).sum() * 0.75
    np.testing.assert_allclose(shares.numpy(), [0.25, *rest], atol=0.012)


def test_a_mirrored_spiral_takes_its_twins_label(generator):
    data = prepare_training_data(arrows(), [0, 1, 2], [0], TAIL, torch.device("cpu"))
    images, labels = data.batch(torch.rand(400, BATCH_DRAWS, generator=generator))
    spirals = [(im, int(la)) for im, la in zip(images, labels, strict=True) if la < 2]
    assert {label for _, label in spirals} == {0, 1}
    for image, label in spirals:
        assert is_clockwise(image) == (label == 0)


def test_symmetries_differ_within_a_batch(generator):
    data = prepare_training_data(arrows(), [0, 1, 2], [0], TAIL, torch.device("cpu"))
    images, labels = data.batch(torch.rand(400, BATCH_DRAWS, generator=generator))
    assert len(torch.unique(images[labels == 2].flatten(1), dim=0)) == 4  # a bar has four


def test_where_no_class_has_its_twin_only_rotations_are_drawn():
    permutation = arrows().mirror_permutation()
    assert allowed_symmetries("square", [0, 1, 2], permutation) == list(range(8))
    assert allowed_symmetries("square", [0, 2], permutation) == list(range(8))
    assert allowed_symmetries("square", [0], permutation) == [0, 3, 5, 6]
    assert allowed_symmetries("rotations", [0, 1], permutation) == [0, 3, 5, 6]
    assert allowed_symmetries("none", [0, 1], permutation) == [0]


def test_a_class_without_its_twin_is_turned_and_the_others_are_mirrored_too(generator):
    images = arrows().of_classes([0, 2])
    pixels = images.pixels.clone()
    pixels[torch.from_numpy(images.labels == 2), :, 24:28, 4:12] = 100  # a handed shape
    images = dataclasses.replace(images, store=PixelsInMemory(pixels))
    data = prepare_training_data(images, [0, 2], [0], TAIL, torch.device("cpu"))
    drawn, labels = data.batch(torch.rand(800, BATCH_DRAWS, generator=generator))
    for place, views in ((0, 4), (1, 8)):
        found, counts = torch.unique(drawn[labels == place].flatten(1), dim=0, return_counts=True)
        assert len(found) == views
        assert counts.min() > 0.6 * counts.float().mean()  # each as often as the others
    assert all(is_clockwise(image) for image in drawn[labels == 0])


def test_every_image_of_a_class_can_be_drawn(generator):
    images = arrows((5, 6, 7))
    images.pixels[:, 0, 0, 0] = torch.arange(18, dtype=torch.uint8)
    data = prepare_training_data(images, [0, 1, 2], [0], DCGAN, torch.device("cpu"))
    drawn, labels = data.batch(torch.rand(2000, BATCH_DRAWS, generator=generator))
    marks = (drawn[:, 0, 0, 0] + 1).mul(127.5).round().long()
    assert set(marks.tolist()) == set(range(18))
    assert (torch.from_numpy(images.labels)[marks] == labels).all()


@pytest.mark.parametrize("size", [16, 64])
def test_resizing_keeps_the_light(size):
    images = arrows((3, 3, 3))
    resized = resize_set(images, size)
    assert resized.size == size
    before, after = images.pixels.float().mean(), resized.pixels.float().mean()
    assert after.item() == pytest.approx(before.item(), rel=0.03)
