"""From a dataclass to a command: one-line errors, and the statuses scripts rely on."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from galaxies.command_line import config_as_json, print_json, run_command
from galaxies.errors import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    """Do a thing."""

    count: int = 3
    """How many."""
    out: Path = Path("x")
    """Where."""


def status_of(action, *words: str) -> int:
    return run_command(Config, action, list(words), program="thing")


def test_flags_reach_the_command():
    seen = []
    assert status_of(seen.append, "--count", "5", "--out", "here") == 0
    assert seen == [Config(5, Path("here"))]


@pytest.mark.parametrize("words", [("--count", "many"), ("--cuont", "5"), ("extra",)])
def test_wrong_flags_are_one_line_and_two(capsys, words):
    assert status_of(print, *words) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("thing: ")
    assert error.count("\n") == 1
    assert "thing --help" in error


def raiser(error: BaseException):
    def action(_: Config) -> None:
        raise error

    return action


def test_what_a_command_raises_decides_its_status(capsys):
    assert status_of(raiser(InputError("two\n  lines"))) == 2
    assert capsys.readouterr().err == "thing: two lines\n"
    assert status_of(raiser(KeyboardInterrupt())) == 130
    assert status_of(raiser(OSError(errno.ENOSPC, "a library's own prose"))) == 2
    assert "no space left on device" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        status_of(raiser(ZeroDivisionError()))


def test_help_shows_the_docstrings(capsys):
    assert status_of(print, "--help") == 0
    assert "How many. (default: 3)" in capsys.readouterr().out


def test_json_takes_paths_arrays_and_tensors(capsys):
    assert config_as_json(Config()) == {"count": 3, "out": "x"}
    print_json({"a": np.arange(2), "b": torch.tensor(1.5), "c": Path("p"), "d": np.float32(2)})
    assert json.loads(capsys.readouterr().out) == {"a": [0, 1], "b": 1.5, "c": "p", "d": 2.0}


@pytest.mark.parametrize("words", ["'--help'", ""])
def test_a_reader_who_leaves_early_ends_the_command_in_silence(words):
    """`gan-train --help | head` once ended in a page of Python."""
    program = (
        "import dataclasses, sys; from galaxies.command_line import run_command;"
        "C = dataclasses.make_dataclass('C', [('a', int, 1)], frozen=True);"
        f"sys.exit(run_command(C, lambda _: print('x' * 10**6), [{words}], program='thing'))"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()
    error = command.stderr.read()
    command.stderr.close()
    assert error == b""
    assert command.wait() == 141


def test_letters_that_a_terminal_does_not_know_end_no_command():
    code = (
        "import sys; from galaxies.command_line import _guarded; "
        "sys.exit(_guarded('x', lambda: print('caf\\u00e9 \\udce9')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == rb"caf\xe9 \udce9"
