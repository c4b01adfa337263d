"""Test that a manifest is written where it has changed, and kept aside where it is damaged."""

import pytest
from boards import BOARD, write_board

from bench.board.load import load_board
from bench.store.folder import Store
from bench.store.manifest import read_manifest, update_manifest


@pytest.mark.parametrize("content", [b'{"runs": 3}', b'{"runs": [3]}', b"\xff\xfe{", b"[]", b""])
def test_a_damaged_manifest_is_kept_aside(tmp_path, content, caplog):
    board = load_board(write_board(tmp_path))
    (tmp_path / "manifest.json").write_bytes(content)
    assert read_manifest(tmp_path) == {}
    update_manifest(Store(tmp_path), board.manifest_facts(), {"id": "a"})
    assert read_manifest(tmp_path)["runs"] == [{"id": "a"}]
    assert (tmp_path / "manifest.json.damaged").read_bytes() == content
    assert [text.count("manifest.json.damaged") for text in caplog.messages] == [1]


def test_a_manifest_that_is_up_to_date_is_left(tmp_path):
    board = load_board(write_board(tmp_path))
    update_manifest(Store(tmp_path), board.manifest_facts(), {"id": "a"})
    file = tmp_path / "manifest.json"
    before = file.stat().st_mtime_ns, file.stat().st_ino
    update_manifest(Store(tmp_path), board.manifest_facts())
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == before
    titled = load_board(write_board(tmp_path, 'title = "New"\n' + BOARD))
    update_manifest(Store(tmp_path), titled.manifest_facts())
    assert read_manifest(tmp_path)["title"] == "New"
    assert read_manifest(tmp_path)["runs"] == [{"id": "a"}]
