"""``classify-app``: what it refuses in one line, and how fast it answers for help."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.cli import main


def complaint(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--confidence", "0.2"], "between 0.5 and 0.999"),
        (["--port", "70000"], "between 0 and 65535"),
        (["--upload-limit-mb", "0"], "at least 1"),
        (["--gan", "nowhere"], "nowhere"),
        (["--results", "nowhere"], "not a folder of augment-and-eval"),
        (["--samples", "nowhere"], "not a folder of images"),
        (["--host", "256.1.1.1"], "cannot listen on 256.1.1.1"),
    ],
)
def test_wrong_choices(
    words: list[str], reason: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reason in complaint(capsys, checkpoint, *words)


def test_what_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist" in complaint(capsys, tmp_path / "absent", "--port", 0)
    assert "not a checkpoint" in complaint(capsys, tmp_path, "--port", 0)


def test_a_port_in_use(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "choose another with --port" in complaint(capsys, checkpoint, "--port", port)


def test_help_is_fast() -> None:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "app.cli", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 1.5  # 0.4 s on an idle core; loading torch alone takes longer than this
