"""Files and folders that are whole or absent, and a lock for a folder that a run writes."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from galaxies.errors import InputError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def refuse_existing(path: Path, *, overwrite: bool, marks: Sequence[str] = ()) -> None:
    """Raise `InputError` where ``path`` exists and may not be replaced, before any work is done.

    Parameters
    ----------
    marks
        For a folder that is to be written: names (or glob patterns) of which one that may be
        replaced holds at least one. Anything else was written by somebody else and stays, whatever
        ``overwrite`` says.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise InputError(f"{path} exists; choose another name or pass --overwrite")
    if not marks:
        return
    if not path.is_dir():
        raise InputError(f"{path} is a file; name a folder")
    if any(path.iterdir()) and not any(any(path.glob(mark)) for mark in marks):
        raise InputError(
            f"{path} holds no {' and no '.join(marks)}: another hand filled it, and it is not "
            "overwritten; choose another name"
        )


@contextlib.contextmanager
def whole_file(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` that becomes ``path`` when the block succeeds.

    When the block fails nothing is left, and what ``path`` held before stays.
    """
    refuse_existing(path, overwrite=overwrite)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file")
    path = path.resolve()  # what a link points to is replaced, not the link
    with _parent_folder(path):
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".partial"
        )
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(
    path: Path, *, overwrite: bool = False, marks: Sequence[str] = ()
) -> Iterator[Path]:
    """Like `whole_file` for a folder; only one with one of ``marks`` is replaced."""
    if overwrite and not marks:
        raise ValueError("name what marks a folder that may be replaced")
    refuse_existing(path, overwrite=overwrite, marks=marks)
    path = path.resolve()  # what a link points to is replaced, not the link
    with _parent_folder(path):
        temporary = Path(
            tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".partial")
        )
        try:
            yield temporary
            mask = _umask()
            temporary.chmod(0o777 & ~mask)
            for written in temporary.rglob("*"):  # some libraries keep their files to the owner
                written.chmod((0o777 if written.is_dir() else 0o666) & ~mask)
            if path.is_dir():  # aside first: the new one must not wait for the end of the old
                aside = temporary.with_suffix(".replaced")
                path.replace(aside)
                try:
                    temporary.replace(path)
                except OSError:
                    aside.replace(path)
                    raise
                shutil.rmtree(aside, ignore_errors=True)
            else:
                temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str, *, overwrite: bool = True) -> None:
    """Write a text file that is whole or absent."""
    with whole_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; a second process gets an `InputError`.

    The lock belongs to the process and vanishes with it, also when it is killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another process is writing {folder}; wait for it or choose another --out"
            ) from None
        yield


@contextlib.contextmanager
def _parent_folder(path: Path) -> Iterator[None]:
    """Make the folders above ``path``; when the block fails, those made here are removed again."""
    missing = [folder for folder in path.absolute().parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{path.parent} is not a folder; choose another place") from None
    except PermissionError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another place") from None
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write in {path.parent}: permission denied; choose another place")
    try:
        yield
    except OSError as error:
        _remove(missing)
        if error.errno in _NO_ROOM:
            raise InputError(
                f"cannot write {path}: {os.strerror(error.errno).lower()}; "
                "nothing was changed; free some space or choose another place"
            ) from None
        raise
    except BaseException:
        _remove(missing)
        raise


def _remove(missing: list[Path]) -> None:
    """Remove folders, the deepest first; one that something else uses by now stays."""
    for folder in missing:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
