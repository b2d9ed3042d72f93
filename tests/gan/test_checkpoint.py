"""Files of a run: whole or absent, and weights that are told by what was read of them."""

import hashlib
import resource

import pytest
import torch

from galaxies.errors import InputError
from gan.checkpoint import (
    WEIGHTS,
    read_weights,
    remove_cut_short,
    write_state,
    write_weights,
)
from gan.evaluation import rank_of
from gan.loaded_generator import load_discriminator, load_generator
from gan.pictures import save_curve
from gan.synthetic_set import describe_generator
from gan.trainer import train


@pytest.fixture
def little_room():
    """A file that grows beyond 100 kB is refused, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ["state", "weights"])
def test_a_full_disk_is_one_line_and_leaves_what_was_there(kind, tmp_path, little_room):
    """The writers of torch and safetensors raise errors of their own, once shown as tracebacks."""

    def write(values: int) -> None:
        tensors = {"a": torch.zeros(values)}
        if kind == "state":
            write_state(tmp_path, {"tensors": tensors})
        else:
            write_weights(tmp_path / WEIGHTS, tensors, 1)

    write(10)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match="file too large; nothing was changed; free some space"):
        write(1_000_000)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_generator_is_told_by_the_weights_that_were_read(tiny_config, tiny_set, tmp_path):
    """A run that goes on replaces them while images are made of the ones before."""
    small = {"generator": "convolutional", "discriminator": "convolutional", "steps": 1}
    train(tiny_config(**small), tiny_set, tmp_path, progress=False)
    digest = hashlib.sha256((tmp_path / WEIGHTS).read_bytes()).hexdigest()
    loaded = load_generator(tmp_path)
    load_discriminator(loaded)
    later = {name: tensor * 1.5 for name, tensor in read_weights(tmp_path).items()}
    write_weights(tmp_path / WEIGHTS, later, 2)
    assert describe_generator(loaded, [0], 0, 1.0)["checkpoint_sha256"] == digest
    with pytest.raises(InputError, match="has just replaced its weights"):
        load_discriminator(loaded)


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    """A run that is killed daily once kept a copy of its state from each day."""
    (tmp_path / "samples").mkdir()
    for name in (".state.pt.abc.partial", "samples/.step-1.png.x.partial"):
        (tmp_path / name).touch()
    kept = [".lock", "state.pt", ".notes.partial", "samples/step-1.png"]
    for name in kept:
        (tmp_path / name).touch()
    remove_cut_short(tmp_path)
    left = [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()]
    assert sorted(left) == sorted(kept)


@pytest.mark.parametrize("name", ["$a^$", "銀河", "_other"])
def test_a_curve_is_drawn_whatever_a_class_is_called(name, tmp_path, recwarn):
    """An odd dollar sign once ended a run in the picture of its losses."""
    values = {name: 0.5, "round": 0.1}
    losses = {"discriminator_loss": 1.0, "generator_loss": 1.0}
    watched = {"overfitting": values, "probabilities": values}
    rows = [{"kind": "training", "step": 1, "images": 8, **losses, **watched}]
    rows += [{"kind": "evaluation", "step": 1, "images": 8, "kid": values}]
    save_curve(rows, tmp_path / "curve.png", 1)
    assert not recwarn.list


def test_a_kid_that_is_no_number_loses():
    """It once won for ever: nothing is less than NaN."""
    nothing, bad = ({"step": 1, "score": score} for score in (float("nan"), 9.0))
    assert rank_of(bad, early=False) < rank_of(nothing, early=False)
