"""A small trained classifier, the program serving it, and a real browser where there is one."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from app import served
from app.cli import ClassifyAppConfig
from galaxies.hdf5 import write_hdf5
from galaxies.image_set import ImageSet

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
            env=os.environ | {"OMP_NUM_THREADS": "1"},
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


@pytest.fixture(autouse=True)
def _main_module_stays() -> Iterator[None]:
    """Streamlit's ``AppTest`` leaves its script as ``__main__``, which spawned processes run."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


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


@pytest.fixture(scope="session")
def checkpoint(tiny_set: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the tiny set, as ``classify-train`` leaves it."""
    from classify.train import run

    folder = tmp_path_factory.mktemp("classifier")
    write_hdf5(tiny_set, folder / "tiny.h5")
    words = ["--model", "small", "--steps", "30", "--batch-size", "16"]
    words += ["--validate-every", "15", "--device", "cpu"]
    out = folder / "round-or-not"
    with mock.patch("classify.finishing.write_all"):  # pictures take longer than the training
        assert run(["--data", str(folder / "tiny.h5"), "--out", str(out), *words]) == 0
    return out


@pytest.fixture(scope="session")
def generator_checkpoint(tiny_set: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator of the tiny set's first class that has barely begun to learn."""
    from gan.train import main

    folder = tmp_path_factory.mktemp("generator")
    write_hdf5(tiny_set, folder / "tiny.h5")
    words = "--class double --recipe dcgan --width 0.25 --steps 2 --batch-size 8 --judge none"
    out = folder / "doubles"
    words += " --guards off --device cpu"
    assert main(["--data", str(folder / "tiny.h5"), "--out", str(out), *words.split()]) == 0
    return out


@pytest.fixture(scope="session")
def galaxy_files(tiny_set: ImageSet) -> list[tuple[str, bytes]]:
    """PNG files of six test images, two of each class."""
    test = tiny_set.side("test")
    rows = [row for label in range(3) for row in np.flatnonzero(test.labels == label)[:2]]
    files = []
    for row, pixels in zip(rows, test.read(np.array(rows)).numpy(), strict=True):
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(file, "PNG")
        files.append((f"{test.ids[row]}.png", file.getvalue()))
    return files


@pytest.fixture
def serve(checkpoint: Path) -> Callable[..., None]:
    """Serve the classifier in this process, with these choices."""

    def use(**choices: Any) -> None:
        served.use(ClassifyAppConfig(checkpoint=checkpoint, **choices))

    return use
