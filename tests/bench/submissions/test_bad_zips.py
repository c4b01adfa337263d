"""Bad files of submissions: each is told in a line, runs nothing, and leaves the board as it was."""

import hashlib
import json
import stat
import zipfile

import pytest
from boards import purebench_here
from submitted import (
    changed,
    findings,
    made_of,
    read_zip,
    refused,
    with_lines,
)

from bench.submissions.archive import write_zip


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "C:evil", "a//b", "./a"])
def test_a_name_that_leaves_the_folder(name, tmp_path, board):
    zipped = made_of(tmp_path / "row.zip", "submission.json", name)
    (line,) = findings(zipped)
    assert line.startswith(f"zip: {name!r} ")
    assert "was not added: zip: " in refused(zipped, board)


def test_links_and_double_names(tmp_path, board):
    link = made_of(tmp_path / "link.zip", "a", external_attr=(stat.S_IFLNK | 0o777) << 16)
    assert findings(link) == ["zip: 'a' is a link or a special file"]
    with pytest.warns(UserWarning, match="Duplicate"):
        double = made_of(tmp_path / "double.zip", "a", "a")
    assert findings(double) == ["zip: 'a' is there twice"]
    assert findings(made_of(tmp_path / "case.zip", "a", "A")) == ["zip: 'A' is there twice"]
    assert findings(made_of(tmp_path / "both.zip", "a", "a/b")) == ["zip: 'a/b' lies in 'a', which is a file"]
    assert "'a' is a link" in refused(link, board)


def test_a_zip_that_declares_too_much(tmp_path, board, monkeypatch):
    huge = made_of(tmp_path / "huge.zip", "submission.json")
    content = bytearray(huge.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = (0xFFFFFFF0).to_bytes(4, "little")  # the size in the directory
    huge.write_bytes(content)
    monkeypatch.setattr("bench.submissions.archive.MOST_BYTES", 1 << 31)
    assert findings(huge) == ["zip: it unpacks to 4,294,967,280 bytes; at most 2,147,483,648 are allowed"]
    assert "it unpacks to" in refused(huge, board)


def test_a_zip_of_zeros(tmp_path):
    with zipfile.ZipFile(tmp_path / "zeros.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("submission.json", bytes(32 << 20))
    (line,) = findings(tmp_path / "zeros.zip")
    assert line.startswith("zip: it unpacks to ")
    assert line.endswith(" times its size; at most 200 are allowed")


@pytest.mark.parametrize("kind", ["truncated", "folder", "text", "missing", "other zip"])
def test_what_is_no_submission(kind, made, tmp_path, board):
    path = tmp_path / "row.zip"
    if kind == "truncated":
        path.write_bytes((made / "row.zip").read_bytes()[:-2000])
    elif kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("no zip")
    elif kind == "other zip":
        made_of(path, "a")
    done = purebench_here("submit", "check", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    words = {"truncated": "cut short", "folder": "is a folder", "text": "no zip", "missing": "there is no file"}
    assert words.get(kind, "it has no submission.json") in done.stderr
    assert str(path) in refused(path, board)


def test_damage_inside(made, tmp_path):
    """A file whose bytes are not those of the zip's own sum."""
    content = bytearray((made / "row.zip").read_bytes())
    at = content.index(b"Noise before a linear")
    content[at] ^= 1
    (tmp_path / "row.zip").write_bytes(content)
    done = purebench_here("submit", "check", tmp_path / "row.zip")
    assert done.returncode == 2
    assert "damaged" in done.stderr


def test_wrong_sums_sizes_and_files(made, tmp_path, board):
    def change(files):
        about = json.loads(files["submission.json"])
        about["files"]["code/models.py"]["sha256"] = "0" * 64
        about["files"]["board.toml"]["size"] += 1
        about["files"]["gone"] = about["files"]["card.toml"]
        del about["files"]["results/plan.jsonl"]
        files |= {"results/.locks/x": b"", "submission.json": json.dumps(about).encode()}

    zipped = changed(made / "row.zip", tmp_path / "row.zip", change, seal=False)
    size = len(read_zip(made / "row.zip")["board.toml"])
    assert findings(zipped) == [
        f"files: board.toml has {size:,} bytes, not {size + 1:,}",
        "files: code/models.py has another SHA-256 than submission.json says",
        "files: results/.locks/x is no part of a submission",
        "files: results/plan.jsonl is not listed in submission.json",
        "files: gone is listed in submission.json and missing",
    ]
    line = refused(zipped, board)
    assert "files: board.toml has" in line
    assert "; and 4 more findings (purebench submit check" in line


def graph_of(files):
    return json.loads(files["ro-crate-metadata.json"])


def listed(files):
    """Let submission.json agree with a changed crate."""
    content = files["ro-crate-metadata.json"]
    about = json.loads(files["submission.json"])
    about["files"]["ro-crate-metadata.json"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    files["submission.json"] = json.dumps(about).encode()


def test_a_crate_that_says_something_else(made, tmp_path, board):
    def change(files):
        graph = graph_of(files)
        entities = {e["@id"]: e for e in graph["@graph"]}
        entities["card.toml"]["sha256"] = "0" * 64
        entities["board.toml"]["contentSize"] = "1"
        entities["results/plan.jsonl"]["@id"] = "../../etc/<script>alert(1)</script>\u202e\x1b[2J"
        graph["@graph"].append(entities["code/models.py"])
        files["ro-crate-metadata.json"] = json.dumps(graph).encode()
        listed(files)

    zipped = changed(made / "row.zip", tmp_path / "row.zip", change, seal=False)
    lines = findings(zipped)
    assert lines[0] == "crate: ro-crate-metadata.json describes code/models.py twice"
    others = [line for line in lines if "alert" not in line]
    assert others[1:] == [
        "crate: board.toml has another size or SHA-256 than ro-crate-metadata.json says",
        "crate: card.toml has another size or SHA-256 than ro-crate-metadata.json says",
        "crate: ro-crate-metadata.json does not describe results/plan.jsonl",
    ]
    (hostile,) = [line for line in lines if "alert" in line]
    assert hostile.isprintable()
    assert "crate: ro-crate-metadata.json describes code/models.py twice" in refused(zipped, board)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"@graph": 3}', b'{"@graph": [{}]}', b"[" * 100_000, b"\xff"])
def test_a_damaged_crate(content, made, tmp_path):
    def change(files):
        files["ro-crate-metadata.json"] = content
        listed(files)

    (line,) = findings(changed(made / "row.zip", tmp_path / "row.zip", change, seal=False))
    assert line.startswith("crate: ")


def test_a_submission_without_a_crate(made, tmp_path):
    def change(files):
        del files["ro-crate-metadata.json"]
        about = json.loads(files["submission.json"])
        del about["files"]["ro-crate-metadata.json"]
        files["submission.json"] = json.dumps(about).encode()

    zipped = changed(made / "row.zip", tmp_path / "row.zip", change, seal=False)
    assert findings(zipped) == ["crate: ro-crate-metadata.json is missing; pack the row again"]


def test_a_newer_schema(made, tmp_path):
    def change(files):
        files["submission.json"] = json.dumps(json.loads(files["submission.json"]) | {"schema": 2}).encode()

    done = purebench_here("submit", "check", changed(made / "row.zip", tmp_path / "row.zip", change))
    assert (done.returncode, "newer purebench (schema 2)" in done.stderr) == (2, True)


def test_code_that_would_run_unasked(made, tmp_path, board):
    """Other code than made the results, and code that nothing lists: neither runs."""
    mark = tmp_path / "ran"

    def evil(files):
        files["code/models.py"] += f'\nopen({str(mark)!r}, "a").close()\n'.encode()
        files["code/sitecustomize.py"] = files["code/conftest.py"] = files["code/models.py"]

    zipped = changed(made / "row.zip", tmp_path / "row.zip", evil)
    assert findings(zipped, "--to", board) == [
        "code: models.py:noisy: models.py is not the code that made these results",
        "code: models.py:slow: models.py is not the code that made these results",
    ]
    refused(zipped, board)
    assert not mark.exists()
    gone = changed(made / "row.zip", tmp_path / "row.zip", lambda files: files.pop("code/models.py"))
    assert findings(gone)[0] == "code: models.py:noisy needs models.py, which is not there"
    unlisted = changed(
        made / "row.zip", tmp_path / "row.zip", lambda f: with_lines(f, lambda line: line.pop("sources", None))
    )
    assert "code: no cell lists the code of models.py:noisy; run the board again" in findings(unlisted)


def test_a_failing_disk_leaves_the_board_as_it_was(made, board, monkeypatch):
    import os

    rename = os.rename

    def fails(source, target):
        if str(target) == str(board):
            monkeypatch.setattr(os, "rename", rename)
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr("bench.submissions.add.os.rename", fails)
    assert "no space left" in refused(made / "row.zip", board)


def test_rerun_runs_nothing_where_a_check_fails(made, tmp_path):
    zipped = changed(made / "row.zip", tmp_path / "row.zip", lambda files: files.pop("card.toml"))
    done = purebench_here("submit", "check", zipped, "--rerun", 1)
    assert (done.returncode, done.stderr) == (1, "not judged again: what the checks find comes first\n")
    assert not (made / "imported").exists()


@pytest.mark.parametrize("name", ["board.toml", "card.toml", "results/plan.jsonl", "results/manifest.json"])
@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe", b'{"a": 1}', b"[1]", b""])
def test_files_of_another_form(name, content, made, tmp_path):
    zipped, files = tmp_path / "row.zip", read_zip(made / "row.zip") | {name: content}
    about = json.loads(files["submission.json"])
    about["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    write_zip(zipped, files | {"submission.json": json.dumps(about).encode()})
    check = {"board.toml": "board", "card.toml": "card"}.get(name, "results")
    assert findings(zipped)[0].startswith(f"{check}: ")


def test_lines_of_other_kinds(made, tmp_path):
    def change(line):
        line |= {"images": [1], "eps": {"a": 1}, "block": None}

    assert findings(changed(made / "row.zip", tmp_path / "row.zip", lambda f: with_lines(f, change)))
