"""`purebench compare` as it is called."""

from __future__ import annotations

import pytest
from boards import purebench_here
from fake_board import HOSTILE, deterministic, write

COMMITTED = "results/digits-linf"


def test_two_worst_cases_of_the_committed_run():
    said = purebench_here("compare", COMMITTED, "pgd-at", "adp")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.splitlines() == [
        "digits test (all), Linf 1/5",
        "A: pgd-at, worst case: 57.20% [52.82, 61.47], one verdict",
        "B: adp, worst case: 17.44% [14.36, 21.01], 65 held-out draws",
        "A - B: +39.76 points [+35.69, +43.52] (95%: Bonett and Price, paired images)",
        "majority decisions: right of A alone 213, of B alone 4, of both 73, of neither 210; "
        "McNemar's exact p = 8.69e-58",
        "n = 500 images",
    ]


def test_two_attacks_on_one_defense():
    said = purebench_here("compare", COMMITTED, "adp@autoattack:rand", "adp@foolbox:LinfPGD, 50 steps (exact)")
    assert "A: adp, autoattack:rand (exact, 1 EOT x 1 run): 33.22%" in said.stdout
    assert "A - B: +12.81 points" in said.stdout


def test_confidence_changes_the_interval_alone():
    usual, wide = (
        purebench_here("compare", COMMITTED, "adp", "ebm-mcmc", *more).stdout.splitlines()
        for more in ((), ("--confidence", ".99"))
    )
    assert "(99%:" in wide[3]
    assert usual[3].partition("[")[0] == wide[3].partition("[")[0]
    assert (usual[0], usual[4:]) == (wide[0], wide[4:])


@pytest.mark.parametrize(
    "arguments",
    [
        (COMMITTED, "adp", "nix"),
        (COMMITTED, "adp", "adp"),
        (COMMITTED, "adp", "adp@foolbox:LinfPGD, 50 steps"),
        ("results/nix", "adp", "ebm-mcmc"),
        (COMMITTED, "adp", "ebm-mcmc", "--with", "results/nix"),
        (COMMITTED, "adp", "ebm-mcmc", "--seed", "-1"),
    ],
)
def test_bad_input_gets_one_line(arguments):
    said = purebench_here("compare", *arguments)
    assert (said.returncode, said.stdout, said.stderr.count("\n")) == (2, "", 1)


def test_a_confidence_out_of_range_gets_one_line(capsys):
    from bench.cli.main import main

    with pytest.raises(SystemExit) as left:
        main(["compare", COMMITTED, "adp", "ebm-mcmc", "--confidence", "95"])
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_labels_cannot_write_to_the_terminal(tmp_path):
    out = write(tmp_path / "out", [*deterministic(HOSTILE), *deterministic()])
    said = purebench_here("compare", out, HOSTILE, "plain@apgd")
    assert said.returncode == 0
    assert "\x1b" not in said.stdout
    assert "\u202e" not in said.stdout


def test_an_attack_in_the_place_of_a_defense_is_told_the_form():
    said = purebench_here("compare", COMMITTED, "adp", "autoattack:apgd-ce")
    assert said.returncode == 2
    assert 'unknown defense "autoattack:apgd-ce"' in said.stderr
    assert said.stderr.endswith("; one attack on a defense is written as defense@attack\n")
