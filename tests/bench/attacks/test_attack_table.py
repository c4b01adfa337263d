"""The table of all attacks by name against what they do: every one is run in every norm."""

from __future__ import annotations

import subprocess
import sys

import pytest
from suite_runs import ALL
from tools.attack_table import PAGE, entry, versions

from bench.attacks.catalogue import HEADER, catalogue, columns, markdown

TABLE = {e.name: e for e in catalogue()}
_TILES = "images that its tiles fit (except in Linf)"
NEEDS = {
    "autoattack:standard": f"{_TILES}; ≥ 4 classes (with fewer, apgd-t left out)",
    "autoattack:plus": f"{_TILES}; ≥ 4 classes (with fewer, apgd-dlr and apgd-t left out)",
    "autoattack:rand": "≥ 3 classes (with fewer, apgd-dlr left out)",
    "autoattack:apgd-dlr": "≥ 3 classes",
    "autoattack:apgd-dlr-best-loss": "≥ 3 classes",
    "autoattack:apgd-t": "≥ 4 classes",
    "autoattack:square": _TILES,
    "autoattack:custom": f"the parameter attacks; {_TILES}",
    "bench:adaptive": "≥ 3 classes with losses = dlr",
    "bench:apgd": "≥ 3 classes with losses = dlr",
    "bench:pgd": "≥ 3 classes with losses = dlr",
    "bench:spsa": "≥ 3 classes with losses = dlr",
    "bench:transfer": "a defense before a classifier; ≥ 3 classes with losses = dlr",
    "foolbox:VirtualAdversarialAttack": "the parameter steps",
    "torchattacks:APGD": "≥ 3 classes with loss = dlr",
    "torchattacks:APGDT": "≥ 4 classes",
    "torchattacks:AutoAttack": "square images in L2; ≥ 4 classes; ≥ 3 classes with version = rand",
    "torchattacks:DIFGSM": "square images",
    "torchattacks:PIFGSM": "3 channels",
    "torchattacks:PIFGSMPP": "3 channels",
    "torchattacks:Pixle": "square images",
    "torchattacks:Square": "square images in L2",
    "torchattacks:TIFGSM": "3 channels; square images",
}
REMEDY = "out of date: run `python tests/tools/attack_table.py`"
# Numba compiles each of Brendel and Bethge's for 10 to 40 s.
NAMES = [pytest.param(n, marks=pytest.mark.slow) if "BrendelBethge" in n else n for n in ALL]


def test_the_table_lists_every_name():
    assert list(TABLE) == ALL, REMEDY


@pytest.mark.parametrize("name", NAMES)
def test_the_table_says_what_the_attack_does(name):
    """Every run also keeps the contract of `Attack.run`: see `attack_table.Measured.status`."""
    assert TABLE[name] == entry(name), REMEDY


def test_the_page_is_made_from_the_table():
    assert PAGE.read_text(encoding="utf-8") == markdown(catalogue(), versions()), REMEDY


def test_what_cannot_run_says_why_and_what_needs_arguments_runs_with_them():
    impossible = {e.name.split(":")[1] for e in TABLE.values() if not e.norms()}
    assert impossible == {"BinarizationRefinementAttack", "SpatialAttack", "LGV", "MultiAttack"}
    assert all(TABLE[n].reason() for n in TABLE if not TABLE[n].norms())
    needy = {e.name: e.needs for e in TABLE.values() if e.needs}
    assert needy == NEEDS
    assert all(TABLE[n].norms() for n in needy)
    assert columns(TABLE["torchattacks:TIFGSM"])[HEADER.index("needs")] == "3 channels; square images"
    assert TABLE["foolbox:GenAttack"].Linf == "runs, targeted only"
    assert columns(TABLE["foolbox:PGD"])[-1].startswith("the same as foolbox:LinfProjectedGradientDescentAttack")


def test_what_lacks_its_needs_is_recorded_as_unsupported_and_never_as_robust():
    from bench import benchmark

    attacks = ["torchattacks:TIFGSM", "foolbox:LinfFastGradientAttack"]
    with pytest.warns(UserWarning, match=r"TIFGSM .*unsupported.*: TIFGSM needs images of 3 channels, these have 1"):
        frame = benchmark("undefended", eps="1/5", n_examples=4, attacks=attacks)
    assert set(frame.loc[frame["accuracy"].notna(), "attack"]) == {"none", "uniform", "foolbox:LinfFastGradientAttack"}


def test_aliases_are_the_same_classes():
    from foolbox import attacks

    for e in TABLE.values():
        local = e.name.split(":")[-1]
        if e.name.startswith("foolbox:"):
            own = getattr(attacks, local).__name__
            assert e.alias_of == (f"foolbox:{own}" if own != local else "")
        else:
            assert not e.alias_of


def test_the_table_is_listed_without_the_libraries():
    code = (
        "import sys; from bench.cli.main import main; main(['ls', 'attacks']); main(['ls', 'indices'])\n"
        "print([m for m in ('torch', 'numpy', 'foolbox', 'torchattacks', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert out[-1] == "[]"
    listed = {line.split()[0]: line for line in out[:-1] if line}
    assert set(TABLE) <= set(listed)
    assert listed["autoattack:square"].split()[1:7] == ["yes", "yes", "yes", "–", "yes", "logits"]
    assert "runs 10 iterations where AutoAttack runs 100" in listed["torchattacks:AutoAttack"]
    assert "ml-postech" in listed["lee-kim-2023"]
