"""Memory that may still be taken, on the processor's side or on a graphics card."""

import os
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_OWN_CGROUP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
_UNKNOWN = 2**30
"""Where the system does not even say how much there is: a gibibyte."""


def free_bytes(device: torch.device) -> int:
    """Free memory of the device; for the CPU of the machine, or of the container around us.

    Files that the system merely remembers count as free: it gives them up when asked.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    available = _available()
    if available is None:
        available = _half_of_all()
    return min([available, *_left_in_containers()])


def _available() -> int | None:
    """What Linux estimates can be had without swapping."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvail"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _half_of_all() -> int:
    """Half of the memory there is, for systems that do not tell what is free, such as macOS."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN


def _left_in_containers() -> list[int]:
    """Bytes left under the limit of our control group (version 2) and of each one around it."""
    try:
        lines = _OWN_CGROUP.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
    group = _CGROUPS / own.strip("/")
    left = []
    for folder in (group, *group.parents):
        if not folder.is_relative_to(_CGROUPS):
            break
        try:
            limit = int((folder / "memory.max").read_text())  # "max" is no limit
            used = int((folder / "memory.current").read_text())
            left.append(max(0, limit - used + _remembered_files(folder)))
        except (OSError, ValueError):
            continue
    return left


def _remembered_files(folder: Path) -> int:
    for line in (folder / "memory.stat").read_text().splitlines():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0
