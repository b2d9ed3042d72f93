import zipfile

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from fid.image_sources import LooseImages, SetImages, ahead
from fid.inputs import (
    FeatureArray,
    ReadingRules,
    SavedStatistics,
    Selection,
    open_side,
    parse_selection,
)
from fid.statistics import statistics_of_features
from fid.statistics_file import save_statistics
from galaxies.errors import InputError
from galaxies.image_files import Decoding


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("set.h5", Selection("set.h5")),
        ("set.h5#class=merger", Selection("set.h5", ("merger",))),
        ("a/b.h5#class=0#class=edge on#split=test", Selection("a/b.h5", ("0", "edge on"), "test")),
        ("simulated#split=train", Selection("simulated", (), "train")),
    ],
)
def test_a_part_of_a_source(text, expected):
    assert parse_selection(text) == expected


@pytest.mark.parametrize("text", ["s.h5#merger", "s.h5#class=", "s.h5#split=a#split=b", "s.h5#k=1"])
def test_a_part_that_is_not_understood(text):
    with pytest.raises(InputError, match=r"write SOURCE#class=NAME or SOURCE#split="):
        parse_selection(text)


def test_a_path_with_a_hash_stands_for_itself(write_images, tmp_path):
    folder = write_images(tmp_path / "run#class=2", 3)
    assert len(open_side(str(folder))) == 3


def test_a_flat_folder(write_images, tmp_path):
    side = open_side(str(write_images(tmp_path / "real", 7)))
    assert isinstance(side, LooseImages)
    batches = list(side.batches(3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert batches[0].images[0].shape == (3, 3, 32, 32)
    first = np.asarray(Image.open(tmp_path / "real" / "0000.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(batches[0].images[0][0].numpy(), first)


def test_upper_case_endings_count(write_images, tmp_path):
    assert len(open_side(str(write_images(tmp_path / "real", 2, ending=".PNG")))) == 2


def test_nested_images_are_counted_and_taken_on_request(write_images, tmp_path):
    write_images(tmp_path / "real" / "below", 6)
    with pytest.raises(InputError, match=r"0 here, 6 below.*--recursive"):
        open_side(str(tmp_path / "real"))
    assert len(open_side(str(tmp_path / "real"), ReadingRules(recursive=True))) == 6


def test_an_empty_folder_says_what_was_found(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"0 here, 0 below, 1 other files.*\.png"):
        open_side(str(tmp_path / "real"))


def test_a_missing_path_is_named():
    with pytest.raises(InputError, match="nowhere does not exist"):
        open_side("nowhere")


def test_every_bad_file_is_named_also_those_that_come_later(write_images, tmp_path):
    folder = write_images(tmp_path / "real", 12)
    good = (folder / "0000.png").read_bytes()
    (folder / "0001.png").write_bytes(good[: len(good) // 2])
    (folder / "0011.png").write_bytes(b"nonsense")
    side = open_side(str(folder))
    with pytest.raises(InputError, match=r"2 of 12 images.*0001\.png.*0011\.png") as caught:
        list(side.batches(3))
    assert "--skip-bad" in str(caught.value)
    lenient = open_side(str(folder), ReadingRules(skip_bad=True))
    rows = np.concatenate([part for batch in lenient.batches(5) for part in batch.rows])
    assert sorted(rows) == [0, *range(2, 11)]
    assert any("2 unusable files left out" in note for note in lenient.notes())


def test_sixteen_bits_are_refused_or_scaled_never_clipped(tmp_path):
    folder = tmp_path / "real"
    folder.mkdir()
    values = np.array([[0, 257], [1000, 65535]], dtype=np.uint16).repeat(4, 0).repeat(4, 1)
    Image.fromarray(values).save(folder / "a.png")
    with pytest.raises(InputError, match=r"more than 8 bits.*--scale-16-bit"):
        list(open_side(str(folder)).batches(1))
    rules = ReadingRules(decoding=Decoding(scale_16_bit=True))
    batch = next(open_side(str(folder), rules).batches(1))
    assert np.unique(batch.images[0].numpy()).tolist() == [0, 1, 4, 255]


def test_mixed_sizes_and_colours_are_read_and_noted(write_images, tmp_path):
    folder = write_images(tmp_path / "real", 3, size=32)
    write_images(tmp_path / "more", 2, size=48)
    for index, path in enumerate((tmp_path / "more").iterdir()):
        path.rename(folder / f"large{index}.png")
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(folder / "grey.png")
    side = open_side(str(folder))
    batch = next(side.batches(10))
    assert sorted(tuple(part.shape) for part in batch.images) == [
        (1, 1, 32, 32),
        (2, 3, 48, 48),
        (3, 3, 32, 32),
    ]
    assert sorted(np.concatenate(batch.rows)) == list(range(6))
    notes = " ".join(side.notes())
    assert "2 sizes" in notes
    assert "1 of 6 images are grey" in notes
    with pytest.raises(InputError, match="several sizes"):
        side.read(np.arange(6))


def test_a_zip_of_images(write_images, tmp_path):
    folder = write_images(tmp_path / "real", 5)
    with zipfile.ZipFile(tmp_path / "real.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"inner/{path.name}")
        archive.writestr("__MACOSX/inner/._0000.png", b"x")
    side = open_side(str(tmp_path / "real.zip"))
    plain = open_side(str(folder))
    zipped = torch.cat([image for batch in side.batches(2) for image in batch.images])
    assert torch.equal(zipped, plain.read(np.arange(5)))
    assert side.names_of(np.array([0])) == ["inner/0000.png"]
    assert plain.names_of(np.array([0])) == ["0000.png"]
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(InputError, match="holds no image"):
        open_side(str(tmp_path / "none.zip"))


def test_a_class_and_a_split_of_a_set(tiny_set, tiny_set_path):
    side = open_side(f"{tiny_set_path}#class=double#split=test")
    assert isinstance(side, SetImages)
    expected = tiny_set.side("test").of_classes(["double"])
    assert torch.equal(side.read(np.arange(len(side))), expected.pixels)
    assert len(open_side(f"{tiny_set_path}#class=double#class=2")) == 24 + 36
    with pytest.raises(InputError, match="no class 'spiral'; the classes are"):
        open_side(f"{tiny_set_path}#class=spiral")


def test_a_folder_per_class_is_a_set_when_a_class_is_asked_for(write_images, tmp_path):
    write_images(tmp_path / "real" / "merger", 4)
    write_images(tmp_path / "real" / "round", 3)
    assert len(open_side(f"{tmp_path / 'real'}#class=merger")) == 4
    whole = open_side(str(tmp_path / "real"))
    assert isinstance(whole, SetImages)
    assert len(whole) == 7
    # As loose images where that is asked for; and where images lie in the folder itself.
    loose = open_side(str(tmp_path / "real"), ReadingRules(recursive=True))
    assert not isinstance(loose, SetImages)
    write_images(tmp_path / "real", 2)
    assert len(open_side(str(tmp_path / "real"))) == 2


def test_images_of_sub_folders_are_told_apart(write_images, tmp_path):
    for name in ("a", "b"):
        write_images(tmp_path / "real" / name, 1)
    side = open_side(str(tmp_path / "real"), ReadingRules(recursive=True))
    assert side.names_of(np.arange(2)) == ["a/0000.png", "b/0000.png"]


def test_bad_files_of_a_set_are_left_out_and_counted(write_images, tmp_path):
    for name in ("merger", "round"):
        (write_images(tmp_path / "real" / name, 4) / "0001.png").write_bytes(b"nonsense")
    text = f"{tmp_path / 'real'}#class=round"
    with pytest.raises(InputError, match="1 of 4 images cannot be used"):
        list(open_side(text).batches(8))
    side = open_side(text, ReadingRules(skip_bad=True))
    assert sum(len(batch) for batch in side.batches(8)) == 3
    assert side.names_of(np.arange(3)) == [f"round/000{index}.png" for index in (0, 2, 3)]
    (note,) = side.notes()
    assert "1 unusable files left out" in note
    assert "round/0001.png is corrupt" in note
    assert "merger" not in note
    for path in (tmp_path / "real" / "round").iterdir():
        path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not one of 4 images can be used"):
        open_side(text, ReadingRules(skip_bad=True))


def test_a_folder_with_provenance_is_a_set(write_images, tmp_path):
    write_images(tmp_path / "fake" / "merger", 4)
    (tmp_path / "fake" / "provenance.json").write_text('{"source": "a generator"}')
    assert len(open_side(str(tmp_path / "fake"))) == 4


def test_arrays_and_statistics(tmp_path, rng):
    features = rng.normal(size=(20, 6)).astype(np.float32)
    np.save(tmp_path / "a.npy", features)
    np.savez(tmp_path / "a.npz", features=features)
    for name in ("a.npy", "a.npz"):
        side = open_side(str(tmp_path / name))
        assert isinstance(side, FeatureArray)
        np.testing.assert_array_equal(side.features, features)
    save_statistics(tmp_path / "s.npz", statistics_of_features(features), None)
    side = open_side(str(tmp_path / "s.npz"))
    assert isinstance(side, SavedStatistics)
    assert side.statistics.count == 20


def test_an_npz_of_images_is_a_set(tmp_path, tiny_set):
    images = tiny_set.pixels[:6].permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "set.npz", images=images, labels=np.array([0, 1, 0, 1, 0, 1]))
    assert len(open_side(f"{tmp_path / 'set.npz'}")) == 6
    assert len(open_side(f"{tmp_path / 'set.npz'}#class=1")) == 3


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.npy", b"nonsense", "not a readable array"),
        ("a.npz", b"nonsense", "not a readable .npz"),
        ("a.zip", b"nonsense", "not a readable zip"),
        ("a.fits", b"nonsense", "neither an image set"),
        ("a.png", b"nonsense", "is one image"),
    ],
)
def test_a_file_that_is_no_side(tmp_path, name, content, complaint):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        open_side(str(tmp_path / name))


def test_an_array_that_is_not_features(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 5)))
    with pytest.raises(InputError, match=r"a\.npy: features are float64 of shape \(3, 4, 5\)"):
        open_side(str(tmp_path / "a.npy"))


def test_equal_content_has_an_equal_digest_and_a_changed_byte_another(
    write_images, tmp_path, tiny_set
):
    first = write_images(tmp_path / "a", 4)
    second = write_images(tmp_path / "b", 4)
    digests = [open_side(str(folder)).digest() for folder in (first, second)]
    assert digests[0] == digests[1]
    image = Image.open(second / "0003.png")
    image.putpixel((0, 0), (1, 2, 3))
    image.save(second / "0003.png")
    assert open_side(str(second)).digest() != digests[0]
    assert SetImages("", tiny_set).digest() != SetImages("", tiny_set.select(range(119))).digest()


def test_reading_ahead_keeps_order_and_passes_errors():
    assert list(ahead(iter(range(20)))) == list(range(20))

    def broken():
        yield 1
        raise InputError("bad file")

    reader = ahead(broken())
    assert next(reader) == 1
    with pytest.raises(InputError, match="bad file"):
        next(reader)


def test_reading_ahead_stops_when_nobody_listens():
    taken = []

    def endless():
        for item in range(10**9):
            taken.append(item)
            yield item

    reader = ahead(endless(), depth=2)
    next(reader)
    reader.close()
    count = len(taken)
    assert count < 10
    assert len(taken) == count


def test_a_link_to_nothing_is_named_or_left_out(write_images, tmp_path):
    folder = write_images(tmp_path / "folder", 4)
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    source = open_side(str(folder))
    source.digest()  # whoever decodes it says what is wrong
    with pytest.raises(InputError, match=r"gone.png does not exist"):
        list(source.batches(8))
    lenient = open_side(str(folder), ReadingRules(skip_bad=True))
    assert lenient.bad_rows().tolist() == [len(lenient) - 1]


def test_damaged_compressed_statistics_and_features_say_so(tmp_path, rng):
    arrays = {"mu": rng.normal(size=64), "sigma": np.eye(64)}, {"a": rng.normal(size=(200, 9))}
    for index, found in enumerate(arrays):
        path = tmp_path / f"{index}.npz"
        np.savez_compressed(path, **found)
        data = bytearray(path.read_bytes())
        data[120:180] = b"\xff" * 60
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"is not a readable \.npz file"):
            open_side(str(path))


@pytest.mark.parametrize("ending", [".npy", ".npz", ".h5"])
def test_images_without_labels(tmp_path, ending):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    path = tmp_path / f"fake{ending}"
    if ending == ".npy":
        np.save(path, pixels)
    elif ending == ".npz":
        np.savez(path, pixels)  # arr_0, as programs that sample from diffusion models write them
    else:
        with h5py.File(path, "w") as file:
            file["images"] = pixels
    side = open_side(str(path))
    assert isinstance(side, SetImages)
    np.testing.assert_array_equal(side.read(np.arange(5)).numpy(), pixels.transpose(0, 3, 1, 2))
    with pytest.raises(InputError, match=r"labels"):
        open_side(f"{path}#class=merger")
