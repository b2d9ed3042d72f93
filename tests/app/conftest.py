"""A small trained classifier, the program serving it, and a real browser where there is one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Server:
    """A running ``classify-app`` and what it has said."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", *arguments, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HOME": str(log.parent)},
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        assert "http://" in self.said, self.errors()
        self.address = self.said.split("http://")[1].split()[0].rstrip("/;")
        self.address = "http://" + self.address.removesuffix("/predict")

    def errors(self) -> str:
        return self.log.read_text()

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(10)


@pytest.fixture(scope="session")
def start_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start ``classify-app`` with these words; every server is stopped at the end."""
    servers: list[Server] = []

    def start(*arguments: object) -> Server:
        log = tmp_path_factory.mktemp("server") / "stderr"
        servers.append(Server([str(word) for word in arguments], log))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, from the system's packages."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    program = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()
