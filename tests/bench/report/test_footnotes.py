"""Footnotes of tables: mixed origins, and the warnings of attacks in every format."""

from __future__ import annotations

import pandas as pd
import pytest
from fake_board import HELD, SEL, deterministic, failed, line, result, write

import bench
from bench.analysis.results import read_results
from bench.analysis.summary import summary
from bench.attacks.budgets import short_of
from bench.report.footnotes import mixed
from bench.report.number_notes import of_numbers
from bench.report.tables import write_tables

RANK = "rank: the ranks that paired differences on the same images leave open (95%)"


def test_mixed_origins_are_footnotes(tmp_path, monkeypatch):
    def mixed(cells, manifest):
        assert set(manifest) == {"defenses"}
        assert cells == [{"defense": "plain", "status": "ok", "run": None}]
        return ["made by two versions"]

    monkeypatch.setattr("bench.report.footnotes.mixed", mixed, raising=False)
    assert write_tables(write(tmp_path, deterministic())).footnotes[-1] == "made by two versions"


def test_rows_of_several_environments_say_so():
    def run(name, torch="2.15.0", threads=2, commit="a", device="cpu"):
        hardware = {"device": device, "processor": "P"}
        return {"id": name, "versions": {"torch": torch}, "threads": threads, "hardware": hardware, "git": commit}

    runs = [run("a"), run("b", "2.16.0"), run("c", commit="b"), run("d", threads=1, device="cuda:0")]
    manifest = {"runs": runs}

    def cells(*names, defense="adp", status="ok"):
        return [{"defense": defense, "status": status, "run": n} for n in names]

    assert mixed(cells("a", "c"), manifest) == []
    assert mixed(cells("a") + cells("b", status="error"), manifest) == []
    assert mixed(cells("a") + cells("b", defense="pgd"), manifest) == []
    assert mixed(cells("a", "b", "c"), manifest) == ["adp: cells from 2 environments: torch 2.15.0 / 2.16.0"]
    assert mixed(cells("a", "d"), manifest) == ["adp: cells from 2 environments: threads 1 / 2; device cpu / cuda:0"]
    assert "torch 2.15.0 / unknown" in mixed(cells("a", "lost"), manifest)[0]
    assert mixed([{"defense": "adp", "status": "ok", "run": float("nan")}], {}) == []


def _many(name, right, **more):
    more = {"images": 100, "indices": "first-100"} | more
    flags = [int(i < right) for i in range(100)]
    return [result(line(name, "none", **more), [1] * 100, size=0), result(line(name, "apgd", **more), flags)]


def _ranks(table):
    columns = [table.columns.index(name) for name in ("defense", "rank")]
    return [tuple(row[at] for at in columns) for row in table.rows]


def test_the_comparison_tells_which_ranks_the_images_tell_apart(tmp_path):
    rows = [*_many("low", 10), *_many("best", 95), *_many("good", 93)]
    rows += [result(line("gap", "none", images=100, indices="first-100"), [1] * 100)]
    rows += [failed(line("gap", "apgd", images=100, indices="first-100"), "error", "boom")]
    table = write_tables(write(tmp_path / "one", rows))
    assert _ranks(table) == [("best", "1–2"), ("good", "1–2"), ("low", "3"), ("gap", "–")]
    assert RANK in table.footnotes
    for file, dash in {"tables.txt": "–", "tables.md": "–", "tables.html": "–", "tables.tex": "--"}.items():
        text = (tmp_path / "one" / file).read_text()
        assert text.count(RANK.replace("%", "\\%" if file == "tables.tex" else "%")) == 1, file
        assert text.count(f"1{dash}2") == 2, file
    found = bench.leaderboard(tmp_path / "one").dropna(subset="rank_low").itertuples()
    texts = [(r.defense, "–".join(dict.fromkeys(map(str, (r.rank_low, r.rank_high))))) for r in found]
    assert texts == _ranks(table)[:3]
    strict = pd.read_csv(tmp_path / "one" / "tables.csv").dropna(subset="strict_rank").set_index("defense")
    assert strict["strict_rank"].to_dict() == {"best": 1, "good": 2, "low": 3}  # stays where programs read it

    two = [r for eps in ("1/5", "1/10") for name, right in (("a", 90), ("b", 20)) for r in _many(name, right, eps=eps)]
    table = write_tables(write(tmp_path / "two", two))
    assert _ranks(table) == [("a", "1"), ("b", "2")] * 2
    assert table.footnotes.count(RANK) == 1


def test_the_comparison_of_a_frame_has_the_ranges_of_its_folder(tmp_path):
    folder = write(tmp_path / "one", [*_many("low", 10), *_many("best", 95), *_many("good", 93)])
    of_folder = [line for line in bench.table(folder).splitlines() if line.startswith(("best", "good", "low"))]
    assert [line.split()[7] for line in of_folder] == ["1–2", "1–2", "3"]
    assert all(line in bench.table(bench.load_results(folder)) for line in of_folder)


def test_a_single_rank_and_none_have_no_range(tmp_path):
    for rows in (deterministic(), deterministic()[:2]):
        folder = tmp_path / str(len(rows))
        table = write_tables(write(folder, rows))
        assert RANK not in table.footnotes
        assert [rank for _, rank in _ranks(table)] == ["1" if len(rows) > 2 else "–"]


SHORT = short_of({"steps": 10}, {"steps": 100})[0]


def _warned(tmp_path, robust, **warnings):
    """Return the footnotes on attacks of a table with these right draws by attack."""
    rows = [*deterministic(), *(result(line("plain", n, warnings=warnings.get(n, [])), r) for n, r in robust.items())]
    notes = write_tables(write(tmp_path, rows)).footnotes
    return [note for note in notes if note.split(" on ")[0] in robust]


def test_a_small_budget_is_told_where_it_may_change_the_worst_case(tmp_path):
    told = _warned(tmp_path, {"apgd": [1, 1, 0, 0, 0, 0], "weak": [1] * 6}, apgd=[SHORT], weak=[SHORT])
    assert told == [f"apgd on plain: {SHORT}; no other attack is as strong there, so the worst case may be lower"]


@pytest.mark.parametrize("full", [[1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]], ids=["as strong", "stronger"])
def test_a_small_budget_beside_a_full_one_that_is_as_strong_needs_no_footnote(tmp_path, full):
    assert _warned(tmp_path, {"apgd": [1, 1, 0, 0, 0, 0], "full": full}, apgd=[SHORT]) == []
    table = pd.read_csv(tmp_path / "tables.csv").set_index("attack")["warnings"].fillna("")
    assert (table["apgd"], table["full"]) == (SHORT, "")


def test_an_attack_that_searches_nothing_is_told_whatever_the_others_reach(tmp_path):
    told = _warned(tmp_path, {"apgd": [1] * 6, "full": [0] * 6}, apgd=["steps = 0 lets it search nothing"])
    assert told == ["apgd on plain: steps = 0 lets it search nothing"]


def test_a_footnote_names_four_defenses_at_most(tmp_path):
    names = ["a", "b", "c", "d", "e", "f"]
    write_tables(write(tmp_path, [result(line(n, "pgd", warnings=["weak"]), [1] * 6) for n in names]))
    assert "pgd on a, b, c, d and 2 more: weak" in " ".join((tmp_path / "tables.txt").read_text().split())


def test_attacks_that_did_not_run_have_no_warnings(tmp_path):
    warned = {"warnings": ["weak"]}
    results = [
        *deterministic(),
        failed(line("plain", "ead", **warned), "unsupported", "needs L1"),
        failed(line("plain", "pgd", eps="1/10", **warned), "unsupported", "no such ball"),
        result(line("plain", "pgd", **warned), [1] * 6),
    ]
    notes = write_tables(write(tmp_path, results)).footnotes
    assert "pgd on plain: weak" in notes
    assert not any(note.startswith("ead") for note in notes)
    table = pd.read_csv(tmp_path / "tables.csv", keep_default_na=False).set_index(["attack", "eps"])["warnings"]
    assert (table["ead", "1/5"], table["pgd", "1/10"], table["pgd", "1/5"]) == ("", "", "weak")


def test_warnings_of_attacks_are_in_every_format(tmp_path):
    from bench.attacks.registry import find_attack

    names = ("torchattacks:AutoAttack", "torchattacks:EOTPGD", "torchattacks:SPSA", "torchattacks:OnePixel")
    names += ("torchattacks:CW", "torchattacks:PGD", "foolbox:LinfPGD", "foolbox:L2DeepFoolAttack")
    warned = {name: find_attack(name).warnings for name in names}
    write_tables(write(tmp_path, [result(line(f"on-{n}", n, warnings=list(warned[n])), [1] * 6) for n in names]))
    for ending in ("txt", "md", "tex", "html"):
        text = " ".join((tmp_path / f"tables.{ending}").read_text().replace("\\_", "_").split())
        assert all(f"{name} on on-{name}: {w}" in text for name in names for w in warned[name]), ending
    table = pd.read_csv(tmp_path / "tables.csv").set_index("attack")["warnings"].fillna("")
    assert all(table[name] == " | ".join(warned[name]) for name in names)


def _text(folder):
    return " ".join((folder / "tables.txt").read_text().split())


@pytest.mark.parametrize(("right", "told"), [(0, True), (3, True), (4, False)])
def test_clean_accuracy_like_chance_is_told(tmp_path, right, told):
    planned = [line("plain", name, images=12) for name in ("none", "pgd")]
    results = read_results(write(tmp_path, [result(p, [1] * right + [0] * (12 - right)) for p in planned]))
    records = results.records.assign(label=results.records["index"] % 4)
    notes = of_numbers(summary(results), results.cells, records)
    assert any("no better than a guess among 4 classes" in note for note in notes) == told


def test_a_worst_case_above_one_of_its_attacks_is_told(tmp_path):
    """Selection draws mislead on image 0: `a` is chosen there, and its held-out draws are all right."""
    cells = {name: line("noisy", name, stochastic=True, draws=HELD, selection=SEL) for name in ("none", "a", "b")}
    selection = {"none": [4] * 6, "a": [0] + [4] * 5, "b": [1] * 6}
    held = {"none": [15] * 6, "a": [15] * 6, "b": [3] * 6}
    write_tables(write(tmp_path, [result(cells[n], held[n], selection[n]) for n in cells]))
    assert "the worst case of noisy is above that of a single attack" in _text(tmp_path)
    assert "chosen on 4 selection draws" in _text(tmp_path)
