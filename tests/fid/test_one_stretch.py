"""Flux of sets that were packed apart is seen through one stretch, wherever it is read."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from fid.cli import main
from fid.statistics_cli import main as statistics_main
from fid.statistics_file import UNKNOWN_STRETCH, Origin, load_statistics
from galaxies.hdf5 import write_hdf5
from galaxies.image_set import PixelsInMemory
from galaxies.pixels import Stretch

PIXELS = ["--features", "pixels"]
WHITES = {"real": 600.0, "fake": 900.0, "more": 1500.0}


@pytest.fixture
def flux(tiny_set, tmp_path) -> dict[str, str]:
    """Three parts of one survey of flux, each with a stretch of its own."""
    pixels = tiny_set.pixels.float() * 3 - 20
    found = {}
    for start, (name, white) in enumerate(WHITES.items()):
        whole = dataclasses.replace(
            tiny_set, store=PixelsInMemory(pixels), stretch=Stretch(-20, white, 30)
        )
        write_hdf5(whole.select(np.arange(start, 120, 3)), tmp_path / f"{name}.h5")
        found[name] = str(tmp_path / f"{name}.h5")
    return found


def save(source: str) -> str:
    out = str(Path(source).with_suffix(".npz"))
    assert statistics_main(["save", source, out, *PIXELS, "--overwrite"]) == 0
    return out


def without_stretch(path: str) -> str:
    """As an earlier version wrote it."""
    with np.load(path) as arrays:
        found = dict(arrays)
    header = json.loads(str(found["header"]))
    del header["origin"]["stretch"]
    np.savez(path, **found | {"header": np.array(json.dumps(header))})
    return path


def test_saved_statistics_decide_how_the_other_side_is_seen(pixel_features, flux, capsys):
    def value(*sides: str) -> tuple[float, list[str]]:
        capsys.readouterr()
        assert main([*sides, *PIXELS, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        return report["value"], report["notes"]

    of_images, _ = value(flux["real"], flux["fake"])
    for sides in ((save(flux["real"]), flux["fake"]), (flux["fake"], save(flux["real"]))):
        of_statistics, notes = value(*sides)
        assert of_statistics == pytest.approx(of_images, rel=1e-9)
        assert any("was left aside for that of" in note for note in notes)
    _, notes = value(without_stretch(save(flux["real"])), flux["fake"])
    assert any("does not say through which stretch flux was seen" in note for note in notes)
    _, notes = value(without_stretch(save(flux["real"])), save(flux["fake"]))
    assert any("does not say through which stretch flux was seen" in note for note in notes)


def test_statistics_of_two_stretches_are_not_compared_or_merged(
    pixel_features, flux, capsys, tmp_path
):
    real, fake = save(flux["real"]), save(flux["fake"])
    assert load_statistics(Path(real))[1].stretch == (-20, 600, 30)
    assert main([real, fake, *PIXELS]) == 2
    assert "flux from -20 to 600, linear up to 30" in capsys.readouterr().err
    assert statistics_main(["merge", str(tmp_path / "m.npz"), real, real, fake]) == 2
    assert "was not measured like" in capsys.readouterr().err
    merged = tmp_path / "m.npz"
    assert statistics_main(["merge", str(merged), without_stretch(real), fake]) == 0
    assert "real.npz: not known through which stretch" in capsys.readouterr().err
    assert load_statistics(merged)[1].stretch == (-20, 900, 30)


def test_training_and_held_out_images_are_seen_as_the_others(pixel_features, flux, capsys):
    """A copy of a training image is one although the training set has another stretch."""
    words = [
        "--all",
        "--permutations",
        "20",
        "--training",
        flux["more"],
        "--held-out",
        flux["fake"],
    ]
    assert main([flux["real"], flux["more"], *PIXELS, *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["memorisation"]
    assert found["copies"] == 1
    assert max(pair["distance"] for pair in found["closest"]) < 1e-6


def test_origins_agree_as_far_as_they_are_known():
    own = ", own mean 0.485 0.456 0.406, own std 0.2 0.2 0.2"
    seen = (0.0, 1.0, 0.1)
    old = Origin("m", "ab", "bicubic to 224")
    new = Origin("m", "ab", "bicubic to 224" + own, None)
    flux = Origin("m", "ab", "bicubic to 224" + own, seen)
    assert old.stretch == UNKNOWN_STRETCH
    assert old.agrees_with(new)
    assert new.agrees_with(flux)
    assert flux.agrees_with(old)
    assert not flux.agrees_with(dataclasses.replace(flux, stretch=(0.0, 2.0, 0.1)))
    assert not new.agrees_with(dataclasses.replace(new, recipe="bicubic to 224, own mean 1 1 1"))
    assert not old.agrees_with(dataclasses.replace(old, recipe="bicubic to 299"))
