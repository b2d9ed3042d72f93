"""HDF5 files opened for writing so that a full disk is an ordinary error.

The HDF5 library writes what it still holds when a file is closed, and again when the process
ends. Where the disk is full both fail, and the second ends the process by a segmentation fault.
Here the library writes through a Python file. The first failed write is raised as it happens;
while the file is being closed nothing is raised to HDF5, and the failure is raised afterwards.
What HDF5 tries to write after a failure is dropped: the file is thrown away anyway.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py


@contextlib.contextmanager
def writable_hdf5(path: Path, mode: str = "w") -> Iterator[h5py.File]:
    """Open ``path`` to write (``w``) or to change (``r+``); a failed write raises `OSError`."""
    with path.open("w+b" if mode == "w" else "r+b", buffering=0) as file:
        guard = _FirstFailure(file)
        hdf5 = h5py.File(guard, mode)
        try:
            yield hdf5
        finally:
            guard.closing = True
            hdf5.close()
        if guard.failure is not None:
            raise guard.failure


class _FirstFailure(io.RawIOBase):
    """A file whose first failed write is raised, and whose later ones are dropped."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.failure: OSError | None = None
        self.closing = False

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        self._attempt(lambda: self._file.truncate(size))
        return size or 0

    def write(self, data: Any) -> int:
        self._attempt(lambda: self._write_all(memoryview(data)))
        return len(data)

    def _write_all(self, data: memoryview) -> None:
        while data:  # a nearly full disk takes a part, and refuses the next
            data = data[self._file.write(data) :]

    def _attempt(self, action: Callable[[], object]) -> None:
        if self.failure is not None:
            return
        try:
            action()
        except OSError as error:
            self.failure = error
            if not self.closing:
                raise
