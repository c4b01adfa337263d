"""Files that are written whole or not at all."""

import errno
import os

import pytest

from defenses.errors import UserError
from defenses.files import NotWritable, write_whole


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
