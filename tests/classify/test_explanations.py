"""Grad-CAM, nearest images, symmetries at test time, stacks and abstention."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from classify.abstention import abstention_curve, recall_when_answering
from classify.classifier import TrainedClassifier
from classify.dropout_masks import thinned
from classify.ensemble import Ensemble, stack_weights
from classify.grad_cam import BATCH, FeatureMap, grad_cam, last_feature_map
from classify.neighbours import fit_neighbours
from classify.networks.network import Network
from classify.networks.registry import NetworkSpecification, build
from classify.normalisation import Normalisation
from classify.reference import Reference
from classify.repeated_views import disagreement, dropout_samples, symmetric_probabilities
from classify.service import ClassifierService, Questions
from classify.training_config import TrainingConfig
from galaxies.errors import InputError


def untrained(name: str = "small", classes: int = 3, **options: object) -> TrainedClassifier:
    specification = NetworkSpecification(name, 1, 16, classes, **options)  # type: ignore[arg-type]
    return TrainedClassifier(
        network=build(specification, 0).eval(),
        specification=specification,
        class_names=("a", "clockwise", "anticlockwise")[:classes],
        size=16,
        normalisation=Normalisation((0.0,), (1.0,)),
        config=TrainingConfig(model=name),
        mirror_pairs=(("clockwise", "anticlockwise"),) if classes == 3 else (),
    )


class Sum(nn.Module):
    """A trunk whose only feature is the light of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.keep = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.keep(images).mean(dim=(2, 3))


def test_grad_cam_points_at_the_light_that_speaks_for_the_class() -> None:
    classifier = untrained(classes=2)
    head = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    classifier.network = Network(Sum(), head)
    pixels = torch.full((1, 1, 16, 16), 100, dtype=torch.uint8)
    pixels[..., 2:5, 10:14] = 255
    map_of_0 = grad_cam(classifier, pixels, np.array([0]))[0]
    assert map_of_0[2:5, 10:14].min() == 1
    assert map_of_0.sum() == 12  # darker than middle grey speaks against class 0
    map_of_1 = grad_cam(classifier, pixels, np.array([1]))[0]
    assert map_of_1[2:5, 10:14].max() == 0


@pytest.mark.parametrize("name", ["small", "small-d4", "mobilenetv3-small", "custom-cnn-final"])
def test_grad_cam_finds_the_last_map_of_any_network(name: str) -> None:
    classifier = untrained(name)
    side = 16 if name.startswith("small") else 64
    network = build(NetworkSpecification(name, 1, side, 3), 0).eval()
    found = last_feature_map(network.trunk, torch.zeros(1, 1, side, side))
    assert found.module in list(network.trunk.modules())
    assert found.channel_axis == 1
    if name == "small":
        pixels = torch.randint(0, 255, (2, 1, 16, 16), dtype=torch.uint8)
        assert grad_cam(classifier, pixels).shape == (2, 16, 16)


class Tokens(nn.Module):
    """A little vision transformer: a map of patches, then tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 6, 4, stride=4)
        self.attn = nn.ModuleDict({"k_norm": nn.LayerNorm(3)})
        self.norm = nn.LayerNorm(6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        self.attn["k_norm"](tokens.unflatten(2, (2, 3)).transpose(1, 2))  # (n, heads, tokens, 3)
        return self.norm(tokens).mean(dim=1)


def test_grad_cam_refuses_a_network_that_ends_in_tokens() -> None:
    classifier = untrained()
    classifier.network = Network(Tokens(), nn.Linear(6, 3))
    with pytest.raises(InputError, match="ends in tokens"):
        grad_cam(classifier, torch.zeros(1, 1, 16, 16, dtype=torch.uint8))


class LastAxis(nn.Module):
    """The light of the image beside maps of nothing, with the channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.keep = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        light = images.movedim(1, -1)
        maps = self.keep(torch.cat([light, torch.zeros_like(light).expand(-1, -1, -1, 4)], dim=-1))
        return maps.mean(dim=(1, 2))


def test_grad_cam_reads_maps_whose_channels_come_last() -> None:
    classifier = untrained(classes=2)
    head = nn.Linear(5, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0]]))
    classifier.network = Network(LastAxis(), head)
    pixels = torch.full((1, 1, 16, 16), 100, dtype=torch.uint8)
    pixels[..., 2:5, 10:14] = 255
    evidence = grad_cam(classifier, pixels, np.array([0]))[0]
    assert evidence[2:5, 10:14].min() == 1
    assert evidence.sum() == 12


class Reused(nn.Module):
    """One layer used twice, the second time on a single pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        wide = self.relu(images)
        return self.relu(wide.mean(dim=(2, 3), keepdim=True)).flatten(1)


def test_grad_cam_takes_the_run_of_a_layer_that_has_extent() -> None:
    classifier = untrained(classes=2)
    network = Network(Reused(), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        network.head.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    classifier.network = network
    found = last_feature_map(network.trunk, torch.zeros(1, 1, 16, 16))
    assert found == FeatureMap(network.trunk.relu, 0, 1)  # type: ignore[arg-type]
    pixels = torch.zeros((1, 1, 16, 16), dtype=torch.uint8)
    pixels[..., 2:5, 10:14] = 255
    assert grad_cam(classifier, pixels, np.array([0]))[0].sum() == 12


def test_grad_cam_goes_through_the_images_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = untrained()
    pixels = torch.randint(0, 255, (BATCH + 3, 1, 16, 16), dtype=torch.uint8)
    largest = 0
    forward = type(classifier.network).forward

    def measured(self: Network, images: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, len(images))
        return forward(self, images)

    monkeypatch.setattr(type(classifier.network), "forward", measured)
    classes = np.arange(BATCH + 3) % 3
    maps = grad_cam(classifier, pixels, classes)
    assert largest == BATCH
    np.testing.assert_allclose(
        maps[-1:], grad_cam(classifier, pixels[-1:], classes[-1:]), atol=1e-4
    )


def test_evidence_of_members_that_see_other_crops_is_joined() -> None:
    whole, cut = untrained(), untrained()
    cut.network, cut.config = Network(Sum(), nn.Linear(1, 3)), TrainingConfig(crops=13)
    service = ClassifierService(Ensemble((whole, cut)), Reference(None, None, None), Path())
    pixels = torch.randint(0, 255, (2, 1, 16, 16), dtype=torch.uint8)
    answer, _ = service.predict_pixels(["a", "b"], pixels, Questions(grad_cam=True))
    assert answer.evidence is not None
    assert answer.evidence.shape == (16, 16)


def test_symmetric_answers_do_not_depend_on_how_the_image_lies() -> None:
    classifier = untrained()
    pixels = torch.randint(
        0, 255, (3, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    plain = symmetric_probabilities(classifier, pixels)
    turned = symmetric_probabilities(classifier, torch.rot90(pixels, 1, (2, 3)))
    mirrored = symmetric_probabilities(classifier, pixels.flip(-1))
    torch.testing.assert_close(turned, plain, atol=1e-6, rtol=0)
    torch.testing.assert_close(mirrored, plain[:, [0, 2, 1]], atol=1e-6, rtol=0)


def test_dropout_samples_vary_and_leave_the_network_as_it_was() -> None:
    classifier = untrained()
    pixels = torch.randint(0, 255, (4, 1, 16, 16), dtype=torch.uint8)
    before = classifier.probabilities(pixels)
    draws = dropout_samples(classifier, pixels, 5, seed=1)
    again = dropout_samples(classifier, pixels, 5, seed=1)
    assert torch.equal(draws, again)
    assert (draws[0] - draws[1]).abs().max() > 0
    assert torch.equal(classifier.probabilities(pixels), before)
    assert (disagreement(draws) > 0).all()


def test_dropout_samples_of_an_image_do_not_depend_on_its_neighbours() -> None:
    classifier = untrained()
    pixels = torch.randint(0, 255, (5, 1, 16, 16), dtype=torch.uint8)
    together = dropout_samples(classifier, pixels, 3)
    apart = [dropout_samples(classifier, pixels[[row]], 3) for row in range(5)]
    torch.testing.assert_close(torch.cat(apart, dim=1), together, atol=1e-6, rtol=0)


def test_dropout_samples_keep_the_mean_of_what_they_thin() -> None:
    network = nn.Sequential(nn.Dropout(0.3), nn.Dropout2d(0.5)).eval()
    seen = []
    for draw in range(2000):
        with thinned(network, 0, draw):
            seen.append(network(torch.ones(2, 3, 2, 2)))
    values = torch.stack(seen)
    assert torch.equal(values[:, 0], values[:, 1])
    torch.testing.assert_close(values.mean(dim=0), torch.ones(2, 3, 2, 2), atol=0.12, rtol=0)
    assert torch.equal(network(torch.ones(1, 3, 2, 2)), torch.ones(1, 3, 2, 2))


def test_a_network_without_dropout_has_no_samples() -> None:
    classifier = untrained(dropout=0.0)
    with pytest.raises(InputError, match="dropout samples need dropout"):
        dropout_samples(classifier, torch.zeros(1, 1, 16, 16, dtype=torch.uint8), 5)


def test_disagreement_of_certain_opposites_is_one_bit() -> None:
    draws = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64)
    assert disagreement(draws)[0] == pytest.approx(np.log(2))
    assert disagreement(draws[:1].repeat(3, 1, 1))[0] == 0


def test_nearest_images_by_angle() -> None:
    train = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    known = fit_neighbours(train, np.arange(3), np.array(["x", "y", "xy"]), None)
    distances, rows = known.nearest(torch.tensor([[0.0, 0.1]]), 2)
    assert rows[0].tolist() == [1, 2]
    assert distances[0] == pytest.approx([0, np.sqrt(2 - np.sqrt(2))], abs=1e-3)
    assert known.threshold == np.inf


def test_the_outlier_threshold_flags_one_in_a_hundred(generator: torch.Generator) -> None:
    train = torch.randn(500, 8, generator=generator)
    held_out = torch.randn(2000, 8, generator=generator)
    known = fit_neighbours(train, np.zeros(500), np.arange(500).astype(str), held_out)
    fresh = torch.randn(4000, 8, generator=generator)
    assert known.is_unlike(fresh).mean() == pytest.approx(0.01, abs=0.007)


def test_a_stack_trusts_the_member_that_knows(rng: np.random.Generator) -> None:
    labels = rng.choice(3, 600, p=[0.8, 0.15, 0.05])
    good = np.exp(2 * np.eye(3)[labels] + rng.normal(size=(600, 3)))
    noise = np.exp(rng.normal(size=(600, 3)))
    members = torch.from_numpy(np.stack([m / m.sum(1, keepdims=True) for m in (good, noise)]))
    weights, _ = stack_weights(members, labels)
    assert weights[0] > 0.7
    assert abs(weights[1]) < 0.2


def test_a_stack_does_not_learn_to_favour_the_common_class(rng: np.random.Generator) -> None:
    """Members that are right about balanced classes keep their offsets near zero."""
    labels = rng.choice(2, 3000, p=[0.97, 0.03])
    scores = rng.normal(size=(2, 3000, 2)) + 1.5 * np.eye(2)[labels]
    members = torch.softmax(torch.from_numpy(scores), dim=2)
    _, offsets = stack_weights(members, labels)
    assert float(offsets.abs().max()) < 0.2


def test_members_that_differ_are_refused() -> None:
    with pytest.raises(InputError, match="class_names"):
        Ensemble((untrained(classes=2), untrained(classes=3)))
    with pytest.raises(InputError, match="at least 2"):
        Ensemble((untrained(),))


def test_abstaining_from_the_unsure_half_lowers_the_error() -> None:
    confidence = np.linspace(0.99, 0.51, 100)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0] * 50 + [1] * 50)  # the sure half is right, the unsure half wrong
    curve = abstention_curve(probabilities, labels)
    assert curve.error[49] == 0
    assert curve.error[-1] == 0.5
    expected = np.mean([max(0, n - 50) / n for n in range(1, 101)])
    assert curve.area == pytest.approx(expected)
    recall, kept = recall_when_answering(probabilities, labels, 0.5)
    assert recall[0] == 1
    assert kept.tolist() == [1, 0]
    assert np.isnan(recall[1])  # the class that is never answered is not hidden
