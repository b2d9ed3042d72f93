"""One process, one port: the page and ``POST /predict`` over one loaded network."""

import contextlib
import dataclasses
import gc
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from app import served
from app.cli import ClassifyAppConfig
from app.endpoint import create_endpoint, endpoint_paths
from classify.tabular.checkpoint_kind import is_joint_checkpoint, is_table_checkpoint
from galaxies.device import choose_device
from galaxies.errors import InputError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_PAGE = Path(__file__).parent / "page.py"
_EVERYWHERE = ("0.0.0.0", "::")  # the wildcard addresses, not a default


def serve(config: ClassifyAppConfig) -> None:
    """Load, check, listen; returns when interrupted."""
    config = dataclasses.replace(config, device=str(choose_device(config.device)))
    refuse_wrong_folders(config)
    served.use(config)
    with _listen(config.host, config.port) as listener:
        port = listener.getsockname()[1]
        address = f"http://{_host_in_address(config.host)}:{port}"
        _use_one_thread_each()
        if is_joint_checkpoint(config.checkpoint):
            raise InputError(
                f"{config.checkpoint} sees features beside each image, which an upload has not; "
                "ask it with classify-predict"
            )
        if is_table_checkpoint(config.checkpoint):
            raise InputError(
                f"{config.checkpoint} takes rows of a table, and an upload is an image; ask it "
                "with classify-predict"
            )
        # Before the first visitor, and so that a damaged one is said now.
        if config.api_only:
            served.classifier()
        else:
            served.load_all()
        application = create_application(config, port)
        # Streamlit collects garbage after each run of the page; what was loaded for good need not
        # be looked through again (200 ms of each visit).
        gc.freeze()

        def announce() -> None:
            if config.api_only:
                print(f"POST images to {address}/predict (described at {address}/openapi.json)")
            else:
                print(f"open {address} (programs: POST {address}/predict); Ctrl-C stops it")
            sys.stdout.flush()
            if config.open_browser and not config.api_only:
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

        server = _AnnouncedServer(
            uvicorn.Config(
                application,
                log_level="warning",
                timeout_graceful_shutdown=3,
                server_header=False,
                ws_max_size=16 * 2**20,
            ),
            announce,
        )
        with contextlib.suppress(KeyboardInterrupt):  # how a server is meant to be stopped
            server.run(sockets=[listener])


def refuse_wrong_folders(config: ClassifyAppConfig) -> None:
    """Look at every folder that was named, before anything is loaded or listened to.

    Raises
    ------
    InputError
        If a folder is not what its flag asks for.
    """
    from classify.generation import read_description

    for checkpoint in config.gan:
        read_description(checkpoint)
    if config.samples is not None:
        served.sample_files(config.samples)
    for folder in config.results:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder of augment-and-eval (--results)")


def _use_one_thread_each() -> None:
    """One image is too small to share: on two busy cores, two threads took 15 times one's time."""
    import torch

    torch.set_num_threads(1)


def create_application(config: ClassifyAppConfig, port: int = 8501) -> "ASGIApp":
    """The ASGI application: the page with the endpoint beside it, or the endpoint alone."""
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    endpoint: ASGIApp = create_endpoint(config)
    if hosts := _allowed_hosts(config.host):
        bracketed = [_host_in_address(host) for host in hosts]
        endpoint = TrustedHostMiddleware(endpoint, bracketed, www_redirect=False)
    if config.api_only:
        return endpoint
    _configure_streamlit(config, port)
    import streamlit
    from starlette.routing import Route

    return streamlit.App(
        _PAGE,
        routes=[Route(path, endpoint, methods=list(methods)) for path, methods in endpoint_paths()],
        on_script_error=_apologise,
    )


def _allowed_hosts(host: str) -> list[str]:
    """Names by which this server may be addressed; none where it listens everywhere.

    A page elsewhere that points its own name at this machine gets nothing.
    """
    if host in _EVERYWHERE:
        return []
    return list(dict.fromkeys(["127.0.0.1", "localhost", "::1", host]))


def _configure_streamlit(config: ClassifyAppConfig, port: int) -> None:
    """Give Streamlit its settings, over those of a config file that lies about."""
    from streamlit.web.bootstrap import load_config_options

    options: dict[str, object] = {
        "server.address": config.host,
        "server.port": port,
        "server.headless": True,
        # Its watcher imports every module that it sees, and stumbles over torch.classes.
        "server.fileWatcherType": "none",
        "server.runOnSave": False,
        "server.maxUploadSize": config.upload_limit_mb,
        "server.allowedHosts": _allowed_hosts(config.host),
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": False,
        "logger.level": "warning",
        **_THEME,
    }
    load_config_options({name: value for name, value in options.items() if value != []})


_THEME = {
    "theme.light.primaryColor": "#2f5fb3",
    "theme.light.backgroundColor": "#fbfaf8",
    "theme.light.secondaryBackgroundColor": "#f0eee9",
    "theme.light.textColor": "#1d2433",
    "theme.dark.primaryColor": "#8db4f5",
    "theme.dark.backgroundColor": "#11151f",
    "theme.dark.secondaryBackgroundColor": "#1b2130",
    "theme.dark.textColor": "#e6e8ee",
    "theme.baseRadius": "0.6rem",
    "theme.headingFontSizes": ["2.1rem", "1.6rem", "1.3rem", "1.1rem", "1rem", "1rem"],
}


def _apologise(error: Exception) -> bool:
    """A visitor reads one sentence; the traceback goes to the terminal of whoever serves."""
    import traceback

    import streamlit

    traceback.print_exception(error, file=sys.stderr)
    streamlit.error(
        "Something went wrong on this side, and it has been noted. "
        "Reload the page and try again; your files are fine."
    )
    return True


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, so that a port in use is said before anything is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"cannot listen on {host} ({error.strerror}); see --host") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InputError(
            f"cannot listen on {host} port {port} ({error.strerror}); choose another with --port"
        ) from None
    return listener


def _host_in_address(host: str) -> str:
    if host in _EVERYWHERE:
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


class _AnnouncedServer(uvicorn.Server):
    """Says that it is ready once it is."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()
