"""The board file of a packed row plans its cells, those of attacks made on other defenses included."""

import tomllib

import pytest
from boards import ROOT

from bench.attacks.registry import find_attack
from bench.board.load import load_board
from bench.store.manifest import read_manifest
from bench.store.reader import read_folder
from bench.submissions.board_file import as_toml, board_of
from bench.submissions.pack import _board
from defenses.utils.errors import UserError


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


@pytest.fixture(scope="module")
def transferred():
    """Manifest and cells of a row with the null attack on another classifier."""
    return read_manifest(ROOT / "results/digits-gan"), rows_of("digits-gan")["pgd-at"]


def test_draws_of_a_random_source_are_none_of_the_row(transferred):
    manifest, lines = transferred
    assert "verdict" not in board_of({**manifest, "protocols": {"m": [31]}}, "pgd-at", lines)


def test_a_training_that_is_the_source_of_another_is_no_further_defense(transferred):
    """Of seed 0 a fingerprint does not say so; a board knows the source of the null by its lack of parameters."""
    manifest, lines = transferred
    source = next(line["identity"]["source"] for line in lines if line["attack"] == "transfer")
    trained = {f"x (training seed {n})": source | ({"training_seed": n} if n else {}) for n in (0, 1)}
    only = [line for line in lines if line["attack"] in ("none", "transfer")]
    (entry,) = board_of({**manifest, "defenses": trained}, "x", only)["defense"]
    assert entry == {"name": "undefended", "label": "x", "seeds": [0, 1]}


def test_parts_of_ones_own_are_named_beside_the_code_of_the_zip(transferred):
    manifest, lines = transferred
    parameters = {"classifier": "mine.py:Net", "filters": ["jpeg", {"name": "mine.py:Blurred", "k": "3"}]}
    trained = {"pgd-at": {"name": "magnet", "parameters": parameters}}
    first = board_of({**manifest, "defenses": trained}, "pgd-at", lines)["defense"][0]
    blurred = {"name": "code/mine.py:Blurred", "k": "3"}
    assert first["params"] == {"classifier": "code/mine.py:Net", "filters": ["jpeg", blurred]}


def test_an_attack_of_ones_own_may_be_called_transfer(transferred):
    manifest, lines = transferred
    (line,) = [line for line in lines if line["attack"] == "PGD-50 from gan-at"][:1]
    board = board_of(manifest, "pgd-at", [{**line, "attack": "transfer"}])
    assert board["nulls"] == ["none", "uniform"]
    assert [attack["label"] for attack in board["attack"]] == ["transfer"]


def test_a_row_without_attacks_is_not_packed(transferred):
    manifest, lines = transferred
    with pytest.raises(UserError, match="pgd-at cannot be submitted: no attack was run on it in here"):
        _board(manifest, "pgd-at", [line for line in lines if line["attack"] == "none"], "here")


def test_a_number_as_text_is_a_number():
    """Packed boards hold the canonical form, in which all numbers are texts."""
    text, number = (find_attack("torchattacks:EOTPGD", {"eot_iter": n}).warnings for n in ("4", 4))
    assert text == number
    assert any("eot_iter 4 is weak" in warning for warning in text)
