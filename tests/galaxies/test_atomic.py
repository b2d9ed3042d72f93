"""Files are whole or absent, whatever happens while they are written."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from galaxies.atomic import folder_lock, whole_file, whole_folder, write_text
from galaxies.errors import InputError


def half_written(path: Path, *, overwrite: bool = False) -> None:
    with whole_file(path, overwrite=overwrite) as temporary:
        temporary.write_text("half")
        raise RuntimeError


def half_written_folder(path: Path) -> None:
    with whole_folder(path, overwrite=True, marks=("a",)) as temporary:
        (temporary / "b").write_text("2")
        raise RuntimeError


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        half_written(path, overwrite=True)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_folders_made_for_a_failed_write_vanish_and_older_ones_stay(tmp_path):
    (tmp_path / "old").mkdir()
    target = tmp_path / "old" / "new" / "newer" / "file"
    with pytest.raises(RuntimeError):
        half_written(target)
    assert (tmp_path / "old").is_dir()
    assert list((tmp_path / "old").iterdir()) == []
    with whole_file(target) as temporary:
        temporary.write_text("whole")
    assert target.read_text() == "whole"


def test_an_empty_folder_is_nothing_that_could_be_lost(tmp_path):
    target = tmp_path / "made"
    target.mkdir()
    with whole_folder(target) as temporary:
        (temporary / "a").write_text("1")
    assert (target / "a").read_text() == "1"
    with pytest.raises(InputError, match="exists; choose another name"), whole_folder(target):
        pass
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match="is a folder; name a file"), whole_file(tmp_path / "b"):
        pass


def test_a_folder_is_whole_or_as_before(tmp_path):
    target = tmp_path / "folder"
    with whole_folder(target) as temporary:
        (temporary / "a").write_text("1")
    with pytest.raises(RuntimeError):
        half_written_folder(target)
    assert [entry.name for entry in target.iterdir()] == ["a"]
    with whole_folder(target, overwrite=True, marks=("z", "a")) as temporary:
        (temporary / "b").write_text("2")
    assert [entry.name for entry in target.iterdir()] == ["b"]


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    with whole_folder(tmp_path / "folder") as temporary:
        (temporary / "inside").mkdir(mode=0o700)
        (temporary / "inside" / "file").touch(mode=0o600)
    (tmp_path / "usual").touch()
    usual = (tmp_path / "usual").stat().st_mode & 0o777
    assert (tmp_path / "folder" / "inside" / "file").stat().st_mode & 0o777 == usual


def test_a_folder_that_another_hand_filled_is_never_replaced(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "thesis.txt").write_text("years")
    for name in ("folder", "folder/thesis.txt"):
        with (
            pytest.raises(InputError, match=r"not overwritten|is a file"),
            whole_folder(tmp_path / name, overwrite=True, marks=("a", "b")),
        ):
            pass
    assert (target / "thesis.txt").read_text() == "years"
    (target / "thesis.txt").unlink()
    with whole_folder(target, overwrite=True, marks=("a",)) as temporary:
        (temporary / "a").touch()
    assert [entry.name for entry in target.iterdir()] == ["a"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_a_line(tmp_path, code):
    with pytest.raises(InputError, match=r"cannot write .*file: .*free some space"):  # noqa: SIM117
        with whole_file(tmp_path / "file"):
            raise OSError(code, os.strerror(code))
    with pytest.raises(OSError, match="Input/output"), whole_file(tmp_path / "file"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_lock_keeps_a_second_process_out_and_dies_with_the_first(tmp_path):
    program = (
        "import sys, pathlib\nfrom galaxies.atomic import folder_lock\n"
        "with folder_lock(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process is writing"), folder_lock(tmp_path):
            pass
        holder.kill()
    with folder_lock(tmp_path):
        pass


def test_what_a_link_points_to_is_replaced_and_the_link_stays(tmp_path):
    """Onto a linked folder the old one was refused at the end, and the new one was lost."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "mark").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "scratch")
    with whole_folder(tmp_path / "link", overwrite=True, marks=("mark",)) as folder:
        (folder / "mark").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "scratch" / "mark").read_text() == "new"
    (tmp_path / "set.h5").symlink_to(tmp_path / "far.h5")
    (tmp_path / "far.h5").write_text("old")
    write_text(tmp_path / "set.h5", "new")
    assert (tmp_path / "set.h5").is_symlink()
    assert (tmp_path / "far.h5").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "far.h5",
        "link",
        "scratch",
        "set.h5",
    ]
