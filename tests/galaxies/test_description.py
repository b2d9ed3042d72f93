"""``galaxy-set info``: facts, and problems in sentences."""

import dataclasses
import json

import numpy as np

from galaxies.hdf5 import write_hdf5


def test_a_folder_of_mixed_sizes_and_bad_images_is_described(
    class_folder, make_picture, galaxy_set
):
    make_picture(1, side=50).save(class_folder / "spiral" / "large.png")
    make_picture(2).crop((0, 0, 40, 30)).save(class_folder / "spiral" / "wide.png")
    (class_folder / "merger" / "9.png").write_bytes(b"broken")
    (class_folder / "merger" / "copy.png").write_bytes(
        (class_folder / "spiral" / "3.png").read_bytes()
    )
    status, text, error = galaxy_set("info", class_folder, "--json")
    assert status == 0, error
    found = json.loads(text)
    assert found["images"] == 13
    assert found["classes"] == {"merger": 5, "spiral": 8}
    assert found["sizes"] == {"40x40": 11, "50x50": 1, "40x30": 1}
    assert found["exact_duplicates"] == [["merger/copy.png", "spiral/3.png"]]
    assert found["unreadable"] == [str(class_folder / "merger" / "9.png")]
    problems = " ".join(found["problems"])
    assert "1 image is absent or cannot be read" in problems
    assert "3 sizes" in problems
    assert "1 duplicate carries two classes" in problems
    assert "classes too small to test: merger (5 images" in problems


def test_text_for_people(tiny_set_path, galaxy_set):
    status, text, _ = galaxy_set("info", tiny_set_path)
    assert status == 0
    lines = text.splitlines()
    assert lines[0].endswith("120 images, 3 channels, uint8")
    assert lines[1] == "sizes: 64x64 (120)"
    assert lines[2].split() == ["class", "images", "train", "validation", "test"]
    assert "exact duplicates: none" in lines
    assert any(line.startswith("problem: classes too small to test") for line in lines)


def test_channels_groups_features_and_generator(tiny_set, tmp_path, galaxy_set):
    rich = dataclasses.replace(
        tiny_set,
        group=np.repeat(["a", "b", "c"], 40),
        features=np.ones((120, 2), np.float32),
        feature_names=("size", "colour"),
        provenance={"generator": {"checkpoint": "checkpoints/x"}},
    )
    write_hdf5(rich, tmp_path / "rich.h5")
    _, text, _ = galaxy_set("info", tmp_path / "rich.h5", "--exact-only")
    assert "groups: 3" in text
    assert "features: size, colour" in text
    assert "made by the generator checkpoints/x" in text
    assert "problem: 3 groups stand on two sides of the split" in text


def test_what_was_not_looked_for_is_not_called_absent(tiny_set, tmp_path, galaxy_set):
    write_hdf5(tiny_set, tmp_path / "set.h5")
    _, text, _ = galaxy_set("info", tmp_path / "set.h5", "--exact-only")
    assert "near duplicates: not looked for" in text
    _, text, _ = galaxy_set("info", tmp_path / "set.h5", "--exact-only", "--json")
    assert json.loads(text)["near_duplicates"] is None
