"""Whether two results folders say the same."""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from boards import purebench_here

TIMES = ("seconds", "seconds_attack", "seconds_verdict", "seconds_per_image")  # and what they are part of


def same(reference: Path, folder: Path, errors: Iterable[tuple[str, str]] = ()) -> None:
    """Records, draws, images and tables equal the reference's; what ended in an error has no number and no rank."""
    wrong, ours, theirs = set(errors), _contents(folder), _reference(reference)
    spoilt = {defense for defense, _ in wrong}
    for name, key in (("records", "key"), ("draws", "key"), ("summary", "row")):
        for row, values in theirs[name].items():
            assert row in ours[name], (name, row)
            if name != "summary" or not (row[1] == "worst case" and row[0] in spoilt):
                drop = ("strict_rank",) if spoilt and name == "summary" else ()
                _equal(values, ours[name][row], (name, key, row), drop)
    assert {k: ours["images"].get(k) for k in theirs["images"]} == theirs["images"]
    for row, values in ours["summary"].items():
        attack_failed = (row[0], row[1]) in wrong or (row[0], "*") in wrong
        if attack_failed:
            assert values["n_images"] < values["planned"], row
            assert values["status"] != "ok", row
        if attack_failed or row[0] in spoilt:
            assert values["strict_rank"] == "", row
        elif row not in theirs["summary"]:
            raise AssertionError(f"{row} is in the table, and no error")
    _written(folder, ours["summary"])


@functools.cache
def _reference(folder: Path) -> dict[str, dict[Any, Any]]:
    return _contents(folder)


def _contents(folder: Path) -> dict[str, dict[Any, Any]]:
    from bench.analysis.results import load_cells, load_draws, load_results
    from bench.analysis.summary import summary

    keys = set(load_cells(folder)["key"])
    frames = {"records": load_results(folder), "draws": load_draws(folder)}
    found: dict[str, dict[Any, Any]] = {}
    for name, frame in frames.items():
        column = "cell"
        plain = frame.drop(columns=[c for c in frame.columns if c in TIMES])
        found[name] = {
            key: _bytes(part.sort_values([c for c in ("image", "draw") if c in part]).drop(columns=column))
            for key, part in plain.groupby(column)
            if key in keys
        }
    table = summary(folder).drop(columns=["seconds_per_image"]).astype(object)
    rows = table.where(table.notna(), "").to_dict("records")
    found["summary"] = {(r["defense"], r["attack"], r["view"]): r for r in rows}
    found["images"] = _images(folder)
    return found


def _bytes(frame: Any) -> dict[str, Any]:
    """Columns as plain values, floats to the last bit."""
    return {c: [_plain(v) for v in frame[c]] for c in frame.columns}


def _plain(value: Any) -> Any:
    if hasattr(value, "tobytes") and getattr(value, "ndim", 0):
        return value.tobytes()
    return repr(value) if isinstance(value, float) else value


def _equal(expected: Mapping[str, Any], given: Mapping[str, Any], where: object, drop: Iterable[str] = ()) -> None:
    for column in expected.keys() - set(drop):
        assert repr(expected[column]) == repr(given.get(column)), (where, column)


def _images(folder: Path) -> dict[str, bytes]:
    """The adversarial images of every cell."""
    from safetensors.numpy import load_file

    from bench.store.parts import ADVERSARIAL, stored

    found = {}
    for key, (line, part) in stored(folder / "parts").items():
        if line["status"] == "ok" and (part / ADVERSARIAL).is_file():
            found[key] = load_file(str(part / ADVERSARIAL))[key].tobytes()
    return found


def _written(folder: Path, rows: Mapping[Any, Mapping[str, Any]]) -> None:
    """The tables on disk, brought up to date by the command, say what the records say."""
    told = purebench_here("table", folder, "--format", "csv")
    assert told.returncode == 0, told.stderr
    written = list(csv.DictReader(io.StringIO(told.stdout)))
    assert len(written) == len(rows)
    for row in written:
        name = next(k for k in rows if tuple(map(_shown, k)) == (row["defense"], row["attack"], row["view"]))
        for column in ("n_images", "robust_mean", "clean_mean", "strict_rank", "status"):
            expected = rows[name][column]
            if expected == "":
                assert row[column] == "", (name, column)
            elif isinstance(expected, str):
                assert row[column] == _shown(expected), (name, column)
            else:
                assert float(row[column]) == pytest.approx(float(expected), abs=1e-12), (name, column)
    for form in ("text", "markdown", "latex", "html"):
        shown = purebench_here("table", folder, "--format", form).stdout
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown), form


def _shown(text: str) -> str:
    from bench.report.plain import _csv

    return str(_csv(text))
