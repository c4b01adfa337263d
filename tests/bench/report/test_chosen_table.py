"""`purebench table --columns ... --style paper`: columns, order and digits; LaTeX that fits its columns."""

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from boards import purebench_here
from fake_board import HOSTILE, deterministic, line, result, write

import bench
from bench.report.chosen_table import COLUMNS, chosen_table
from bench.report.paper import to_paper
from defenses.utils.errors import UserError

RESULTS = Path(__file__).parents[3] / "results"
LINF = RESULTS / "digits-linf"


@pytest.fixture(scope="module")
def leaders():
    return bench.leaderboard(LINF)


def test_numbers_are_those_of_the_leaderboard(leaders):
    (table,) = chosen_table(leaders, columns=["clean", "worst", "rank", "evaluations"], digits=2)
    assert table.columns == ("defense", "clean", "worst case [95 %]", "rank", "evaluations")
    for row, of in zip(table.rows, leaders.to_dict("records"), strict=True):
        shares = [100 * of[name] for name in ("clean_mean", "worst_mean", "worst_low", "worst_high")]
        assert [float(text) for text in re.findall(r"[\d.]+", f"{row[1]} {row[2]}")] == [round(x, 2) for x in shares]
        assert row[3] == str(of["rank_low"])
        assert row[4] == f"{of['evaluations_per_image']:,.0f}"


@pytest.mark.parametrize(
    ("sort", "wanted"),
    [
        ("worst", ["pgd-at", "adp", "ebm-mcmc", "undefended"]),
        ("clean", ["pgd-at", "ebm-mcmc", "undefended", "adp"]),
        ("evaluations", ["undefended", "pgd-at", "adp", "ebm-mcmc"]),
        ("defense", ["adp", "ebm-mcmc", "pgd-at", "undefended"]),
    ],
)
def test_orders(leaders, sort, wanted):
    (table,) = chosen_table(leaders, sort=sort)
    assert [row[0] for row in table.rows] == wanted


def test_ranges_and_the_best_beyond_doubt():
    """trades is first, but mart and two more may be: none is bold; on digits-linf pgd-at is."""
    (table,) = chosen_table(bench.leaderboard(RESULTS / "digits-defenses"), columns=["worst", "rank"])
    assert table.rows[0][2] == "1–4"
    assert table.strong == frozenset()
    assert r"\textbf" not in to_paper(table)
    (table,) = chosen_table(bench.leaderboard(LINF), columns=["worst", "rank"])
    assert re.findall(r"\\textbf\{(.*?) ", to_paper(table)) == ["57.2"]


def test_the_note_on_bold_is_only_where_something_is_bold():
    note = "Bold: the best beyond doubt"
    texts = {form: bench.leaderboard_table(LINF, form) for form in ("text", "markdown", "html", "latex", "paper")}
    assert {form for form, text in texts.items() if note in text} == {"markdown", "html", "latex", "paper"}


def test_columns_that_say_nothing_are_left_out_by_default(tmp_path):
    (table,) = chosen_table(bench.leaderboard(write(tmp_path, deterministic())))
    assert "Rob(5)" not in table.columns
    assert "audit" not in table.columns
    for folder in (LINF, RESULTS / "digits-audit"):
        assert all(len(t.columns) <= 6 for t in chosen_table(bench.leaderboard(folder)))


def test_every_column_has_a_cell_for_every_row():
    for table in chosen_table(bench.leaderboard(RESULTS / "digits-audit"), columns=list(COLUMNS)):
        assert all(all(row) for row in table.rows)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": ["cleen"]}, 'unknown column "cleen"; did you mean clean'),
        ({"sort": "wurst"}, 'unknown order "wurst"; did you mean worst'),
        ({"digits": 9}, "digits is 9; it must be at most 4"),
        ({"digits": -1}, "digits is -1"),
        ({"form": "pdf"}, 'unknown format "pdf"'),
    ],
)
def test_bad_input_is_one_line(options, words):
    with pytest.raises(UserError, match=words):
        bench.leaderboard_table(LINF, **options)


def test_the_command():
    told = purebench_here("table", LINF, "--columns", "worst,rank", "--sort", "defense", "--format", "csv")
    rows = list(csv.reader(io.StringIO(told.stdout)))
    assert rows[0] == ["defense", "worst case [95 %]", "rank", "threat"]
    assert rows[1] == ["adp", "17.4 [14.4, 21.0]", "2", "digits test, Linf 1/5"]
    assert r"\begin{tabular}" in purebench_here("table", LINF, "--style", "paper").stdout
    assert "17 " in purebench_here("table", LINF, "--digits", "0").stdout
    told = purebench_here("table", LINF, "--columns", "worst,rnk")
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)


def test_latex_is_a_float_with_caption_and_label(leaders):
    text = to_paper(chosen_table(leaders))
    assert re.search(r"\\caption\{digits test, Linf 1/5\. Percent of 500 images; .*65 held-out draws.*\}", text)
    assert r"\label{tab:digits-linf-digits-test-linf-1-5}" in text  # boards of the same data share the rest
    assert text.count("{") == text.count("}")
    assert [text.count(rf"\{word}rule") for word in ("top", "mid", "bottom")] == [1, 1, 1]


def test_a_failed_audit_is_not_on_top_and_orders_of_words_are_the_best_first():
    audits = bench.leaderboard(RESULTS / "digits-audit")
    (table,) = chosen_table(audits, columns=["worst", "audit"])
    assert [row[2] for row in table.rows] == ["pass"] * 3 + ["fail"] * 3
    (table,) = chosen_table(audits, columns=["audit", "certificate"], sort="certificate")
    assert table.rows[0][2] == "yes"


def test_one_defense_is_not_the_best_beyond_doubt(tmp_path):
    (table,) = chosen_table(bench.leaderboard(write(tmp_path, deterministic())))
    assert (table.rows[0][-1], table.strong) == ("1", frozenset())
    assert not any("Bold" in note for note in table.footnotes)


def test_threats_have_the_same_columns(leaders):
    other = leaders.assign(eps="1/10", rank_low=None, rank_high=None, rob_m5=float("nan"))
    tables = chosen_table(pd.concat([leaders, other.astype({"rank_low": "Int64", "rank_high": "Int64"})]))
    assert len({table.columns for table in tables}) == 1


DOCUMENT = r"""\documentclass[twocolumn]{article}
\usepackage[T1]{fontenc}
\usepackage{array,booktabs}
\begin{document}
\input{table.tex}
\end{document}
"""


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
@pytest.mark.parametrize(
    ("folder", "columns"),
    [
        *((folder, "") for folder in ("digits-linf", "digits-defenses", "digits-audit", "hostile")),
        ("digits-defenses", "clean,worst,attack"),
        ("digits-defenses", "clean-interval,worst,rank,attack,verdict"),
        ("digits-linf", "clean,worst,rob5,rank,audit,certificate"),
        ("hostile", "clean-interval,worst,attack"),
    ],
)
def test_latex_compiles_without_a_warning(folder, columns, tmp_path):
    names = [HOSTILE, "x" * 60, "purifier before a classifier: a long name", "a_b^c~d#e%f&g$h{i}"]
    made = [r for n in names for r in (result(line(n, "none"), [1] * 6), result(line(n, "apgd"), [1, 0, 1, 0, 1, 1]))]
    path = write(tmp_path / "b", made) if folder == "hostile" else RESULTS / folder
    (tmp_path / "table.tex").write_text(
        bench.leaderboard_table(path, "paper", columns=list(filter(None, columns.split(","))))
    )
    (tmp_path / "doc.tex").write_text(DOCUMENT)
    words = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "doc.tex"]
    for _ in range(2):  # the second time labels are known
        told = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    log = (tmp_path / "doc.log").read_text(errors="replace")
    assert told.returncode == 0, told.stdout[-1000:]
    assert not re.findall(r".*(?:Warning|Overfull|Underfull|Float too large).*", log)


def test_claims_of_other_data_sets_and_networks_say_so(leaders):
    (table,) = chosen_table(leaders, columns=["worst", "claim"])
    claims = leaders[leaders["claim_robust"].notna()]
    assert (claims["claim_verdict"] == "not comparable").all()
    for name, _, claimed in table.rows:
        (claim,) = leaders[leaders["defense"] == name]["claim"]
        if claim and not claim.startswith("digits Linf 1/5"):
            assert f" on {claim.partition(',')[0]}" in claimed
    told = f"{len(claims)} of {len(claims)} cannot be compared with the row beside."
    assert f"Claimed: by the paper, of its own network; {told}" in table.footnotes


def test_a_table_wider_than_a_column_takes_both_and_one_wider_than_the_page_is_noted():
    """As pdflatex measures them: 155 pt, 301 pt (250 pt with names as narrow as one column has them) and 554 pt."""
    for columns, kind, notes in (
        ("clean,worst", "table", 0),
        ("clean,worst,attack", "table*", 0),
        ("paper", "table*", 1),
    ):
        told = purebench_here("table", RESULTS / "digits-defenses", "--columns", columns, "--style", "paper")
        assert re.findall(r"\\(?:begin|end)\{(table.*?)\}", told.stdout) == [kind, kind]
        assert (told.returncode, told.stderr.count("\n")) == (0, notes)
        assert told.stderr.count("pt wide, more than a page of 500; choose fewer columns") == notes


def test_claims_of_later_works_are_marked(leaders):
    evidence = dict(zip(leaders["defense"], leaders["claim_evidence"], strict=True))
    assert {"secondary", "code"} <= {*evidence.values()}
    (table,) = chosen_table(leaders, columns=["worst", "claim"])
    for name, _, claimed in table.rows:
        assert (" (secondary)" in claimed) == (evidence[name] == "secondary")
    note = "Secondary: a claim that was read in a later work, not in the paper itself."
    assert note in table.footnotes
    told = purebench_here("table", LINF, "--columns", "worst,claim", "--style", "paper").stdout
    assert told.count("(secondary)") == sum(value == "secondary" for value in evidence.values())
    (without,) = chosen_table(leaders, columns=["worst"])
    assert note not in without.footnotes
