"""The judge that chooses checkpoints: what it says does not hang on how galaxies lie."""

import dataclasses

import numpy as np
import pytest
import torch

import gan.judge
from fid.kernel import kernel_distance
from galaxies.image_set import PixelsInMemory
from galaxies.pixels import Stretch
from galaxies.symmetry import apply_symmetry
from gan.evaluation import make_judge
from gan.judge import Judge, _spread, nearest_distance, views_of_class
from gan.preparation import prepare


def corners(pixels: torch.Tensor) -> torch.Tensor:
    """Features that see orientation: means over a 4 x 4 grid."""
    return torch.nn.functional.adaptive_avg_pool2d(pixels.float(), 4).flatten(1)


def turned(images, element):
    pixels = apply_symmetry(images.pixels, torch.full((len(images),), element))
    return dataclasses.replace(images, store=PixelsInMemory(pixels))


@pytest.fixture
def sides(tiny_set):
    return tiny_set.side("train"), tiny_set.side("validation"), tiny_set.side("test")


@pytest.mark.parametrize("element", [1, 3, 6])
def test_turning_the_held_out_images_changes_nothing(sides, element):
    train, validation, test = sides
    images = test.of_classes([0]).pixels
    first = Judge(corners, train, validation).judge(0, images)
    second = Judge(corners, train, turned(validation, element)).judge(0, images)
    assert second.kid == pytest.approx(first.kid, rel=1e-9)
    single = [
        kernel_distance(
            corners(turned(validation, e).of_classes([0]).pixels).double().numpy(),
            corners(images).double().numpy(),
        ).value
        for e in range(8)
    ]
    assert first.kid == pytest.approx(np.mean(single), rel=1e-9)
    assert np.std(single) > 0.01 * abs(first.kid)


def test_mirror_classes_are_seen_under_rotations_alone(sides):
    train, validation, test = (
        dataclasses.replace(side, mirror_pairs=(("round", "elongated"),)) for side in sides
    )
    judge = Judge(corners, train, validation)
    assert len(judge.symmetries[0]) == 8
    assert len(judge.symmetries[1]) == 4
    assert np.isfinite(judge.judge(1, test.of_classes([1]).pixels).kid)


def test_copies_of_mirrored_twins_are_copies(sides):
    """Half of the images of a class with a mirror twin are made from the twin's."""
    train, validation, test = (
        dataclasses.replace(side, mirror_pairs=(("round", "elongated"),)) for side in sides
    )
    judge = Judge(corners, train, validation)
    round_, elongated = train.class_index("round"), train.class_index("elongated")

    def both(side):
        twins = side.of_classes([elongated]).pixels
        mirrored = apply_symmetry(twins, torch.ones(len(twins), dtype=torch.int64))
        return torch.cat([side.of_classes([round_]).pixels, mirrored])

    assert judge.judge(round_, both(train)).copying > 0.95
    assert judge.judge(round_, both(test)).copying < 0.4


def test_a_copy_that_ends_at_white_is_a_copy(sides):
    """Generated flux is clipped at white, the centres of training galaxies are not."""
    stretch = Stretch(black=0.0, white=2.0, softening=0.2)
    train, validation, _ = (
        dataclasses.replace(side, store=PixelsInMemory(side.pixels.float() / 25.5), stretch=stretch)
        for side in sides
    )
    own = train.of_classes([0]).pixels
    assert (own > stretch.white).float().mean() > 0.01
    verdict = Judge(corners, train, validation).judge(0, own.clamp(stretch.black, stretch.white))
    assert verdict.copying > 0.95
    assert verdict.nearness == pytest.approx(0, abs=1e-2)


def test_the_spread_of_a_large_class_needs_few_distances(generator):
    rows = torch.randn(3000, 5, generator=generator, dtype=torch.float64).numpy()
    few = rows[:900]
    assert _spread(few) == torch.pdist(torch.from_numpy(few)).mean().item()
    calls = []
    pdist = torch.pdist

    def counted(x):
        calls.append(len(x))
        return pdist(x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "pdist", counted)
        spread = _spread(rows)
    assert max(calls) <= 1000
    assert spread == pytest.approx(pdist(torch.from_numpy(rows)).mean().item(), rel=0.03)


def test_only_the_images_of_a_judged_class_and_its_twin_are_made_small(sides, monkeypatch):
    """Thumbnails of a survey of 100,000 images would fill more than a gigabyte."""
    train, validation, test = (
        dataclasses.replace(side, mirror_pairs=(("round", "elongated"),)) for side in sides
    )
    sizes = []
    make = gan.judge.thumbnails

    def counted(pixels, stretch):
        sizes.append(len(pixels))
        return make(pixels, stretch)

    monkeypatch.setattr(gan.judge, "thumbnails", counted)
    judge = Judge(corners, train, validation)
    assert sizes == []
    made = test.of_classes([0]).pixels
    judge.judge(0, made)
    assert sum(sizes) == len(made) + sum((s.labels == 0).sum() for s in (train, validation))
    judge.judge(0, made)
    assert sizes[-1] == len(made)
    assert len(sizes) == 4


def test_a_chosen_class_that_cannot_be_judged_is_named(
    tiny_config, tiny_set, few_held_out, tmp_path
):
    """The others chose the weights in silence."""
    config = tiny_config(classes=("0", "1"), judge="classifier")
    preparation = prepare(config, few_held_out(tiny_set, 0, 3))
    said = []
    cpu = torch.device("cpu")
    judge = make_judge(preparation, config, tmp_path, cpu, corners, progress=False, say=said.append)
    assert judge is not None
    assert judge.can_judge(1)
    (sentence,) = said
    assert sentence.startswith("'double' cannot be judged with fewer than 4 validation images")


def test_an_image_is_not_its_own_neighbour(generator):
    """Left out as an index, which copies nothing, or from the images that are compared."""
    images = torch.rand(7, 1, 8, 8, generator=generator)
    labels = np.array([0, 1, 0, 0, 1, 0, 0])
    for twin in (0, 1):
        references = views_of_class(images, labels, 0, twin)
        own = references.parts[0][0]
        found = nearest_distance(own, references, torch.arange(len(own)))
        for place, row in enumerate(np.flatnonzero(labels == 0)):
            rest = np.delete(np.arange(7), row)
            others = views_of_class(images[torch.from_numpy(rest)], labels[rest], 0, twin)
            expected = nearest_distance(images[row : row + 1], others)
            torch.testing.assert_close(found[place : place + 1], expected)
