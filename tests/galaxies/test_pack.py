"""Packing: what comes in goes out, cropped and resized by the stated rules."""

import dataclasses
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from galaxies.errors import InputError
from galaxies.hdf5 import read_hdf5, write_hdf5
from galaxies.image_set import ImageSet, PixelsInMemory
from galaxies.pack import pack
from galaxies.pixels import Stretch, to_network
from galaxies.resize import crop_and_resize
from galaxies.sources import open_image_set
from galaxies.survey_stretch import sky_and_noise


def test_a_folder_per_class_becomes_a_set(class_folder, tmp_path, galaxy_set):
    out = tmp_path / "set.h5"
    status, text, error = galaxy_set("pack", class_folder, out, "--size", 20, "--crop", 30)
    assert status == 0, error
    assert text.strip() == f"{out}: 10 images, 3x20x20, 2 classes (merger 4, spiral 6)"
    image_set = read_hdf5(out)
    assert image_set.class_names == ("merger", "spiral")
    assert image_set.ids[0] == "merger/0.png"
    with Image.open(class_folder / "spiral" / "2.png") as picture:
        expected = picture.crop((5, 5, 35, 35)).resize((20, 20), Image.Resampling.BICUBIC)
    row = int(np.flatnonzero(image_set.ids == "spiral/2.png")[0])
    assert (image_set.read([row])[0].permute(1, 2, 0).numpy() == np.asarray(expected)).all()


def test_a_catalogue_gives_groups_ids_and_features(catalogue_folder, tmp_path, galaxy_set):
    out = tmp_path / "set.h5"
    status, text, _ = galaxy_set("pack", catalogue_folder, out, "--size", 40, "--json")
    assert status == 0
    assert json.loads(text)["classes"] == {"merger": 4, "spiral": 6}
    image_set = read_hdf5(out)
    assert image_set.ids.tolist() == [f"g{index}" for index in range(10)]
    assert image_set.group[:4].tolist() == ["field0", "field1", "field2", "field0"]
    # `objid` is a number too, but float32 cannot tell its values apart: it names, not measures.
    assert image_set.feature_names == ("magnitude",)
    assert image_set.features[3, 0] == pytest.approx(15.3)


def test_plain_readers_of_galaxy10_find_their_arrays(class_folder, tmp_path, galaxy_set):
    out = tmp_path / "set.h5"
    galaxy_set("pack", class_folder, out, "--size", 16)
    with h5py.File(out) as file:
        assert file["images"].shape == (10, 16, 16, 3)
        assert file["images"].dtype == np.uint8
        assert file["ans"][:].tolist() == [0] * 4 + [1] * 6


def test_the_same_source_gives_the_same_bytes(class_folder, tmp_path, galaxy_set):
    for name in ("a.h5", "b.h5"):
        galaxy_set("pack", class_folder, tmp_path / name, "--size", 16)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_grey_stays_grey_also_in_colour_files(tmp_path, galaxy_set, make_picture):
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for index in range(3):
            grey = make_picture(index, mode="L")
            # A grey picture saved as colour, as many archives do.
            (grey.convert("RGB") if name == "b" else grey).save(
                tmp_path / "in" / name / f"{index}.png"
            )
    _, text, _ = galaxy_set("pack", tmp_path / "in", tmp_path / "out.h5", "--size", 40)
    assert "6 images, 1x40x40" in text


def test_grey_among_colour_becomes_colour_and_is_said(
    class_folder, tmp_path, galaxy_set, make_picture
):
    make_picture(7, mode="L").save(class_folder / "merger" / "grey.png")
    _, text, error = galaxy_set("pack", class_folder, tmp_path / "out.h5", "--size", 40)
    assert "11 images, 3x40x40" in text
    assert "1 of 11 images are grey" in error
    image_set = read_hdf5(tmp_path / "out.h5")
    grey = image_set.read(np.flatnonzero(image_set.ids == "merger/grey.png"))[0]
    assert (grey == grey[:1]).all()


def test_excluded_classes_are_not_even_read(class_folder, tmp_path, galaxy_set):
    (class_folder / "merger" / "0.png").write_bytes(b"broken")
    out = tmp_path / "out.h5"
    status, text, _ = galaxy_set("pack", class_folder, out, "--size", 16, "--exclude", "merger")
    assert status == 0
    assert "6 images" in text
    assert "left out 4 of excluded classes" in text


def test_a_published_split_is_kept(catalogue_folder, tmp_path, galaxy_set):
    table = (catalogue_folder / "labels.csv").read_text().splitlines()
    sides = ["part", "train", "val", "test", "Train", *["train", "valid", "test"] * 2]
    (catalogue_folder / "labels.csv").write_text(
        "\n".join(f"{row},{side}" for row, side in zip(table, sides, strict=True))
    )
    out = tmp_path / "out.h5"
    galaxy_set("pack", catalogue_folder, out, "--size", 16, "--split-column", "part")
    assert read_hdf5(out).split.tolist() == [0, 1, 2, 0, 0, 1, 2, 0, 1, 2]


def test_sub_folders_named_after_sides_are_a_split(
    class_folder, tmp_path, galaxy_set, make_picture
):
    root = tmp_path / "sides"
    for side in ("train", "val", "test"):
        (root / side).mkdir(parents=True)
        for name in ("spiral", "merger"):
            (root / side / name).mkdir()
            for index in range(2):
                make_picture(len(side) * 100 + len(name) * 10 + index).save(
                    root / side / name / f"{index}.png"
                )
    out = tmp_path / "out.h5"
    galaxy_set("pack", root, out, "--size", 16)
    image_set = read_hdf5(out)
    assert image_set.class_names == ("merger", "spiral")
    assert np.bincount(image_set.split).tolist() == [4, 4, 4]


def make_flux_set(count: int = 12, channels: int = 5) -> ImageSet:

    generator = torch.Generator().manual_seed(1)
    return ImageSet(
        store=PixelsInMemory(torch.randn(count, channels, 32, 32, generator=generator) * 50),
        labels=np.arange(count) % 2,
        class_names=("a", "b"),
        ids=np.array([f"f{index}" for index in range(count)]),
        split=(np.arange(count) % 3).astype(np.int8),
        stretch=Stretch(-1, 100, 5),
        provenance={"source": "telescope"},
    )


def test_an_hdf5_source_keeps_its_columns_and_flux_is_not_clipped(tmp_path):
    source = make_flux_set()
    write_hdf5(source, tmp_path / "in.h5")
    packed = pack(
        tmp_path / "in.h5", tmp_path / "out.h5", size=16, crop=24, progress=False
    ).image_set
    assert packed.shape == (5, 16, 16)
    assert packed.stretch == source.stretch
    assert (packed.split == source.split).all()
    assert packed.provenance["source"] == "telescope"
    plane = Image.fromarray(source.pixels[3, 2, 4:28, 4:28].numpy())
    expected = np.asarray(plane.resize((16, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(packed.read([3])[0, 2].numpy(), expected)
    assert packed.pixels.min() < -1


@pytest.mark.parametrize("compressed", [False, True])
def test_an_npz_source_packs(tmp_path, rng, galaxy_set, compressed):
    images = rng.integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    save = np.savez_compressed if compressed else np.savez
    save(
        tmp_path / "in.npz",
        images=images,
        labels=np.arange(6) % 2,
        class_names=np.array(["x", "y"]),
        split=np.array([0, 0, 1, 1, 2, 2]),
    )
    status, _, error = galaxy_set("pack", tmp_path / "in.npz", tmp_path / "out.h5", "--size", 32)
    assert status == 0, error
    image_set = read_hdf5(tmp_path / "out.h5")
    assert image_set.class_names == ("x", "y")
    assert (image_set.pixels.permute(0, 2, 3, 1).numpy() == images).all()
    assert image_set.split.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("kind", ["h5", "npz"])
def test_16_bit_arrays_are_scaled_only_when_asked(tmp_path, rng, galaxy_set, kind):
    images = rng.integers(0, 65536, (4, 8, 8, 1), dtype=np.uint16)
    path = tmp_path / f"in.{kind}"
    if kind == "h5":
        with h5py.File(path, "w") as file:
            file["images"], file["ans"] = images, np.arange(4) % 2
    else:
        np.savez(path, images=images, labels=np.arange(4) % 2)
    status, _, error = galaxy_set("pack", path, tmp_path / "out.h5", "--size", 8)
    assert status == 2
    assert "uint16" in error
    assert "--scale-16-bit" in error
    assert not (tmp_path / "out.h5").exists()
    assert galaxy_set("pack", path, tmp_path / "out.h5", "--size", 8, "--scale-16-bit")[0] == 0
    packed = read_hdf5(tmp_path / "out.h5").pixels
    assert (packed[:, 0].numpy() == np.rint(images[..., 0] / 257)).all()


def test_bad_images_are_skipped_and_counted(class_folder, tmp_path, galaxy_set):
    for index in (1, 4):
        data = (class_folder / "spiral" / f"{index}.png").read_bytes()
        (class_folder / "spiral" / f"{index}.png").write_bytes(data[: len(data) // 2])
    out = tmp_path / "out.h5"
    status, text, _ = galaxy_set("pack", class_folder, out, "--size", 16, "--skip-bad")
    assert status == 0
    assert "8 images" in text
    assert "skipped 2 bad images" in text
    assert "spiral/4.png" in text
    image_set = read_hdf5(out)
    assert len(image_set) == 8
    assert image_set.provenance["packed"]["skipped"] == 2
    kept = dict(zip(image_set.ids, image_set.pixels, strict=True))
    with Image.open(class_folder / "spiral" / "5.png") as picture:
        expected = np.asarray(picture.resize((16, 16), Image.Resampling.BICUBIC))
    assert (kept["spiral/5.png"].permute(1, 2, 0).numpy() == expected).all()


def test_a_generated_folder_opens_with_its_lineage(class_folder, tmp_path, galaxy_set):
    record = {
        "generator": {"checkpoint": "checkpoints/x", "seed": 3},
        "class_names": ["spiral", "ring", "merger"],
        "training_fingerprints": ["a" * 32, "b" * 32],
        "training_ids": ["one", "two"],
    }
    (class_folder / "provenance.json").write_text(json.dumps(record))
    galaxy_set("pack", class_folder, tmp_path / "a.h5", "--size", 16, "--exclude", "spiral")
    image_set = read_hdf5(tmp_path / "a.h5")
    assert image_set.is_synthetic
    assert image_set.training_ids.tolist() == ["one", "two"]
    from galaxies.sources import open_image_set

    whole = open_image_set(class_folder)
    assert whole.class_names == ("spiral", "ring", "merger")
    assert whole.counts().tolist() == [6, 0, 4]


def test_absolute_paths_never_become_ids(catalogue_folder, tmp_path, galaxy_set, make_picture):
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    make_picture(55).save(outside / "far.png")
    make_picture(56).save(outside / "away.png")
    rows = ["file,class"]
    rows += [f"{catalogue_folder}/spiral/{index}.png,spiral" for index in range(6)]
    rows += [f"{outside}/far.png,merger", f"{outside}/away.png,merger"]
    (catalogue_folder / "labels.csv").write_text("\n".join(rows))
    galaxy_set("pack", catalogue_folder, tmp_path / "out.h5", "--size", 16)
    ids = read_hdf5(tmp_path / "out.h5").ids.tolist()
    assert ids == [f"spiral/{index}.png" for index in range(6)] + ["far.png", "away.png"]
    assert not any(Path(name).is_absolute() for name in ids)


def flux_file(path: Path, *, broken: int | None = None) -> np.ndarray:
    """HDF5 of 12 images of noise of one count around 5, each with a source of up to 1,000."""
    flux = np.random.default_rng(0).normal(5, 1, (12, 24, 24, 2)).astype(np.float32)
    flux[:, 10:14, 10:14] += np.linspace(100, 1000, 12, dtype=np.float32)[:, None, None, None]
    if broken is not None:
        flux[broken, 3, 3, 1] = np.nan
    with h5py.File(path, "w") as file:
        file["images"] = flux
        file["labels"] = np.arange(12) % 2
        file["night"] = np.arange(12) // 3
        file.create_group("notes")
    return flux


def test_flux_without_a_stretch_gets_one_that_is_measured(tmp_path, galaxy_set):
    flux = flux_file(tmp_path / "flux.h5")
    status, text, error = galaxy_set(
        "pack", tmp_path / "flux.h5", tmp_path / "set.h5", "--size", 24, "--json"
    )
    assert status == 0, error
    packed = read_hdf5(tmp_path / "set.h5")
    stretch = packed.stretch
    assert stretch is not None
    assert json.loads(text)["stretch"]["black"] == stretch.black
    assert stretch.black == pytest.approx(4, abs=0.1)  # one deviation below the sky of 5
    assert stretch.softening == pytest.approx(3, abs=0.2)
    assert stretch.white == pytest.approx(flux.max(), rel=1e-6)  # 99 % of 12 images are all
    seen = to_network(packed.pixels, stretch)
    assert -0.9 < seen.median() < -0.5  # the sky is dark but not clipped
    assert (seen == -1).float().mean() < 0.3
    np.testing.assert_array_equal(packed.pixels.permute(0, 2, 3, 1).numpy(), flux)


def test_a_stretch_can_be_given_for_flux_alone(tmp_path, galaxy_set, class_folder):
    flux_file(tmp_path / "flux.h5")
    words = ("--size", 24, "--stretch", 0, 100, 2)
    galaxy_set("pack", tmp_path / "flux.h5", tmp_path / "set.h5", *words)
    assert read_hdf5(tmp_path / "set.h5").stretch == Stretch(0, 100, 2)
    status, _, error = galaxy_set("pack", class_folder, tmp_path / "b.h5", *words)
    assert status == 2
    assert "8-bit" in error
    assert not (tmp_path / "b.h5").exists()


def test_flux_that_is_no_number_is_refused_or_left_out(tmp_path, galaxy_set):
    flux_file(tmp_path / "flux.h5", broken=4)
    out = tmp_path / "set.h5"
    status, _, error = galaxy_set("pack", tmp_path / "flux.h5", out, "--size", 24)
    assert status == 2
    assert "row-000004" in error
    assert "--skip-bad" in error
    assert not out.exists()
    status, text, _ = galaxy_set("pack", tmp_path / "flux.h5", out, "--size", 24, "--skip-bad")
    assert status == 0
    assert "row-000004" in text
    packed = read_hdf5(out)
    assert "row-000004" not in packed.ids
    assert len(packed) == 11
    assert torch.isfinite(packed.pixels).all()
    assert packed.provenance["packed"]["skipped"] == 1


def test_an_hdf5_source_is_grouped_by_any_of_its_columns(tmp_path, galaxy_set):
    flux_file(tmp_path / "flux.h5")
    out = tmp_path / "set.h5"
    assert galaxy_set("pack", tmp_path / "flux.h5", out, "--size", 24, "--group", "night")[0] == 0
    assert read_hdf5(out).group.tolist() == [str(index // 3) for index in range(12)]
    status, _, error = galaxy_set("pack", tmp_path / "flux.h5", tmp_path / "b.h5", "--group", "day")
    assert status == 2
    assert "night" in error
    assert not (tmp_path / "b.h5").exists()


@pytest.mark.parametrize("ending", ["h5", "npz"])
def test_arrays_that_are_not_square_are_cropped(ending, tmp_path, rng):
    wide = rng.integers(0, 255, (12, 40, 61, 3), dtype=np.uint8)
    labels = np.arange(12) % 2
    source = tmp_path / f"wide.{ending}"
    if ending == "npz":
        np.savez(source, images=wide, labels=labels)
    else:
        with h5py.File(source, "w") as file:
            file["images"], file["ans"] = wide, labels
    packed = pack(source, tmp_path / "square.h5", size=32, crop=32).image_set
    expected = wide[:, 4:36, 14:46].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(packed.pixels.numpy(), expected)
    with pytest.raises(InputError, match="61x40, smaller than --crop 48"):
        pack(source, tmp_path / "large.h5", size=32, crop=48)
    with pytest.raises(InputError, match="use --crop"):
        pack(source, tmp_path / "as_it_is.h5", size=32)
    assert not (tmp_path / "large.h5").exists()


@pytest.mark.parametrize("ending", [".h5", ".npz"])
def test_margins_that_hold_no_flux_are_cut_off_before_anything_is_judged(ending, tmp_path, rng):
    images = rng.normal(0, 1, (6, 40, 40, 2)).astype(np.float32)
    source, names = tmp_path / f"in{ending}", {"images": images, "ans": np.arange(6) % 2}
    images[:, :4] = images[:, :, -4:] = np.nan
    images[5, 20, 20, 1] = np.inf
    if ending == ".h5":
        with h5py.File(source, "w") as file:
            for name, values in names.items():
                file[name] = values
    else:
        np.savez(source, **names)
    with pytest.raises(InputError, match="1 of 6 images hold pixels"):
        pack(source, tmp_path / "out.h5", size=16, crop=32, progress=False)
    packed = pack(
        source, tmp_path / "out.h5", size=16, crop=32, skip_bad=True, progress=False
    ).image_set
    assert len(packed) == 5
    expected = crop_and_resize(
        torch.from_numpy(images[:5].transpose(0, 3, 1, 2).copy()), crop=32, size=16
    )
    assert torch.equal(packed.pixels, expected)


def test_classes_without_an_image_are_no_obstacle(class_folder, tmp_path, galaxy_set):
    write_hdf5(dataclasses.replace(make_flux_set(), class_names=("a", "b", "c")), tmp_path / "f.h5")
    status, _, error = galaxy_set("pack", tmp_path / "f.h5", tmp_path / "o.h5", "--size", 16)
    assert status == 0, error
    assert "classes without an image: c" in error
    assert read_hdf5(tmp_path / "o.h5").class_names == ("a", "b", "c")
    (class_folder / "provenance.json").write_text('{"class_names": ["lens", "merger", "spiral"]}')
    status, _, error = galaxy_set("pack", class_folder, tmp_path / "p.h5", "--size", 16)
    assert status == 0, error
    assert "classes without an image: lens" in error


def test_a_class_that_is_emptied_by_skipping_is_refused(class_folder, tmp_path, galaxy_set):
    for path in (class_folder / "merger").iterdir():
        path.write_bytes(b"broken")
    status, _, error = galaxy_set("pack", class_folder, tmp_path / "o.h5", "--skip-bad")
    assert status == 2
    assert "fewer than 2 images without the 4 bad images: 'merger' (0)" in error
    assert not (tmp_path / "o.h5").exists()


def pack_flux(galaxy_set, folder: Path, images: np.ndarray) -> str:
    np.savez(folder / "in.npz", images=images.astype(np.float32), labels=np.arange(len(images)) % 2)
    words = ("pack", folder / "in.npz", folder / "o.h5", "--size", 16, "--overwrite")
    status, _, error = galaxy_set(*words)
    assert status == 0, error
    return error


def test_pictures_stored_as_floats_are_warned_of(tmp_path, galaxy_set, rng):
    pictures = rng.integers(0, 256, (6, 20, 20, 3))
    assert "whole numbers from 0 to 255" in pack_flux(galaxy_set, tmp_path, pictures)
    said = pack_flux(galaxy_set, tmp_path, pictures / 255)
    assert "values from 0 to 1 look like pictures" in said
    assert "(images * 255).round().astype('uint8')" in said
    assert pack_flux(galaxy_set, tmp_path, pictures - 20.5) == ""


def test_channels_of_different_skies_are_warned_of(tmp_path, galaxy_set, rng):
    flux = rng.normal(0, 1, (6, 20, 20, 3))
    assert pack_flux(galaxy_set, tmp_path, flux + np.arange(3)) == ""
    said = pack_flux(galaxy_set, tmp_path, flux + 100 * np.arange(1, 4))
    assert "the channels have different sky levels" in said
    assert "--stretch" in said


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_twelve_bits_in_sixteen_are_warned_of(tmp_path, galaxy_set, rng, kind):
    for bits, dark in ((12, True), (16, False)):
        images = rng.integers(0, 2**bits, (6, 20, 20), dtype=np.uint16)
        source = tmp_path / f"{bits}"
        if kind == "npz":
            source = tmp_path / f"{bits}.npz"
            np.savez(source, images=images, labels=np.arange(6) % 2)
        for index, image in enumerate(images if kind == "folder" else ()):
            (source / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(source / "ab"[index % 2] / f"{index}.png")
        words = ("pack", source, tmp_path / f"o{bits}.h5", "--size", 20, "--scale-16-bit")
        status, _, error = galaxy_set(*words)
        assert status == 0, error
        assert ("data of 12 or 14 bits?" in error) is dark


def test_class_folders_called_0_and_1_are_no_split(tmp_path, galaxy_set, make_picture):
    for name in "01":
        (tmp_path / "in" / name / "raw").mkdir(parents=True)
        for index in range(2):
            make_picture(int(name) * 2 + index).save(tmp_path / "in" / name / f"{index}.png")
            make_picture(9).save(tmp_path / "in" / name / "raw" / f"{index}.png")
    assert galaxy_set("pack", tmp_path / "in", tmp_path / "o.h5", "--size", 16)[0] == 0
    packed = read_hdf5(tmp_path / "o.h5")
    assert packed.class_names == ("0", "1")
    assert packed.split is None


@pytest.mark.parametrize("command", ["info", "pack"])
def test_a_folder_called_simulated_is_not_mistaken(
    class_folder, tmp_path, galaxy_set, monkeypatch, command
):
    class_folder.rename(tmp_path / "simulated")
    monkeypatch.chdir(tmp_path)
    out = ["o.h5"] if command == "pack" else []
    status, _, error = galaxy_set(command, "simulated", *out)
    assert status == 2
    assert "simulated is the embedded survey, and also a name in" in error
    assert galaxy_set(command, "./simulated", *out)[0] == 0


def test_a_file_name_that_is_not_utf8(class_folder, tmp_path, galaxy_set):
    folder = class_folder / "spiral"
    (folder / "0.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    status, _, error = galaxy_set("pack", class_folder, tmp_path / "o.h5", "--size", 16)
    assert status == 0, error
    assert "spiral/café.png" in read_hdf5(tmp_path / "o.h5").ids.tolist()


def test_noise_of_faint_flux_is_not_lost_to_rounding():
    """The square of 1e-26 is below the least float32."""
    flux = torch.zeros((1, 1, 8, 8))
    flux[..., 0] = 1e-26
    assert sky_and_noise(flux)[1] == pytest.approx(float(flux.double().std(correction=0)))


def test_texts_and_groups_of_an_npz(tmp_path):
    np.savez(
        tmp_path / "in.npz",
        images=np.zeros((4, 8, 8, 3), np.uint8),
        labels=np.array([0, 1, 0, 1]),
        class_names=np.array([b"sp", b"el"]),
        ids=np.array([b"a", b"b", b"c", b"d"]),
        group=np.array([1.0, np.nan, np.nan, 1.0]),
    )
    opened = open_image_set(tmp_path / "in.npz")
    assert opened.class_names == ("sp", "el")
    assert opened.ids.tolist() == ["a", "b", "c", "d"]
    assert opened.group[0] == opened.group[3]
    assert len(set(opened.group)) == 3
