"""Download one file: resumed after a broken connection, checked by its hash, whole or absent.

What has arrived waits beside the file under the name ``NAME.part`` and is continued by the next
call (HTTP ``Range``). A server that cannot continue sends the file from its beginning.
"""

import hashlib
import http.client
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from galaxies.errors import InputError

_BLOCK_BYTES = 2**20
_TRIES = 4
_TIMEOUT_SECONDS = 30.0
_RANGE_NOT_SATISFIABLE = 416


class _ConnectionBrokeError(Exception):
    """The connection ended before the file did; what arrived is kept."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    progress: bool = True,
) -> Path:
    """Download ``url`` to ``path``; a file that is there already and has the hash is kept.

    Parameters
    ----------
    url
        http or https address.
    path
        Where the file ends up; folders are made.
    sha256, md5
        Hexadecimal hash that the file must have; md5 only where no better one is published.
    progress
        Show a bar on stderr.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    InputError
        If the address cannot be reached (says what to download, its hash, and where to put it),
        if the connection breaks again and again (what arrived is kept for the next call), or if
        the hash differs.
    """
    if path.is_file() and wrong_hash(path, sha256, md5) is None:
        return path
    if path.exists():
        raise InputError(
            f"{path} exists but {wrong_hash(path, sha256, md5) or 'is no file'}; "
            f"remove it, or download {url} there yourself"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for attempt in range(1, _TRIES + 1):
        try:
            _continue(url, part, progress=progress)
            break
        except urllib.error.HTTPError as error:
            raise InputError(f"{url} answered {error.code} {error.reason}") from None
        except _ConnectionBrokeError as error:
            if attempt == _TRIES:
                raise InputError(
                    f"the connection to {url} broke {_TRIES} times ({error}); "
                    f"{part.stat().st_size} bytes are kept in {part}: run the command again to "
                    "continue"
                ) from None
        except (urllib.error.URLError, OSError) as error:
            if getattr(error, "errno", None) and not isinstance(
                error, urllib.error.URLError | ConnectionError | TimeoutError
            ):
                raise  # the disk, not the network
            raise InputError(offline_advice(url, path, sha256, md5, error)) from None
    wrong = wrong_hash(part, sha256, md5)
    if wrong is not None:
        part.unlink()
        raise InputError(
            f"{url} arrived but {wrong}; it is removed. Try again, or check the address"
        )
    part.replace(path)
    return path


def offline_advice(
    url: str, path: Path, sha256: str | None, md5: str | None, error: BaseException
) -> str:
    """One line for a machine without a network: what to download, its hash, and where to put it."""
    reason = getattr(error, "reason", error)
    expected = f"sha256 {sha256}" if sha256 else f"md5 {md5}" if md5 else "no published hash"
    return f"cannot reach {url} ({reason}); download it elsewhere ({expected}) and put it at {path}"


def _continue(url: str, part: Path, *, progress: bool) -> None:
    """Append what is missing to ``part``."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "galaxy-augment", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url} is not an http or https address")
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE and start:
            return  # everything was there; the hash decides
        raise
    with answer:
        continues = answer.status == http.HTTPStatus.PARTIAL_CONTENT and _starts_at(answer, start)
        if start and answer.status == http.HTTPStatus.PARTIAL_CONTENT and not continues:
            raise InputError(
                f"{url}: the server continued at another byte than asked; remove {part}"
            )
        length = answer.headers.get("Content-Length")
        done = start if continues else 0
        total = done + int(length) if length is not None else None
        with (
            part.open("ab" if continues else "wb") as file,
            tqdm(
                total=total,
                initial=done,
                unit="B",
                unit_scale=True,
                desc=part.name.removesuffix(".part"),
                disable=not progress,
                leave=False,
            ) as bar,
        ):
            while True:
                try:
                    block = answer.read(_BLOCK_BYTES)
                except http.client.IncompleteRead as error:
                    file.write(error.partial)
                    raise _ConnectionBrokeError("cut short") from None
                except (ConnectionError, TimeoutError, ssl.SSLError) as error:
                    raise _ConnectionBrokeError(str(error) or "timed out") from None
                if not block:
                    break
                file.write(block)
                bar.update(len(block))
                done += len(block)
        if total is not None and done < total:
            raise _ConnectionBrokeError(f"{done} of {total} bytes arrived")


def _starts_at(answer: http.client.HTTPResponse, start: int) -> bool:
    return (answer.headers.get("Content-Range") or "").startswith(f"bytes {start}-")


def wrong_hash(path: Path, sha256: str | None, md5: str | None) -> str | None:
    """Say how the file's hash differs from what is expected, or return ``None``."""
    for name, expected in (("sha256", sha256), ("md5", md5)):
        if expected is not None:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, name).hexdigest()
            if found != expected.lower():
                return f"its {name} is {found}, not {expected}"
    return None
