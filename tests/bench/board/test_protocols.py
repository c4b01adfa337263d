"""Presets against the figures of their sources, and boards of several presets beside each other."""

import re
from fractions import Fraction

import pytest

from bench.analysis.claim_files import read_claims
from bench.analysis.reproduction import claim_of
from bench.board.from_names import board_of_names
from bench.board.load import board_names, load_board, read_board
from bench.board.presets import find_preset, preset_names, protocol_of
from defenses.utils.errors import UserError

RAW = {
    "name": "several",
    "dataset": "digits",
    "indices": "first-6",
    "nulls": ["none", "uniform", "transfer"],
    "threat": {"norm": "Linf", "eps": "1/5"},
    "verdict": {"draws": 21, "selection": 8},
    "defense": [{"name": "undefended"}, {"name": "adp"}, {"name": "gan-at"}],
}


def attack(preset, number=0):
    return find_preset(preset).parts["attack"][number]


def published(preset, defense):
    """The protocol of the claim that a preset is held against, in words."""
    return claim_of(find_preset(preset), defense, read_claims())


def number(pattern, text):
    (found,) = re.findall(pattern, text)
    return Fraction(found)


@pytest.mark.parametrize(
    ("preset", "defense", "steps", "size", "copies"),
    [
        ("mefa", "ebm-mcmc", r"(\d+) steps of", r"steps of (\d+)/255", r"EOT (\d+)"),
        ("addt", "diffpure", r"(\d+) steps", None, r"EOT (\d+)"),
        ("ebm-paper", "ebm-mcmc", r"(\d+) steps of", r"steps of (\d+)/255", r"EOT (\d+)"),
        ("adp-paper", "adp", r"(\d+) iterations of", r"iterations of (\d+)/255", r"EOT (\d+)"),
        ("lee-kim2023", "adp", r"(\d+) iterations of", r"iterations of 0?(\.\d+)", r"EOT (\d+)"),
    ],
)
def test_steps_and_copies_are_those_of_the_source(preset, defense, steps, size, copies):
    told, entry = published(preset, defense).protocol, attack(preset, preset == "adp-paper")  # its first is blind
    assert entry["params"]["steps"] == number(steps, told)
    assert entry["views"][0]["eot"] == number(copies, told)
    if size:
        step = number(size, told) * (255 if preset == "lee-kim2023" else 1)
        assert float(entry["params"]["rel_stepsize"] * 8) == pytest.approx(float(step), abs=1e-9)


def test_further_figures_of_the_sources():
    told = published("mefa", "ebm-mcmc")
    assert "no random start" in told.protocol
    assert attack("mefa")["params"]["random_start"] is False
    replicates = re.search(r"again with ([\d, ]+) and (\d+) replicates", told.protocol)
    assert max(map(int, (*replicates[1].split(","), replicates[2]))) <= find_preset("mefa").parts["verdict"]["draws"]
    assert find_preset("mefa").parts["indices"] == f"first-{told.n}"
    assert find_preset("addt").parts["indices"] == f"first-{published('addt', 'diffpure').n}"
    assert published("ebm-paper", "ebm-mcmc").protocol.count(f"{attack('ebm-paper')['params']['verify']} replicates")


def test_diffhammer_has_the_restarts_losses_and_copies_of_its_source():
    (told,) = {
        c.protocol
        for c in read_claims()
        if c.url == find_preset("diffhammer").url and "restarts" in c.protocol and c.defense == "diffpure"
    }
    params, verdict = attack("diffhammer")["params"], find_preset("diffhammer").parts["verdict"]
    assert params["steps"] * params["restarts"] == number(r"(\d+) iterations", told)
    assert f"{params['restarts']} restarts of {params['steps']}, losses CW, CE, DLR" in told
    assert params["losses"] == ["margin", "ce", "dlr"]
    assert params["eot"] == params["draws"] == number(r"(\d+) copies", told)
    assert verdict["m"][-1] == number(r"mean of (\d+) draws", told)


def test_addt_is_judged_on_the_worst_of_as_many_purifications_as_its_source_has():
    worst = {c.aggregation for c in read_claims() if c.url == find_preset("addt").url} - {"mean"}
    assert worst == {f"worst of {find_preset('addt').parts['verdict']['m'][-1]}"}


def test_liu_wei_is_exact_gradients_under_the_seed_of_the_verdict():
    (told,) = [c for c in read_claims() if c.url == find_preset("liu-wei").url]
    assert told.aggregation == "known draw"
    assert "exact gradients" in told.attack
    assert attack("liu-wei")["views"] == [{"gradient": "exact", "seed": "known"}]


def test_gdmp_was_claimed_under_the_attack_of_its_preset():
    assert published("gdmp-paper", "gdmp").like == attack("gdmp-paper")["views"][0]["gradient"] == "blind"


@pytest.mark.parametrize(
    ("preset", "defense", "robust"),
    [
        ("adp-paper", "adp", 0.7001),
        ("ebm-paper", "ebm-mcmc", 0.5490),
        ("diffpure", "diffpure", 0.7064),
        ("gdmp-paper", "gdmp", 0.9006),
        ("mefa", "ebm-mcmc", 0.0608),
        ("addt", "diffpure", 0.6211),
        ("diffhammer", "diffpure", 0.5760),  # not of its own attack, which the preset leaves out
        ("jem-paper", "jem", None),
        ("adp-paper", "gdmp", None),
        ("standard", "adp", None),
    ],
)
def test_the_claim_of_a_preset(preset, defense, robust):
    claim = published(preset, defense)
    assert (claim and claim.robust) == robust


def several(*protocols, **more):
    return read_board(RAW | {"protocol": list(protocols)} | more, "several")


def test_protocols_stand_beside_each_other_with_the_cells_of_their_presets():
    board = several({"preset": "gan-at-paper", "on": "gan-at"}, {"preset": "standard"})
    cells = {(c.defense.label, c.attack.label) for c in board.cells()}
    of = {name: {label for defense, label in cells if defense == name} for name in ("adp", "gan-at")}
    assert of["gan-at"] == {
        *("none", "uniform", "transfer"),
        *("gan-at-paper: FGSM", "gan-at-paper: PGD, 10 steps", "standard: autoattack:standard"),
    }
    assert "standard: bench:adaptive" in of["adp"]
    assert not [label for label in of["adp"] if label.startswith("gan-at-paper") or label.endswith(":standard")]
    alone = board_of_names(preset="gan-at-paper", dataset="digits", defenses=("gan-at",), eps="1/5", indices="first-6")
    keys = {c.key for c in alone.cells() if c.attack.name != "transfer"}
    assert keys <= {c.key for c in board.cells()}
    assert [p["name"] for p in board.manifest_facts()["presets"]] == ["gan-at-paper", "standard"]
    assert "presets" not in read_board(RAW | {"attack": [{"name": "bench:pgd"}]}, "several").manifest_facts()


@pytest.mark.parametrize(
    ("tables", "one"),
    [
        ([{"on": "gan-at"}, {"on": ["adp"]}], {"on": ["gan-at", "adp"]}),
        ([{"on": "adp"}, {"on": ["adp", "stochastic"]}], {"on": "adp"}),
        ([{"on": "gan-at"}, {}], {}),
    ],
)
def test_tables_of_one_preset_are_as_one(tables, one):
    board = several(*({"preset": "gan-at-paper"} | table for table in tables), {"preset": "standard"})
    alike = several({"preset": "gan-at-paper"} | one, {"preset": "standard"})
    assert [cell.key for cell in board.cells()] == [cell.key for cell in alike.cells()]
    assert board.manifest_facts() == alike.manifest_facts()


def test_the_protocol_of_a_label():
    assert protocol_of("adp-paper: foolbox:LinfPGD, 40 steps") == "adp-paper"
    for label in ("foolbox:LinfPGD", "adp-paper", "mine: bench:pgd", "adp-paper:x", ""):
        assert protocol_of(label) == ""
    for name in preset_names():
        assert {protocol_of(entry["label"]) for entry in find_preset(name).attacks()} == {name}


@pytest.mark.parametrize(
    ("protocol", "more", "words"),
    [
        ({"preset": "adp-papr"}, {}, "did you mean adp-paper"),
        ({"on": "adp"}, {}, 'preset in [[protocol]] 1 is missing; write preset = "standard"'),
        ({"preset": "adp-paper", "on": "apd"}, {}, "did you mean adp"),
        ({"preset": "adp-paper"}, {"threat": {"norm": "L2", "eps": "1"}}, "protocol of Linf and not of L2"),
        ({"preset": "robustbench"}, {}, '"adp" is randomised'),
        ({"preset": "adp-paper"}, {"preset": "standard"}, '"protocol" is what the preset "standard" says'),
    ],
)
def test_a_protocol_that_does_not_fit(protocol, more, words):
    raw = {key: value for key, value in (RAW | more).items() if not ("preset" in more and key in ("verdict", "nulls"))}
    with pytest.raises(UserError) as caught:
        read_board(raw | {"protocol": [protocol]}, "several")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in board_names() if name.startswith("reproduction-")])
def test_boards_of_claims_put_to_the_test(name):
    """Every defense meets the full protocol, and all but the surrogate that of its own paper."""
    by_defense = {}
    for cell in load_board(name).cells():
        by_defense.setdefault(cell.defense.label, set()).add(protocol_of(cell.attack.label))
    assert all("standard" in found for found in by_defense.values())
    assert {label for label, found in by_defense.items() if len(found) == 2} == {"undefended"}
    assert by_defense["ebm-mcmc"] >= {"ebm-paper", "mefa"}
    assert by_defense["diffpure"] >= {"diffpure", "addt", "diffhammer", "liu-wei"}
    assert set(by_defense) >= {"adp", "gdmp", "defense-gan", "jem", "gan-at", "fgsm-at"}
