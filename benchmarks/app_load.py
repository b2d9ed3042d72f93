"""How long visitors wait when twenty of them classify at once, on two cores.

Starts ``classify-app`` for a checkpoint and lets users work beside each other, each sending one
image after another: programs to ``POST /predict``, then visitors of the page, who open it,
upload an image over the page's own protocol, and wait until the answer is drawn.

    python benchmarks/app_load.py CHECKPOINT IMAGE... [--users 20] [--requests 10]
"""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

EDGE = uuid.uuid4().hex
PATIENCE = 120.0


def form_of(path: Path, field: str) -> bytes:
    head = f'--{EDGE}\r\nContent-Disposition: form-data; name="{field}"; filename="{path.name}"'
    return head.encode() + b"\r\n\r\n" + path.read_bytes() + f"\r\n--{EDGE}--\r\n".encode()


def send(address: str, method: str, path: str, body: bytes, **headers: str) -> bytes:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=PATIENCE)
    kind = f"multipart/form-data; boundary={EDGE}"
    connection.request(method, path, body, {"Content-Type": kind, **headers})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    if reply.status >= 300:
        raise RuntimeError(f"{method} {path} answered {reply.status}: {content[:200]!r}")
    return content


def ask_endpoint(address: str, image: Path) -> None:
    answer = json.loads(send(address, "POST", "/predict", form_of(image, "files")))
    if answer["predictions"][0]["class"] is None:
        raise RuntimeError(f"no class: {answer}")


def visit_page(address: str, image: Path) -> None:
    """Open the page, upload one image as a browser does, wait for its answer."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.sync.client import connect
    from websockets.typing import Origin, Subprotocol

    with connect(
        address.replace("http", "ws", 1) + "/_stcore/stream",
        subprotocols=[Subprotocol("streamlit")],
        max_size=None,
        open_timeout=PATIENCE,
        origin=Origin(address),
    ) as socket:

        def receive_until(done: Callable[[ForwardMsg], bool]) -> list[ForwardMsg]:
            found = []
            while True:
                message = ForwardMsg()
                message.ParseFromString(socket.recv(timeout=PATIENCE))
                found.append(message)
                if done(message):
                    return found

        def run(request: BackMsg) -> list[ForwardMsg]:
            socket.send(request.SerializeToString())
            return receive_until(lambda message: message.WhichOneof("type") == "script_finished")

        start = BackMsg()
        start.rerun_script.query_string = ""
        drawn = run(start)
        session = next(m.new_session for m in drawn if m.WhichOneof("type") == "new_session")
        uploader = next(
            m.delta.new_element.file_uploader.id
            for m in drawn
            if m.delta.new_element.WhichOneof("type") == "file_uploader"
        )
        ask = BackMsg()
        ask.file_urls_request.request_id = "1"
        ask.file_urls_request.session_id = session.initialize.session_id
        ask.file_urls_request.file_names.append(image.name)
        socket.send(ask.SerializeToString())
        reply = receive_until(lambda m: m.WhichOneof("type") == "file_urls_response")[-1]
        urls = reply.file_urls_response.file_urls[0]
        cookie, token = token_of(address)
        send(
            address,
            "PUT",
            urls.upload_url,
            form_of(image, "file"),
            **{"X-Xsrftoken": token, "Cookie": cookie},
        )
        again = BackMsg()
        state = again.rerun_script.widget_states.widgets.add()
        state.id = uploader
        sent = state.file_uploader_state_value.uploaded_file_info.add()
        sent.file_id, sent.name, sent.size = urls.file_id, image.name, image.stat().st_size
        sent.file_urls.CopyFrom(urls)
        drawn = run(again)
        if not any('class="verdict"' in m.delta.new_element.html.body for m in drawn):
            raise RuntimeError("the page showed no answer")


def token_of(address: str) -> tuple[str, str]:
    """Cookie and token by which the page knows its own uploads."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=PATIENCE)
    connection.request("GET", "/_stcore/health")
    reply = connection.getresponse()
    reply.read()
    cookie = (reply.getheader("Set-Cookie") or "").split(";")[0]
    connection.close()
    return cookie, cookie.partition("=")[2].strip('"')


def measure(
    what: Callable[[str, Path], None], address: str, images: list[Path], users: int, requests: int
) -> tuple[list[float], list[str]]:
    """Seconds of every request, and what went wrong."""
    seconds: list[float] = []
    errors: list[str] = []
    together = threading.Barrier(users)

    def user(number: int) -> None:
        together.wait()
        for turn in range(requests):
            start = time.perf_counter()
            try:
                what(address, images[(number + turn) % len(images)])
            except Exception as error:  # every failure counts, whatever it is
                errors.append(f"{type(error).__name__}: {error}")
            else:
                seconds.append(time.perf_counter() - start)

    threads = [threading.Thread(target=user, args=(number,)) for number in range(users)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds, errors


def cpu_seconds(process: int) -> float:
    """Processor time of a process so far, which other work on the machine does not change."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(name: str, seconds: list[float], errors: list[str], wall: float, cpu: float) -> None:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    print(
        f"{name}: {len(seconds)} answered, {len(errors)} errors, median {cuts[49]:.2f} s, "
        f"95th percentile {cuts[94]:.2f} s, slowest {max(seconds):.2f} s, "
        f"{len(seconds) / wall:.1f} per second, server CPU {1000 * cpu / len(seconds):.0f} ms each"
    )
    for error in sorted(set(errors))[:5]:
        print(f"  {error}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--requests", type=int, default=10, help="of each user, one by one")
    options = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, "-m", "app.cli", str(options.checkpoint), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    words = server.stdout.readline().split()
    address = next(word for word in words if word.startswith("http://"))
    print(f"{options.users} users, {len(os.sched_getaffinity(0))} cores, {address}")
    failed = False
    try:
        for name, what in (("POST /predict", ask_endpoint), ("page", visit_page)):
            what(address, options.images[0])
            start, cpu = time.perf_counter(), cpu_seconds(server.pid)
            seconds, errors = measure(
                what, address, options.images, options.users, options.requests
            )
            wall, cpu = time.perf_counter() - start, cpu_seconds(server.pid) - cpu
            report(name, seconds, errors, wall, cpu)
            alone = measure(what, address, options.images, 1, 5)[0]
            print(f"  alone: median {statistics.median(alone):.2f} s")
            failed |= bool(errors)
    finally:
        server.terminate()
        server.wait(15)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
