"""Sampling: the same bytes for a seed, whatever the count; truncation; symmetry; scores."""

import dataclasses

import numpy as np
import pytest
import torch

from galaxies.errors import InputError
from galaxies.hdf5 import write_hdf5
from galaxies.image_set import ImageSet
from galaxies.pixels import to_storage
from gan.interpolation import closed_walk, great_circle, open_walk
from gan.loaded_generator import load_discriminator, load_generator
from gan.sampling import draw_chunk, generate, render
from gan.scores import SCORE_NAMES, Scorer, chosen_rows
from gan.synthetic_set import generate_set
from gan.trainer import train


@pytest.fixture(scope="module")
def folder(tiny_config, tiny_set, tiny_set_path, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tail"
    train(tiny_config(data=str(tiny_set_path)), tiny_set, out, progress=False)
    return out


@pytest.fixture(scope="module")
def loaded(folder):
    return load_generator(folder)


def test_a_prefix_of_more_is_what_fewer_gives(loaded):
    many, few = generate(loaded, 0, 100, seed=3), generate(loaded, 0, 70, seed=3)
    assert many.shape == (100, 3, 32, 32)
    assert many.dtype == torch.uint8
    assert torch.equal(many[:70], few)


def test_seeds_and_classes_draw_their_own(loaded):
    images = generate(loaded, 0, 4, seed=3)
    assert not torch.equal(images, generate(loaded, 0, 4, seed=4))
    assert not torch.equal(images, generate(loaded, 1, 4, seed=3))


def test_truncation_pulls_towards_the_mean(loaded):
    """Less spread from image to image, and none at all (but noise and symmetry) near zero."""
    drawn = draw_chunk(loaded, torch.Generator().manual_seed(0))
    drawn = dataclasses.replace(drawn, noise=None, elements=torch.zeros_like(drawn.elements))
    spreads = [render(loaded, drawn, 0, psi).std(dim=0).mean().item() for psi in (1.0, 0.5, 1e-4)]
    assert spreads[0] > spreads[1] > spreads[2]
    assert spreads[2] < 1e-3 * spreads[0]


def test_symmetries_of_the_output_follow_the_draws(loaded):
    drawn = draw_chunk(loaded, torch.Generator().manual_seed(0))
    upright = dataclasses.replace(drawn, elements=torch.zeros_like(drawn.elements))
    turned = dataclasses.replace(drawn, elements=torch.full_like(drawn.elements, 4))
    torch.testing.assert_close(
        render(loaded, turned, 0), render(loaded, upright, 0).transpose(-1, -2)
    )


def test_a_mirrored_sample_comes_from_the_twin(tiny_config, tiny_set, tmp_path):
    """Class 0 mirrored must be what the network calls class 2, when they are twins."""
    twins = dataclasses.replace(
        tiny_set, mirror_pairs=((tiny_set.class_names[0], tiny_set.class_names[2]),)
    )
    train(tiny_config(), twins, tmp_path / "run", progress=False)
    loaded = load_generator(tmp_path / "run")
    drawn = draw_chunk(loaded, torch.Generator().manual_seed(0))
    upright = dataclasses.replace(drawn, elements=torch.zeros_like(drawn.elements))
    mirrored = dataclasses.replace(drawn, elements=torch.ones_like(drawn.elements))
    torch.testing.assert_close(render(loaded, mirrored, 0), render(loaded, upright, 2).flip(-1))


def test_a_class_whose_twin_was_not_trained_on_is_never_mirrored(loaded, tiny_set):
    names = tiny_set.class_names
    data = dataclasses.replace(
        loaded.description.data, made=(0, 1), mirror_pairs=((names[0], names[2]),)
    )
    half = dataclasses.replace(
        loaded, description=dataclasses.replace(loaded.description, data=data)
    )
    drawn = draw_chunk(half, torch.Generator().manual_seed(0))
    upright = dataclasses.replace(drawn, elements=torch.zeros_like(drawn.elements))
    mirrored = dataclasses.replace(drawn, elements=torch.ones_like(drawn.elements))
    assert torch.equal(render(half, mirrored, 0), render(half, upright, 0))
    assert torch.equal(render(half, mirrored, 1), render(half, upright, 1).flip(-1))


def test_the_synthetic_set_knows_its_history(folder, tiny_set):
    images = generate_set(folder, (0, tiny_set.class_names[2]), count=5, seed=1)
    assert isinstance(images, ImageSet)
    assert images.is_synthetic
    assert images.class_names == tiny_set.class_names
    assert images.labels.tolist() == [0] * 5 + [2] * 5
    generator = images.provenance["generator"]
    assert generator["seed"] == 1
    assert generator["recipe"] == "tail"
    assert len(generator["checkpoint_sha256"]) == 64
    train_side = tiny_set.side("train")
    assert images.training_fingerprints.tolist() == train_side.fingerprints().tolist()
    assert images.training_ids.tolist() == train_side.ids.tolist()
    assert len(set(images.ids)) == 10


def test_without_a_class_the_chosen_ones_are_made(folder):
    assert set(generate_set(folder, count=3).labels) == {0}


def test_a_class_that_it_cannot_make(loaded):
    with pytest.raises(InputError, match=r"cannot make class '9'; it makes: 0 "):
        loaded.class_index("9")


def test_walk_is_closed_and_smooth(loaded):
    images = closed_walk(loaded, 0, stops=3, between=8, seed=0)
    assert images.shape == (24, 3, 32, 32)
    steps = (images - images.roll(1, 0)).square().mean(dim=(1, 2, 3)).sqrt()
    apart = (images[0] - images[8]).square().mean().sqrt()
    assert steps.max() < apart


def test_a_walk_leads_from_the_first_to_the_second_image_of_its_seed(loaded):
    made = generate(loaded, 0, 2, seed=4)
    path = open_walk(loaded, 0, seed=4, frames=5)
    assert path.shape == (5, 3, 32, 32)
    assert (path[0].int() - made[0].int()).abs().max() <= 1
    closed = closed_walk(loaded, 0, stops=2, between=4, seed=4)
    ends = to_storage(closed[[0]])
    assert (ends[0].int() - made[0].int()).abs().max() <= 1


def test_great_circle_keeps_the_length(generator):
    start, end = torch.randn(64, generator=generator), torch.randn(64, generator=generator)
    torch.testing.assert_close(great_circle(start, end, 0.0), start)
    torch.testing.assert_close(great_circle(start, end, 1.0), end)
    middle = great_circle(start, end, 0.5)
    assert middle.norm().item() == pytest.approx((start.norm() + end.norm()).item() / 2, rel=1e-5)


class TestScores:
    @pytest.fixture
    def scorer(self, loaded, monkeypatch):
        def coarse(pixels: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.adaptive_avg_pool2d(pixels.float() / 255, 4).flatten(1)

        monkeypatch.setattr("gan.scores.trained_extractor", lambda *a, **k: coarse)
        return Scorer(loaded)

    def test_a_training_image_is_near_and_sure(self, scorer, tiny_set):
        own = scorer.train.of_classes([0]).pixels
        other = scorer.train.of_classes([1]).pixels[:10]
        table, others = scorer.score(0, own), scorer.score(0, other)
        distance = SCORE_NAMES.index("distance")
        assert table[:, distance].max() == pytest.approx(0, abs=1e-3)
        assert others[:, distance].min() > 0.5
        certain = SCORE_NAMES.index("classifier")
        assert table[:, certain].mean() > others[:, certain].mean() + 0.3

    def test_a_turned_copy_is_a_copy(self, scorer):
        own = scorer.train.of_classes([0]).pixels[:3].transpose(-1, -2).flip(-1)
        assert scorer.score(0, own)[:, 2].max() == pytest.approx(0, abs=1e-3)

    def test_logits_are_those_of_the_discriminator(self, scorer, loaded):
        images = generate(loaded, 0, 5, seed=0)
        judge = load_discriminator(loaded)
        # Minibatch deviation looks at groups of four: the last is filled with the first images.
        seen = images[torch.arange(8) % 5].float() / 127.5 - 1
        labels = torch.zeros(8, dtype=torch.int64)
        expected = judge(seen, labels, torch.tensor(loaded.conditioning)).detach().numpy()[:5]
        np.testing.assert_allclose(scorer.score(0, images)[:, 0], expected, rtol=1e-4, atol=1e-5)

    def test_other_pixels_under_the_same_name_are_refused(self, folder, tiny_set, tiny_set_path):
        loaded = load_generator(folder)
        changed = dataclasses.replace(
            tiny_set, store=dataclasses.replace(tiny_set.store, pixels=255 - tiny_set.pixels)
        )
        original = tiny_set_path.read_bytes()
        try:
            write_hdf5(changed, tiny_set_path, overwrite=True)
            with pytest.raises(InputError, match="holds other pixels"):
                Scorer(loaded)
        finally:
            tiny_set_path.write_bytes(original)


def test_the_best_are_kept_in_order():
    assert chosen_rows(np.array([0.1, 0.9, 0.5, 0.7]), 2).tolist() == [1, 3]


def test_a_damaged_checkpoint_is_one_line(folder, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = (copy / "weights.safetensors").read_bytes()
    (copy / "weights.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(InputError, match="damaged"):
        load_generator(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(InputError, match="config of a gan-train checkpoint"):
        load_generator(copy)
    (copy / "config.json").unlink()
    with pytest.raises(InputError, match="is not a checkpoint"):
        load_generator(copy)
    with pytest.raises(InputError, match="does not exist"):
        load_generator(tmp_path / "none")
