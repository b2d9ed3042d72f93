"""The device that a flag asks for, and the processor cores of this process."""

import os

import torch

from galaxies.errors import InputError


def cores() -> int:
    """Processor cores that this process may use, where the system tells; else all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N`` to a device that is there.

    ``auto`` takes CUDA where there is one. Without a number, CUDA is the device that torchrun
    gives this process (``LOCAL_RANK``), else the first.

    Raises
    ------
    InputError
        If this machine has no such device.
    """
    found = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if found else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name}: unknown; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not found:
        raise InputError(f"--device {name}: this machine has no CUDA device; use --device cpu")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if device.index >= torch.cuda.device_count():
            raise InputError(
                f"torchrun started process {device.index + 1} of this machine, which has "
                f"{torch.cuda.device_count()} CUDA devices; lower --nproc-per-node"
            )
        return device
    if device.type == "cuda" and device.index >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise InputError(f"--device {name}: this machine has {count} CUDA devices, from cuda:0")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: only cpu and cuda are supported")
    return device
