"""The printed tables: names, gaps, files, escaping."""

from __future__ import annotations

import io
import math
import re

import pandas as pd
import pytest
from fake_board import HOSTILE, deterministic, failed, line, result, stochastic, write

from bench import summary
from bench.analysis.ranks import rank_ranges_of_summary
from bench.analysis.results import read_results
from bench.report.comparison_table import attack_tables, pivot
from bench.report.full_table import full_table
from bench.report.html import to_html
from bench.report.latex import to_latex
from bench.report.plain import to_csv, to_markdown, to_text
from bench.report.table import Table
from bench.report.tables import write_tables


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "board", deterministic() + stochastic())


def test_pivot_has_one_line_per_defense(folder):
    frame = summary(folder)
    table = pivot(frame, ranges=rank_ranges_of_summary(read_results(folder), frame))
    assert table.title == "Comparison: digits test (first-6, 6 images), Linf 1/5"
    assert table.columns == (
        "defense", "clean images: mean % [95%]", "worst case: mean % [95%]", "rank",
        "uniform noise: mean % [95%]", "apgd: mean % [95%]", "square: mean % [95%]",
    )  # fmt: skip
    assert table.rows[1] == (
        "plain", "83.33 [43.65, 96.99]", "33.33 [9.68, 70.00]", "1–2",
        "66.67 [30.00, 90.32]", "50.00 [18.76, 81.24]", "66.67 [30.00, 90.32]",
    )  # fmt: skip
    assert table.rows[0][:1] + table.rows[0][3:4] == ("noisy", "1–2")  # the best worst case stands first
    assert full_table(summary(folder)).strong == {4, 9}


def test_pivot_keeps_views_apart_and_marks_gaps(tmp_path):
    results = [
        *deterministic(),
        result(line("plain", "apgd", view="bpda"), [1] * 6),
        failed(line("plain", "ead"), "unsupported", "needs L1"),
    ]
    table = pivot(summary(write(tmp_path, results, [*(r.line for r in results), line("plain", "fab", images=6)])))
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert cells["apgd (exact): mean % [95%]"].startswith("50.00 [")
    assert cells["apgd (bpda): mean % [95%]"].startswith("100.00 [")
    assert cells["ead: mean % [95%]"] == "unsupported"
    assert cells["fab: mean % [95%]"] == "not run"
    assert cells["worst case: mean % [95%]"].endswith("*")
    assert cells["rank"] == "–"
    assert any(note.startswith("*") for note in table.footnotes)


@pytest.fixture
def families(tmp_path):
    """A board whose deterministic and random defenses share clean images, noise and two attacks."""
    more = {"stochastic": True, "draws": 15, "selection": 4}
    results = [
        *deterministic(),
        *deterministic("other"),
        *stochastic(),
        result(line("plain", "deepfool"), [1, 0, 0, 0, 0, 0]),
        failed(line("other", "deepfool"), "error", "out of memory"),
        result(line("noisy", "eot", view="bpda", **more), [15, 15, 0, 0, 0, 0], [4, 4, 0, 0, 0, 0]),
        failed(line("noisy", "spsa", **more), "unsupported", "needs logits"),
    ]
    return write(tmp_path / "board", results, [*(r.line for r in results), line("noisy", "fab", images=6, **more)])


def test_attacks_that_some_have_met_stand_in_tables_of_their_own(families):
    frame = summary(families)
    assert [c.partition(":")[0] for c in pivot(frame).columns[4:]] == ["uniform noise", "apgd", "square"]
    of_plain, of_noisy = attack_tables(frame, marked=["noisy"], name_marks={"other": " ‡"})
    assert of_plain.title == "Attacks on plain, other: digits test (first-6, 6 images), Linf 1/5"
    assert of_plain.columns == ("defense", "deepfool: mean % [95%]")
    assert of_plain.rows == (("plain", "16.67 [3.01, 56.35]"), ("other ‡", "error"))
    assert of_noisy.columns == ("attack", "noisy †: mean % [95%]")  # fewer defenses than attacks: on its side
    assert of_noisy.rows == (("eot", "33.33 [9.68, 70.00]"), ("spsa", "unsupported"), ("fab", "not run"))


def test_no_table_of_a_comparison_has_an_empty_cell(families):
    frame = summary(families)
    write_tables(families)
    told = [cell for table in attack_tables(frame) for row in table.rows for cell in row]
    told += [cell for row in pivot(frame).rows for cell in (*row[:3], *row[4:])]  # an incomplete row has no rank
    assert not {"–", ""} & {*told}
    for name in ("tables.txt", "tables.md", "tables.html", "tables.tex"):
        text = (families / name).read_text()
        assert all(word in text for word in ("deepfool", "eot", "unsupported", "not run", "error"))
    text = (families / "tables.txt").read_text()
    assert text.index("not run") < text.index("worst case: per image"), "notes stand below all tables"
    assert max(map(len, text.splitlines())) <= 120
    layouts = re.findall(r"begin{tabular}{(l*r*l?)}", (families / "tables.tex").read_text())
    assert list(map(len, layouts[:3])) == [7, 2, 2]  # 10 when every attack had a column


def test_attacks_at_several_radii_name_the_radius(tmp_path):
    results = [*deterministic(), *deterministic(eps="1/10"), result(line("plain", "fab", eps="1/10"), [1] * 6)]
    results += [result(line("plain", name, eps="1/10"), [1] * 6) for name in ("pgd", "=cw")]
    (table,) = attack_tables(summary(write(tmp_path, results)))
    assert table.title.endswith("Linf 1/10")
    assert table.columns == ("attack", "plain: mean % [95%]")
    more = [result(line("plain", name), [1] * 6) for name in ("fab", "pgd", "=cw")]
    more += [*deterministic("other"), *deterministic("other", eps="1/10")]
    (table,) = attack_tables(summary(write(tmp_path / "two", [*results, *more])))
    heads = ("plain, Linf 1/5: mean % [95%]", "plain, Linf 1/10: mean % [95%]")
    assert table.columns == ("attack", *heads)


def test_write_tables_writes_all_and_repeats_itself(folder):
    table = write_tables(folder)
    assert [row[0] for row in table.rows] == ["noisy", "plain"]
    names = [f"tables.{end}" for end in ("txt", "md", "csv", "tex", "html")]
    first = {n: (folder / n).read_bytes() for n in names}
    write_tables(folder)
    assert first == {n: (folder / n).read_bytes() for n in names}
    inputs = ["plan.jsonl", "manifest.json", "certificates.json"]
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == sorted([*names, *inputs])
    csv = pd.read_csv(folder / "tables.csv")
    frame = summary(folder)
    assert csv["robust_low"].tolist() == frame["robust_low"].tolist()  # to the last bit
    assert "reduced" not in table.title


def test_reduced_budgets_are_labelled(tmp_path):
    frame = summary(write(tmp_path, deterministic(budget="reduced")))
    assert pivot(frame).title.endswith("reduced budget")
    assert set(frame.budget) == {"reduced"}


def test_hostile_names_reach_every_file_harmless(tmp_path):
    folder = write(tmp_path, deterministic(HOSTILE))
    write_tables(folder)
    texts = {end: (folder / f"tables.{end}").read_text() for end in ("txt", "md", "csv", "tex", "html")}
    for text in texts.values():
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "<script" not in texts["html"].lower()
    assert "<script" not in texts["md"].lower()
    assert "\\input" not in texts["tex"]
    assert pd.read_csv(io.StringIO(texts["csv"])).defense.nunique() == 1


def test_markdown_escapes_what_markdown_reads():
    text = to_markdown(Table("T", ("a", "b"), (("x|y", "1"), ("`c` *d* _e_ f_g [h](i) <j>", "2"))))
    rows = text.splitlines()
    assert all(len(r.replace("\\|", "").split("|")) == 4 for r in rows[2:6])
    assert r"x\|y" in text
    assert r"\`c\` \*d\* \_e\_ f_g [h\](i) &lt;j&gt;" in text
    assert rows[3] == "| " + "-" * (len(rows[2].split("|")[1]) - 2) + " | --: |"


def test_latex_escapes_and_balances():
    text = to_latex(Table("A & B", ("x_1", "n"), (("50% #1 {~^\\}", "∞"), ("[2em]", "–")), ("<note>",)))
    assert r"50\% \#1 \{\textasciitilde{}\textasciicircum{}\textbackslash{}\}" in text
    assert r"A \& B" in text
    assert r"x\_1" in text
    assert r"{}[2em] & --" in text
    assert text.replace(r"\{", "").replace(r"\}", "").count("{") == text.replace(r"\{", "").replace(r"\}", "").count(
        "}"
    )


def test_html_is_escaped_and_loads_nothing():
    text = to_html([Table(HOSTILE, (HOSTILE, "n"), ((HOSTILE, "1"),), (HOSTILE,))], HOSTILE)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text
    assert "http" not in text.replace("http-equiv", "")


def test_text_is_aligned_and_wraps_columns():
    table = Table("T", ("name", "one", "two", "three"), (("日本", "1", "22", "3"), ("x\n\x07y", "1", "2", "3")))
    lines = to_text(table).splitlines()
    assert lines[2] == "name  one  two  three"
    assert lines[4] == "日本    1   22      3"
    assert lines[5].startswith("x \ufffdy")
    narrow = to_text(table, 12).splitlines()
    assert max(map(len, narrow)) <= 12
    assert sum(line.startswith("name") for line in narrow) == 3
    with pytest.raises(ValueError, match="one cell per column"):
        Table("T", ("a",), (("1", "2"),))


def test_csv_neutralises_formulas_and_keeps_numbers():
    frame = pd.DataFrame({"name": ["=cmd()", "ok"], "x": [1 / 3, math.inf], "s": [None, "a,b"]})
    back = pd.read_csv(io.StringIO(to_csv(frame)))
    assert back.name.tolist() == ["'=cmd()", "ok"]
    assert back.x.tolist() == [1 / 3, math.inf]
    assert back.s.tolist()[1] == "a,b"


def test_wrapped_text_keeps_numbers_whole():
    """Long headings and names are wrapped; a cell of numbers, and the widths of wide characters, are not."""
    cell = "57.20 [52.82, 61.47]"
    label = "/".join(["a-long-folder"] * 4) + "/net.py:Network"
    table = Table("T", ("defense", "suite:AnAttackWithAVeryLongName: mean % [95%]", "rank"), ((label, cell, "1"),))
    text = to_text(table, 60, wrap=True)
    assert max(map(len, text.splitlines())) <= 60
    assert cell in text
    names = "".join(line[:28].strip() for line in text.splitlines() if line[:1].isalpha())
    assert label in names
