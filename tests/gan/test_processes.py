"""Two processes with half of the batch each move as one process with the whole batch."""

import socket

import pytest
import torch
from torch import distributed, multiprocessing

from galaxies.errors import InputError
from gan.preparation import build_step, prepare
from gan.processes import decided_by_lead, join_processes

STEPS = 3


def _advance(config, images, rank, world):
    preparation = prepare(config, images)
    step = build_step(
        preparation, config, torch.device("cpu"), torch.float32, rank=rank, world=world
    )
    for number in range(STEPS):
        step.draw()
        step.run(step.is_penalised(number))
    step.watch(step.augmentation.steps_between_looks)
    return step


def _work(rank, port, config, images, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    assert decided_by_lead(rank == 0, torch.device("cpu"))
    assert not decided_by_lead(rank == 1, torch.device("cpu"))
    torch.save(_advance(config, images, rank, 2).snapshot(), folder / f"{rank}.pt")
    distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("recipe", ["tail", "dcgan"])
def test_two_processes_match_one(recipe, tiny_config, tiny_set, tmp_path):
    config = tiny_config(recipe=recipe, batch_size=16, lecam=0.1)
    multiprocessing.spawn(_work, (free_port(), config, tiny_set, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    alone = _advance(config, tiny_set, 0, 1).snapshot()
    compared = 0
    for name, tensor in alone.items():
        if name.startswith("sums"):  # the generator's loss is logged for its own part
            continue
        if not tensor.is_floating_point():
            assert torch.equal(tensor, first[name]), name
            continue
        assert torch.equal(first[name], second[name]), name
        # Adam divides by the square root of squared gradients: rounding of near-zero gradients
        # moves a weight by up to the rate, so the bound is a share of the distance travelled.
        close = torch.isclose(tensor, first[name], rtol=1e-3, atol=2e-5)
        assert close.double().mean() > 0.99, name
        compared += 1
    assert compared > 50


def test_a_batch_that_cannot_be_shared(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with (
        pytest.raises(InputError, match="multiple of 4 times the 3 processes"),
        join_processes("cpu", 64),
    ):
        pass


def test_one_device_for_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("gan.processes.choose_device", torch.device)
    monkeypatch.setattr("torch.cuda.set_device", lambda device: None)
    with (
        pytest.raises(InputError, match="cuda:0 is one device for 2 processes"),
        join_processes("cuda:0", 64),
    ):
        pass
