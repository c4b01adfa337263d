"""Footnotes of tables: mixed origins, and the warnings of attacks in every format."""

from __future__ import annotations

import pandas as pd
from fake_board import deterministic, failed, line, result, write

from bench.report.tables import write_tables


def test_mixed_origins_are_footnotes(tmp_path, monkeypatch):
    def mixed(cells, manifest):
        assert set(manifest) == {"defenses"}
        assert cells == [{"defense": "plain", "status": "ok", "run": None}]
        return ["made by two versions"]

    monkeypatch.setattr("bench.report.footnotes.mixed", mixed, raising=False)
    assert write_tables(write(tmp_path, deterministic())).footnotes[-1] == "made by two versions"


def test_warnings_of_attacks_are_footnotes(tmp_path):
    import pandas as pd

    from bench.report.footnotes import warnings

    cells = pd.DataFrame({"attack": ["a", "a", "b"], "status": "ok", "warnings": [["weak"], ["weak"], []]})
    assert warnings(cells) == ("a: weak",)


def test_attacks_that_did_not_run_have_no_warnings(tmp_path):
    warned = {"warnings": ["short"]}
    results = [
        *deterministic(),
        failed(line("plain", "ead", **warned), "unsupported", "needs L1"),
        failed(line("plain", "pgd", eps="1/10", **warned), "unsupported", "no such ball"),
        result(line("plain", "pgd", **warned), [1] * 6),
    ]
    notes = write_tables(write(tmp_path, results)).footnotes
    assert "pgd: short" in notes
    assert not any(note.startswith("ead") for note in notes)
    table = pd.read_csv(tmp_path / "tables.csv", keep_default_na=False).set_index(["attack", "eps"])["warnings"]
    assert (table["ead", "1/5"], table["pgd", "1/10"], table["pgd", "1/5"]) == ("", "", "short")


def test_warnings_of_attacks_are_in_every_format(tmp_path):
    import pandas as pd

    from bench.attacks.registry import find_attack

    names = ("torchattacks:AutoAttack", "torchattacks:EOTPGD", "torchattacks:SPSA", "torchattacks:OnePixel")
    names += ("torchattacks:CW", "torchattacks:PGD", "foolbox:LinfPGD", "foolbox:L2DeepFoolAttack")
    warned = {name: find_attack(name).warnings for name in names}
    write_tables(write(tmp_path, [result(line("plain", n, warnings=list(warned[n])), [1] * 6) for n in names]))
    for ending in ("txt", "md", "tex", "html"):
        text = " ".join((tmp_path / f"tables.{ending}").read_text().replace("\\_", "_").split())
        assert all(f"{name}: {w}" in text for name in names for w in warned[name]), ending
    table = pd.read_csv(tmp_path / "tables.csv").set_index("attack")["warnings"].fillna("")
    assert all(table[name] == "; ".join(warned[name]) for name in names)
