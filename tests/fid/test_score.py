"""``fid-score`` from its words to its output, with features that cost nothing."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fid.cli import main
from fid.statistics_cli import main as statistics_main
from galaxies.hdf5 import write_hdf5

PIXELS = ["--features", "pixels"]


@pytest.fixture
def folders(write_images, tmp_path):
    return write_images(tmp_path / "real", 40), write_images(tmp_path / "fake", 30, seed=1)


def scored(capsys, *words) -> dict:
    assert main([str(word) for word in (*words, "--json")]) == 0
    output = capsys.readouterr().out
    assert output.count("\n") == 1
    return json.loads(output)


def test_the_contract(pixel_features, folders, capsys):
    report = scored(capsys, *folders, *PIXELS)
    assert report["name"] == "FD(pixels)"
    assert report["value"] > 0
    assert report["recipe"] == "boxes"
    assert report["features"] == "pixels"
    assert report["weights_sha256"] == "0" * 64
    assert (report["n_real"], report["n_fake"]) == (40, 30)
    assert report["rank"] == 29
    assert report["value"] == pytest.approx(
        report["mean_term"] + report["trace_real"] + report["trace_fake"] - 2 * report["cross_term"]
    )


def test_one_line_on_stdout_and_the_warning_on_stderr(pixel_features, folders, capsys):
    assert main([*map(str, folders), *PIXELS]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("FD(pixels) ")
    assert captured.out.count("\n") == 1
    assert "40 real, 30 fake; rank 29 of 48" in captured.out
    assert "30 images for 48 features" in captured.err
    assert "two halves of REAL (20 images each)" in captured.err


def test_a_folder_with_itself_is_exactly_zero(pixel_features, folders, capsys):
    assert scored(capsys, folders[0], folders[0], *PIXELS)["value"] == 0.0


def test_the_batch_size_changes_nothing(pixel_features, folders, capsys):
    values = [
        scored(capsys, *folders, *PIXELS, "--batch-size", size, "--no-cache")["value"]
        for size in (1, 7, 50)
    ]
    assert values == pytest.approx([values[0]] * 3, rel=1e-9)


def test_the_second_call_runs_no_network_and_a_changed_file_does(pixel_features, folders, capsys):
    first = scored(capsys, *folders, *PIXELS)
    calls = pixel_features.calls
    second = scored(capsys, *folders, *PIXELS)
    assert pixel_features.calls == calls
    assert second["cached"] == {"real": True, "fake": True}
    assert second["value"] == first["value"]
    Image.new("RGB", (32, 32), "red").save(folders[0] / "0000.png")
    third = scored(capsys, *folders, *PIXELS)
    assert third["cached"] == {"real": False, "fake": True}
    assert third["value"] != first["value"]


def test_a_damaged_cache_entry_is_made_anew(pixel_features, folders, capsys, tmp_path):
    first = scored(capsys, *folders, *PIXELS)
    for entry in (tmp_path / "cache" / "features").iterdir():
        entry.write_bytes(b"PK damaged")
    assert scored(capsys, *folders, *PIXELS)["value"] == first["value"]


def test_one_class_of_a_set_against_another(pixel_features, tiny_set_path, capsys):
    report = scored(
        capsys, f"{tiny_set_path}#class=round", f"{tiny_set_path}#class=double", *PIXELS
    )
    assert (report["n_real"], report["n_fake"]) == (60, 24)


def test_without_inception_weights_it_fails_and_falls_back_on_nothing(
    folders, capsys, monkeypatch, tmp_path
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("socket.getaddrinfo", _no_network)
    assert main([*map(str, folders)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "pt_inception-2015-12-05-6726825d.pth" in captured.err


def _no_network(*arguments, **settings):
    raise OSError("no network")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["{real}", "nowhere", "--features", "pixels"], "nowhere does not exist"),
        (["{real}", "{one}", "--features", "pixels"], "holds 1 image; .* at least 2"),
        (["{real}", "{fake}", "--features", "vgg"], "no features 'vgg'"),
        (["{real}", "{fake}", "--recipe", "tf9"], "no recipe 'tf9'; choose from pytorch-fid"),
        (["{real}", "{fake}", "--features", "pixels", "--compat"], "--compat belongs to inception"),
        (["{real}", "{fake}", "--features", "pixels", "--k", "0"], "--k must be at least 1"),
        (["{real}", "{fake}", "--features", "pixels", "--pairs", "p.png"], "only with --all"),
        (
            ["{real}", "{fake}", "--features", "pixels", "--device", "cuda:77"],
            "--device cuda:77: this machine has",
        ),
        (["{real}", "{fake}", "--weights", "none.pth"], "none.pth is not a file"),
        (["{real}"], "fid-score --help"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(
    write_images, pixel_features, folders, tmp_path, capsys, words, complaint
):
    one = write_images(tmp_path / "one", 1)
    places = {"real": folders[0], "fake": folders[1], "one": one}
    assert main([word.format(**places) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    import re

    assert re.search(complaint, captured.err)


def test_bands_choose_the_channels(pixel_features, tiny_set_path, capsys):
    side = f"{tiny_set_path}#class=round"
    other = f"{tiny_set_path}#class=double"
    plain = scored(capsys, side, other, *PIXELS)
    same = scored(capsys, side, other, *PIXELS, "--bands", 0, 1, 2, "--no-cache")
    assert same["value"] == pytest.approx(plain["value"])
    red = scored(capsys, side, other, *PIXELS, "--bands", 0, 0, 0, "--no-cache")
    assert red["value"] != pytest.approx(plain["value"])
    assert any("channels 0, 0, 0 of 3" in note for note in red["notes"])


def test_saved_statistics_stand_for_the_images(pixel_features, folders, capsys, tmp_path):
    direct = scored(capsys, *folders, *PIXELS)
    out = tmp_path / "real.npz"
    assert statistics_main(["save", str(folders[0]), str(out), *PIXELS]) == 0
    capsys.readouterr()
    saved = scored(capsys, out, folders[1], *PIXELS)
    assert saved["value"] == direct["value"]
    assert saved["n_real"] == 40
    assert statistics_main(["save", str(folders[0]), str(out), *PIXELS]) == 2
    assert "exists" in capsys.readouterr().err


def test_shards_merge_to_the_statistics_of_the_whole(pixel_features, folders, capsys, tmp_path):
    direct = scored(capsys, *folders, *PIXELS)
    parts = []
    for name, start in (("a", 0), ("b", 25)):
        part = tmp_path / name
        part.mkdir()
        for index in range(start, 25 if name == "a" else 40):
            (part / f"{index:04d}.png").write_bytes((folders[0] / f"{index:04d}.png").read_bytes())
        parts.append(str(tmp_path / f"{name}.npz"))
        assert statistics_main(["save", str(part), parts[-1], *PIXELS]) == 0
    whole = tmp_path / "whole.npz"
    assert statistics_main(["merge", str(whole), *parts]) == 0
    capsys.readouterr()
    merged = scored(capsys, whole, folders[1], *PIXELS)
    assert merged["value"] == pytest.approx(direct["value"], rel=1e-12)


def test_statistics_that_were_measured_otherwise_are_refused(
    pixel_features, folders, capsys, tmp_path, monkeypatch
):
    out = tmp_path / "real.npz"
    assert statistics_main(["save", str(folders[0]), str(out), *PIXELS]) == 0
    monkeypatch.setattr(pixel_features, "recipe", "other boxes")
    assert main([str(out), str(folders[1]), *PIXELS]) == 2
    assert "were not measured alike" in capsys.readouterr().err
    other = tmp_path / "other.npz"
    assert statistics_main(["save", str(folders[1]), str(other), *PIXELS]) == 0
    assert statistics_main(["merge", str(tmp_path / "m.npz"), str(out), str(other)]) == 2
    assert "was not measured like" in capsys.readouterr().err


def test_arrays_of_features_need_no_network(capsys, tmp_path, rng):
    np.save(tmp_path / "a.npy", rng.normal(size=(50, 8)))
    np.save(tmp_path / "b.npy", rng.normal(size=(60, 8)) + 1)
    report = scored(capsys, tmp_path / "a.npy", tmp_path / "b.npy")
    assert report["name"] == "FD(array)"
    assert report["value"] == pytest.approx(8, rel=0.5)


def test_flux_is_seen_through_its_stretch_and_that_is_said(
    pixel_features, tmp_path, capsys, tiny_set
):
    import dataclasses

    from galaxies.image_set import PixelsInMemory
    from galaxies.pixels import Stretch

    flux = tiny_set.pixels.float() * 10
    stretch = Stretch(black=0.0, white=2550.0, softening=1e6)  # all but linear
    as_flux = dataclasses.replace(tiny_set, store=PixelsInMemory(flux), stretch=stretch)
    write_hdf5(as_flux, tmp_path / "flux.h5")
    write_hdf5(tiny_set, tmp_path / "bytes.h5")
    report = scored(capsys, tmp_path / "flux.h5", tmp_path / "bytes.h5", *PIXELS)
    assert report["value"] < 1e-6
    assert any("seen through its stretch" in note for note in report["notes"])


def test_inception_end_to_end(write_images, tmp_path, capsys, inception_file, monkeypatch):
    """Two small folders through the real network with random weights."""
    monkeypatch.setenv("GALAXY_AUGMENT_CACHE", str(tmp_path / "cache"))
    real, fake = write_images(tmp_path / "r", 4), write_images(tmp_path / "f", 3, seed=1)
    plain = scored(capsys, real, fake, "--weights", inception_file)
    assert plain["name"] == "FD(inception)"  # these are not the published weights
    assert plain["recipe"] == "pytorch-fid"
    compatible = scored(capsys, real, fake, "--weights", inception_file, "--compat")
    assert compatible["method"] == "compatible"
    assert compatible["value"] == pytest.approx(plain["value"], rel=1e-3)


def test_statistics_say_what_was_left_out(pixel_features, folders, capsys, tmp_path):
    (folders[0] / "0003.png").write_bytes(b"nonsense")
    out = tmp_path / "real.npz"
    assert statistics_main(["save", str(folders[0]), str(out), *PIXELS, "--skip-bad"]) == 0
    captured = capsys.readouterr()
    assert "statistics of 39 images" in captured.out
    assert "1 unusable files left out" in captured.err
    assert "0003.png is corrupt" in captured.err


def test_a_name_that_statistics_cannot_have_is_refused_before_they_are_measured(
    pixel_features, folders, capsys, tmp_path
):
    assert statistics_main(["save", str(folders[0]), str(tmp_path / "real.txt"), *PIXELS]) == 2
    assert "statistics are saved as .npz" in capsys.readouterr().err
    assert pixel_features.calls == 0


def test_statistics_of_chosen_bands(pixel_features, tiny_set_path, capsys, tmp_path):
    sides = f"{tiny_set_path}#class=round", f"{tiny_set_path}#class=double"
    words = [*PIXELS, "--bands", "2", "0", "0"]
    direct = scored(capsys, *sides, *words, "--no-cache")
    assert statistics_main(["save", sides[0], str(tmp_path / "a.npz"), *words]) == 0
    capsys.readouterr()
    assert scored(capsys, tmp_path / "a.npz", sides[1], *words)["value"] == direct["value"]


def test_the_same_images_twice_are_noticed(pixel_features, folders, capsys):
    assert "hold the same images" in " ".join(
        scored(capsys, folders[0], folders[0], *PIXELS)["notes"]
    )
    assert "hold the same images" not in " ".join(scored(capsys, *folders, *PIXELS)["notes"])


def test_one_generated_class_against_all_real_ones_is_noticed(
    pixel_features, tiny_set, tmp_path, capsys
):
    write_hdf5(tiny_set, tmp_path / "real.h5")
    write_hdf5(tiny_set.of_classes(["double"]), tmp_path / "fake.h5")
    notes = scored(capsys, tmp_path / "real.h5", tmp_path / "fake.h5", *PIXELS)["notes"]
    assert any("holds only double" in note and "SOURCE#class=double" in note for note in notes)
    real = f"{tmp_path / 'real.h5'}#class=double"
    notes = scored(capsys, real, tmp_path / "fake.h5", *PIXELS)["notes"]
    assert not any("holds only" in note for note in notes)


def test_flux_without_a_stretch_is_named(pixel_features, folders, tmp_path, capsys):
    np.save(tmp_path / "fake.npy", np.zeros((4, 8, 8, 3), np.float32))
    assert main([str(folders[0]), str(tmp_path / "fake.npy"), *PIXELS]) == 2
    assert "fake.npy is flux (float32) without a stretch" in capsys.readouterr().err
    assert pixel_features.calls == 0


def test_weights_of_another_network_are_named(folders, tmp_path, capsys):
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    assert main([*map(str, folders), "--weights", str(tmp_path / "other.pth")]) == 2
    assert "other.pth: not the FID variant of Inception" in capsys.readouterr().err
