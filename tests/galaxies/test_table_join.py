"""A table joined to images: by id or file name, whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from galaxies.cli import main
from galaxies.errors import InputError
from galaxies.hdf5 import read_hdf5
from galaxies.table_join import read_join

BIG = 1237648720142401536  # SDSS objids differ below what float64 can tell apart


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for k in range(8):
        path = tmp_path / "images" / ("star" if k % 2 else "galaxy") / f"{BIG + k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def write_table(path: Path, rows: range) -> Path:
    lines = ["objid,u,g,redshift"]
    lines += [f"{BIG + k},{20 + k / 10},{19 + k / 10},{k}" for k in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_pack_joins_rows_by_file_name(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "table.csv", range(7, -1, -1))
    out = tmp_path / "set.h5"
    arguments = ["pack", str(folder), str(out), "--size", "16", "--table", str(table)]
    assert main([*arguments, "--table-id", "objid", "--table-colours"]) == 0
    packed = read_hdf5(out)
    assert packed.feature_names == ("u", "g", "u-g")
    for name, row in zip(packed.ids, packed.features, strict=True):
        k = int(Path(name).stem) - BIG
        np.testing.assert_allclose(row, [20 + k / 10, 19 + k / 10, 1], rtol=1e-6)
    assert packed.provenance["joined_table"]["left_out"] == {"redshift": "gives the class away"}
    assert "redshift" in capsys.readouterr().err


def test_an_image_without_a_row_is_named_and_nothing_is_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "table.csv", range(7))
    out = tmp_path / "set.h5"
    status = main(["pack", str(folder), str(out), "--table", str(table), "--table-id", "objid"])
    assert status == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "1 of 8 images have no row" in said
    assert str(BIG + 7) in said
    assert not out.exists()


def test_repeated_ids_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("objid,u,g\n1,20,19\n1,21,20\n")
    with pytest.raises(InputError, match="in more than one row: 1"):
        read_join(table, "objid")


def test_a_table_without_ids_is_never_joined_by_position(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("u,g\n" + "\n".join(f"{k},{k + 1}" for k in range(8)))
    with pytest.raises(InputError, match="no column of unique ids"):
        read_join(tmp_path / "table.csv", None)


def test_ids_are_found_in_capital_letters(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("OBJID,u\n" + "\n".join(f"{7 - k},{k}" for k in range(8)))
    assert read_join(tmp_path / "table.csv", None).table.ids.tolist() == list("76543210")


def test_two_images_of_one_stem_do_not_share_a_row(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("objid,u\n" + "\n".join(f"{k},{k}" for k in range(8)))
    join = read_join(tmp_path / "table.csv", "objid")
    assert join.rows_of(np.array(["spiral/1.png", "merger/2.png"])).tolist() == [1, 2]
    with pytest.raises(InputError, match=r"spiral/1.png and merger/1.png would both take the row"):
        join.rows_of(np.array(["spiral/1.png", "merger/1.png"]))


@pytest.mark.parametrize("names", [("007", "7"), ("1_23", "12_3")])
def test_ids_of_digits_are_names_and_no_numbers(tmp_path: Path, names: tuple[str, str]) -> None:
    (tmp_path / "table.csv").write_text(f"objid,u\n{names[0]},1\n{names[1]},2\n")
    for id_column in (None, "objid"):
        join = read_join(tmp_path / "table.csv", id_column)
        assert join.table.ids.tolist() == list(names)
        assert join.rows_of(np.array([f"a/{names[1]}.png", f"b/{names[0]}.png"])).tolist() == [1, 0]
