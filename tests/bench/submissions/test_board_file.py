"""The board file of a packed row plans its cells, those of attacks made on other defenses included."""

import tomllib

import pytest
from boards import ROOT

from bench.attacks.registry import find_attack
from bench.board.load import load_board
from bench.store.manifest import read_manifest
from bench.store.reader import read_folder
from bench.submissions.board_file import as_toml, board_of


def rows_of(results):
    """Stored cells of each defense."""
    found = {}
    for line in read_folder(ROOT / "results" / results, lambda lines, _: lines):
        if line.get("identity"):
            found.setdefault(line["defense"], []).append(line)
    return found


@pytest.mark.parametrize("results", ["digits-gan", "digits-surrogates", "digits-linf"])
def test_it_plans_every_cell_of_each_row(results, tmp_path):
    manifest, rows = read_manifest(ROOT / "results" / results), rows_of(results)
    sources = 0
    for label, lines in rows.items():
        board = tmp_path / "board.toml"
        board.write_text(as_toml(board_of(manifest, label, lines)))
        planned = {cell.key for cell in load_board(board).cells()}
        assert {line["key"] for line in lines} <= planned, label
        sources += sum("source" in attack for attack in tomllib.loads(board.read_text())["attack"])
    assert (sources > 0) == (results != "digits-linf")


def test_sources_of_one_name_are_numbered_and_attack_this_row_alone():
    label, manifest = "gan-at, gamma 0", read_manifest(ROOT / "results/digits-gan")
    lines = rows_of("digits-gan")[label]
    source = next(line["identity"]["source"] for line in lines if line["attack"] == "PGD-50 from pgd-at")
    other = dict(lines[-1], identity=lines[-1]["identity"] | {"source": source | {"parameters": {}}})
    board = board_of(manifest, label, [*lines, other])
    sources = [entry["label"] for entry in board["defense"][1:]]
    wanted = ["undefended as a source", "pgd-at as a source 1", "gan-at as a source", "pgd-at as a source 2"]
    assert sorted(sources) == sorted(wanted)
    assert {tuple(attack["on"]) for attack in board["attack"]} == {(label,)}


def test_a_number_as_text_is_a_number():
    """Packed boards hold the canonical form, in which all numbers are texts."""
    text, number = (find_attack("torchattacks:EOTPGD", {"eot_iter": n}).warnings for n in ("4", 4))
    assert text == number
    assert any("eot_iter 4 is weak" in warning for warning in text)
