"""Rows that a board refuses: other images, draws, keys, audits, cards and labels."""

import hashlib
import json
import shutil

from boards import BOARD, purebench_here, write_board
from submitted import (
    LABEL,
    NOISY,
    audit,
    changed,
    findings,
    pack,
    read_zip,
    refused,
    the_part,
    with_images,
    with_lines,
    with_table,
)

from bench.store.audits import write_audits


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


def test_a_board_of_fewer_images_is_the_only_reason(made, tmp_path):
    """Images that the board lacks are not called wrong; a row that is rejected has no rank."""
    text = BOARD.replace("first-60", "first-6").replace(NOISY, "")
    for name in ("fewer", "small"):
        path = write_board(tmp_path, text.replace('name = "small"', f'name = "{name}"'))
        assert purebench_here("run", path, "--out", tmp_path / name, "--quiet", "--workers", 0).returncode == 0
    images = f"same images: its images are not those of {tmp_path / 'small'}: "
    (line,) = findings(made / "row.zip", "--to", tmp_path / "small")
    assert line.startswith(images)
    another, line = findings(made / "row.zip", "--to", tmp_path / "fewer")
    assert another == f"same board: its board is 'small', that of {tmp_path / 'fewer'} is 'fewer'"
    assert line.startswith(images.replace("/small", "/fewer"))
    shown = purebench_here("submit", "check", made / "row.zip", "--to", tmp_path / "fewer").stdout
    assert "noisy at Linf 1/10 by itself, no rank (rejected): worst case " in shown
    assert ", rank " not in shown
    assert "same board: its board is 'small'" in refused(made / "row.zip", tmp_path / "fewer")


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


def test_a_folder_that_is_no_board(made, tmp_path):
    done = purebench_here("submit", "add", made / "row.zip", "--to", tmp_path)
    assert (done.returncode, "is no results folder" in done.stderr) == (2, True)
