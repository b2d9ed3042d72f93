"""Folders of small pictures, and the command as a user meets it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from galaxies.cli import main

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def galaxy_set(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``galaxy-set``: exit status, stdout, and stderr without progress bars."""

    def run(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        out, err = capsys.readouterr()
        lines = [line for line in err.replace("\r", "\n").split("\n") if line.strip()]
        return (
            status,
            out,
            "\n".join(line for line in lines if "it/s" not in line and "%|" not in line),
        )

    return run


def _picture(seed: int, side: int = 40, mode: str = "RGB") -> Image.Image:
    """A noisy blob; each seed another one."""
    rng = np.random.default_rng(seed)
    axis = np.linspace(-2, 2, side)
    x, y = rng.normal(0, 0.4, 2)
    light = 180 * np.exp(-((axis[:, None] - y) ** 2) - (axis - x) ** 2)
    shape = (side, side) if mode == "L" else (side, side, 3)
    light = light if mode == "L" else light[..., None] * rng.uniform(0.5, 1, 3)
    return Image.fromarray((light + rng.uniform(0, 40, shape)).astype(np.uint8))


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., Image.Image]:
    """``make_picture(seed, side=40, mode="RGB")``: a noisy blob, another one for each seed."""
    return _picture


@pytest.fixture
def class_folder(tmp_path: Path) -> Path:
    """Six ``spiral`` and four ``merger`` pictures of 40x40, a folder per class."""
    root = tmp_path / "pictures"
    for name, count in (("spiral", 6), ("merger", 4)):
        (root / name).mkdir(parents=True)
        for index in range(count):
            _picture(index + 100 * (name == "merger")).save(root / name / f"{index}.png")
    return root


@pytest.fixture
def catalogue_folder(class_folder: Path) -> Path:
    """The same pictures with a catalogue that gives groups, ids and two features."""
    rows = ["file,class,group,id,magnitude,objid,note"]
    for index, path in enumerate(sorted(class_folder.rglob("*.png"))):
        name = path.relative_to(class_folder).as_posix()
        rows.append(
            f"{name},{path.parent.name},field{index % 3},g{index},{15 + index / 10},"
            f"{587722952767439450 + index},text"
        )
    (class_folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return class_folder
