"""A run that is killed and resumed ends with the same bits; a changed setting is refused."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from galaxies.command_line import named_on_command_line
from galaxies.errors import InputError
from gan import step
from gan.checkpoint import read_log, read_state, read_weights
from gan.resume import stored_config
from gan.trainer import train

LOOKS = 2


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
    monkeypatch.setattr(step, "WATCH_IMAGES", 8 * LOOKS)  # tiny batches of 8


def _train(config, tiny_set, folder):
    torch.set_num_threads(1)
    step.WATCH_IMAGES = 8 * LOOKS  # this process imported it afresh
    signal.signal(signal.SIGINT, signal.default_int_handler)
    train(config, tiny_set, folder, progress=False)


@pytest.mark.slow
def test_killed_twenty_times_and_resumed_it_ends_with_the_same_bits(
    tiny_config, tiny_set, tmp_path
):
    """SIGKILL at a random moment, twenty runs of twenty."""
    # Few operations a step, but every kind of state: averages, norms, moments, feedback, draws.
    flags = {
        "save_seconds": 0.0,
        "log_every": 3,
        "generator": "convolutional",
        "discriminator": "convolutional",
    }
    whole = tmp_path / "whole"
    start = time.monotonic()
    train(tiny_config(**flags), tiny_set, whole, progress=False)
    length = time.monotonic() - start
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["gan.trainer", "torch._dynamo", "galaxies.hdf5", "matplotlib.figure"]
    )
    moments = random.Random(0)
    for number in range(20):
        folder = tmp_path / f"killed-{number}"
        kills = 0
        longest = length
        while True:
            resume = (folder / "state.pt").is_file()
            process = context.Process(
                target=_train, args=(tiny_config(**flags, resume=resume), tiny_set, folder)
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
    from gan.step import TrainingStep

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
    assert final(whole).keys() == final(cut).keys()
    for name, tensor in final(whole).items():
        assert torch.equal(tensor, final(cut)[name]), name


def test_more_steps_are_the_same_as_asked_for_at_once(tiny_config, tiny_set, tmp_path):
    """The ramp keeps its planned length, so only runs without one are alike."""
    flat = {"condition_from": 0.0, "condition_full": 0.0}
    train(tiny_config(steps=6, **flat), tiny_set, tmp_path / "a", progress=False)
    train(tiny_config(steps=12, resume=True, **flat), tiny_set, tmp_path / "a", progress=False)
    train(tiny_config(steps=12, **flat), tiny_set, tmp_path / "b", progress=False)
    left, right = read_state(tmp_path / "a")["tensors"], read_state(tmp_path / "b")["tensors"]
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 5}, "--seed was 0, now 5"),
        ({"batch_size": 16}, "--batch-size was 8, now 16"),
        ({"r1": 3.0}, r"--r1 was [0-9.]+, now 3.0"),
        ({"classes": ("1",)}, "--class was 0, now 1"),
        ({"steps": 5}, "--steps was 12, now 5"),
        ({"seed": 5, "width": 0.1}, "--width was 0.05, now 0.1"),
    ],
)
def test_a_changed_setting_is_refused_by_name(tiny_config, tiny_set, tmp_path, changes, named):
    folder = tmp_path / "run"
    train(tiny_config(), tiny_set, folder, progress=False)
    before = (folder / "state.pt").read_bytes()
    with pytest.raises(InputError, match=named):
        train(tiny_config(**changes, resume=True), tiny_set, folder, progress=False)
    assert (folder / "state.pt").read_bytes() == before


def test_other_images_are_refused(tiny_config, tiny_set, tmp_path):
    folder = tmp_path / "run"
    train(tiny_config(), tiny_set, folder, progress=False)
    fewer = tiny_set.select(range(5, len(tiny_set)))
    with pytest.raises(InputError, match="training images are others"):
        train(tiny_config(resume=True), fewer, folder, progress=False)


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
