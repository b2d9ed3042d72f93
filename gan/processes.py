"""Several processes that train together: torchrun on one machine or many."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from galaxies.device import choose_device
from galaxies.errors import InputError

PATIENCE = timedelta(hours=2)
"""For what the first process does alone, such as training the judge; NCCL gives up after ten
minutes."""


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many, on which device."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0


@contextlib.contextmanager
def join_processes(device_name: str, batch_size: int) -> Iterator[Processes]:
    """Join the group that torchrun announces in the environment; alone without it.

    Raises
    ------
    InputError
        If the batch cannot be shared equally.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    device = choose_device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world > 1 and ":" in device_name:
        raise InputError(
            f"--device {device_name} is one device for {world} processes; with torchrun pass "
            "--device cuda, which gives each its own"
        )
    if world == 1:
        yield Processes(0, 1, device)
        return
    if batch_size % (4 * world):
        # Groups of four images (minibatch deviation) must not be cut.
        raise InputError(
            f"--batch-size {batch_size} must be a multiple of 4 times the {world} processes"
        )
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Processes(distributed.get_rank(), world, device)
    finally:
        distributed.destroy_process_group()


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether ``flag`` is true in any process; every process must ask."""
    if not (distributed.is_initialized() and distributed.get_world_size() > 1):
        return flag
    value = torch.tensor(float(flag), device=device)
    distributed.all_reduce(value, op=distributed.ReduceOp.MAX)
    return bool(value.item())


def decided_by_lead(flag: bool, device: torch.device) -> bool:
    """What ``flag`` is in the first process; every process must ask."""
    if not (distributed.is_initialized() and distributed.get_world_size() > 1):
        return flag
    value = torch.tensor(float(flag), device=device)
    distributed.broadcast(value, src=0)
    return bool(value.item())
