"""Decoding by the stated rules: nothing is clipped, cut or guessed without a word."""

import os

import numpy as np
import pytest
from PIL import Image

from galaxies.eight_bits import to_eight_bits
from galaxies.errors import InputError
from galaxies.image_files import (
    BadImageError,
    Decoding,
    decode_all,
    decode_image,
    encode_png,
    list_image_files,
    read_header,
)


@pytest.mark.parametrize(
    ("mode", "ending", "channels"),
    [
        ("L", "png", 1),
        ("RGB", "png", 3),
        ("RGB", "bmp", 3),
        ("RGBA", "png", 3),
        ("LA", "png", 1),
        ("P", "png", 3),
        ("CMYK", "jpg", 3),
        ("1", "png", 1),
        ("RGB", "webp", 3),
        ("L", "tif", 1),
    ],
)
def test_modes(tmp_path, make_picture, mode, ending, channels):
    path = tmp_path / f"a.{ending}"
    picture = make_picture(1).convert(mode)
    picture.save(path, **({"lossless": True} if ending == "webp" else {}))
    pixels = decode_image(path, "a")
    assert pixels.shape == (40, 40, channels)
    assert read_header(path).channels == channels
    if ending != "jpg":
        expected = picture.convert("L" if channels == 1 else "RGB")
        assert (pixels.squeeze() == np.asarray(expected)).all()


def save_16_bit_colour(path, values):
    """PNG of 16-bit RGB, which Pillow reads but does not write."""
    import struct
    import zlib

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_16_bit_colour_is_refused_though_pillow_would_cut_it(tmp_path, rng):
    save_16_bit_colour(tmp_path / "a.png", rng.integers(0, 65536, (9, 9, 3), dtype=np.uint16))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "RGB"
    for decoding in (Decoding(), Decoding(scale_16_bit=True)):
        with pytest.raises(BadImageError, match=r"16-bit colour.*convert it to 8 bits"):
            decode_image(tmp_path / "a.png", "a", decoding)


@pytest.mark.parametrize("kind", ["png", "tif", "pgm"])
def test_16_bit_is_refused_or_scaled_by_the_rule(tmp_path, rng, kind):
    values = rng.integers(0, 65536, (9, 9), dtype=np.uint16)
    values.flat[:3] = (0, 65535, 128)
    path = tmp_path / f"a.{kind}"
    if kind == "pgm":
        path.write_bytes(b"P5 9 9 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(path)
    with pytest.raises(BadImageError, match=r"more than 8 bits.*--scale-16-bit"):
        decode_image(path, "a")
    scaled = decode_image(path, "a", Decoding(scale_16_bit=True))
    assert (scaled.squeeze() == np.rint(values / 257)).all()


def test_scaling_maps_the_ends_to_the_ends():
    assert to_eight_bits(np.array([0, 128, 129, 65406, 65407, 65535])).tolist() == [
        0, 0, 1, 254, 255, 255,
    ]  # fmt: skip
    everything = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(to_eight_bits(everything), np.rint(everything / 257))


def test_floating_point_pictures_are_refused(tmp_path):
    Image.fromarray(np.zeros((5, 5), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(BadImageError, match="mode F"):
        decode_image(tmp_path / "a.tif", "a", Decoding(scale_16_bit=True))


def test_transparency_and_animation_are_refused(tmp_path, make_picture):
    picture = make_picture(1).convert("RGBA")
    picture.putpixel((0, 0), (0, 0, 0, 10))
    picture.save(tmp_path / "a.png")
    with pytest.raises(BadImageError, match="partly transparent"):
        decode_image(tmp_path / "a.png", "a")
    make_picture(1).save(
        tmp_path / "b.webp", save_all=True, append_images=[make_picture(2)], duration=10
    )
    with pytest.raises(BadImageError, match="2 frames"):
        decode_image(tmp_path / "b.webp", "b")


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp"])
def test_a_cut_file_is_named(tmp_path, make_picture, ending):
    path = tmp_path / f"cut.{ending}"
    make_picture(1).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadImageError, match=rf"cut\.{ending} is corrupt"):
        decode_image(path, str(path))


def test_a_file_that_is_no_image_is_named_without_an_address(tmp_path):
    (tmp_path / "a.png").write_text("not an image")
    with pytest.raises(
        BadImageError, match=r"a\.png is corrupt or not an image \(unknown format\)"
    ):
        decode_image(tmp_path / "a.png", "a.png")


def test_every_bad_file_of_many_is_named(tmp_path, make_picture):
    paths = []
    for index in range(40):
        paths.append(tmp_path / f"{index:02d}.png")
        make_picture(index, side=8).save(paths[-1])
    for index in (3, 17, 38):
        paths[index].write_bytes(b"bad")
    kept: list[int] = []
    with pytest.raises(BadImageError.__mro__[1], match=r"3 of 40.*03\.png.*17\.png.*38\.png"):
        decode_all(paths, Decoding(), progress=False, keep=lambda i, _: kept.append(i))
    kept.clear()
    skipped = decode_all(
        paths, Decoding(), skip_bad=True, progress=False, keep=lambda i, _: kept.append(i)
    )
    assert skipped == [3, 17, 38]
    assert kept == [index for index in range(40) if index not in skipped]


def test_png_is_lossless(rng, tmp_path):
    for channels in (1, 3):
        pixels = rng.integers(0, 256, (7, 7, channels), dtype=np.uint8)
        assert (decode_image(encode_png(pixels), "memory") == pixels).all()


def test_folder_listing_says_what_was_found(tmp_path, make_picture):
    from galaxies.errors import InputError

    (tmp_path / "below").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    make_picture(1).save(tmp_path / "below" / "a.png")
    with pytest.raises(InputError, match=r"0 here, 1 below, 1 other files.*--recursive"):
        list_image_files(tmp_path)
    assert [path.name for path in list_image_files(tmp_path, recursive=True)] == ["a.png"]


def test_crop_larger_than_the_picture_and_non_square_are_refused(tmp_path, make_picture):
    make_picture(1).crop((0, 0, 30, 40)).save(tmp_path / "a.png")
    with pytest.raises(BadImageError, match="30x40, smaller than --crop 35"):
        decode_image(tmp_path / "a.png", "a", Decoding(crop=35))
    with pytest.raises(BadImageError, match="30x40, not square; pass --crop"):
        decode_image(tmp_path / "a.png", "a", Decoding(size=16))


def test_links_to_folders_are_followed_and_each_folder_is_taken_once(tmp_path, make_picture):
    for name in ("a", "elsewhere"):
        (tmp_path / name).mkdir()
        make_picture(1).save(tmp_path / name / "0.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(root)
    found = list_image_files(root, recursive=True)
    assert [path.relative_to(root).as_posix() for path in found] == ["linked/0.png"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, make_picture, monkeypatch):
    (tmp_path / "a" / "shut").mkdir(parents=True)
    make_picture(1).save(tmp_path / "a" / "0.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"shut cannot be read \(Permission denied\)"):
        list_image_files(tmp_path, recursive=True)
    assert [path.name for path in list_image_files(tmp_path / "a")] == ["0.png"]


def test_a_tiff_whose_second_frame_has_no_width_is_named(tmp_path, make_picture):
    path = tmp_path / "a.tif"
    make_picture(1, mode="L").save(path)
    whole = path.read_bytes()
    first = int.from_bytes(whole[4:8], "little")
    following = first + 2 + 12 * int.from_bytes(whole[first : first + 2], "little")
    second = b"\x01\0" + bytes.fromhex("030101000300000001000000") + bytes(4)
    at = len(whole).to_bytes(4, "little")
    path.write_bytes(whole[:following] + at + whole[following + 4 :] + second)
    with pytest.raises(BadImageError, match=r"a is corrupt or not an image"):
        decode_image(path, "a")


def test_what_no_scaling_helps_is_not_told_to_scale(tmp_path):
    Image.fromarray(np.zeros((5, 5), np.float32)).save(tmp_path / "f.tif")
    Image.new("LAB", (5, 5)).save(tmp_path / "lab.tif")
    for name, advice in (("f.tif", "as float32"), ("lab.tif", "convert it to 8-bit RGB")):
        with pytest.raises(BadImageError, match=advice) as caught:
            decode_image(tmp_path / name, name)
        assert "--scale-16-bit" not in str(caught.value)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_transparent_colour_is_refused_where_it_occurs(tmp_path, make_picture, mode):
    picture = make_picture(1, mode=mode)
    absent = 255 if mode == "L" else (255, 255, 255)
    picture.save(tmp_path / "opaque.png", transparency=absent)
    assert (decode_image(tmp_path / "opaque.png", "a").squeeze() == np.asarray(picture)).all()
    picture.save(tmp_path / "a.png", transparency=picture.getpixel((0, 0)))
    with pytest.raises(BadImageError, match="partly transparent"):
        decode_image(tmp_path / "a.png", "a")
