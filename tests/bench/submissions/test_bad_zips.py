"""Bad submissions: each is told in a line, runs nothing, and leaves the board's folder as it was."""

import hashlib
import io
import json
import shutil
import stat
import zipfile

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from boards import purebench_here
from submitted import LABEL, audit, changed, pack, read_zip, the_part, with_images, with_lines, with_table

from bench.store.audits import write_audits
from bench.submissions.archive import write_zip


def tree(folder):
    return {p.relative_to(folder): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def findings(zipped, *more):
    done = purebench_here("submit", "check", zipped, *more)
    assert done.returncode == 1, done.stdout + done.stderr
    return [line.removeprefix("fails: ") for line in done.stdout.splitlines() if line.startswith("fails: ")]


def refused(zipped, board):
    """The line by which `add` refuses a zip; nothing has changed, and nothing lies beside the board."""
    before, beside = tree(board), sorted(board.parent.iterdir())
    done = purebench_here("submit", "add", zipped, "--to", board)
    assert (done.returncode, done.stdout) == (2, "")
    assert (tree(board), sorted(board.parent.iterdir())) == (before, beside)
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def made_of(path, *names, **attributes):
    """A zip of small files."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename = name
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.writestr(info, b"x")
    return path


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


def test_a_newer_schema(made, tmp_path):
    def change(files):
        files["submission.json"] = json.dumps(json.loads(files["submission.json"]) | {"schema": 2}).encode()

    done = purebench_here("submit", "check", changed(made / "row.zip", tmp_path / "row.zip", change))
    assert (done.returncode, "newer purebench (schema 2)" in done.stderr) == (2, True)


def test_an_image_outside_the_ball_by_little(made, tmp_path, board):
    """Clean images are moved by eps and 2e-5 more; the tolerance of a run is 1e-6."""
    from bench import load_images

    clean = load_images(made / "whole", LABEL, "none").clean

    def at(distance):
        def change(images):
            for array in images.values():
                array[:] = clean
                array[0, 0, 0, 0] = distance

        return changed(made / "row.zip", tmp_path / "row.zip", lambda files: with_images(files, change))

    assert clean[0, 0, 0, 0] == 0
    assert purebench_here("submit", "check", at(0.1), "--to", board).returncode == 0
    zipped = at(0.1 + 2e-5)
    lines = findings(zipped, "--to", board)
    assert len(lines) == 4
    assert "image 0 is 0.100020 away, eps is 1/10" in lines[0]
    assert "ball: " in refused(zipped, board)


def test_an_image_outside_the_box(made, tmp_path):
    def change(images):
        for array in images.values():
            array[0, 0, 0, 0] = -2e-5

    zipped = changed(made / "row.zip", tmp_path / "row.zip", lambda files: with_images(files, change))
    assert "ball: none | deployed | images from 0: image 0 leaves [0, 1]" in findings(zipped)


def test_other_images(made, tmp_path, board):
    def change(frame):
        frame.loc[3, "sha"] = "0" * 16
        return frame

    zipped = changed(made / "row.zip", tmp_path / "row.zip", lambda f: with_table(f, "records.parquet", change))
    for more in ((), ("--to", board)):
        (line,) = findings(zipped, *more)
        assert line == "images: none | deployed | images from 0: image 3 or its label is not that of the data"


def test_foreign_draws(made, tmp_path, board):
    """Draws of another number, and answers that were changed without their counts."""

    def other_number(frame):
        frame.loc[frame["draw"] == 7, "draw"] = 9
        return frame

    def other_answers(frame):
        frame["pred"] = (frame["pred"] + 1) % 10
        return frame

    zipped = changed(made / "row.zip", tmp_path / "row.zip", lambda f: with_table(f, "draws.parquet", other_number))
    line = findings(zipped)[0]
    assert line.startswith("draws: none | deployed | images from 0: image 0 has other draws than the 3 for selection")
    assert "draws: " in refused(zipped, board)
    zipped = changed(made / "row.zip", tmp_path / "row.zip", lambda f: with_table(f, "draws.parquet", other_answers))
    assert "by its draws" in findings(zipped)[0]


def test_a_seed_that_is_not_the_boards(made, tmp_path, board):
    """A forger who changes the seed of the draws in lines and identities, and computes the keys anew."""
    keys = {}

    def change(line):
        if "identity" in line:
            line["identity"]["seed"] = 1
            text = json.dumps(line["identity"], sort_keys=True, separators=(",", ":"))
            keys[line["key"]] = hashlib.sha256(text.encode()).hexdigest()[:20]
        line["seed"] = 1

    def files_of_seed(files):
        with_lines(files, change)
        cells, plan = the_part(files, "cells.jsonl"), "results/plan.jsonl"
        for name in (cells, plan):
            for old, new in keys.items():
                files[name] = files[name].replace(old.encode(), new.encode())

        def renamed(frame):
            frame["cell"] = frame["cell"].astype(str).map(keys)
            return frame

        with_table(files, "records.parquet", renamed)
        with_table(files, "draws.parquet", renamed)
        with_images(files, lambda images: [images.__setitem__(keys[k], images.pop(k)) for k in list(images)])
        files["board.toml"] = files["board.toml"].replace(b"seed = 0", b"seed = 1")

    zipped = changed(made / "row.zip", tmp_path / "row.zip", files_of_seed)
    assert findings(zipped, "--to", board) == [f"same draws: its seed is 1, that of {board} is 0"]
    assert "same draws: its seed is 1" in refused(zipped, board)


def test_a_key_that_is_not_of_its_identity(made, tmp_path):
    def change(line):
        if line["attack"] == "slow" and "identity" in line:
            line["identity"]["attack"][1] = {"seconds": "1"}

    found = findings(changed(made / "row.zip", tmp_path / "row.zip", lambda f: with_lines(f, change)))
    assert any(line.startswith("keys: slow | ") and "is not what its identity gives" in line for line in found)
    assert all(line.startswith("keys: ") for line in found)  # nothing is read of cells that are not what they say


def test_a_line_that_says_something_else(made, tmp_path):
    def change(line):
        line["eps"] = "1/20"

    found = findings(changed(made / "row.zip", tmp_path / "row.zip", lambda f: with_lines(f, change)))
    assert "keys: none | deployed | images from 0: eps is '1/20' in its line, '1/10' in its identity" in found


def test_a_label_that_the_board_has(made, tmp_path, board):
    assert purebench_here("submit", "add", made / "row.zip", "--to", board, "--quiet").returncode == 0
    assert f'label: {board} has a row "noisy" already' in refused(made / "row.zip", board)
    whole = shutil.copytree(made / "whole", tmp_path / "whole")
    assert findings(made / "row.zip", "--to", whole)[0].startswith("label: ")


def test_cells_that_the_board_has_under_another_label(made, tmp_path, board):
    def change(line):
        line["defense"] = "mine"

    def renamed(files):
        with_lines(files, change)
        for name in ("results/manifest.json", "submission.json", "board.toml"):
            files[name] = files[name].replace(b'"noisy"', b'"mine"')

    zipped = changed(made / "row.zip", tmp_path / "row.zip", renamed)
    assert purebench_here("submit", "check", zipped, "--to", board).returncode == 0
    (line,) = findings(zipped, "--to", made / "whole")
    assert line == f'label: {made / "whole"} has 4 cells of this row already, as "noisy"'


def test_another_board(made, tmp_path, board):
    def renamed(files):
        files["results/manifest.json"] = files["results/manifest.json"].replace(b'"small"', b'"large"')
        files["board.toml"] = files["board.toml"].replace(b'"small"', b'"large"')

    zipped = changed(made / "row.zip", tmp_path / "row.zip", renamed)
    assert findings(zipped, "--to", board) == [
        f"same board: its board is 'large', that of {board} is 'small'",
    ]
    assert "same board: its board is 'large'" in refused(zipped, board)


def test_a_missing_or_bad_card(made, tmp_path, board):
    zipped = changed(made / "row.zip", tmp_path / "row.zip", lambda files: files.pop("card.toml"))
    assert findings(zipped) == ["card: card.toml is missing"]
    assert "card: card.toml is missing" in refused(zipped, board)

    def spoiled(files):
        text = files["card.toml"].replace(b'licence = "MIT"', b'licence = ""\ncolour = "red"')
        files["card.toml"] = text.replace(b'kind = "claim"', b'kind = "rumour"').replace(b'url = ""\n', b"")

    lines = findings(changed(made / "row.zip", tmp_path / "row.zip", spoiled))
    assert [line.partition(";")[0] for line in lines][:3] == [
        "card: card.toml: licence is empty",
        "card: card.toml has no url",
        'card: card.toml: unknown key "colour"',
    ]
    assert "rumour" in lines[3]


def test_no_audit_and_an_earlier_one(made, tmp_path):
    zipped = changed(made / "row.zip", tmp_path / "row.zip", lambda files: files.pop("results/audit/audit.json"))
    assert [line.partition(";")[0] for line in findings(zipped)] == ["audit: noisy has no audit"]

    def earlier(files):
        content = json.loads(files["results/audit/audit.json"])
        entry = {k: v for k, v in content["audits"][0].items() if k != "version"}
        folder = tmp_path / "audited"
        (folder / "audit").mkdir(parents=True)
        write_audits(folder, [entry])
        files["results/audit/audit.json"] = (folder / "audit/audit.json").read_bytes()

    (line,) = findings(changed(made / "row.zip", tmp_path / "row.zip", earlier))
    assert line.startswith("audit: the audit of noisy is of version none, not ")


def test_an_audit_that_the_board_contradicts(made, tmp_path, board):
    fingerprint = json.loads(read_zip(made / "row.zip")["results/manifest.json"])["defenses"][LABEL]
    finding = audit(fingerprint)["findings"][0] | {"status": "fail"}
    (board / "audit").mkdir()
    write_audits(board, [audit(fingerprint, passed=False, failed=["zero gradients"], findings=[finding])])
    (line,) = findings(made / "row.zip", "--to", board)
    assert line.startswith("same audit: the audit of noisy at Linf 1/10 has other outcomes")
    assert "same audit" in refused(made / "row.zip", board)


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


def test_missing_and_failed_cells(made, tmp_path):
    def change(line):
        if line["attack"] == "slow" and "identity" in line:
            line |= {"status": "error", "error": "boom"}

    lines = findings(changed(made / "row.zip", tmp_path / "row.zip", lambda f: with_lines(f, change)))
    assert any(line.startswith("results: noisy | slow | ") and line.endswith(" failed: boom") for line in lines)


def test_pack_needs_a_card_and_the_code_of_then(made, tmp_path):
    done = pack(made, tmp_path / "x.zip", card=None)
    assert (done.returncode, "it has no card; write one, and name it with --card" in done.stderr) == (2, True)
    done = pack(made, tmp_path / "x.zip", defense="nosy")
    assert (done.returncode, 'unknown defense in these results "nosy"; did you mean noisy?' in done.stderr) == (2, True)
    done = pack(made, tmp_path / "x.zip", "--code", tmp_path)
    assert (done.returncode, "needs models.py, which is not there; name the folder" in done.stderr) == (2, True)
    done = pack(made, tmp_path)
    assert (done.returncode, "is a folder; name a file with --out" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


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


def test_a_folder_that_is_no_board(made, tmp_path):
    done = purebench_here("submit", "add", made / "row.zip", "--to", tmp_path)
    assert (done.returncode, "is no results folder" in done.stderr) == (2, True)


def test_rerun_runs_nothing_where_a_check_fails(made, tmp_path):
    zipped = changed(made / "row.zip", tmp_path / "row.zip", lambda files: files.pop("card.toml"))
    done = purebench_here("submit", "check", zipped, "--rerun", 1)
    assert (done.returncode, done.stderr) == (1, "not judged again: what the checks find comes first\n")
    assert not (made / "imported").exists()


@pytest.mark.parametrize("name", ["records.parquet", "draws.parquet"])
def test_tables_that_are_too_long(name, made, tmp_path):
    zipped = changed(
        made / "row.zip", tmp_path / "row.zip", lambda f: with_table(f, name, lambda t: pd.concat([t] * 3))
    )
    (line,) = findings(zipped)
    rows = {"records.parquet": 48, "draws.parquet": 384}[name]
    assert line == f"results: {name} has {3 * rows:,} rows; the cells have {rows:,}"


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


def with_arrow(files, name, change):
    """Change a Parquet file, as an Arrow table; equal texts are stored once."""
    path, out = the_part(files, name), io.BytesIO()
    pq.write_table(change(pq.read_table(io.BytesIO(files[path]))), out)
    files[path] = out.getvalue()


def long_text(table, name):
    """The table with a text of 20 kB in each row of a column."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * len(table), pa.int32()), pa.array(["x" * 20_000]))
    at = table.column_names.index(name) if name in table.column_names else len(table.column_names)
    return table.remove_column(at).append_column(name, texts) if at < table.num_columns else (
        table.append_column(name, texts)
    )  # fmt: skip


@pytest.fixture
def no_table_is_read(monkeypatch):
    """Reading a whole table fails the test."""
    monkeypatch.setattr("bench.submissions.check.cells_of", lambda *_: pytest.fail("tables were read"))


@pytest.mark.usefixtures("no_table_is_read")
def test_a_column_that_no_run_writes(made, tmp_path, board):
    def change(files):
        with_arrow(files, "draws.parquet", lambda table: long_text(table, "extra"))

    zipped = changed(made / "row.zip", tmp_path / "row.zip", change)
    assert findings(zipped) == ['results: draws.parquet has a column "extra", which no run writes']
    assert 'results: draws.parquet has a column "extra"' in refused(zipped, board)


@pytest.mark.usefixtures("no_table_is_read")
def test_long_texts_are_counted_in_every_row(made, tmp_path, monkeypatch):
    """A text of 20 kB in each of 48 rows is 960 kB in memory, and 20 kB in the file."""
    monkeypatch.setattr("bench.submissions.tables.MOST_DECODED", 900_000)

    def change(files):
        with_arrow(files, "records.parquet", lambda table: long_text(table, "error"))

    zipped = changed(made / "row.zip", tmp_path / "row.zip", change)
    assert findings(zipped) == ["results: its tables need more than the 900,000 bytes of memory that are allowed"]


def forged(files, *, images):
    """Give each cell another number of images, with the keys that follow."""
    keys = {}

    def change(line):
        line["images"] = images
        if "identity" in line:
            line["identity"]["data"][5] = line["identity"]["data"][4] + images
            text = json.dumps(line["identity"], sort_keys=True, separators=(",", ":"))
            keys[line["key"]] = hashlib.sha256(text.encode()).hexdigest()[:20]

    with_lines(files, change)
    for name in (the_part(files, "cells.jsonl"), "results/plan.jsonl"):
        for old, new in keys.items():
            files[name] = files[name].replace(old.encode(), new.encode())


@pytest.mark.usefixtures("no_table_is_read")
def test_numbers_of_images_are_bounded(made, tmp_path):
    """A forger who says that cells have 10**10 images, in lines, identities and keys, or in the lines alone."""
    zipped = changed(made / "row.zip", tmp_path / "row.zip", lambda files: forged(files, images=10**10))
    lines = findings(zipped)
    assert lines[0] == "results: none | deployed | images from 0: 10,000,000,000 images; at most 100,000 are allowed"
    plain = changed(made / "row.zip", tmp_path / "row.zip", lambda f: with_lines(f, lambda p: p.update(images=10**10)))
    assert findings(plain)[0].startswith("keys: none | deployed | images from 0: images is 10000000000 in its line")


@pytest.mark.usefixtures("no_table_is_read")
def test_rows_are_bounded(made, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.submissions.tables.MOST_ROWS", 1000)

    def change(files):
        forged(files, images=50_000)
        with_arrow(files, "draws.parquet", lambda table: pa.concat_tables([table] * 3))

    zipped = changed(made / "row.zip", tmp_path / "row.zip", change)
    assert findings(zipped) == ["results: draws.parquet has 1,152 rows; at most 1,000 are allowed"]


def test_json_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.submissions.archive.MOST_TEXT", 1)
    zipped = made_of(tmp_path / "row.zip", "submission.json", "card.toml", "code/a.json")
    assert findings(zipped) == ["zip: its JSON and TOML have 2 bytes; at most 1 are allowed"]


def test_pack_refuses_what_check_would(made, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.submissions.tables.MOST_ROWS", 10)
    done = pack(made, tmp_path / "x.zip")
    assert done.stderr.endswith("noisy cannot be submitted: records.parquet has 48 rows; at most 10 are allowed\n")
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
