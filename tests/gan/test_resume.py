"""A run that is killed and resumed ends with the same bits; a changed setting is refused."""

import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from galaxies.command_line import named_on_command_line
from galaxies.errors import InputError
from gan import adaptive_augmentation
from gan.checkpoint import read_log, read_state, read_weights
from gan.recipes import RECIPES
from gan.resume import stored_config
from gan.step import TrainingStep
from gan.trainer import train

LOOKS = 2


def coarse_pixels(pixels: torch.Tensor) -> torch.Tensor:
    """An extractor that needs no training: 4x4 means of each channel."""
    return torch.nn.functional.adaptive_avg_pool2d(pixels.float() / 255, 4).flatten(1)


def final(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor that a run leaves: its state and its chosen weights."""
    state = read_state(folder)
    return {**state["tensors"], **{f"kept {k}": v for k, v in read_weights(folder).items()}}


def assert_same_run(left: Path, right: Path) -> None:
    ours, theirs = final(left), final(right)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    assert [drop_time(r) for r in read_log(left)] == [drop_time(r) for r in read_log(right)]
    last = max((left / "samples").iterdir()).name
    assert (left / "samples" / last).read_bytes() == (right / "samples" / last).read_bytes()


def drop_time(row: dict) -> dict:
    return {name: value for name, value in row.items() if name != "images_per_second"}


@pytest.fixture(autouse=True)
def look_often(monkeypatch):
    """At held-out images too, so that what they move is part of what is resumed."""
    monkeypatch.setattr(adaptive_augmentation, "WATCH_IMAGES", 8 * LOOKS)  # tiny batches of 8


def _train(config, tiny_set, folder, extractor):
    torch.set_num_threads(1)
    adaptive_augmentation.WATCH_IMAGES = 8 * LOOKS  # this process imported it afresh
    signal.signal(signal.SIGINT, signal.default_int_handler)
    train(config, tiny_set, folder, extractor=extractor, progress=False)


SMALL = {"generator": "convolutional", "discriminator": "convolutional"}
"""Few operations a step, but every kind of state: averages, norms, moments, feedback, draws."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("networks", "extractor", "runs"), [(SMALL, None, 16), ({}, coarse_pixels, 4)]
)
def test_killed_twenty_times_and_resumed_it_ends_with_the_same_bits(
    networks, extractor, runs, tiny_config, tiny_set, tmp_path
):
    """SIGKILL at a random moment, twenty runs of twenty; four of the whole recipe, judged."""
    flags = {"save_seconds": 0.0, "log_every": 3, **networks}
    whole = tmp_path / "whole"
    start = time.monotonic()
    train(tiny_config(**flags), tiny_set, whole, extractor=extractor, progress=False)
    length = time.monotonic() - start
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["gan.trainer", "torch._dynamo", "galaxies.hdf5", "matplotlib.figure"]
    )
    moments = random.Random(0)
    for number in range(runs):
        folder = tmp_path / f"killed-{number}"
        kills = 0
        longest = length
        while True:
            resume = (folder / "state.pt").is_file()
            process = context.Process(
                target=_train,
                args=(tiny_config(**flags, resume=resume), tiny_set, folder, extractor),
            )
            process.start()
            # The first kill comes after something was saved, the second at any moment.
            while not kills and process.is_alive() and not (folder / "state.pt").is_file():
                process.join(0.005)
            process.join(60.0 if kills == 2 else moments.uniform(0.0, longest))
            process.kill()  # nothing, where it has ended
            process.join()
            if process.exitcode == -signal.SIGKILL:
                kills += 1
                continue
            assert process.exitcode == 0
            if kills:
                break
            # It ended before the moment came, as on a machine that is quick now and then.
            shutil.rmtree(folder)
            longest /= 2
        assert_same_run(whole, folder)


def test_ctrl_c_saves_and_the_rest_is_the_same(tiny_config, tiny_set, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(tiny_config(), tiny_set, whole, progress=False)
    original = TrainingStep.run

    def interrupted(self, penalised):
        original(self, penalised)
        if int(self.step_count) == 7:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(TrainingStep, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(), tiny_set, cut, progress=False)
    monkeypatch.setattr(TrainingStep, "run", original)
    assert read_state(cut)["number"] == 7
    train(tiny_config(resume=True), tiny_set, cut, progress=False)
    ours, theirs = final(whole), final(cut)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def test_more_steps_are_the_same_as_asked_for_at_once(tiny_config, tiny_set, tmp_path):
    """The ramp keeps its planned length, so only runs without one are alike."""
    flat = {"condition_from": 0.0, "condition_full": 0.0}
    train(tiny_config(steps=6, **flat), tiny_set, tmp_path / "a", progress=False)
    train(tiny_config(steps=12, resume=True, **flat), tiny_set, tmp_path / "a", progress=False)
    train(tiny_config(steps=12, **flat), tiny_set, tmp_path / "b", progress=False)
    left, right = read_state(tmp_path / "a")["tensors"], read_state(tmp_path / "b")["tensors"]
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def finished(tiny_config, tiny_set, tmp_path_factory):
    """A run that every attempt to resume must leave as it is."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(tiny_config(steps=4), tiny_set, folder, progress=False)
    return folder


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 5}, "--seed was 0, now 5"),
        ({"batch_size": 16}, "--batch-size was 8, now 16"),
        ({"r1": 3.0}, r"--r1 was [0-9.]+, now 3.0"),
        ({"classes": ("1",)}, "--class was 0, now 1"),
        ({"steps": 3}, "--steps was 4, now 3"),
        ({"seed": 5, "width": 0.1}, "--width was 0.05, now 0.1"),
    ],
)
def test_a_changed_setting_is_refused_by_name(tiny_config, tiny_set, finished, changes, named):
    before = (finished / "state.pt").read_bytes()
    with pytest.raises(InputError, match=named):
        train(tiny_config(**changes, resume=True), tiny_set, finished, progress=False)
    assert (finished / "state.pt").read_bytes() == before


def other_labels(images):
    labels = images.labels.copy()
    first = np.flatnonzero((labels == 1) & (images.split == 0))[0]
    labels[first] = 2
    return dataclasses.replace(images, labels=labels)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda images: images.select(range(5, len(images))), "training images are others"),
        (other_labels, "training images have other classes"),
        (lambda images: images.select(images.split != 1), "--augment-watch was held-out, now sign"),
        (lambda images: images.select(images.split != 1), "validation images, or other images"),
        (
            lambda images: dataclasses.replace(images, mirror_pairs=(("round", "double"),)),
            "other mirror pairs",
        ),
        (
            lambda images: dataclasses.replace(images, class_names=("two", "round", "elongated")),
            "the classes were called double, round, elongated, now two, round, elongated",
        ),
    ],
)
def test_other_images_are_refused(change, named, tiny_config, tiny_set, finished):
    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    with pytest.raises(InputError, match=named):
        train(tiny_config(steps=8, resume=True), change(tiny_set), finished, progress=False)
    assert before == {p.name: p.read_bytes() for p in finished.iterdir() if p.is_file()}


def test_another_default_of_the_recipe_is_refused_and_the_old_value_goes_on(
    tiny_config, tiny_set, finished, tmp_path, monkeypatch
):
    folder = shutil.copytree(finished, tmp_path / "run")
    record = (folder / "config.json").read_bytes()
    changed = dataclasses.replace(RECIPES["tail"], lecam=0.3)
    monkeypatch.setitem(RECIPES, "tail", changed)
    with pytest.raises(InputError, match=r"--lecam was 0.0, now 0.3 by default \(pass --lecam 0.0"):
        train(tiny_config(steps=8, resume=True), tiny_set, folder, progress=False)
    assert (folder / "config.json").read_bytes() == record
    named = tiny_config(steps=8, resume=True, lecam=0.0)
    assert train(named, tiny_set, folder, progress=False).step == 8


def test_a_record_that_lacks_a_part_is_refused_by_name(tiny_config, tiny_set, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    record = json.loads((folder / "config.json").read_text())
    del record["recipe_parts"]["lecam"]
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="records no lecam"):
        train(tiny_config(steps=8, resume=True), tiny_set, folder, progress=False)


def test_a_run_of_an_earlier_version_goes_on(tiny_config, tiny_set, finished, tmp_path):
    """Without digests of labels and judging images, or what a NaN leads back to."""
    folder = shutil.copytree(finished, tmp_path / "run")
    record = json.loads((folder / "config.json").read_text())
    del record["data"]["labels_digest"], record["data"]["judging_digest"]
    (folder / "config.json").write_text(json.dumps(record))
    state = read_state(folder)
    del state["last_good"]
    torch.save(state, folder / "state.pt")
    assert train(tiny_config(steps=6, resume=True), tiny_set, folder, progress=False).step == 6


def stop_or_poison(monkeypatch, *, poison, stop=None):
    """NaN after the first step number ``poison``; Ctrl-C after step ``stop``, the first time."""
    original = TrainingStep.run
    done = set()

    def run(self, penalised):
        original(self, penalised)
        number = int(self.step_count)
        if number == poison and "poison" not in done:
            done.add("poison")
            with torch.no_grad():
                next(self.generator.parameters()).fill_(float("nan"))
        if number == stop and "stop" not in done:
            done.add("stop")
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(TrainingStep, "run", run)


def test_a_resumed_run_goes_back_from_a_nan_as_far_as_an_uninterrupted_one(
    tiny_config, tiny_set, tmp_path, monkeypatch
):
    """It once went back to the step at which it was saved."""
    config = {"log_every": 3, "evaluate_every": 3, "steps": 9}
    with monkeypatch.context() as patch:
        stop_or_poison(patch, poison=5)
        train(tiny_config(**config), tiny_set, tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        stop_or_poison(patch, poison=5, stop=4)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_config(**config), tiny_set, tmp_path / "cut", progress=False)
        train(tiny_config(**config, resume=True), tiny_set, tmp_path / "cut", progress=False)
    assert [r["step"] for r in read_log(tmp_path / "cut") if r["kind"] == "rollback"] == [3]
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_kill_right_after_going_back_does_not_forget_it(
    tiny_config, tiny_set, tmp_path, monkeypatch
):
    config = {"log_every": 3, "evaluate_every": 3, "steps": 9}
    with monkeypatch.context() as patch:
        stop_or_poison(patch, poison=5)
        train(tiny_config(**config), tiny_set, tmp_path / "whole", progress=False)

    class Killed(BaseException):
        pass

    def killed(self, factor):
        lower_rates(self, factor)
        patch.setattr(TrainingStep, "run", lambda self, penalised: kill())

    def kill():
        raise Killed

    lower_rates = TrainingStep.lower_rates
    with monkeypatch.context() as patch:
        stop_or_poison(patch, poison=5)
        patch.setattr(TrainingStep, "lower_rates", killed)
        with pytest.raises(Killed):
            train(tiny_config(**config), tiny_set, tmp_path / "cut", progress=False)
    train(tiny_config(**config, resume=True), tiny_set, tmp_path / "cut", progress=False)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_run_that_a_guard_stopped_goes_on_as_if_it_had_warned(
    tiny_config, tiny_set, tmp_path, monkeypatch
):
    same = torch.full((16, 3, 32, 32), 30, dtype=torch.uint8)
    monkeypatch.setattr("gan.evaluation.generate", lambda *arguments: same)
    config = {"evaluate_every": 3, "steps": 9, "condition_from": 0.0, "condition_full": 0.0}
    judged = {"extractor": coarse_pixels, "progress": False}
    train(tiny_config(**config), tiny_set, tmp_path / "whole", **judged)
    cut = tmp_path / "cut"
    with pytest.raises(InputError, match="stopped at step 3: class 'double' has collapsed"):
        train(tiny_config(**config, guards="stop"), tiny_set, cut, **judged)
    assert [r["step"] for r in read_log(cut) if r["kind"] == "evaluation"] == [3]
    assert "has collapsed" in (cut / "card.md").read_text()
    assert (cut / "curve.png").is_file()
    train(tiny_config(**config, guards="warn", resume=True), tiny_set, cut, **judged)
    assert_same_run(tmp_path / "whole", cut)


def test_flags_that_were_not_named_take_their_stored_value(tiny_config, tiny_set, tmp_path):
    folder = tmp_path / "run"
    train(tiny_config(r1=2.0), tiny_set, folder, progress=False)
    words = ["--resume", "--out", str(folder), "--steps=20", "--class", "0"]
    named = named_on_command_line(words)
    assert set(named) == {"resume", "out", "steps", "classes"}
    given = tiny_config(resume=True, steps=20, size=64, seed=9)
    restored = stored_config(given, named, folder)
    assert (restored.steps, restored.size, restored.seed, restored.r1) == (20, 32, 0, 2.0)


def test_nothing_to_resume(tiny_config, tiny_set, tmp_path):
    with pytest.raises(InputError, match="not a checkpoint"):
        train(tiny_config(resume=True), tiny_set, tmp_path / "none", progress=False)


def test_a_second_process_is_refused(tiny_config, tiny_set, tmp_path):
    from galaxies.atomic import folder_lock

    with folder_lock(tmp_path / "run"), pytest.raises(InputError, match="another process"):
        train(tiny_config(), tiny_set, tmp_path / "run", progress=False)


def test_a_damaged_state_is_refused_and_never_runs_code(tiny_config, tiny_set, tmp_path):
    import pickle

    folder = tmp_path / "run"
    train(tiny_config(), tiny_set, folder, progress=False)
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {marker}",))

    (folder / "state.pt").write_bytes(pickle.dumps({"number": Evil()}))
    with pytest.raises(InputError, match="cannot be read"):
        train(tiny_config(resume=True), tiny_set, folder, progress=False)
    assert not marker.exists()


def test_log_is_cut_back_to_the_resumed_step(tiny_config, tiny_set, tmp_path):
    folder = tmp_path / "run"
    train(tiny_config(), tiny_set, folder, progress=False)
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps({"kind": "training", "step": 99, "images": 1}) + "\n")
        log.write('{"kind": "trai')
    train(tiny_config(resume=True, steps=16), tiny_set, folder, progress=False)
    steps = [row["step"] for row in read_log(folder)]
    assert steps == sorted(steps)
    assert max(steps) == 16


def test_a_run_of_another_kind_of_device_goes_on_with_new_random_numbers(
    tiny_config, tiny_set, tmp_path, capsys
):
    """A CUDA generator's state has 16 bytes; it once ended in a page of Python."""
    folder = tmp_path / "run"
    train(tiny_config(steps=6), tiny_set, folder, progress=False)
    state = read_state(folder)
    state["tensors"]["random"] = torch.zeros(16, dtype=torch.uint8)
    torch.save(state, folder / "state.pt")
    outcome = train(tiny_config(steps=12, resume=True), tiny_set, folder, progress=False)
    assert outcome.step == 12
    assert "another kind of device" in capsys.readouterr().err


def test_a_negated_flag_is_a_named_one():
    assert set(named_on_command_line(["--no-cuda-graphs", "--steps=5"])) == {"cuda_graphs", "steps"}
