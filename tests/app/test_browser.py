"""A visitor in a real browser: from an empty page to a downloaded table."""

import csv
import io
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from strange_files import strange_files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

pytest.importorskip("streamlit", reason="needs the extra app")

WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
PATIENCE = 120_000  # milliseconds


@pytest.fixture(scope="module")
def server(start_app: Callable[..., Any], checkpoint: Path, generator_checkpoint: Path) -> Any:
    return start_app(checkpoint, "--gan", generator_checkpoint)


@pytest.fixture(params=WIDTHS)
def visit(request: pytest.FixtureRequest, browser: Any, server: Any) -> Iterator[Any]:
    """A page at one width; nothing may be asked of any other machine."""
    width, height = WIDTHS[request.param]
    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    asked: set[str] = set()
    page.on("request", lambda sent: asked.add(urlsplit(sent.url).netloc))
    page.goto(server.address)
    yield page
    context.close()
    assert asked <= {urlsplit(server.address).netloc, ""}
    assert server.is_alive()
    assert "Traceback" not in server.errors()


def as_sent(files: list[tuple[str, bytes]]) -> list[dict[str, Any]]:
    kind = "application/octet-stream"
    return [{"name": name, "mimeType": kind, "buffer": content} for name, content in files]


def no_sideways_scrolling(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def test_upload_read_and_download(
    visit: Any, galaxy_files: list[tuple[str, bytes]], server: Any, tmp_path: Path
) -> None:
    files = [*galaxy_files[:3], ("notes.txt", b"no image")]
    visit.locator("input[type=file]").set_input_files(as_sent(files))
    visit.locator(".verdict").nth(2).wait_for()
    assert visit.locator(".verdict").count() == 3
    assert "notes.txt: it is not an image" in visit.locator(".notice").first.inner_text()
    with visit.expect_download() as download:
        visit.get_by_role("button", name="Download the table").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert [row["id"] for row in rows] == [name for name, _ in files]
    told = predicted_by_endpoint(server.address, files)
    for row, answer in zip(rows, told, strict=True):
        assert row["class"] == (answer["class"] or "")
        for name, value in (answer["probabilities"] or {}).items():
            assert float(row[f"p_{name}"]) == pytest.approx(value, abs=1e-6)
    visit.get_by_text("Why?").first.click()
    visit.get_by_text("Where it looked").wait_for()
    assert no_sideways_scrolling(visit)
    visit.screenshot(path=tmp_path / "classify.png")
    assert (tmp_path / "classify.png").stat().st_size > 10_000


def test_samples_then_the_other_pages(visit: Any, server: Any) -> None:
    visit.get_by_role("button", name="Try these samples").click()
    visit.locator(".verdict").first.wait_for()
    visit.goto(f"{server.address}/generate")
    visit.locator(".tiles img").nth(23).wait_for()
    assert no_sideways_scrolling(visit)
    visit.goto(f"{server.address}/about")
    visit.get_by_role("heading", name="Known failures").wait_for()
    assert no_sideways_scrolling(visit)


@pytest.mark.parametrize("visit", ["desktop"], indirect=True)
def test_strange_files_leave_the_server_alive(
    visit: Any, galaxy_files: list[tuple[str, bytes]]
) -> None:
    good = galaxy_files[0][1]
    strange = [(name, body) for name, body in strange_files(good) if name != "large.png"]
    visit.locator("input[type=file]").set_input_files(as_sent([*strange, galaxy_files[0]]))
    visit.get_by_text("files could not be read").wait_for()
    visit.locator(".verdict").first.wait_for()
    assert visit.locator("img[src=x]").count() == 0  # a file's name is never markup
    assert visit.get_by_text("Something went wrong").count() == 0


def predicted_by_endpoint(address: str, files: list[tuple[str, bytes]]) -> list[dict[str, Any]]:
    edge = "7d3f"
    body = b"".join(
        f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        .encode() + content + b"\r\n"
        for name, content in files
    )  # fmt: skip
    request = urllib.request.Request(
        f"{address}/predict",
        data=body + f"--{edge}--\r\n".encode(),
        headers={"Content-Type": f"multipart/form-data; boundary={edge}"},
    )
    with urllib.request.urlopen(request) as reply:
        answers: list[dict[str, Any]] = json.load(reply)["predictions"]
    return answers
