"""Bad input: one line that says what, where and what to do; status 2; nothing written."""

import gzip
import os
import resource
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from galaxies.errors import InputError
from galaxies.hdf5 import write_hdf5
from galaxies.table_files import is_table_file, read_columns


@pytest.fixture
def refused(galaxy_set, tmp_path):
    """Run the command, and check that it is refused in one line and leaves nothing behind."""

    def run(*words: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        status, out, error = galaxy_set(*words)
        assert status == 2, (out, error)
        assert out == ""
        assert len(error.splitlines()) == 1, error
        assert error.startswith("galaxy-set: ")
        assert sorted(tmp_path.rglob("*")) == before
        return error

    return run


def test_missing_path(refused, tmp_path):
    assert "nowhere does not exist" in refused("pack", tmp_path / "nowhere", tmp_path / "o.h5")
    assert "nowhere.h5 does not exist" in refused("info", tmp_path / "nowhere.h5")
    assert "nowhere.h5 does not exist" in refused("split", tmp_path / "nowhere.h5")


def test_empty_folder_says_what_was_found(refused, tmp_path):
    (tmp_path / "in" / "a").mkdir(parents=True)
    error = refused("pack", tmp_path / "in", tmp_path / "o.h5")
    assert "found 0 images in the folder itself, 1 sub-folders without images" in error
    (tmp_path / "in" / "a" / "notes.txt").write_text("x")
    (tmp_path / "in" / "stray.png").write_text("x")
    assert "found 1 images in the folder itself" in refused("info", tmp_path / "in")


def test_one_empty_class_folder(refused, class_folder, tmp_path):
    (class_folder / "ring").mkdir()
    assert "these sub-folders hold no image: ring" in refused(
        "pack", class_folder, tmp_path / "o.h5"
    )


def test_every_corrupt_image_is_named(refused, class_folder, tmp_path):
    whole = (class_folder / "spiral" / "1.png").read_bytes()
    (class_folder / "spiral" / "1.png").write_bytes(whole[:200])
    (class_folder / "merger" / "2.png").write_bytes(b"")
    error = refused("pack", class_folder, tmp_path / "o.h5", "--size", 16)
    assert "2 of 10 images cannot be used" in error
    assert "spiral/1.png" in error
    assert "merger/2.png" in error
    assert "--skip-bad" in error


def test_mixed_sizes_without_a_size(class_folder, make_picture, tmp_path):
    from galaxies.errors import InputError
    from galaxies.sources import open_image_set

    make_picture(1, side=50).save(class_folder / "spiral" / "large.png")
    with pytest.raises(InputError, match=r"2 sizes: 40x40 \(10\), 50x50 \(1\).*--size"):
        open_image_set(class_folder)


def test_not_square(refused, class_folder, make_picture, tmp_path):
    make_picture(1).crop((0, 0, 40, 30)).save(class_folder / "spiral" / "wide.png")
    assert "40x30, not square; pass --crop" in refused("pack", class_folder, tmp_path / "o.h5")
    assert "40x30, smaller than --crop 35" in refused(
        "pack", class_folder, tmp_path / "o.h5", "--crop", 35
    )


def test_catalogue_that_names_absent_files(refused, catalogue_folder, tmp_path):
    (catalogue_folder / "spiral" / "1.png").unlink()
    (catalogue_folder / "merger" / "3.png").unlink()
    error = refused("pack", catalogue_folder, tmp_path / "o.h5")
    assert "names 2 files that are not in" in error
    assert "spiral/1.png" in error
    assert "merger/3.png" in error


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("", "is empty; a header with file and class is needed"),
        ("file,class\n", "a header but no rows"),
        ("name,class\na,b\n", "no column 'file' (found: name, class); name it with --file-column"),
        ("file,kind\na,b\n", "no column 'class'"),
        ("file,class\na\n", "lines 2 have more or fewer fields"),
        ("file,class\na,b,c\n", "lines 2 have more or fewer fields"),
        ("file,class,class\na,b,c\n", "columns of the same name"),
        ("file,class\nspiral/1.png,\n", "column 'class' is empty on lines 2"),
        ("file,class\nspiral/1.png,a\nspiral/1.png,a\n", "ids stand in more than one row"),
        ("file,class,split\nspiral/1.png,a,later\n", "the split column holds later"),
        ('file,class\n"spiral/1.png,a\n', "is not a CSV file"),
    ],
)
def test_bad_catalogues(refused, class_folder, tmp_path, table, complaint):
    (class_folder / "labels.csv").write_text(table)
    assert complaint in refused("pack", class_folder, tmp_path / "o.h5")


def test_catalogue_that_is_not_text(refused, class_folder, tmp_path):
    (class_folder / "labels.csv").write_bytes(b"\xff\xfe\x00\x01")
    assert "is not a CSV file in UTF-8" in refused("pack", class_folder, tmp_path / "o.h5")
    assert "does not exist (--labels)" in refused(
        "pack", class_folder, tmp_path / "o.h5", "--labels", tmp_path / "no.csv"
    )


def test_columns_and_classes_that_do_not_exist(refused, catalogue_folder, tmp_path):
    out = tmp_path / "o.h5"
    assert "no column 'plate' (found: file, class, group" in refused(
        "pack", catalogue_folder, out, "--group", "plate"
    )
    assert "no class 'ring'; the classes are: 0 merger, 1 spiral" in refused(
        "pack", catalogue_folder, out, "--exclude", "ring"
    )
    assert "every class is excluded" in refused(
        "pack", catalogue_folder, out, "--exclude", "spiral", "--exclude", "merger"
    )


def test_a_class_with_one_image(refused, class_folder, make_picture, tmp_path):
    (class_folder / "ring").mkdir()
    make_picture(3).save(class_folder / "ring" / "0.png")
    error = refused("pack", class_folder, tmp_path / "o.h5", "--size", 16)
    assert "classes with fewer than 2 images: 'ring' (1)" in error
    assert "--exclude" in error


def hdf5_without(path: Path, **columns: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file[name] = values
    return path


IMAGES = np.zeros((6, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"ans": np.zeros(6, int)}, "no dataset 'images' (found: ans)"),
        ({"images": IMAGES}, "no dataset 'ans'"),
        ({"images": IMAGES, "ans": np.zeros(5, int)}, "6 images but 5 labels"),
        ({"images": IMAGES, "ans": np.full(6, 0.5)}, "(N,) integers are needed"),
        ({"images": IMAGES, "ans": np.full((6, 2), 0.5)}, "p.argmax(axis=1)"),
        ({"images": IMAGES, "ans": np.zeros((6, 2))}, "(N,) integers are needed"),
        ({"images": IMAGES, "ans": np.int64(3)}, "labels are int64 of shape ()"),
        ({"images": IMAGES, "ans": np.full(6, -1)}, "labels"),
        ({"images": IMAGES, "ans": np.zeros(6, int), "ids": np.arange(4)}, "6 images but 4 ids"),
        (
            {"images": IMAGES, "ans": np.zeros(6, int), "ids": np.arange(6) // 2 * 2},
            "3 ids stand at more than one image, such as 0",
        ),
        ({"images": IMAGES[..., 0, 0], "ans": np.zeros(6, int)}, "(N, H, W, C) is needed"),
        ({"images": IMAGES[:, :4], "ans": np.zeros(6, int)}, "square ones are needed"),
        ({"images": IMAGES.astype(np.longdouble), "ans": np.zeros(6, int)}, "astype('float32')"),
        ({"images": IMAGES > 0, "ans": np.zeros(6, int)}, "images.astype('uint8') * 255"),
        ({"images": IMAGES[:0], "ans": np.zeros(0, int)}, "holds no image"),
        ({"images": IMAGES, "ans": np.full(6, np.nan)}, "6 of 6 labels are NaN or infinite"),
        ({"images": IMAGES, "ans": np.full(6, b" ")}, "6 labels are empty"),
        ({"images": IMAGES, "ans": np.zeros(6, int), "features": np.zeros((6, 2, 2))}, "(N, F)"),
        ({"images": np.zeros((6, 8, 8, 12), np.uint8), "ans": np.zeros(6, int)}, "12 channels"),
        ({"images": IMAGES, "ans": np.zeros(6, int), "split": np.full(6, 7)}, "values other than"),
        (
            {"images": IMAGES, "ans": np.zeros(6, int), "split": np.full(6, b"dev")},
            "holds dev; use train",
        ),
        ({"images/deep": IMAGES, "ans": np.zeros(6, int)}, "'images' is a group of datasets"),
        ({"images": IMAGES, "ans": np.arange(6) + 10**9}, "are these identifiers?"),
    ],
)
def test_bad_hdf5(refused, tmp_path, columns, complaint):
    path = hdf5_without(tmp_path / "in.h5", **columns)
    for command in (("info", path), ("pack", path, tmp_path / "o.h5"), ("split", path)):
        error = refused(*command)
        assert complaint in error
        assert "in.h5" in error


@pytest.mark.parametrize(
    ("name", "value"), [("provenance", '["list"]'), ("stretch", '{"kind": "asinh"}')]
)
def test_attributes_of_a_wrong_type(refused, tmp_path, name, value):
    path = hdf5_without(tmp_path / "in.h5", images=IMAGES, ans=np.zeros(6, int))
    with h5py.File(path, "a") as file:
        file.attrs[name] = value
    assert "a dataset or attribute has a wrong type" in refused("info", path)


def test_hdf5_cut_short_or_something_else(refused, tiny_set, tmp_path):
    path = tmp_path / "in.h5"
    write_hdf5(tiny_set, path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "is cut short; fetch or pack it anew" in refused("pack", path, tmp_path / "o.h5")
    assert "is cut short" in refused("split", path, "--overwrite")
    path.write_text("hello")
    assert "is not an HDF5 file" in refused("info", path)


def test_damage_inside_a_whole_hdf5_file(refused, tiny_set, tmp_path):
    path = tmp_path / "in.h5"
    write_hdf5(tiny_set, path)
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        place = file["images"].id.get_chunk_info(2)
    data[place.byte_offset : place.byte_offset + 2000] = bytes(2000)
    path.write_bytes(data)
    assert "images are damaged" in refused("pack", path, tmp_path / "o.h5")


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"images": IMAGES}, "needs arrays 'images' and 'labels' (found: images)"),
        ({"images": IMAGES, "labels": np.zeros(4, int)}, "(N, H, W, C) and (N,) are needed"),
        ({"images": IMAGES, "labels": np.full(6, np.nan)}, "(N,) integers"),
        ({"images": IMAGES, "labels": np.int64(3)}, "labels are int64 of shape ()"),
        ({"images": np.int64(3), "labels": np.zeros(6, int)}, "(N, H, W, C) and (N,) are needed"),
        (
            {"images": IMAGES, "labels": np.array(["a", "b"] * 3), "class_names": np.array("a")},
            "labels name b, which is not among the class_names a",
        ),
        (
            {"train_images": IMAGES, "test_images": IMAGES[:, :4], "train_labels": np.zeros(6)},
            "the sides hold images of several shapes",
        ),
        ({"images": IMAGES.astype(int), "labels": np.zeros(6, int)}, "images are int64"),
        (
            {"images": IMAGES, "labels": np.zeros(6, int), "ids": np.array(["a", "b"] * 3)},
            "2 ids stand at more than one image, such as a",
        ),
    ],
)
def test_bad_npz(refused, tmp_path, arrays, complaint):
    np.savez(tmp_path / "in.npz", **arrays)
    assert complaint in refused("pack", tmp_path / "in.npz", tmp_path / "o.h5")
    (tmp_path / "in.npz").write_bytes(b"PK\x03\x04 broken")
    assert "not a readable .npz file" in refused("info", tmp_path / "in.npz")


def test_objects_in_an_npz_are_not_loaded(refused, tmp_path):
    np.savez(tmp_path / "in.npz", images=np.array([object()]), labels=np.zeros(1, int))
    assert "not a readable .npz file" in refused("info", tmp_path / "in.npz")


def test_an_output_that_exists(refused, class_folder, tmp_path, galaxy_set):
    out = tmp_path / "o.h5"
    out.write_text("precious")
    for command in (("pack", class_folder, out), ("simulate", out), ("fetch", "galaxy-mnist", out)):
        assert "exists; choose another name or pass --overwrite" in refused(*command)
    assert out.read_text() == "precious"
    assert galaxy_set("pack", class_folder, out, "--size", 16, "--overwrite")[0] == 0


def test_outputs_that_cannot_be(refused, class_folder, tmp_path):
    assert "should end in .h5" in refused("pack", class_folder, tmp_path / "set.txt")
    (tmp_path / "file").write_text("x")
    assert "is not a folder" in refused("pack", class_folder, tmp_path / "file" / "o.h5")
    (tmp_path / "folder.h5").mkdir()
    assert "is a folder" in refused("pack", class_folder, tmp_path / "folder.h5", "--overwrite")


def test_the_source_is_not_its_own_output(refused, tiny_set, tmp_path):
    path = tmp_path / "in.h5"
    write_hdf5(tiny_set, path)
    assert "is the source itself" in refused("pack", path, path, "--size", 16, "--overwrite")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("pack", "in", "o.h5", "--size", "0"), "--size must be at least 1"),
        (("pack", "in", "o.h5", "--crop", "-3"), "--crop must be at least 1"),
        (("simulate", "o.h5", "--count", "10"), "--count must be at least 100"),
        (("simulate", "o.h5", "--size", "8"), "--size must lie in 32 to 256"),
        (("simulate", "o.h5", "--seed", "-1"), "--seed must be from 0 to"),
        (("fetch", "galaxy11", "o.h5"), "choose from galaxy10-decals, galaxy10-sdss"),
        (("pack", "in"), "OUT"),
        (("frobnicate",), "frobnicate"),
        (("pack", "in", "o.h5", "--sise", "3"), "--sise"),
    ],
)
def test_flags(refused, tmp_path, monkeypatch, words, complaint):
    monkeypatch.chdir(tmp_path)
    assert complaint in refused(*words)


def test_names_of_one_galaxy10_set_on_the_other(refused, tmp_path):
    from galaxies.published import published_set

    labels = np.arange(30) % 10
    path = hdf5_without(tmp_path / "in.h5", images=np.zeros((30, 69, 69, 3), np.uint8), ans=labels)
    with h5py.File(path, "a") as file:
        file.attrs["class_names"] = list(published_set("galaxy10-decals").class_names)
    error = refused("info", path)
    assert (
        "class names are those of galaxy10-decals, but the images are those of galaxy10-sdss"
        in (error)
    )


def run_with_small_files(limit: int, *words: object) -> subprocess.CompletedProcess[str]:
    """The command in a process whose files may not grow beyond ``limit`` bytes: a full disk."""
    return subprocess.run(
        [sys.executable, "-c", "import sys; from galaxies.cli import main; sys.exit(main())"]
        + [str(word) for word in words],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )


def test_full_disk(tiny_set, tmp_path):
    source = tmp_path / "in.h5"
    write_hdf5(tiny_set, source)
    before = source.read_bytes()
    for words in (
        ("pack", source, tmp_path / "new" / "o.h5", "--size", 64),
        ("split", source, "--overwrite"),
    ):
        done = run_with_small_files(100_000, *words)
        lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip()]
        complaints = [line for line in lines if "%|" not in line]
        assert done.returncode == 2, done.stderr
        assert len(complaints) == 1
        assert "cannot write" in complaints[0]
        assert "file too large" in complaints[0]
        assert [entry.name for entry in tmp_path.iterdir()] == ["in.h5"]
        assert source.read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(refused, class_folder, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o500)
    assert "permission denied" in refused("pack", class_folder, closed / "o.h5", "--size", 16)


def test_help_loads_nothing_heavy(run_without_loading):
    code = "from galaxies.cli import main; main(['pack', '--help'])"
    assert "--crop" in run_without_loading(code, "torch", "h5py", "PIL", "galsim")


def test_damaged_compressed_tables_and_sets(refused, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000)
    np.savez_compressed(tmp_path / "in.npz", features=rng.normal(size=(4000, 3)), labels=labels)
    data = bytearray((tmp_path / "in.npz").read_bytes())
    data[200:260] = b"\xff" * 60
    (tmp_path / "in.npz").write_bytes(data)
    with pytest.raises(InputError, match="is not a readable"):
        read_columns(tmp_path / "in.npz")
    text = "class,mag\n" + "\n".join(f"{label},{value}" for value, label in enumerate(labels))
    data = bytearray(gzip.compress(text.encode()))
    data[40:100] = b"\xff" * 60
    (tmp_path / "in.csv.gz").write_bytes(data)
    with pytest.raises(InputError, match="is not a table of text"):
        read_columns(tmp_path / "in.csv.gz")


@pytest.mark.parametrize("signature", [b"SNOD", b"HEAP", b"TREE", b"GCOL"])
def test_damaged_structure_of_a_hdf5_file(refused, tiny_set, tmp_path, signature):
    path = tmp_path / "in.h5"
    write_hdf5(tiny_set, path)
    data = bytearray(path.read_bytes())
    place = data.rindex(signature)
    data[place : place + 4] = bytes(4)
    path.write_bytes(data)
    error = refused("pack", path, tmp_path / "o.h5", "--size", 8)
    assert "damaged" in error
    assert "in.h5" in error


def test_an_encrypted_or_unknown_archive(refused, tmp_path):
    for flag_at, value in ((6, 1), (8, 99)):  # flags and method, as the local header has them
        path = tmp_path / "in.npz"
        np.savez(path, images=IMAGES, labels=np.zeros(6, int))
        data = bytearray(path.read_bytes())
        for signature, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
            place = -1
            while (place := data.find(signature, place + 1)) >= 0:
                data[place + flag_at + shift] = value
        path.write_bytes(data)
        assert "is not a readable .npz file" in refused("info", path)
        with pytest.raises(InputError, match=r"is not a readable \.npz file"):
            read_columns(path)
        assert not is_table_file(path)
