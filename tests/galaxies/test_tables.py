"""Tables: what is a feature, what gives the class away, what is missing, and the split."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from galaxies.errors import InputError
from galaxies.table_columns import colours, magnitudes, mark_missing, why_left_out
from galaxies.table_files import is_table_file, read_columns
from galaxies.tables import TableColumns, read_table, split_table

ROWS = 40


def write_csv(path: Path, columns: dict[str, list[object]]) -> Path:
    lines = [",".join(columns)]
    lines += [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def survey(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    columns: dict[str, list[object]] = {
        "objid": [1237648720142401536 + k for k in range(ROWS)],
        "ra": rng.uniform(0, 360, ROWS).round(5).tolist(),
        **{band: rng.normal(20, 1, ROWS).round(4).tolist() for band in "ugriz"},
        **{f"err_{band}": rng.uniform(0.01, 0.1, ROWS).round(4).tolist() for band in "ugriz"},
        "redshift": rng.uniform(0, 2, ROWS).round(4).tolist(),
        "plate": rng.integers(1, 50, ROWS).tolist(),
        "class": ["STAR" if k % 4 else "QSO" for k in range(ROWS)],
    }
    columns["u"][3] = -9999
    columns["g"][5] = ""
    return write_csv(tmp_path / "survey.csv", columns)


def test_columns_that_give_the_class_away_are_left_out_and_named(
    survey: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = read_table(survey)
    assert table.feature_names == (*"ugriz", *(f"err_{band}" for band in "ugriz"))
    assert table.provenance["left_out"]["redshift"] == "gives the class away"
    said = capsys.readouterr().err
    assert "redshift, plate (gives the class away)" in said
    assert "--allow-column" in said
    assert table.class_names == ("QSO", "STAR")
    assert table.counts().tolist() == [10, 30]


def test_a_forced_column_is_used(survey: Path) -> None:
    assert "redshift" in read_table(survey, TableColumns(allow=("redshift",))).feature_names
    with pytest.raises(InputError, match="--allow-column redshift"):
        read_table(survey, TableColumns(features=("u", "redshift")))


def test_z_is_a_magnitude_beside_bands_and_a_redshift_without_them() -> None:
    assert why_left_out("z", ("u", "g", "r", "i", "z")) is None
    assert why_left_out("z", ("flux", "z")) is not None


@pytest.mark.parametrize("name", ["fiberID", "MJD", "specobjid", "zWarning", "subClass", "z_spec"])
def test_spectroscopic_columns_are_recognised(name: str) -> None:
    assert why_left_out(name, ("u", "g", name)) == "gives the class away"


@pytest.mark.parametrize("name", ["deVRad_u", "psffwhm_g", "extinction_r", "petroR50_i", "u_g"])
def test_measurements_are_features(name: str) -> None:
    assert why_left_out(name, (*"ugriz", name)) is None


def test_colours_and_their_errors_follow_the_formula(survey: Path) -> None:
    table = read_table(survey, TableColumns(colours=True))
    np.testing.assert_array_equal(table.column("u-g"), table.column("u") - table.column("g"))
    np.testing.assert_allclose(
        table.column("error of g-r"),
        np.sqrt(table.column("err_g") ** 2 + table.column("err_r") ** 2),
    )
    assert sum("-" in name and "error" not in name for name in table.feature_names) == 4


def test_colours_stay_inside_one_system() -> None:
    names = ("dered_g", "dered_u", "psfMag_u", "psfMag_g", "deVRad_u", "extinction_u")
    found = magnitudes(names)
    assert [(m.column, m.system) for m in found] == [
        ("dered_u", "dered_{}"), ("dered_g", "dered_{}"),
        ("psfMag_u", "psfMag_{}"), ("psfMag_g", "psfMag_{}"),
    ]  # fmt: skip
    built = colours({name: np.arange(3.0) for name in names})
    assert list(built) == ["dered_u-dered_g", "psfMag_u-psfMag_g"]


def test_codes_for_not_measured_become_missing(survey: Path) -> None:
    table = read_table(survey)
    assert np.flatnonzero(np.isnan(table.column("u"))).tolist() == [3]
    assert np.flatnonzero(np.isnan(table.column("g"))).tolist() == [5]
    marked, counts = mark_missing(
        {"u": np.array([99.0, 20.0]), "g": np.array([21.0, np.inf]), "size": np.array([99.0, 1.0])}
    )
    assert counts == {"u": 1, "g": 1}
    assert marked["size"].tolist() == [99.0, 1.0]


def test_split_is_stratified_and_keeps_copies_together(survey: Path) -> None:
    table = read_table(survey)
    doubled = table.select(np.concatenate([np.arange(ROWS), np.arange(10)]))
    split = split_table(doubled).split
    assert split is not None
    np.testing.assert_array_equal(split[:10], split[ROWS:])
    sides = split_table(table)
    assert sides.side("train").counts().tolist() == [6, 18]
    np.testing.assert_array_equal(sides.split, split_table(table).split)


def test_parquet_fits_and_npz_hold_the_same_table(survey: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    fits = pytest.importorskip("astropy.io.fits")
    columns = read_columns(survey)
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    fits.BinTableHDU.from_columns(
        [
            fits.Column(name, "D" if v.dtype.kind == "f" else "8A", array=v)
            for name, v in columns.items()
        ]
    ).writeto(tmp_path / "t.fits")
    np.savez(tmp_path / "t.npz", **columns)
    expected = read_table(survey)
    for ending in ("parquet", "fits", "npz"):
        found = read_table(tmp_path / f"t.{ending}")
        np.testing.assert_array_equal(found.features, expected.features)
        np.testing.assert_array_equal(found.labels, expected.labels)


def test_bad_tables_are_refused_in_one_line(tmp_path: Path, survey: Path) -> None:
    uneven = tmp_path / "uneven.csv"
    uneven.write_text("a,class\n1,x\n2\n")
    with pytest.raises(InputError, match="rows 3 have"):
        read_table(uneven)
    with pytest.raises(InputError, match="has no column 'kind'"):
        read_table(survey, TableColumns(label="kind"))
    no_class = write_csv(tmp_path / "n.csv", {"u": [1, 2], "g": [2, 3]})
    with pytest.raises(InputError, match="--class-column"):
        read_table(no_class)
    assert read_table(no_class, labelled=False).labels is None
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="Parquet"):
        read_table(tmp_path / "broken.parquet")
    with pytest.raises(InputError, match="no two magnitudes"):
        read_table(
            write_csv(tmp_path / "f.csv", {"f": [1, 2], "class": ["a", "b"]}),
            TableColumns(colours=True),
        )


def test_an_npz_of_images_is_no_table(tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 8, 8, 3)), labels=np.zeros(2, int))
    np.savez(tmp_path / "table.npz", features=np.zeros((2, 3)), labels=np.zeros(2, int))
    assert not is_table_file(tmp_path / "images.npz")
    assert is_table_file(tmp_path / "table.npz")


def test_real_tables_read(real_data: Callable[[str], Path]) -> None:
    sdss = read_table(real_data("data/photometry/sdss_dr14.csv"))
    assert sdss.counts().tolist() == [4998, 850, 4152]
    assert sdss.feature_names == tuple("ugriz")
    margnet = read_table(real_data("data/photometry/margnet_exp3.npz"))
    assert margnet.features.shape == (19022, 24)
    assert margnet.counts().tolist() == [9511, 9511]


@pytest.mark.parametrize(
    "name",
    [
        *("P_EL", "P_CW_DEBIASED", "SPIRAL", "NVOTE", "Class1.1", "gz2class", "total-votes"),
        *("t01_smooth_or_features_a01_smooth_fraction", "smooth-or-featured-dr5_smooth"),
        *("has-spiral-arms_yes_fraction", "bar_strong_fraction", "merging_major-disturbance"),
    ],
)
def test_votes_on_the_class_are_no_features(name: str) -> None:
    assert why_left_out(name, ("u", name)) == "gives the class away: a vote on it"


def test_measurements_whose_names_resemble_votes_are_kept() -> None:
    for name in (
        "p_value",
        "petroR50_r",
        "pivoted",
        "bar_length",
        "class_star",
        "t_exp",
        "fracDeV",
    ):
        assert why_left_out(name, ("u", name)) is None


def test_a_second_column_of_classes_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns: dict[str, list[object]] = {
        "mag": [k / 7 for k in range(ROWS)],
        "Label": [k % 2 for k in range(ROWS)],
        "class": ["disc" if k % 2 else "round" for k in range(ROWS)],
    }
    table = read_table(write_csv(tmp_path / "t.csv", columns))
    assert table.feature_names == ("mag",)
    assert "Label (names a class)" in capsys.readouterr().err


def test_a_column_whose_values_follow_the_classes_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns: dict[str, list[object]] = {
        "mag": [k / 7 for k in range(ROWS)],
        "nbands": [k % 3 for k in range(ROWS)],
        "code": [[10, 11, 10, 12][k % 4] for k in range(ROWS)],
        "class": ["disc" if k % 2 else "round" for k in range(ROWS)],
    }
    table = read_table(write_csv(tmp_path / "t.csv", columns))
    assert table.feature_names == ("mag", "nbands", "code")
    said = capsys.readouterr().err
    assert "each value of code occurs in one class only" in said
    assert "--exclude-column" in said


def test_groups_of_digits_stay_apart(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "t.csv",
        {"class": ["a", "b"] * 2, "group": ["01", "1", "001", "1"], "u": [1, 2, 3, 4]},
    )
    assert read_table(path).group.tolist() == ["01", "1", "001", "1"]


def test_labels_beyond_the_class_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    for labels in ([0, 1, 2], [0, 1, -1]):
        np.savez(path, u=np.arange(3.0), y=np.array(labels), class_names=np.array([b"a", b"b"]))
        with pytest.raises(InputError, match=rf"holds {labels[2]}, but there are 2 class_names"):
            read_table(path)
    np.savez(path, u=np.arange(3.0), y=np.array([0, 1, 0]), class_names=np.array([b"a", b"b"]))
    assert read_table(path).class_names == ("a", "b")


def test_a_date_is_no_measurement_and_no_obstacle(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    from pyarrow import parquet

    dates = np.array(["2001-01-01", "2002-02-02", "NaT"], dtype="datetime64[s]")
    columns = {"class": ["a", "b", "a"], "u": [1.0, 2.0, 3.0], "night": dates}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.feature_names == ("u",)
    assert table.provenance["left_out"] == {"night": "text"}


def test_a_class_that_is_a_number_is_left_out_by_its_value(tmp_path: Path) -> None:
    table = read_table(write_csv(tmp_path / "t.csv", {"class": [1, 2, 3], "u": [1, 2, 3]}))
    assert table.without_classes(["1.0"]).class_names == ("2", "3")
