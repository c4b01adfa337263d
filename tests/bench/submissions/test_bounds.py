"""Bounds of submissions: what a zip may need of memory is known before a table is read."""

import hashlib
import io
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from submitted import (
    changed,
    findings,
    made_of,
    pack,
    refused,
    the_part,
    with_lines,
    with_table,
)


@pytest.mark.parametrize("name", ["records.parquet", "draws.parquet"])
def test_tables_that_are_too_long(name, made, tmp_path):
    zipped = changed(
        made / "row.zip", tmp_path / "row.zip", lambda f: with_table(f, name, lambda t: pd.concat([t] * 3))
    )
    (line,) = findings(zipped)
    rows = {"records.parquet": 48, "draws.parquet": 384}[name]
    assert line == f"results: {name} has {3 * rows:,} rows; the cells have {rows:,}"


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
