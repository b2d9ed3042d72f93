"""Ctrl-C and SIGTERM as requests that a training answers between two steps."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

STDERR = 2
ANSWER = b"\nstopping when this step or evaluation has ended (Ctrl-C again: at once)\n"


@contextlib.contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM so that the running step ends; a second one interrupts at once.

    The first Ctrl-C is answered on stderr, because a step or an evaluation may last.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        if number == signal.SIGINT:
            with contextlib.suppress(OSError):  # a handler must not enter buffered writing again
                os.write(STDERR, ANSWER)

    previous: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is signal.SIG_IGN:
                continue  # a worker, whose parent answers the keyboard
            previous[number] = signal.signal(number, receive)
    except ValueError:  # not the main thread: whoever owns it handles signals
        pass
    try:
        yield received
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)
