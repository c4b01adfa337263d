"""A failed audit is told wherever a number of the defense is: in the summary, in comparisons, in model_info."""

import pytest
from boards import ROOT

from bench import summary
from bench.analysis.caveats import caveats
from bench.analysis.compare import compare
from bench.analysis.results import read_results
from bench.report.model_info_export import export

AUDITED = ROOT / "results" / "digits-audit"
PLAIN = ROOT / "results" / "digits-linf"
BROKEN = "broken: quantisation"


def test_the_summary_ranks_nothing_that_fails():
    frame = summary(AUDITED)
    worst = frame[frame["attack"] == "worst case"].set_index("defense")
    assert worst.loc["pgd-at", "strict_rank"] == 1
    assert worst.loc[[d for d in worst.index if d.startswith("broken")], "strict_rank"].isna().all()
    assert "zero gradients" in worst.loc[BROKEN, "audit"]
    assert worst.loc["pgd-at", "audit"] == ""
    assert "audit" not in summary(PLAIN)


def test_a_comparison_tells_what_speaks_against_its_sides():
    (found,) = compare(AUDITED, BROKEN, "pgd-at")
    assert [text[0] for text in found.caveats] == ["‡", "†"]
    assert f"{BROKEN} fails the audit: " in found.caveats[0]
    assert compare(PLAIN, "pgd-at", "adp")[0].caveats == ()


def test_exact_gradients_without_a_certificate_are_told(tmp_path):
    import shutil

    folder = tmp_path / "linf"
    shutil.copytree(PLAIN, folder)
    (folder / "certificates.json").unlink()
    (found,) = compare(folder, "pgd-at", "adp")
    assert any(text.startswith("† adp: exact gradients that nothing certifies") for text in found.caveats)
    assert caveats(folder, read_results(folder))["undefended"][0].startswith("† undefended")


def test_exact_gradients_that_are_not_measurable_are_told(tmp_path):
    import shutil

    from bench.evaluation.certificates.certificate import Certificate, Measurement
    from bench.evaluation.certificates.stored import add, read
    from bench.report.tables import write_tables

    folder = tmp_path / "linf"
    shutil.copytree(PLAIN, folder)
    check = Measurement("float64 gradient", 0.0, 1e-6, note="4 of 12 points left out, at kinks", points=12, left_out=4)
    add(folder, dict.fromkeys(read(folder), Certificate((check,), 4, None).as_dict()))
    text = "not measurable: float64 gradient (4 of 12 points left out, at kinks)"
    assert f"† adp: exact gradients that nothing certifies ({text})" in caveats(folder, read_results(folder))["adp"]
    write_tables(folder)
    shown = (folder / "tables.md").read_text()
    assert "| adp † " in shown
    assert f"pgd-at: {text}" in shown
    assert summary(folder).query("attack == 'worst case'")["strict_rank"].notna().all()


def test_a_label_in_brackets_is_no_training_of_another_defense(tmp_path):
    from fake_board import deterministic, write

    from bench.evaluation.certificates.stored import add
    from bench.spec.cell import digest

    folder = write(tmp_path / "out", deterministic("at") + deterministic("at (long)"))
    add(folder, {digest({"name": "at (long)"}): {"passed": False, "note": "no gradient"}})
    told = caveats(folder, read_results(folder))
    assert (told["at"], len(told["at (long)"])) == ([], 1)


@pytest.mark.parametrize(("defense", "told"), [(BROKEN, True), ("pgd-at", False)])
def test_model_info_tells_it_too(defense, told):
    assert ("fails purebench's audit" in export(AUDITED, defense).raw["footnote"]) == told


def test_audits_of_several_threats_are_told_apart(tmp_path):
    import json
    import shutil

    from bench.analysis.caveats import failures
    from bench.store.manifest import read_manifest
    from defenses.utils.checksums import with_checksum

    folder = tmp_path / "audited"
    shutil.copytree(AUDITED, folder)
    file = folder / "audit" / "audit.json"
    content = {k: v for k, v in json.loads(file.read_text()).items() if k in ("schema", "audits")}
    assert failures(folder, read_manifest(folder))[BROKEN][0] == "zero gradients"
    content["audits"].append({**content["audits"][0], "norm": "L2", "eps": "1"})
    file.write_text(json.dumps(with_checksum(content)))
    assert failures(folder, read_manifest(folder))[BROKEN][0] == "zero gradients at Linf 1/5"
