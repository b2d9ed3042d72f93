"""What a stranger may send: bounded before it is opened, and answered one by one."""

import gzip
import io
import random
import stat
import struct
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from app.uploads import MEBIBYTE, Limits, Refused, Upload, accept, shown_name


def image_bytes(kind: str = "PNG", size: int = 16, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (size, size)).save(file, kind, **options)
    return file.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def png_that_declares(width: int, height: int) -> bytes:
    """A few bytes that claim to be a huge image."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


def the_refusal(name: str, content: bytes, limits: Limits | None = None) -> str:
    (answer,) = accept([(name, content)], limits or Limits())
    assert isinstance(answer, Refused)
    return answer.reason


def test_files_and_archives_keep_their_order_and_names() -> None:
    image = image_bytes()
    answers = accept(
        [("b.png", image), ("set.zip", zipped({"x/1.png": image, "x/0.png": image})), ("a", image)],
        Limits(),
    )
    assert [answer.name for answer in answers] == [
        "b.png",
        "set.zip/x/1.png",
        "set.zip/x/0.png",
        "a",
    ]
    assert all(isinstance(answer, Upload) and answer.content == image for answer in answers)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM"])
def test_every_kind_of_image_is_known_by_its_content(kind: str) -> None:
    content = image_bytes(kind)
    assert accept([("no ending", content)], Limits()) == [Upload("no ending", content)]


def test_fits_also_gzipped() -> None:
    fits = pytest.importorskip("astropy.io.fits", reason="needs the extra fits")
    file = io.BytesIO()
    fits.PrimaryHDU(np.full((8, 8), np.nan, np.float32)).writeto(file)
    content = file.getvalue()
    assert accept([("a.fits", content)], Limits()) == [Upload("a.fits", content)]
    assert accept([("a.fits.gz", gzip.compress(content))], Limits()) == [Upload("a.fits", content)]
    assert "FITS file is damaged" in the_refusal("a.fits", content[:100])


def test_a_bad_file_is_answered_beside_the_good_ones() -> None:
    good = image_bytes()
    answers = accept([("good.png", good), ("bad.png", b"text"), ("also.png", good)], Limits())
    assert [type(answer) for answer in answers] == [Upload, Refused, Upload]
    assert "not an image" in answers[1].reason


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.png", b"", "empty"),
        ("page.html", b"<html><script>", "not an image"),
        ("picture.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        ("bomb.png", png_that_declares(50_000, 50_000), "far too many pixels"),
        ("large.png", png_that_declares(6_000, 6_000), "36 million pixels"),
        ("set.7z", b"7z\xbc\xaf\x27\x1c", "plain zip"),
        ("set.tar.gz", gzip.compress(b"ustar" * 100, mtime=0), "only FITS"),
        ("cut.gz", gzip.compress(b"SIMPLE  =" * 1000, mtime=0)[:-20], "cut short"),
        ("cut.zip", zipped({"a.png": image_bytes()})[:-30], "cut short"),
        ("none.zip", zipped({}), "holds no file"),
    ],
)
def test_what_is_refused_and_why(name: str, content: bytes, reason: str) -> None:
    assert reason in the_refusal(name, content)


def test_bytes_are_limited_over_all_files_of_a_request() -> None:
    image = image_bytes("BMP", size=100)
    answers = accept([(str(index), image) for index in range(4)], Limits(upload_bytes=70_000))
    assert [type(answer) for answer in answers] == [Upload, Upload, Refused, Refused]


def test_the_number_of_images_is_limited_over_files_and_archives() -> None:
    image = image_bytes()
    files = [("set.zip", zipped({f"{index}.png": image for index in range(4)})), ("5.png", image)]
    answers = accept(files, Limits(files=3))
    assert [type(answer) for answer in answers] == [Upload] * 3 + [Refused]
    assert answers[-1].name == "2 more files"


def test_a_zip_bomb_is_read_no_further_than_the_limit() -> None:
    bomb = zipped({"zeros.bmp": b"BM" + bytes(50 * MEBIBYTE)})
    assert len(bomb) < MEBIBYTE
    assert "unpacks to more than 1 MB" in the_refusal("b.zip", bomb, Limits(upload_bytes=MEBIBYTE))


def test_many_small_bombs_share_one_limit() -> None:
    image = image_bytes("BMP", size=400)  # 480,054 bytes each, a few hundred packed
    bomb = zipped({f"{index}.bmp": image for index in range(40)})
    answers = accept([("b.zip", bomb)], Limits(upload_bytes=MEBIBYTE))
    assert sum(isinstance(answer, Upload) for answer in answers) == 8  # 4 MB in all
    assert sum(isinstance(answer, Refused) for answer in answers) == 32


@pytest.mark.parametrize("inside", [b"", b"BM", b"SIMPLE  ="])
def test_members_that_are_refused_share_the_limit_too(inside: bytes) -> None:
    """Each is under the limit, none is an image; unpacking all of them would take 40 MB."""
    bomb = zipped({f"{index}": inside + bytes(MEBIBYTE // 2) for index in range(80)})
    answers = accept([("b.zip", bomb)], Limits(upload_bytes=MEBIBYTE))
    assert all(isinstance(answer, Refused) for answer in answers)
    unpacked = [a for a in answers if isinstance(a, Refused) and "unpacks" not in a.reason]
    assert len(unpacked) <= 8  # 4 MB in all


def test_damaged_members_share_the_limit_too() -> None:
    members = {f"{index}": b"BM" + bytes(MEBIBYTE // 2) for index in range(40)}
    bomb = bytearray(zipped(members))
    with zipfile.ZipFile(io.BytesIO(bomb)) as archive:
        for member in archive.infolist():  # a wrong checksum is seen once all is unpacked
            bomb[member.header_offset + 14] ^= 1
    directory = bomb.rfind(b"PK\x01\x02")
    while directory >= 0:
        bomb[directory + 16] ^= 1
        directory = bomb.rfind(b"PK\x01\x02", 0, directory)
    answers = accept([("b.zip", bytes(bomb))], Limits(upload_bytes=MEBIBYTE))
    damaged = [a for a in answers if isinstance(a, Refused) and "damaged" in a.reason]
    assert 1 <= len(damaged) <= 8


def test_gzip_files_that_are_refused_share_one_limit() -> None:
    bomb = gzip.compress(bytes(MEBIBYTE // 2))
    answers = accept([(str(index), bomb) for index in range(20)], Limits(upload_bytes=MEBIBYTE))
    opened = [a for a in answers if isinstance(a, Refused) and "only FITS" in a.reason]
    assert len(opened) <= 8


def test_the_pixels_of_one_request_are_limited_together() -> None:
    large = image_bytes("PNG", size=1000, mode="1")
    answers = accept([(str(index), large) for index in range(20)], Limits(pixels=1000 * 1000))
    assert [type(answer) for answer in answers] == [Upload] * 16 + [Refused] * 4
    assert "read at once" in answers[-1].reason


def test_a_gzip_bomb_is_read_no_further_than_the_limit() -> None:
    bomb = gzip.compress(b"SIMPLE  =" + bytes(50 * MEBIBYTE))
    assert "unpacks to more than" in the_refusal("b.gz", bomb, Limits(upload_bytes=MEBIBYTE))


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "x/../../a.png", "..\\a.png", "C:\\a"])
def test_a_name_that_leads_out_of_the_archive(name: str) -> None:
    assert "leads out" in the_refusal("set.zip", zipped({name: image_bytes()}))


def test_links_passwords_and_archives_in_archives() -> None:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "a link" in the_refusal("set.zip", file.getvalue())

    nested = zipped({"inner.zip": zipped({"a.png": image_bytes()})})
    assert "inside an archive" in the_refusal("set.zip", nested)

    locked = bytearray(zipped({"a.png": image_bytes()}, zipfile.ZIP_STORED))
    directory = locked.rfind(b"PK\x01\x02")
    locked[directory + 8] |= 1
    assert "password" in the_refusal("set.zip", bytes(locked))

    packed = zipped({"a.png": image_bytes()}, zipfile.ZIP_LZMA)
    assert "unusual method" in the_refusal("set.zip", packed)


def test_a_directory_without_end_is_not_parsed() -> None:
    many = zipped({f"{index}": b"" for index in range(2_001)})
    assert "lists more than 2000" in the_refusal("set.zip", many)


def test_a_directory_that_another_end_record_describes_is_not_parsed() -> None:
    plain = zipped({f"{index}": b"" for index in range(3_000)})
    at = plain.rfind(b"PK\x05\x06")
    start = plain.find(b"PK\x01\x02")
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 3_000, 3_000, at - start, start
    )
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 0)
    both = plain[:at] + record + locator + end
    with zipfile.ZipFile(io.BytesIO(both)) as archive:
        assert len(archive.infolist()) == 3_000
    assert "send a plain zip" in the_refusal("set.zip", both)


def test_the_number_of_refusals_is_limited_too() -> None:
    members = {f"{index}.txt": b"text" for index in range(30)} | {"a.png": image_bytes()}
    answers = accept([("set.zip", zipped(members))], Limits(files=5))
    assert sum(isinstance(answer, Upload) for answer in answers) == 1
    assert len(answers) == 7
    assert answers[-1] == Refused("25 more files", "they cannot be used either")


def test_a_fits_file_of_very_many_parts_is_refused() -> None:
    fits = pytest.importorskip("astropy.io.fits")
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU() for _ in range(64))]).writeto(file)
    assert "more than 64 HDUs" in the_refusal("many.fits", file.getvalue())


def test_what_a_mac_adds_to_an_archive_is_passed_over() -> None:
    image = image_bytes()
    archive = zipped({"__MACOSX/._a.png": b"x", ".DS_Store": b"x", "a.png": image})
    assert accept([("s.zip", archive)], Limits()) == [Upload("s.zip/a.png", image)]


def test_names_are_safe_to_show() -> None:
    assert shown_name("a\u202egnp.exe\n\x1b[31m") == "a\ufffdgnp.exe\ufffd\ufffd[31m"
    assert shown_name("") == shown_name("  ") == "(no name)"
    assert len(shown_name("x" * 10_000 + ".png")) <= 160
    assert shown_name("x" * 500 + ".png").endswith(".png")


@pytest.mark.filterwarnings("ignore")  # the readers complain of the damage, as they should
@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_damaged_files_are_always_answered(seed: int) -> None:
    """Bytes of real files changed, cut and joined: one answer for each, never an exception."""
    chance = random.Random(seed)
    whole = chance.choice(_REAL_FILES)
    content = bytearray(whole)
    for _ in range(chance.randrange(8)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    if chance.random() < 0.3:
        del content[chance.randrange(len(content)) :]
    if chance.random() < 0.2:
        content += chance.choice(_REAL_FILES)
    answers = accept([("fuzz", bytes(content))], Limits(upload_bytes=MEBIBYTE))
    assert answers
    assert all(isinstance(answer, Upload | Refused) for answer in answers)


_REAL_FILES = [
    image_bytes("PNG"),
    image_bytes("JPEG"),
    image_bytes("TIFF"),
    image_bytes("JPEG", mode="CMYK"),
    image_bytes("PNG", mode="I;16"),
    image_bytes("GIF", mode="L", save_all=True, append_images=[Image.new("L", (16, 16), 9)]),
    image_bytes("WEBP"),
    zipped({"a.png": image_bytes(), "b.jpg": image_bytes("JPEG")}),
    gzip.compress(b"SIMPLE  =                    T" + b" " * 2850, mtime=0),
    b"SIMPLE  =                    T" + b" " * 50 + b"BITPIX  =                  -32" + b" " * 2770,
]
