"""The measure of overfitting notices what a discriminator knows by heart, class by class."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from galaxies.errors import InputError
from galaxies.pixels import to_network
from gan.checkpoint import CONFIG, read_description
from gan.overfitting import MOST_HELD_OUT, HeldOutImages
from gan.preparation import prepare
from gan.trainer import train
from gan.training_data import TrainingData, resize_set


def parts_of(step) -> tuple[TrainingData, HeldOutImages]:
    assert step.augmentation.held_out is not None
    return step.data, step.augmentation.held_out


def memoriser(data: TrainingData, classes: list[int]):
    """A judge that calls the training images of ``classes`` real and nothing else."""
    known = to_network(data.pixels, data.stretch).flatten(1)

    def judge(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        met = (torch.cdist(images.flatten(1), known) < 1e-3).any(dim=1)
        chosen = torch.isin(labels, torch.tensor(classes))
        return torch.where(met & chosen, 2.0, -0.5)

    return judge


def test_what_is_known_by_heart_is_one_and_what_is_not_is_zero(make_step):
    data, held_out = parts_of(make_step())
    every = held_out.overfitting(memoriser(data, [0, 1, 2]), 1)
    torch.testing.assert_close(every, torch.ones(3))
    one = held_out.overfitting(memoriser(data, [1]), 1)
    torch.testing.assert_close(one, torch.tensor([0.0, 1.0, 0.0]))
    # A class that the generator draws badly: everything real is told, held out or not.
    told = held_out.overfitting(lambda images, labels: torch.ones(len(images)), 1)
    torch.testing.assert_close(told, torch.zeros(3))


def test_half_of_what_is_known_is_a_half(make_step):
    data, held_out = parts_of(make_step())
    counts = data.counts.tolist()
    kept = torch.cat([torch.arange(n) < n // 2 for n in counts])
    half = dataclasses.replace(data, pixels=data.pixels[kept])
    turns = [held_out.overfitting(memoriser(half, [0, 1, 2]), turn) for turn in range(60)]
    expected = torch.tensor([(n // 2) / n for n in counts])
    torch.testing.assert_close(torch.stack(turns).mean(dim=0), expected, atol=0.06, rtol=0)


def test_every_training_image_has_its_turn(make_step):
    data, held_out = parts_of(make_step())
    seen = []

    def judge(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return torch.zeros(len(images))

    for turn in range(40):
        held_out.overfitting(judge, turn)
    training = torch.cat(seen[::2]).flatten(1).unique(dim=0)
    known = to_network(data.pixels, data.stretch).flatten(1).unique(dim=0)
    assert len(training) == len(known)
    torch.testing.assert_close(training, known)


def test_held_out_images_are_those_of_the_validation_side(make_step, tiny_config, tiny_set):
    _, held_out = parts_of(make_step())
    validation = prepare(tiny_config(), tiny_set).validation
    assert validation is not None
    assert (held_out.counts <= torch.from_numpy(validation.counts())).all()
    assert int(held_out.counts.max()) <= MOST_HELD_OUT
    seen = []
    held_out.overfitting(lambda x, y: seen.append(x) or torch.zeros(len(x)), 0)
    ours = to_network(validation.pixels, validation.stretch).flatten(1)
    assert (torch.cdist(seen[1].flatten(1), ours).min(dim=1).values < 1e-4).all()


def test_a_class_without_held_out_images_follows_the_others(tiny_config, tiny_set, few_held_out):
    from gan.preparation import build_step

    images = few_held_out(tiny_set, 2, 3)
    config = tiny_config()
    preparation = prepare(config, images)
    step = build_step(preparation, config, torch.device("cpu"), torch.float32)
    data, held_out = parts_of(step)
    torch.testing.assert_close(
        held_out.overfitting(memoriser(data, [0]), 0), torch.tensor([1.0, 0.0, 0.5])
    )


def test_classes_that_cannot_be_watched_are_named(
    tiny_config, tiny_set, few_held_out, tmp_path, capsys
):
    train(tiny_config(steps=2), few_held_out(tiny_set, 0, 3), tmp_path / "run", progress=False)
    said = capsys.readouterr().err
    assert f"cannot be watched for memorising: {tiny_set.class_names[0]!r}; they" in said
    train(tiny_config(steps=2), tiny_set, tmp_path / "all", progress=False)
    assert "cannot be watched" not in capsys.readouterr().err


def test_a_discriminator_that_learns_five_images_by_heart_is_caught(tiny_config, tiny_set):
    """Against a perfect generator (other real images) it can only tell what it has memorised."""
    from gan.preparation import build_step

    assert tiny_set.split is not None
    split = np.array(tiny_set.split)
    rows = np.flatnonzero((tiny_set.labels == 0) & (split != 1))
    split[rows[5:]] = 2
    images = dataclasses.replace(tiny_set, split=split)
    config = tiny_config(discriminator_learning_rate=1e-3, r1=0.0, minibatch_deviation=False)
    preparation = prepare(config, images)
    step = build_step(preparation, config, torch.device("cpu"), torch.float32)
    test = images.side("test")
    pool = to_network(resize_set(test, config.size).pixels)
    test_labels = torch.from_numpy(np.array(test.labels))
    for _ in range(200):
        step.draw()
        reals, labels = step.data.batch(step.uniforms)
        rows = [torch.nonzero(test_labels == label).flatten() for label in labels]
        draws = step.uniforms[:, -1]
        picked = [int(own[int(u * len(own))]) for own, u in zip(rows, draws, strict=True)]
        step._step_discriminator(
            reals, labels, pool[picked], step.uniforms, torch.tensor(1.0), penalised=False
        )
    for turn in range(1, 13):
        step.watch(turn * step.augmentation.steps_between_looks)
    assert step.augmentation.overfitting[0] > 0.5 > step.augmentation.overfitting[1:].max()


def test_without_held_out_images_it_watches_signs_and_says_so(
    tiny_config, tiny_set, tmp_path, capsys
):
    assert tiny_set.split is not None
    split = np.where(tiny_set.split == 1, 0, tiny_set.split).astype(np.int8)
    images = dataclasses.replace(tiny_set, split=split)
    preparation = prepare(tiny_config(), images)
    assert (preparation.parts.augment_watch, preparation.parts.augment_target) == ("sign", 0.6)
    train(tiny_config(steps=2), images, tmp_path / "run", progress=False)
    assert "no class has 4 validation images" in capsys.readouterr().err
    with pytest.raises(InputError, match="--augment-watch held-out needs at least 4 validation"):
        prepare(tiny_config(augment_watch="held-out"), images)


def test_the_log_tells_the_overfitting_of_each_class(tiny_config, tiny_set, tmp_path):
    train(tiny_config(), tiny_set, tmp_path / "run", progress=False)
    rows = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    training = [row for row in rows if row["kind"] == "training"]
    names = set(tiny_set.class_names)
    assert all(set(row["overfitting"]) == set(row["probabilities"]) == names for row in training)


def test_a_checkpoint_from_before_is_read_as_watching_signs(tiny_config, tiny_set, tmp_path):
    folder = tmp_path / "run"
    train(tiny_config(steps=2), tiny_set, folder, progress=False)
    stored = json.loads((folder / CONFIG).read_text())
    del stored["recipe_parts"]["augment_watch"]
    (folder / CONFIG).write_text(json.dumps(stored))
    assert read_description(folder).parts.augment_watch == "sign"
