"""Downloads against a server on this machine that behaves badly; published sets in small."""

import dataclasses
import gzip
import hashlib
import http.client
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest

from galaxies import published
from galaxies.download import download
from galaxies.errors import InputError
from galaxies.fetch import fetch
from galaxies.hdf5 import read_hdf5
from galaxies.published import (
    PublishedFile,
    published_set,
    recognise_galaxy10,
    refuse_foreign_names,
)

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class BadServer(ThreadingHTTPServer):
    """Serves ``content``; cuts the first ``cuts`` answers after ``cut_after`` bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content: dict[str, bytes] = {"/file.bin": CONTENT}
        self.cuts = 0
        self.cut_after = 100_000
        self.ranges = True
        self.asked: list[str | None] = []

    def url(self, name: str = "/file.bin") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{name}"


class _Handler(BaseHTTPRequestHandler):
    server: BadServer

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        content = self.server.content.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(asked.split("=")[1].rstrip("-")) if asked and self.server.ranges else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if self.server.cuts > 0:
            self.server.cuts -= 1
            body = body[: self.server.cut_after]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[BadServer]:
    server = BadServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_file_arrives_and_is_kept(server, tmp_path):
    path = download(server.url(), tmp_path / "new" / "file.bin", sha256=SHA256, progress=False)
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]
    download(server.url(), path, sha256=SHA256, progress=False)
    assert len(server.asked) == 1


def test_cut_connections_are_continued(server, tmp_path):
    server.cuts = 2
    path = download(server.url(), tmp_path / "file.bin", sha256=SHA256, progress=False)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]


def test_what_arrived_is_kept_for_the_next_call(server, tmp_path):
    server.cuts, server.cut_after = 4, 10_000
    with pytest.raises(
        InputError, match=r"broke 4 times.*40000 bytes are kept in .*file\.bin\.part"
    ):
        download(server.url(), tmp_path / "file.bin", sha256=SHA256, progress=False)
    assert not (tmp_path / "file.bin").exists()
    path = download(server.url(), tmp_path / "file.bin", sha256=SHA256, progress=False)
    assert path.read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=40000-"


def test_a_server_that_cannot_continue_sends_all(server, tmp_path):
    server.cuts, server.ranges = 1, False
    path = download(server.url(), tmp_path / "file.bin", sha256=SHA256, progress=False)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]


def test_a_whole_part_file_is_taken(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    path = download(server.url(), tmp_path / "file.bin", sha256=SHA256, progress=False)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["sha256", "md5"])
def test_a_wrong_hash_is_refused_and_removed(server, tmp_path, name):
    with pytest.raises(InputError, match=rf"arrived but its {name} is .*, not 00"):
        download(server.url(), tmp_path / "file.bin", **{name: "00"}, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_content_is_not_overwritten(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"exists but its sha256 is"):
        download(server.url(), tmp_path / "file.bin", sha256=SHA256, progress=False)
    assert (tmp_path / "file.bin").read_bytes() == b"mine"


def test_offline_says_what_to_download_and_where_to_put_it(tmp_path):
    with pytest.raises(InputError) as caught:
        download("http://127.0.0.1:9/x.h5", tmp_path / "x.h5", sha256="abc", progress=False)
    message = str(caught.value)
    assert "cannot reach http://127.0.0.1:9/x.h5" in message
    assert "(sha256 abc)" in message
    assert f"put it at {tmp_path}/x.h5" in message
    assert "\n" not in message


def test_a_missing_page_and_a_strange_address(server, tmp_path):
    with pytest.raises(InputError, match="answered 404"):
        download(server.url("/no"), tmp_path / "x", progress=False)
    with pytest.raises(InputError, match="not an http"):
        download("file:///etc/hostname", tmp_path / "x", progress=False)


def galaxy10_bytes(tmp_path: Path, size: int, labels: np.ndarray, extra: bool) -> bytes:
    path = tmp_path / "made.h5"
    rng = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        file["images"] = rng.integers(0, 255, (len(labels), size, size, 3), dtype=np.uint8)
        file["ans"] = labels.astype(np.uint8)
        if extra:
            for name in ("ra", "dec", "redshift", "pxscale"):
                file[name] = rng.random(len(labels))
    data = path.read_bytes()
    path.unlink()
    return data


@pytest.fixture
def small_archive(server, tmp_path, monkeypatch):
    """The published sets, each with small files on the local server."""
    monkeypatch.setenv("GALAXY_AUGMENT_CACHE", str(tmp_path / "cache"))
    labels = np.arange(30) % 10
    contents = {
        "galaxy10-decals": [galaxy10_bytes(tmp_path, 256, labels, extra=True)],
        "galaxy10-sdss": [galaxy10_bytes(tmp_path, 69, labels, extra=False)],
        "galaxy-mnist": [
            gzip.compress(galaxy10_bytes(tmp_path, 64, np.arange(n) % 4, extra=False))
            for n in (16, 8)
        ],
    }
    sets = []
    for name, parts in contents.items():
        files = []
        for file, data in zip(published_set(name).files, parts, strict=True):
            server.content[f"/{name}/{file.name}"] = data
            files.append(
                PublishedFile(
                    server.url(f"/{name}/{file.name}"),
                    sha256=hashlib.sha256(data).hexdigest() if file.sha256 else None,
                    md5=hashlib.md5(data).hexdigest() if file.md5 else None,
                    side=file.side,
                )
            )
        sets.append(dataclasses.replace(published_set(name), files=tuple(files)))
    monkeypatch.setattr(published, "PUBLISHED_SETS", tuple(sets))
    return tmp_path


def test_decals_gets_its_names_and_keeps_its_columns(small_archive, galaxy_set):
    out = small_archive / "decals.h5"
    status, text, error = galaxy_set("fetch", "galaxy10-decals", out)
    assert status == 0, error
    assert "30 images, 3x256x256, 10 classes (Disturbed 3, Merging 3" in text
    assert read_hdf5(out).class_names[3] == "In-between Round Smooth"
    with h5py.File(out) as file:
        assert {"ra", "dec", "redshift", "pxscale"} <= set(file)


def test_the_canonical_sides_of_galaxy_mnist_are_kept(small_archive, galaxy_set):
    out = small_archive / "mnist.h5"
    assert galaxy_set("fetch", "galaxy-mnist", out)[0] == 0
    image_set = read_hdf5(out)
    assert image_set.split.tolist() == [0] * 16 + [2] * 8
    assert image_set.class_names == (
        "smooth_round", "smooth_cigar", "edge_on_disk", "unbarred_spiral",
    )  # fmt: skip
    assert len(set(image_set.ids)) == 24


def test_a_file_downloaded_elsewhere_is_checked(small_archive, galaxy_set, server):
    mine = small_archive / "mine.h5"
    mine.write_bytes(server.content["/galaxy10-sdss/Galaxy10.h5"])
    assert galaxy_set("fetch", "galaxy10-sdss", small_archive / "a.h5", "--file", mine)[0] == 0
    status, _, error = galaxy_set(
        "fetch", "galaxy10-decals", small_archive / "b.h5", "--file", mine
    )
    assert status == 2
    assert "is not Galaxy10_DECals.h5 of galaxy10-decals: its sha256 is" in error
    assert server.asked == []
    status, _, error = galaxy_set("fetch", "galaxy-mnist", small_archive / "b.h5", "--file", mine)
    assert "consists of 2 files" in error


def test_a_set_that_was_replaced_by_another_is_noticed(small_archive, server, monkeypatch):
    sdss, decals = published_set("galaxy10-sdss"), published_set("galaxy10-decals")
    monkeypatch.setattr(
        published, "PUBLISHED_SETS", (dataclasses.replace(decals, files=sdss.files), sdss)
    )
    with pytest.raises(InputError, match="is not galaxy10-decals: it holds galaxy10-sdss"):
        fetch("galaxy10-decals", small_archive / "x.h5", progress=False)
    assert not (small_archive / "x.h5").exists()


def test_plain_galaxy10_files_are_recognised(tmp_path):
    labels = np.arange(30) % 10
    for name, size, extra in (("galaxy10-decals", 256, True), ("galaxy10-sdss", 69, False)):
        path = tmp_path / f"{name}.h5"
        path.write_bytes(galaxy10_bytes(tmp_path, size, labels, extra))
        assert read_hdf5(path).class_names == published_set(name).class_names


def test_counts_alone_tell_decals_at_any_size():
    decals = published_set("galaxy10-decals")
    assert sum(decals.counts) == 17736
    labels = np.repeat(np.arange(10), decals.counts)
    assert recognise_galaxy10(64, labels) is decals
    assert recognise_galaxy10(64, labels[1:]) is None
    assert recognise_galaxy10(69, np.arange(21785) % 10) is published_set("galaxy10-sdss")


def test_foreign_names_are_refused_in_both_directions():
    decals, sdss = published_set("galaxy10-decals"), published_set("galaxy10-sdss")
    for mine, other in ((decals, sdss), (sdss, decals)):
        refuse_foreign_names(mine.class_names, mine)
        with pytest.raises(InputError, match=f"those of {other.name}, but the images are those of"):
            refuse_foreign_names(other.class_names, mine)
    refuse_foreign_names([f"class {index}" for index in range(10)], decals)


def test_a_broken_tls_connection_is_continued(server, tmp_path, monkeypatch):
    read, calls = http.client.HTTPResponse.read, []

    def cut(answer, amount=None):
        calls.append(amount)
        if len(calls) == 2:
            raise ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
        return read(answer, 100_000)

    monkeypatch.setattr(http.client.HTTPResponse, "read", cut)
    path = download(server.url(), tmp_path / "file.bin", sha256=SHA256, progress=False)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]
