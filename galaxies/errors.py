"""The one exception that a command turns into one line on stderr and exit status 2."""

import zipfile
import zlib

UNREADABLE = (
    OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What a file or a member of an archive raises that is absent, cut short, damaged or encrypted."""


class InputError(Exception):
    """What the user gave cannot be used.

    The message says in one line what is wrong, where, and what to do. Anything else that a
    command raises is a bug and shows its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
