"""The CSV catalogue: what is written is read, whatever the names, and numbers become features."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galaxies.catalogue import CatalogueColumns, read_catalogue
from galaxies.class_names import class_order
from galaxies.errors import InputError
from galaxies.hdf5 import read_hdf5
from galaxies.sources import open_image_set
from galaxies.table_files import read_columns

NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff"),
    min_size=1,
    max_size=12,
).filter(lambda text: text == text.strip())


def write_catalogue(folder: Path, header: list[str], rows: list[list[object]]) -> None:
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


@given(classes=st.lists(NAMES, min_size=1, max_size=6), group=NAMES)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_class_and_group_name_survives(tmp_path, classes, group):
    rows = []
    for index, name in enumerate(classes):
        (tmp_path / f"{index}.png").touch()
        rows.append([f"{index}.png", name, f"{group}{index % 2}"])
    write_catalogue(tmp_path, ["file", "class", "field"], rows)
    catalogue = read_catalogue(tmp_path, None, CatalogueColumns(group="field"))
    assert list(catalogue.classes) == classes
    assert catalogue.class_names == class_order(classes)
    assert catalogue.group is not None
    assert catalogue.group.tolist() == [row[2] for row in rows]
    assert catalogue.ids.tolist() == [row[0] for row in rows]


@given(
    st.lists(
        st.floats(-1e5, 1e5, width=32, allow_subnormal=False) | st.none(), min_size=2, max_size=8
    )
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_numbers_become_features_and_empty_fields_nan(tmp_path, values):
    rows = []
    for index, value in enumerate(values):
        (tmp_path / f"{index}.png").touch()
        rows.append([f"{index}.png", "a", "" if value is None else repr(value), f"text {index}"])
    write_catalogue(tmp_path, ["file", "class", "flux", "note"], rows)
    catalogue = read_catalogue(tmp_path, None)
    if all(value is None for value in values):
        assert catalogue.feature_names == ()
        return
    assert catalogue.feature_names == ("flux",)
    expected = np.array([np.nan if value is None else value for value in values], np.float32)
    assert np.array_equal(catalogue.features[:, 0], expected, equal_nan=True)


def test_byte_order_mark_spaces_and_windows_lines(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "labels.csv").write_bytes("\ufefffile, class ,mag\r\na.png, disc ,1\r\n".encode())
    catalogue = read_catalogue(tmp_path, None)
    assert catalogue.classes == ("disc",)
    assert catalogue.feature_names == ("mag",)


def test_identifiers_are_no_features(tmp_path):
    rows = [[f"{index}.png", "a", 587722952767439450 + index, 16_777_217 + index, 40_000 + index]
            for index in range(3)]  # fmt: skip
    for row in rows:
        (tmp_path / str(row[0])).touch()
    write_catalogue(tmp_path, ["file", "class", "objid", "row", "counts"], rows)
    assert read_catalogue(tmp_path, None).feature_names == ("counts",)


def test_mirror_pairs_of_classes_without_an_image_are_left_out(class_folder, tmp_path, galaxy_set):
    (class_folder / "provenance.json").write_text(
        json.dumps(
            {
                "class_names": ["spiral", "lens", "merger"],
                "mirror_pairs": [["spiral", "lens"], ["spiral", "merger"]],
            }
        )
    )
    status, text, error = galaxy_set("info", class_folder, "--exact-only")
    assert status == 0, error
    assert "a mirror turns spiral and merger into each other" in text
    out = tmp_path / "out.h5"
    galaxy_set("pack", class_folder, out, "--size", 16, "--exclude", "merger")
    assert read_hdf5(out).mirror_pairs == ()


@pytest.mark.parametrize("missing", ["NA", "null", "--", "nan"])
def test_one_missing_value_does_not_cost_the_column(tmp_path, missing):
    rows = [[f"{index}.png", "a", 20.5 + index] for index in range(3)]
    rows[1][2] = missing
    for row in rows:
        (tmp_path / str(row[0])).touch()
    write_catalogue(tmp_path, ["file", "class", "mag"], rows)
    catalogue = read_catalogue(tmp_path, None)
    assert catalogue.feature_names == ("mag",)
    assert np.array_equal(catalogue.features[:, 0], np.float32([20.5, np.nan, 22.5]), True)


def test_a_column_with_one_word_among_numbers_is_left_out_and_named(tmp_path, capsys):
    rows = [[f"{index}.png", "a", 20.5 + index, f"n{index}"] for index in range(4)]
    rows[2][2] = "bright"
    for row in rows:
        (tmp_path / str(row[0])).touch()
    write_catalogue(tmp_path, ["file", "class", "mag", "note"], rows)
    assert read_catalogue(tmp_path, None).feature_names == ()
    said = capsys.readouterr().err
    assert "column 'mag' is no feature: line 4 holds 'bright'" in said
    assert "note" not in said


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_semicolons_and_tabs_part_fields_too(tmp_path, delimiter):
    (tmp_path / "a.png").touch()
    lines = [["file", "class", "mag"], ["a.png", "disc, barred", "20"]]
    (tmp_path / "labels.csv").write_text("\n".join(delimiter.join(line) for line in lines))
    catalogue = read_catalogue(tmp_path, None)
    assert catalogue.classes == ("disc, barred",)
    assert catalogue.feature_names == ("mag",)
    assert list(read_columns(tmp_path / "labels.csv")) == ["file", "class", "mag"]


def test_bare_identifiers_find_their_files(tmp_path):
    for name in ("100008.jpg", "100023.png"):
        (tmp_path / name).touch()
    rows: list[list[object]] = [["100008", "a"], ["100023", "b"]]
    write_catalogue(tmp_path, ["GalaxyID", "class"], rows)
    columns = CatalogueColumns(file="GalaxyID")
    assert read_catalogue(tmp_path, None, columns).ids.tolist() == ["100008.jpg", "100023.png"]
    (tmp_path / "100023.jpg").touch()
    with pytest.raises(InputError, match=r"100023 may be 100023\.jpg, 100023\.png; write the end"):
        read_catalogue(tmp_path, None, columns)
    write_catalogue(tmp_path, ["GalaxyID", "class"], [*rows, ["100053", "a"]])
    (tmp_path / "100023.jpg").unlink()
    with pytest.raises(InputError, match=r"names 1 files .* ending such as \.jpg: 100053"):
        read_catalogue(tmp_path, None, columns)


def test_images_without_a_group_are_not_one_group(tmp_path, capsys):
    rows = [["a.png", "x", "nan"], ["b.png", "x", "nan"], ["c.png", "y", "one"]]
    for name, *_ in rows:
        (tmp_path / name).touch()
    write_catalogue(tmp_path, ["file", "class", "group"], rows)
    group = read_catalogue(tmp_path, None).group
    assert len(set(group)) == 3
    assert group[2] == "one"
    assert "column 'group' is empty in 2 rows" in capsys.readouterr().err


def test_a_class_that_is_a_number_is_excluded_by_its_value(tmp_path):
    for name in ("1.0", "2.0", "3.0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").touch()
    catalogue = read_catalogue(tmp_path, None)
    assert catalogue.without_classes(["1"]).class_names == ("2.0", "3.0")
    with pytest.raises(InputError, match=r"there is no class '0'; the classes are: 1\.0, 2\.0"):
        catalogue.without_classes(["0"])


def test_absent_files_are_left_out_when_bad_ones_are(catalogue_folder, galaxy_set, tmp_path):
    (catalogue_folder / "spiral" / "1.png").unlink()
    (catalogue_folder / "merger" / "3.png").unlink()
    words = ("pack", catalogue_folder, tmp_path / "o.h5", "--size", 16, "--skip-bad", "--json")
    status, out, _ = galaxy_set(*words)
    assert status == 0
    assert sorted(json.loads(out)["skipped"]) == ["merger/3.png", "spiral/1.png"]
    packed = open_image_set(tmp_path / "o.h5")
    assert len(packed) == 8
    assert packed.provenance["packed"]["skipped"] == 2
    kept = read_catalogue(catalogue_folder, None, skip_absent=True)
    np.testing.assert_array_equal(packed.features, kept.features)
    assert packed.ids.tolist() == kept.ids.tolist()
    status, out, _ = galaxy_set("info", catalogue_folder, "--exact-only", "--json")
    assert status == 0
    assert sorted(json.loads(out)["unreadable"]) == ["merger/3.png", "spiral/1.png"]


def test_names_without_an_ending_find_capital_ones_and_those_of_windows(make_picture, tmp_path):
    (tmp_path / "a").mkdir()
    make_picture(1).save(tmp_path / "a" / "100008.JPG")
    make_picture(2).save(tmp_path / "a" / "7.png")
    (tmp_path / "labels.csv").write_text("file,class\na/100008,x\na\\7.png,y\n")
    names = [path.name for path in read_catalogue(tmp_path, None).paths]
    assert names == ["100008.JPG", "7.png"]


def test_a_catalogue_whose_files_are_all_elsewhere(tmp_path):
    (tmp_path / "labels.csv").write_text("file,class\n1,x\n2,y\n")
    with pytest.raises(InputError, match="give the folder that these names are relative to"):
        read_catalogue(tmp_path, None, skip_absent=True)


def test_files_of_other_endings_are_counted(class_folder, capsys):
    for name in ("a.gif", "b.fits", "c.fits", "notes.txt", "Thumbs.db", ".DS_Store"):
        (class_folder / "merger" / name).write_bytes(b"x")
    read_catalogue(class_folder, None)
    said = capsys.readouterr().err
    assert "left out 3 files whose ending is not that of a picture: 2 .fits, 1 .gif" in said


def test_what_a_folder_without_pictures_holds_is_said(class_folder):
    (class_folder / "__MACOSX").mkdir()  # no class
    (class_folder / "ring" / "inner").mkdir(parents=True)
    (class_folder / "spiral" / "0.png").rename(class_folder / "ring" / "inner" / "0.png")
    with pytest.raises(InputError, match="hold no image: ring, but images lie one level deeper"):
        read_catalogue(class_folder, None)


def test_training_and_testing_are_sides(make_picture, tmp_path):
    for index, side in enumerate(("training", "testing")):
        (tmp_path / side / "round").mkdir(parents=True)
        make_picture(index).save(tmp_path / side / "round" / "0.png")
    split = read_catalogue(tmp_path, None).split
    assert split is not None
    assert sorted(split.tolist()) == [0, 2]


def test_the_name_of_a_class_must_be_text(make_picture, tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9toile"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    make_picture(1).save(folder / "0.png")
    with pytest.raises(InputError, match=r"sub-folder \\xe9toile is not UTF-8"):
        read_catalogue(tmp_path, None)
