"""`purebench ls`: lists by group, searched by words, as wide as the terminal."""

import re

import pytest
from boards import ROOT, purebench_here
from terminals import on_terminal

from bench.attacks.registry import attack_names
from bench.cli.ls import _LISTS
from defenses.zoo.cards import FAMILIES, card, list_models


def names(text):
    """The names of a list, by its headings."""
    groups = {}
    for line in text.splitlines():
        if line and not line.startswith(" "):
            groups[line] = []
        elif groups and re.match(r"  \S", line):
            groups[next(reversed(groups))].append(line.split()[0])
    return groups


def test_defenses_stand_by_family():
    found = names(purebench_here("ls").stdout)
    assert tuple(found) == FAMILIES
    assert sorted(n for group in found.values() for n in group) == sorted(list_models())
    assert all(card(n).family == family for family, group in found.items() for n in group)
    assert names(purebench_here("ls", "defenses").stdout) == found


def test_words_filter_a_kind_and_search_all():
    assert names(purebench_here("ls", "defenses", "langevin").stdout) == {"purifiers": ["ebm-mcmc", "jem-refine"]}
    assert names(purebench_here("ls", "defenses", "Langevin", "convergent").stdout) == {"purifiers": ["ebm-mcmc"]}
    found = names(purebench_here("ls", "diffpure").stdout)
    assert found["presets"] == ["diffpure"]
    assert "diffpure" in found["purifiers"]
    by_author = names(purebench_here("ls", "defenses", "madry").stdout)
    assert by_author == {"adversarial training": ["pgd-at"]}


def test_what_matches_nothing_is_one_line():
    for words in (("adpp",), ("presets", "adpp"), ("preset",) * 2):
        result = purebench_here("ls", *words)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("purebench: unknown kind, name or word")
        assert result.stderr.count("\n") == 1
    assert "did you mean adp" in purebench_here("ls", "adpp").stderr
    kinds = "attacks, boards, datasets, defenses, indices, presets"
    assert purebench_here("ls", "zzz").stderr.endswith(f'word "zzz"; known: {kinds}\n')


@pytest.mark.parametrize("kind", list(_LISTS))
def test_a_list_fits_the_terminal(kind):
    text = on_terminal("ls", kind, columns=80)
    assert max(map(len, text.splitlines())) <= 80
    elsewhere = names(purebench_here("ls", kind).stdout)
    shown = {n for group in names(text).values() for n in group}
    assert {n for group in elsewhere.values() for n in group if len(n) < 70} <= shown


def test_attacks_say_on_a_terminal_where_they_run():
    text = on_terminal("ls", "attacks", columns=80)
    assert re.search(r"foolbox:BoundaryAttack +L2; asks for logits\n", text)
    assert set(attack_names()) <= set(text.split())


def test_only_headings_are_bold_and_only_on_a_terminal():
    text = on_terminal("ls", "boards", colour=True)
    assert "\033[1mboards\033[0m\n" in text
    assert text.count("\033") == 2
    assert "\033" not in on_terminal("ls", "boards")
    assert "\033" not in purebench_here("ls", "boards").stdout


@pytest.mark.parametrize("columns", [None, 80, 400])
def test_tables_and_lines_of_other_commands_fit_it(columns, monkeypatch):
    from bench.cli import terminal
    from bench.report.plain import to_text
    from bench.report.table import Table

    headings = [f"attack {n}: mean % [95%]" for n in range(9)]
    rows = tuple((f"defense {n}", *(f"{n}.{k} [1.00, 2.00]" for k in range(9))) for n in range(3))
    table = Table("Title", ("defense", *headings), rows, ("a footnote " * 20,), left=1)
    line = "  fail  " + "evidence " * 30
    monkeypatch.setattr(terminal, "width", lambda: columns)
    text, lines = terminal.fitted(table), terminal.fitted_lines(f"short\n{line.rstrip()}")
    assert (text == to_text(table)) == (columns != 80)
    assert (lines == f"short\n{line.rstrip()}") == (columns != 80)
    assert max(map(len, f"{text}{lines}".splitlines())) <= (columns or 400)
    assert all(cell in text for row in rows for cell in row)
    assert lines.split() == ["short", *line.split()]


def test_a_table_fits_the_terminal_with_all_its_numbers():
    folder = ROOT / "results/digits-linf"
    whole = (folder / "tables.txt").read_text()
    assert purebench_here("table", folder).stdout == whole
    text = on_terminal("table", folder, columns=80)
    assert max(map(len, text.splitlines())) <= 80
    numbers = r"\d+\.\d+ \[\d+\.\d+, \d+\.\d+\]"
    assert re.findall(numbers, text) != []
    assert sorted(re.findall(numbers, text)) == sorted(re.findall(numbers, whole))
    assert on_terminal("table", folder, columns=160) == whole
