"""From what a stranger sends to image files that may be decoded, or to a reason why not.

Everything is bounded before it is done: bytes, files, bytes after unpacking, pixels of one image
and of all. Nothing touches the disk, so a name is only ever shown. What cannot be used is answered
beside the rest.
"""

import io
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import Image, UnidentifiedImageError

from galaxies.image_files import IMAGE_FORMATS

MEBIBYTE = 2**20

_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_GZIP_START = b"\x1f\x8b"
_FITS_START = b"SIMPLE  ="
_OTHER_ARCHIVES = (b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_READABLE = "JPEG, PNG, TIFF, WebP, BMP or FITS, or a zip of them"
_LONGEST_NAME = 160
_END_OF_ZIP = b"PK\x05\x06"
_END_OF_ZIP_BYTES = 22
_ZIP64_LOCATOR = b"PK\x06\x07"
_ZIP64_LOCATOR_BYTES = 20
_LONGEST_ZIP_COMMENT = 2**16
_LONGEST_DIRECTORY_ENTRY = 2**10
_BLOCK = 2**16
_MOST_HDUS = 64


@dataclass(frozen=True)
class Limits:
    """How much one request may ask for.

    Attributes
    ----------
    upload_bytes : int
        Most bytes of all files of one request together.
    files : int
        Most images of one request, after archives are unpacked.
    pixels : int
        Most pixels of one image, read from its header before it is decoded.
    """

    upload_bytes: int = 20 * MEBIBYTE
    files: int = 200
    pixels: int = 4096 * 4096

    @property
    def unpacked_bytes(self) -> int:
        """Most bytes of one request after archives are unpacked."""
        return 4 * self.upload_bytes

    @property
    def decoded_pixels(self) -> int:
        """Most pixels of all images of one request together."""
        return 16 * self.pixels


@dataclass
class _Room:
    """What is left of the limits of one request; what was unpacked counts even if refused."""

    unpacked_bytes: int
    pixels: int


@dataclass(frozen=True)
class Upload:
    """One image file: the name to show and its bytes, small enough to be decoded."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Refused:
    """One file that cannot be used, and why, in words for the person who sent it."""

    name: str
    reason: str


class _RefusedError(Exception):
    """Why one file cannot be used."""


def accept(files: Iterable[tuple[str, bytes]], limits: Limits) -> list[Upload | Refused]:
    """Unpack archives and check every file; each file gets an answer, in the order given.

    Parameters
    ----------
    files
        Name and bytes of each file as it was sent.
    limits
        Bounds of this request.

    Returns
    -------
    list of Upload or Refused
        At most ``limits.files`` of each. Files beyond that are answered by one `Refused`.
    """
    answers: list[Upload | Refused] = []
    room = _Room(limits.unpacked_bytes, limits.decoded_pixels)
    accepted, refused = 0, 0
    unread, unnamed = 0, 0
    for name, content in _limited(files, limits):
        if accepted >= limits.files:
            unread += 1
            continue
        if content is None:
            reason = f"more than {_megabytes(limits.upload_bytes)} were sent at once"
            answers.append(Refused(shown_name(name), reason))
            continue
        for answer in _open(name, content, limits, room):
            if isinstance(answer, Upload):
                if accepted >= limits.files:
                    unread += 1
                    continue
                accepted += 1
            elif refused >= limits.files:
                unnamed += 1
                continue
            else:
                refused += 1
            answers.append(answer)
    if unnamed:
        answers.append(Refused(f"{unnamed} more files", "they cannot be used either"))
    if unread:
        answers.append(
            Refused(
                f"{unread} more files",
                f"only {limits.files} images are read at once; send the rest afterwards",
            )
        )
    return answers


def shown_name(name: str) -> str:
    """A name that is safe to show: no control or direction marks, at most 160 characters."""
    clean = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(letter).startswith("C") else letter
        for letter in name[: 4 * _LONGEST_NAME]
    ).strip()
    if len(clean) > _LONGEST_NAME:
        clean = f"…{clean[-_LONGEST_NAME + 1 :]}"
    return clean or "(no name)"


def _limited(
    files: Iterable[tuple[str, bytes]], limits: Limits
) -> Iterator[tuple[str, bytes | None]]:
    """The files, with ``None`` for the content of those that go beyond the bytes allowed."""
    sent = 0
    for name, content in files:
        fits = sent + len(content) <= limits.upload_bytes
        sent += len(content) if fits else 0
        yield name, content if fits else None


def _open(name: str, content: bytes, limits: Limits, room: _Room) -> Iterator[Upload | Refused]:
    if content.startswith(_ZIP_STARTS):
        yield from _unzip(shown_name(name), content, limits, room)
        return
    try:
        upload = _checked(name, content, limits, room)
    except _RefusedError as refusal:
        yield Refused(shown_name(name), str(refusal))
    else:
        room.unpacked_bytes -= len(content)
        yield upload


def _unzip(name: str, content: bytes, limits: Limits, room: _Room) -> Iterator[Upload | Refused]:
    try:
        _refuse_endless_directory(content, limits)
        archive = zipfile.ZipFile(io.BytesIO(content))
    except _RefusedError as refusal:
        yield Refused(name, str(refusal))
        return
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeError) as error:
        yield Refused(name, f"the zip archive is damaged ({error})")
        return
    members = [member for member in archive.infolist() if not _is_clutter(member)]
    if not members:
        yield Refused(name, "the zip archive holds no file")
    for member in members:
        try:
            inside = _read_member(archive, member, limits, room)
            upload = _checked(f"{name}/{member.filename}", inside, limits, room)
        except _RefusedError as refusal:
            yield Refused(shown_name(f"{name}/{member.filename}"), str(refusal))
        else:
            yield upload


def _refuse_endless_directory(content: bytes, limits: Limits) -> None:
    """Look at the archive's end before its list of members is parsed."""
    tail = content[-(_END_OF_ZIP_BYTES + _LONGEST_ZIP_COMMENT) :]
    at = tail.rfind(_END_OF_ZIP)
    if at < 0 or len(tail) - at < _END_OF_ZIP_BYTES:
        raise _RefusedError("the zip archive is damaged or cut short")
    end = len(content) - len(tail) + at
    if content[max(0, end - _ZIP64_LOCATOR_BYTES) : end].startswith(_ZIP64_LOCATOR):
        # It may list other members than the end that is looked at here.
        raise _RefusedError("the zip archive has the form for more than 4 GB; send a plain zip")
    directory_bytes = int.from_bytes(tail[at + 12 : at + 16], "little")
    most = 10 * limits.files
    if directory_bytes > most * _LONGEST_DIRECTORY_ENTRY or (
        int.from_bytes(tail[at + 10 : at + 12], "little") > most
    ):
        raise _RefusedError(f"the zip archive lists more than {most} files; split it")


def _is_clutter(member: zipfile.ZipInfo) -> bool:
    """Folders, and what macOS and Windows add to archives unasked."""
    parts = PurePosixPath(member.filename).parts
    return (
        member.is_dir()
        or "__MACOSX" in parts
        or (bool(parts) and parts[-1] in (".DS_Store", "Thumbs.db", "desktop.ini"))
    )


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, limits: Limits, room: _Room
) -> bytes:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in member.filename.split("/")[0]:
        raise _RefusedError("its name leads out of the archive")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise _RefusedError("it is a link, not a file")
    if member.flag_bits & 0x1:
        raise _RefusedError("it is protected by a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _RefusedError("it is packed by an unusual method; pack it as a plain zip")
    # The size in the header is a claim: what is read is what is counted.
    try:
        with archive.open(member) as file:
            content = _unpacked(lambda: file.read(_BLOCK), limits, room)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        raise _RefusedError(f"it is damaged in the archive ({error})") from None
    if content.startswith(_ZIP_STARTS):
        raise _RefusedError("an archive inside an archive is not opened; send it by itself")
    return content


def _checked(name: str, content: bytes, limits: Limits, room: _Room) -> Upload:
    if not content:
        raise _RefusedError("the file is empty")
    if content.startswith(_OTHER_ARCHIVES):
        raise _RefusedError("this kind of archive is not opened; send a plain zip")
    if content.startswith(_GZIP_START):
        content = _gunzip(content, limits, room)
        name = name.removesuffix(".gz")
    pixels = (
        _pixels_of_fits(content) if content.startswith(_FITS_START) else _pixels_of_image(content)
    )
    if pixels > limits.pixels:
        raise _RefusedError(
            f"it has {pixels / 1e6:,.0f} million pixels; at most {limits.pixels / 1e6:.0f} "
            "million are read, so cut the object out first"
        )
    if pixels > room.pixels:
        raise _RefusedError(
            f"the images before it hold most of the {limits.decoded_pixels / 1e6:.0f} million "
            "pixels that are read at once; send it afterwards"
        )
    room.pixels -= pixels
    return Upload(shown_name(name), content)


def _unpacked(read: Callable[[], bytes], limits: Limits, room: _Room) -> bytes:
    """Everything that ``read`` gives block by block; each block is paid for before it is made."""
    most = min(limits.upload_bytes, room.unpacked_bytes)
    if most <= 0:
        raise _RefusedError(_too_big_unpacked(most))
    content = bytearray()
    while True:
        room.unpacked_bytes -= _BLOCK
        block = read()
        room.unpacked_bytes += _BLOCK - len(block)
        content += block
        if len(content) > most:
            raise _RefusedError(_too_big_unpacked(most))
        if not block:
            return bytes(content)


def _gunzip(content: bytes, limits: Limits, room: _Room) -> bytes:
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    packed = content

    def read() -> bytes:
        nonlocal packed
        block = unpacker.decompress(packed, _BLOCK)
        packed = unpacker.unconsumed_tail
        return block

    try:
        unpacked = _unpacked(read, limits, room)
    except zlib.error as error:
        raise _RefusedError(f"the gzip file is damaged ({error})") from None
    if not unpacker.eof:
        raise _RefusedError("the gzip file is cut short")
    if not unpacked.startswith(_FITS_START):
        raise _RefusedError("only FITS files are unpacked from gzip")
    return unpacked


def _pixels_of_image(content: bytes) -> int:
    """Pixels that the header of an image file declares."""
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            return image.width * image.height
    except Image.DecompressionBombError:
        raise _RefusedError("it has far too many pixels to be a cut-out") from None
    except UnidentifiedImageError:
        raise _RefusedError(f"it is not an image that can be read here ({_READABLE})") from None
    except Exception as error:  # a hostile header may break a decoder in any way
        raise _RefusedError(f"it is damaged ({type(error).__name__})") from None


def _pixels_of_fits(content: bytes) -> int:
    """Most pixels that any image in a FITS file declares, from the headers alone."""
    try:
        from astropy.io import fits
    except ImportError:
        raise _RefusedError("this server reads no FITS (it needs the extra 'fits')") from None
    try:
        with fits.open(io.BytesIO(content), memmap=False, lazy_load_hdus=True) as units:
            most = 0
            for number, unit in enumerate(units):
                if number == _MOST_HDUS:
                    raise _RefusedError(f"the FITS file holds more than {_MOST_HDUS} HDUs")
                most = max(most, _product(unit.shape) if unit.is_image else 0)
            return most
    except _RefusedError:
        raise
    except Exception as error:  # a hostile header may break the reader in any way
        raise _RefusedError(f"the FITS file is damaged ({type(error).__name__})") from None


def _product(shape: Iterable[int]) -> int:
    total = 1
    for length in shape:
        total *= max(0, int(length))
    return total


def _too_big_unpacked(most: int) -> str:
    return f"it unpacks to more than {_megabytes(max(0, most))}, all that is left of the limit"


def _megabytes(count: int) -> str:
    return f"{count / MEBIBYTE:.0f} MB"
