"""Files that are written whole or not at all."""

import errno
import os

import pytest

from defenses.utils.errors import UserError
from defenses.utils.files import NotWritable, no_empty_folder, write_whole


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (errno.ENOSPC, UserError, "no space left for .*: free some and repeat; all else is kept"),
        (errno.EDQUOT, UserError, "no space left"),
        (errno.EIO, UserError, "cannot write to .* all else is kept"),
        (errno.EROFS, NotWritable, "cannot write to .* choose another folder with --out"),
        (errno.EACCES, NotWritable, "cannot write to"),
        (errno.ENAMETOOLONG, UserError, "cannot write .*name too long"),
    ],
)
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, code, kind, words):
    path = tmp_path / "file"
    write_whole(path, "old", "all else is kept")

    def fail(*_):
        raise OSError(code, os.strerror(code))

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(kind, match=f"(?i){words}") as caught:
                write_whole(path, b"new", "all else is kept")
        assert type(caught.value) is kind
        assert "\n" not in str(caught.value)
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["file"]
    write_whole(path, b"new", "all else is kept")
    assert path.read_bytes() == b"new"


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotWritable, match="cannot write to"):
        write_whole(tmp_path / "file" / "x", "", "")
    with pytest.raises(UserError, match=r"cannot write .*missing.x"):
        write_whole(tmp_path / "missing" / "x", "", "")


@pytest.mark.parametrize("there", [True, False])
def test_work_that_is_refused_leaves_no_empty_folder(tmp_path, there):
    folder = tmp_path / "a" / "b"
    if there:
        folder.mkdir(parents=True)

    def work(file=None):
        with no_empty_folder(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if file:
                (folder / file).touch()
            raise UserError("refused")

    with pytest.raises(UserError, match="refused"):
        work()
    assert list(tmp_path.rglob("*")) == ([tmp_path / "a", folder] if there else [])
    with pytest.raises(UserError, match="refused"):
        work("file")
    assert (folder / "file").is_file()


def test_a_folder_that_nobody_makes(tmp_path):
    with no_empty_folder(tmp_path / "never" / "made"):
        pass
    assert not list(tmp_path.iterdir())
