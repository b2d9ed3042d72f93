"""``classify-app``: what it refuses in one line, what it loads, the endpoint alone."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.cli import main


def complaint(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--confidence", "0.2"], "between 0.5 and 0.999"),
        (["--port", "70000"], "between 0 and 65535"),
        (["--upload-limit-mb", "0"], "at least 1"),
        (["--gan", "nowhere"], "nowhere"),
        (["--results", "nowhere"], "not a folder of augment-and-eval"),
        (["--samples", "nowhere"], "not a folder of images"),
        (["--host", "256.1.1.1"], "cannot listen on 256.1.1.1"),
    ],
)
def test_wrong_choices(
    words: list[str], reason: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reason in complaint(capsys, checkpoint, *words)


def test_what_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist" in complaint(capsys, tmp_path / "absent", "--port", 0)
    assert "not a checkpoint" in complaint(capsys, tmp_path, "--port", 0)


def test_a_port_in_use(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "choose another with --port" in complaint(capsys, checkpoint, "--port", port)


def test_help_loads_nothing_heavy(run_without_loading: Callable[..., str]) -> None:
    code = "from app.cli import main; main(['--help'])"
    assert "--api-only" in run_without_loading(code, "torch", "streamlit", "fastapi", "matplotlib")


def test_the_endpoint_alone_needs_no_page(
    start_app: Callable[..., Any], checkpoint: Path, galaxy_files: list[tuple[str, bytes]]
) -> None:
    server = start_app(checkpoint, "--api-only")
    with urllib.request.urlopen(f"{server.address}/health") as reply:
        assert reply.status == 200
    body = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body += galaxy_files[0][1] + b"\r\n--edge--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=edge"}
    request = urllib.request.Request(f"{server.address}/predict", body, kind)
    with urllib.request.urlopen(request) as reply:
        (answer,) = json.load(reply)["predictions"]
    assert answer["class"] in ("double", "round", "elongated")
    with pytest.raises(urllib.error.HTTPError) as missing:
        urllib.request.urlopen(server.address)
    assert missing.value.code == 404
    server.stop()
    assert server.errors() == ""


def test_the_endpoint_beside_the_page_answers_to_its_own_name_only(
    start_app: Callable[..., Any], checkpoint: Path
) -> None:
    server = start_app(checkpoint)
    with urllib.request.urlopen(f"{server.address}/model") as reply:
        assert reply.status == 200
    rebound = urllib.request.Request(f"{server.address}/model", headers={"Host": "elsewhere.org"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(rebound)
    assert refused.value.code == 400
    server.stop()


def test_serving_the_endpoint_loads_no_plots(run_without_loading: Callable[..., str]) -> None:
    code = "import app.endpoint, app.served, app.answers"
    run_without_loading(code, "streamlit", "matplotlib", "classify.train_command")


def test_a_classifier_of_tables_is_named_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"kind": "table-classifier"}')
    assert "takes rows of a table" in complaint(capsys, tmp_path, "--port", 0)
