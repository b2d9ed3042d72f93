"""A run's folder, the choice of the checkpoint, and guards that fire on runs broken for them."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from galaxies.errors import InputError
from gan import guards
from gan.checkpoint import read_log, read_state, read_training_images, read_weights, remove_run
from gan.evaluation import save_reals
from gan.generate import GenerateConfig
from gan.judge import Verdict
from gan.judge_training import trained_extractor
from gan.loaded_generator import load_generator
from gan.preparation import prepare
from gan.recipes import resolve_parts
from gan.step import TrainingStep
from gan.synthetic_set import generate_set
from gan.trainer import train
from gan.training_config import TrainConfig


def coarse_pixels(pixels: torch.Tensor) -> torch.Tensor:
    """An extractor that needs no training: 4x4 means of each channel."""
    return torch.nn.functional.adaptive_avg_pool2d(pixels.float() / 255, 4).flatten(1)


def test_the_folder_holds_what_it_promises(tiny_config, tiny_set, tmp_path):
    folder = tmp_path / "run"
    outcome = train(tiny_config(), tiny_set, folder, extractor=coarse_pixels, progress=False)
    names = {path.name for path in folder.iterdir()}
    expected = {"config.json", "weights.safetensors", "state.pt", "log.jsonl", "card.md"}
    assert expected | {"training_images.json", "samples", "curve.png"} <= names
    assert {p.name for p in (folder / "samples").iterdir()} == {
        "reals.png",
        "step-0000006.png",
        "step-0000012.png",
    }
    log = read_log(folder)
    assert [r["step"] for r in log if r["kind"] == "training"] == [4, 8, 12]
    judged = [r for r in log if r["kind"] == "evaluation"]
    assert [r["step"] for r in judged] == [6, 12]
    best = min(judged, key=lambda r: r["score"])
    assert outcome.chosen_step == best["step"]
    card = (folder / "card.md").read_text()
    assert f"Weights of step {best['step']}" in card
    config = json.loads((folder / "config.json").read_text())
    assert config["data"]["class_names"] == list(tiny_set.class_names)
    assert not [p for p in folder.rglob("*") if p.name.endswith(".partial")]


def test_only_training_images_are_remembered(tiny_config, tiny_set, tmp_path):
    folder = tmp_path / "run"
    train(tiny_config(), tiny_set, folder, progress=False)
    prints, ids = read_training_images(folder)
    side = tiny_set.side("train")
    assert prints == side.fingerprints().tolist()  # of 64 pixels, though trained at 32
    assert ids == side.ids.tolist()


def test_scope_class_sees_only_the_class(tiny_config, tiny_set, tmp_path):
    folder = tmp_path / "run"
    train(tiny_config(scope="class"), tiny_set, folder, progress=False)
    _, ids = read_training_images(folder)
    assert ids == tiny_set.side("train").of_classes([0]).ids.tolist()
    assert json.loads((folder / "config.json").read_text())["network"]["classes"] == 1


def test_the_test_side_is_never_read(tiny_config, tiny_set, tmp_path):
    """Garbage in its place changes nothing."""
    from galaxies.image_set import PixelsInMemory

    pixels = tiny_set.pixels.clone()
    pixels[torch.from_numpy(tiny_set.split == 2)] = 255
    spoilt = dataclasses.replace(tiny_set, store=PixelsInMemory(pixels))
    for name, images in (("a", tiny_set), ("b", spoilt)):
        train(tiny_config(), images, tmp_path / name, extractor=coarse_pixels, progress=False)
    left, right = read_weights(tmp_path / "a"), read_weights(tmp_path / "b")
    assert all(torch.equal(left[name], right[name]) for name in left)


def poison_once(monkeypatch, step):
    """Put NaN into the generator after that step, the first time that it is made."""
    original = TrainingStep.run
    poisoned = []

    def poison(self, penalised):
        original(self, penalised)
        if int(self.step_count) == step and not poisoned:
            poisoned.append(True)
            with torch.no_grad():
                next(self.generator.parameters()).fill_(float("nan"))

    monkeypatch.setattr(TrainingStep, "run", poison)


def test_nan_rolls_back_once_and_says_so(tiny_config, tiny_set, tmp_path, monkeypatch, capsys):
    poison_once(monkeypatch, 8)
    folder = tmp_path / "run"
    train(tiny_config(evaluate_every=6, log_every=3), tiny_set, folder, progress=False)
    said = capsys.readouterr().err
    assert "became NaN at step 9" in said
    assert "rolled back to step 6" in said
    state = read_state(folder)
    assert state["number"] == 12
    assert all(t.isfinite().all() for t in state["tensors"].values() if t.is_floating_point())
    rate = state["tensors"]["generator_optimizer.rate.0"].item()
    assert rate == pytest.approx(1e-4)  # half of the recipe's
    assert [r["kind"] for r in read_log(folder)].count("rollback") == 1


def test_nan_between_two_looks_never_becomes_what_is_rolled_back_to(
    tiny_config, tiny_set, tmp_path, monkeypatch, capsys
):
    """Evaluations fall between the looks of the log; they too must not keep a NaN."""
    poison_once(monkeypatch, 11)
    folder = tmp_path / "run"
    config = tiny_config(evaluate_every=6, log_every=5, steps=14)
    train(config, tiny_set, folder, progress=False)
    assert "NaN at step 12; rolled back to step 6" in capsys.readouterr().err
    assert all(t.isfinite().all() for t in read_weights(folder).values())
    assert read_state(folder)["number"] == 14


def test_nan_twice_stops(tiny_config, tiny_set, tmp_path, monkeypatch):
    original = TrainingStep.run

    def poison(self, penalised):
        original(self, penalised)
        if int(self.step_count) == 2:
            with torch.no_grad():
                next(self.generator.parameters()).fill_(float("nan"))

    monkeypatch.setattr(TrainingStep, "run", poison)
    with pytest.raises(InputError, match="became NaN again"):
        train(tiny_config(), tiny_set, tmp_path / "run", progress=False)


def test_guard_a_discriminator_that_has_won(tiny_config, tiny_set, tmp_path, capsys):
    """A generator that stands still against a discriminator in a hurry."""
    config = tiny_config(
        recipe="dcgan",
        steps=40,
        learning_rate=1e-9,
        discriminator_learning_rate=5e-3,
        evaluate_every=40,
    )
    train(config, tiny_set, tmp_path / "run", progress=False)
    assert "the discriminator has won" in capsys.readouterr().err
    kinds = [r["kind"] for r in read_log(tmp_path / "run")]
    assert kinds.count("guard") == 1  # said once


def test_guard_a_discriminator_that_tells_nothing(tiny_config, tiny_set, tmp_path, capsys):
    """One that may not have a slope, because the penalty outweighs everything."""
    config = tiny_config(steps=60, r1=1e6, penalty_every=1, log_every=2, evaluate_every=60)
    train(config, tiny_set, tmp_path / "run", progress=False)
    assert "the discriminator tells nothing apart" in capsys.readouterr().err
    rows = [r for r in read_log(tmp_path / "run") if r["kind"] == "training"]
    assert guards.discriminator_is_silent(rows[-10:]) is not None
    assert guards.discriminator_is_silent(rows[-9:]) is None
    rows[-5]["logit_real"] = rows[-5]["logit_fake"] + 0.1
    assert guards.discriminator_is_silent(rows) is None


def test_a_long_run_says_what_would_shorten_it(
    tiny_config, tiny_set, tmp_path, capsys, monkeypatch
):
    config = tiny_config(steps=6, log_every=2, evaluate_every=6, width=0.5)
    train(config, tiny_set, tmp_path / "short", progress=False)
    assert "remain" not in capsys.readouterr().err
    monkeypatch.setattr("gan.announcements.LONG_HOURS", 0.0)
    train(config, tiny_set, tmp_path / "long", progress=False)
    assert capsys.readouterr().err.count("remain; --width 0.25 takes about a quarter") == 1


def test_guards_can_stop_the_run(tiny_config, tiny_set, tmp_path):
    config = tiny_config(
        recipe="dcgan",
        steps=60,
        learning_rate=1e-9,
        discriminator_learning_rate=5e-3,
        guards="stop",
    )
    with pytest.raises(InputError, match="the discriminator has won"):
        train(config, tiny_set, tmp_path / "run", progress=False)
    assert read_state(tmp_path / "run")["number"] < 60


def test_the_time_to_go_is_told_once_at_any_width(
    tiny_config, tiny_set, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("gan.announcements.TOLD_HOURS", 0.0)
    train(tiny_config(steps=6, log_every=2), tiny_set, tmp_path / "run")
    assert capsys.readouterr().err.count("minutes remain") == 1


def test_guards_can_be_switched_off(tiny_config, tiny_set, tmp_path, capsys):
    config = tiny_config(
        recipe="dcgan",
        steps=40,
        learning_rate=1e-9,
        discriminator_learning_rate=5e-3,
        guards="off",
    )
    train(config, tiny_set, tmp_path / "run", progress=False)
    assert "has won" not in capsys.readouterr().err


class Broken:
    """Generators broken on purpose, each standing in for `gan.evaluation.generate`."""

    @staticmethod
    def constant(images):
        first = images.side("train").of_classes([0]).pixels[:1]
        return lambda loaded, index, count, seed: shrink(first).repeat(count, 1, 1, 1)

    @staticmethod
    def copies(images):
        own = shrink(images.side("train").of_classes([0]).pixels)
        return lambda loaded, index, count, seed: own[torch.arange(count) % len(own)]

    @staticmethod
    def other_class(images):
        other = shrink(images.of_classes([2]).pixels)
        return lambda loaded, index, count, seed: other[torch.arange(count) % len(other)]


def shrink(pixels: torch.Tensor) -> torch.Tensor:
    small = torch.nn.functional.interpolate(
        pixels.float(), size=(32, 32), mode="bicubic", antialias=True
    )
    return small.round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (Broken.constant, "has collapsed"),
        (Broken.copies, "is being copied"),
        (Broken.other_class, "comes out as"),
    ],
)
def test_guards_of_the_images_fire(
    broken, sentence, tiny_config, tiny_set, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("gan.evaluation.generate", broken(tiny_set))
    config = tiny_config(steps=2, log_every=2, evaluate_every=2)
    train(config, tiny_set, tmp_path / "run", extractor=coarse_pixels, progress=False)
    assert sentence in capsys.readouterr().err


def test_no_guard_fires_on_real_images(tiny_config, tiny_set, tmp_path, monkeypatch, capsys):
    """Images that no one trained on, in the place of generated ones."""
    held_out = shrink(tiny_set.side("test").of_classes([0]).pixels)
    monkeypatch.setattr("gan.evaluation.generate", lambda loaded, index, count, seed: held_out)
    config = tiny_config(steps=2, log_every=2, evaluate_every=2)
    train(config, tiny_set, tmp_path / "run", extractor=coarse_pixels, progress=False)
    assert "class" not in capsys.readouterr().err


def test_guards_advise_what_can_be_done():
    """Only flags that exist; there are no earlier checkpoints unless --snapshots kept them."""
    bad = Verdict(1.0, 0.1, 0.0, 1.0, 0.0, 0.0, 1.0, 1)
    won = {"kind": "training", "sign_real": 1.0, "sign_fake": -1.0}
    said = [
        guards.discriminator_has_won(
            [won | {"logit_real": 9.0, "logit_fake": -9.0}] * 3, "logistic"
        ),
        guards.discriminator_is_silent([won | {"logit_real": 0.0, "logit_fake": 0.0}] * 10),
        guards.has_collapsed("a", bad),
        guards.has_memorised("a", bad),
        guards.is_mistaken(0, ("a", "b"), bad),
    ]
    fields = {f.name for kind in (TrainConfig, GenerateConfig) for f in dataclasses.fields(kind)}
    for sentence in said:
        flags = re.findall(r"--([a-z0-9-]+)", sentence)
        assert flags
        assert {flag.replace("-", "_") for flag in flags} <= fields
        assert "earlier checkpoint" not in sentence
    fixed = TrainConfig(augment_target=0.0, augment_probability=0.5)
    assert resolve_parts("tail", fixed).augment_probability == 0.5


def test_broken_numbers_are_seen():
    assert guards.is_broken({"step": 1, "loss": float("nan")})
    assert guards.is_broken({"step": 1, "loss": float("inf")})
    assert not guards.is_broken({"step": 1, "loss": 2.0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("nine",)}, "no class 'nine'"),
        ({"classes": ()}, "name the class"),
        ({"classes": ("0", "0")}, "twice"),
        ({"size": 69}, "cannot make 69x69"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(
    changes, message, tiny_config, tiny_set, tmp_path
):
    with pytest.raises(InputError, match=message):
        train(tiny_config(**changes), tiny_set, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_class_of_one_image_is_refused(tiny_config, tiny_set, tmp_path):
    train_rows = np.flatnonzero((tiny_set.labels == 0) & (tiny_set.split == 0))
    keep = np.setdiff1d(np.arange(len(tiny_set)), train_rows[1:])
    with pytest.raises(
        InputError, match=r"has 1 of its .* images on the training side of the split"
    ):
        train(tiny_config(), tiny_set.select(keep), tmp_path / "run", progress=False)


def test_the_judge_chooses_the_better_checkpoint(tiny_config, tiny_set, tmp_path, monkeypatch):
    """Good images at the first look, constant ones at the second."""
    good = shrink(tiny_set.side("test").of_classes([0]).pixels)
    looks = iter([good, good[:1].repeat(16, 1, 1, 1)])
    monkeypatch.setattr("gan.evaluation.generate", lambda *arguments: next(looks))
    config = tiny_config(condition_from=0.0, condition_full=0.0, guards="off")
    outcome = train(config, tiny_set, tmp_path / "run", extractor=coarse_pixels, progress=False)
    assert outcome.chosen_step == 6
    assert "Weights of step 6" in (tmp_path / "run" / "card.md").read_text()


def test_a_checkpoint_that_copies_is_not_chosen_however_good(
    tiny_config, tiny_set, tmp_path, monkeypatch
):
    """Other real images at the first look, the training images themselves at the second."""
    good = shrink(tiny_set.side("test").of_classes([0]).pixels)
    copies = shrink(tiny_set.side("train").of_classes([0]).pixels)
    looks = iter([good.flip(0) // 2 + 10, copies])
    monkeypatch.setattr("gan.evaluation.generate", lambda *arguments: next(looks))
    config = tiny_config(condition_from=0.0, condition_full=0.0, guards="off")
    outcome = train(config, tiny_set, tmp_path / "run", extractor=coarse_pixels, progress=False)
    first, second = [r for r in read_log(tmp_path / "run") if r["kind"] == "evaluation"]
    assert second["score"] < first["score"]
    assert (first["copied"], second["copied"]) == ([], ["double"])
    assert outcome.chosen_step == 6


def test_where_every_checkpoint_copies_the_one_that_does_least_is_kept_and_it_is_said(
    tiny_config, tiny_set, tmp_path, monkeypatch, capsys
):
    """It was once the first one, from before the class mattered, in silence."""
    train_side = tiny_set.side("train").of_classes([0])
    copies = shrink(train_side.pixels)
    half = torch.cat([copies, shrink(tiny_set.side("test").of_classes([0]).pixels)[:2]])
    looks = iter([shrink(tiny_set.side("test").of_classes([0]).pixels), copies, half, copies])
    monkeypatch.setattr("gan.evaluation.generate", lambda *arguments: next(looks))
    config = tiny_config(evaluate_every=3, condition_from=0.1, condition_full=0.4, guards="off")
    folder = tmp_path / "run"
    outcome = train(config, tiny_set, folder, extractor=coarse_pixels, progress=False)
    judged = [r for r in read_log(folder) if r["kind"] == "evaluation"]
    assert [bool(r["copied"]) for r in judged] == [False, True, True, True]
    assert outcome.chosen_step == 9
    assert "of step 9, copy training images" in capsys.readouterr().err


def test_weights_from_before_a_class_that_comes_at_once_are_never_chosen(
    tiny_config, tiny_set, tmp_path, monkeypatch
):
    """With --condition-from equal to --condition-full the class has no ramp, but a beginning."""
    good = shrink(tiny_set.side("test").of_classes([0]).pixels)
    looks = iter([good, good[:1].repeat(16, 1, 1, 1)])
    monkeypatch.setattr("gan.evaluation.generate", lambda *arguments: next(looks))
    config = tiny_config(condition_from=0.9, condition_full=0.9, guards="off")
    outcome = train(config, tiny_set, tmp_path / "run", extractor=coarse_pixels, progress=False)
    assert outcome.chosen_step == 12
    assert read_weights(tmp_path / "run")["conditioning"] == 1.0


def test_a_class_with_one_image_is_left_out_and_said(tiny_config, tiny_set, tmp_path, capsys):
    of_class = np.flatnonzero((tiny_set.labels == 1) & (tiny_set.split == 0))
    images = tiny_set.select(np.setdiff1d(np.arange(len(tiny_set)), of_class[1:]))
    train(tiny_config(steps=2), images, tmp_path / "run", progress=False)
    assert "left out: 'round' (1)" in capsys.readouterr().err


def test_a_generator_of_one_class_is_judged_by_a_classifier_of_all(
    tiny_config, tiny_set, tmp_path, monkeypatch, capsys
):
    shown = []

    def trained(folder, images, **options):
        shown.append(set(images.labels.tolist()))
        return coarse_pixels

    monkeypatch.setattr("gan.evaluation.trained_extractor", trained)
    folder = tmp_path / "run"
    config = tiny_config(scope="class", judge="classifier", steps=2, evaluate_every=2)
    train(config, tiny_set, folder, progress=False)
    assert shown == [{0, 1, 2}]
    (row,) = [r for r in read_log(folder) if r["kind"] == "evaluation"]
    assert set(row["kid"]) == {"double"}
    assert "the last checkpoint is kept" not in capsys.readouterr().err
    assert set(read_training_images(folder)[1]) == set(
        tiny_set.side("train").of_classes([0]).ids.tolist()
    )


def test_snapshots_keep_the_weights_of_every_evaluation(tiny_config, tiny_set, tmp_path):
    folder = tmp_path / "run"
    train(tiny_config(snapshots=True), tiny_set, folder, progress=False)
    names = sorted(path.name for path in (folder / "snapshots").iterdir())
    assert names == ["0000006.safetensors", "0000012.safetensors"]
    early, last, kept = read_weights(folder, 6), read_weights(folder, 12), read_weights(folder)
    assert all(torch.equal(last[name], kept[name]) for name in kept)
    assert not all(torch.equal(early[name], kept[name]) for name in kept)
    made = generate_set(folder, count=2, step=6)
    assert made.provenance["generator"]["step"] == 6
    file = folder / "snapshots" / "0000006.safetensors"
    assert torch.equal(generate_set(file, count=2).pixels, made.pixels)
    with pytest.raises(InputError, match="is the snapshot of step 6, not of --step 12"):
        load_generator(file, step=12)
    with pytest.raises(InputError, match="no snapshot of step 7; it holds: 6, 12"):
        load_generator(folder, step=7)


def test_a_class_beyond_the_last_layer_is_refused(tiny_config, tiny_set, tmp_path):
    config = tiny_config(generator="convolutional", class_from=32)
    with pytest.raises(InputError, match="--class-from 32 lies beyond"):
        train(config, tiny_set, tmp_path / "run", progress=False)


def test_weights_and_the_state_that_knows_of_them_are_written_together(
    tiny_config, tiny_set, tmp_path, monkeypatch
):
    """Else a kill between two saves leaves weights of an evaluation that the state never saw."""
    original = TrainingStep.run

    def stop(self, penalised):
        original(self, penalised)
        if int(self.step_count) == 8:
            raise RuntimeError("killed")

    monkeypatch.setattr(TrainingStep, "run", stop)
    folder = tmp_path / "run"
    with pytest.raises(RuntimeError, match="killed"):
        train(tiny_config(save_seconds=1e9), tiny_set, folder, progress=False)
    with safe_open(folder / "weights.safetensors", "pt") as weights:
        assert weights.metadata()["step"] == "6"
    assert read_state(folder)["best"]["step"] == 6


def test_a_hinge_run_is_watched_by_the_gap_of_the_hinge(
    tiny_config, tiny_set, tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr(guards, "discriminator_has_won", lambda rows, loss: seen.append(loss))
    train(tiny_config(loss="hinge", steps=4), tiny_set, tmp_path / "run", progress=False)
    assert set(seen) == {"hinge"}


def test_a_run_anew_keeps_nothing_of_the_one_before(tiny_config, tiny_set, tmp_path):
    folder = tmp_path / "run"
    train(tiny_config(snapshots=True), tiny_set, folder, progress=False)
    (folder / "notes.txt").write_text("mine")
    train(tiny_config(steps=6), tiny_set, folder, progress=False)
    assert not (folder / "snapshots").exists()
    assert (folder / "notes.txt").read_text() == "mine"
    remove_run(folder)
    assert [path.name for path in folder.iterdir() if path.name != ".lock"] == ["notes.txt"]


def test_the_penalty_of_the_log_is_the_mean_over_the_steps_that_have_one(
    tiny_config, tiny_set, tmp_path, monkeypatch
):
    """One penalised step in ten, one in two: the same number."""
    monkeypatch.setattr("gan.step.gradient_penalty", lambda logits, images: logits.sum() * 0 + 2.0)
    config = tiny_config(steps=15, log_every=5, penalty_every=4, standardise=False)
    train(config, tiny_set, tmp_path / "run", progress=False)
    rows = [row for row in read_log(tmp_path / "run") if row["kind"] == "training"]
    assert [row["penalty"] for row in rows] == pytest.approx([2.0] * 3)


def test_real_images_fill_one_row_a_class_however_few(tiny_config, tiny_set, tmp_path):
    rows = np.concatenate([np.flatnonzero(tiny_set.labels == k)[:n] for k, n in ((0, 3), (1, 9))])
    few = dataclasses.replace(tiny_set.select(rows), split=np.zeros(12, np.int8))
    save_reals(prepare(tiny_config(minibatch_deviation=False), few), tmp_path / "reals.png")
    with Image.open(tmp_path / "reals.png") as picture:
        width, height = picture.size
    assert width / 8 == pytest.approx(height / 2, abs=2)


def test_of_two_processes_that_train_a_judge_the_slower_takes_the_others(tmp_path, monkeypatch):
    class Extractor:
        def save(self, folder):
            folder.mkdir()  # the other process, in this moment
            raise InputError("exists")

    monkeypatch.setattr("fid.features.train_extractor", lambda *a, **k: Extractor())
    monkeypatch.setattr("fid.features.load_extractor", lambda name, *_: name)
    taken = trained_extractor(tmp_path, None, seed=0, device=torch.device("cpu"), progress=False)
    assert taken == f"classifier:{tmp_path / 'judge'}"
