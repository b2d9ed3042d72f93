"""Free memory decides whether training images are kept on the device."""

import os
from pathlib import Path

import pytest
import torch

from classify import free_memory
from classify.free_memory import free_bytes

CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Linux machine with 8 GB available, and a container without a limit."""
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemFree: 5 kB\nMemAvailable: 8000000 kB\n")
    (tmp_path / "cgroup").write_text("4:memory:/old\n0::/outer/inner\n")
    inner = tmp_path / "groups" / "outer" / "inner"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.current").write_text("1000\n")
    monkeypatch.setattr(free_memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(free_memory, "_OWN_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(free_memory, "_CGROUPS", tmp_path / "groups")
    return tmp_path


def test_remembered_files_count_as_free(machine: Path) -> None:
    assert free_bytes(CPU) == 8_000_000 * 1024


def test_a_container_around_us_limits_what_is_free(machine: Path) -> None:
    outer = machine / "groups" / "outer"
    (outer / "memory.max").write_text("9000\n")
    (outer / "memory.current").write_text("5000\n")
    (outer / "memory.stat").write_text("anon 4000\ninactive_file 700\n")
    assert free_bytes(CPU) == 4700
    (outer / "memory.current").write_text("9900\n")
    assert free_bytes(CPU) == 0


def test_a_system_that_does_not_say_what_is_free(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sysconf(name: str) -> int:
        known = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
        if name not in known:
            raise ValueError("unrecognized configuration name")
        return known[name]

    (machine / "meminfo").unlink()
    (machine / "cgroup").unlink()
    monkeypatch.setattr(os, "sysconf", sysconf)
    assert free_bytes(CPU) == 500 * 4096
    monkeypatch.delattr(os, "sysconf")
    assert free_bytes(CPU) == 2**30
