import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fid.cli import main
from galaxies.hdf5 import write_hdf5
from galaxies.image_set import PixelsInMemory
from galaxies.pixels import Stretch

PIXELS = ["--features", "pixels", "--all", "--permutations", "20"]


@pytest.fixture
def sides(tiny_set, tmp_path):
    order = np.random.default_rng(0).permutation(len(tiny_set))
    for name, rows in (("real", order[:70]), ("fake", order[70:])):
        write_hdf5(tiny_set.select(rows), tmp_path / f"{name}.h5")
    return str(tmp_path / "real.h5"), str(tmp_path / "fake.h5")


def test_every_measure_has_its_line_and_its_key(pixel_features, sides, capsys, tmp_path):
    pairs = tmp_path / "pairs.png"
    assert main([*sides, *PIXELS, "--pairs", str(pairs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for start in ("FD(pixels) ", "null band: ", "interval: ", "KID: ", "infinity: refused: 50"):
        assert any(line.startswith(start) for line in lines), start
    for start in ("manifold: ", "MIND: ", "copies: ", "copying test: ", "pairs: "):
        assert any(line.startswith(start) for line in lines), start
    assert sum(line.startswith("physics: ") for line in lines) == 12
    with Image.open(pairs) as sheet:
        assert sheet.size[0] > 700
    assert main([*sides, *PIXELS, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    keys = {"null", "kid", "infinity", "manifold", "mind", "memorisation", "physics"}
    assert keys <= set(report)
    assert report["manifold"]["k"] == 5
    assert report["null"]["images"] == 35
    assert len(report["memorisation"]["closest"]) == 20


def test_the_same_seed_gives_the_same_report(pixel_features, sides, capsys):
    found = []
    for seed in (1, 1, 2):
        assert main([*sides, *PIXELS, "--json", "--seed", str(seed)]) == 0
        report = json.loads(capsys.readouterr().out)
        del report["cached"]
        found.append(report)
    assert found[0] == found[1]
    assert found[0]["null"] != found[2]["null"]


def test_an_existing_contact_sheet_is_kept(pixel_features, sides, capsys, tmp_path):
    pairs = tmp_path / "pairs.png"
    pairs.write_text("mine")
    assert main([*sides, *PIXELS, "--pairs", str(pairs)]) == 2
    assert "exists" in capsys.readouterr().err
    assert pairs.read_text() == "mine"


def test_measures_without_pixels_are_refused_one_by_one(capsys, tmp_path, rng):
    np.save(tmp_path / "a.npy", rng.normal(size=(40, 6)))
    np.save(tmp_path / "b.npy", rng.normal(size=(40, 6)))
    words = [str(tmp_path / "a.npy"), str(tmp_path / "b.npy"), "--all", "--json"]
    assert main([*words, "--permutations", "20"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "holds no images" in report["memorisation"]["refused"]
    assert "holds no images" in report["physics"]["refused"]
    assert report["infinity"]["value"] == pytest.approx(0, abs=0.5)
    assert report["kid"]["value"] == pytest.approx(0, abs=0.2)


def test_training_images_are_those_that_the_generator_names(
    pixel_features, tiny_set, tmp_path, capsys
):
    """Copies of the training side are found, and the rest of REAL stands for unseen images."""
    import dataclasses

    training = tiny_set.side("train")
    write_hdf5(tiny_set, tmp_path / "real.h5")
    fake = dataclasses.replace(
        training.select(np.arange(20)),
        split=None,
        provenance={"generator": {"checkpoint": "c"}},
        training_fingerprints=training.fingerprints(),
        training_ids=training.ids,
    )
    write_hdf5(fake, tmp_path / "fake.h5")
    words = [str(tmp_path / "real.h5"), str(tmp_path / "fake.h5"), *PIXELS, "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)["memorisation"]
    assert found["training"] == "those that the generator names"
    assert found["training_images"] == len(training)
    assert found["reference"] == "held-out images"
    assert found["copies"] == 1
    assert found["copies_of_unseen"] < 0.15


def test_the_report_is_json_that_every_reader_takes(pixel_features, sides, capsys):
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    assert main([*sides, *PIXELS, "--json"]) == 0
    report = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert report["physics"]["measurements"]["radial profile"]["real_median"] is None


def test_physics_of_two_sizes_is_refused(pixel_features, tiny_set, capsys, tmp_path):
    write_hdf5(tiny_set, tmp_path / "large.h5")
    small = torch.nn.functional.avg_pool2d(tiny_set.pixels.float(), 2).to(torch.uint8)
    write_hdf5(dataclasses.replace(tiny_set, store=PixelsInMemory(small)), tmp_path / "small.h5")
    assert main([str(tmp_path / "large.h5"), str(tmp_path / "small.h5"), *PIXELS]) == 0
    assert "physics: refused: images of 64 and 32 pixels" in capsys.readouterr().out


def test_flux_is_measured_as_flux_and_seen_through_one_stretch(
    pixel_features, tiny_set, capsys, tmp_path
):
    """Two halves of one survey, packed apart, have stretches of their own."""
    flux = tiny_set.pixels.float() * 3 - 20
    for name, white, rows in (("a", 600, range(0, 120, 2)), ("b", 900, range(1, 120, 2))):
        half = dataclasses.replace(
            tiny_set, store=PixelsInMemory(flux), stretch=Stretch(-20, white, 30)
        ).select(np.array(rows))
        write_hdf5(half, tmp_path / f"{name}.h5")
    sides = [str(tmp_path / f"{name}.h5") for name in "ab"]
    assert main([*sides, *PIXELS, "--json"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert any("was left aside for that of" in note for note in report["notes"])
    assert report["physics"]["measurements"]["flux"]["real_median"] > 100  # in the set's unit
    assert not report["physics"]["measurements"]["flux"]["differs"]


def test_training_images_read_in_parts_are_the_same(pixel_features, sides, capsys, monkeypatch):
    found = []
    for images in (256, 7):
        monkeypatch.setattr("fid.report._READ_IMAGES", images)
        assert main([*sides, *PIXELS, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["memorisation"])
    assert found[0] == found[1]


def test_copies_are_found_among_grey_and_colour_files(
    pixel_features, tiny_set, capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr("fid.report._READ_IMAGES", 4)  # one part is all grey
    for folder, rows in (("training", range(12)), ("fake", range(6))):
        (tmp_path / folder).mkdir()
        for row in rows:
            pixels = tiny_set.pixels[row].permute(1, 2, 0).numpy()
            picture = Image.fromarray(pixels)
            if row >= 8:
                picture = picture.convert("L")
            picture.save(tmp_path / folder / f"{row:02d}.png")
    words = [str(tmp_path / "training"), str(tmp_path / "fake"), *PIXELS, "--json"]
    assert main(words) == 0
    whole = json.loads(capsys.readouterr().out)["memorisation"]
    assert whole["copies"] == 1
    assert [pair["fake"] == pair["training"] for pair in whole["closest"]] == [True] * 6


def test_images_that_are_not_square_are_not_compared_pixel_by_pixel(
    pixel_features, tiny_set, capsys, tmp_path
):
    for folder, height in (("real", 64), ("fake", 48)):
        (tmp_path / folder).mkdir()
        for row in range(8):
            pixels = tiny_set.pixels[row].permute(1, 2, 0).numpy()[:height]
            Image.fromarray(pixels).save(tmp_path / folder / f"{row}.png")
    assert main([str(tmp_path / "real"), str(tmp_path / "fake"), *PIXELS]) == 0
    said = capsys.readouterr().out
    assert "memorisation: refused: " in said
    assert "holds images of 64x48 pixels; pixel by pixel only square ones" in said


def test_physics_of_flux_does_not_depend_on_its_unit(pixel_features, tiny_set, capsys, tmp_path):
    found = {}
    for unit in (1.0, 2.0**-80):  # counts, and about the size of cgs units
        flux = tiny_set.pixels.float().mul(3).sub(20).mul(unit)
        stretch = Stretch(-20 * unit, 600 * unit, 30 * unit)
        whole = dataclasses.replace(tiny_set, store=PixelsInMemory(flux), stretch=stretch)
        for name, start in (("real", 0), ("fake", 1)):
            write_hdf5(whole.select(np.arange(start, 120, 2)), tmp_path / f"{name}.h5")
        sides = [str(tmp_path / f"{name}.h5") for name in ("real", "fake")]
        assert main([*sides, *PIXELS, "--json"]) == 0
        found[unit] = json.loads(capsys.readouterr().out)["physics"]["measurements"]
        for path in sides:
            Path(path).unlink()
    in_counts, in_cgs = found.values()
    for name in in_counts:
        assert in_cgs[name]["distance"] == pytest.approx(in_counts[name]["distance"], rel=1e-3)
    assert in_cgs["flux"]["real_median"] == pytest.approx(
        in_counts["flux"]["real_median"] * 2.0**-80, rel=1e-3
    )
