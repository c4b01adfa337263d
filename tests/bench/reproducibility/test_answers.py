"""Answers of the checklists on small folders and on committed ones."""

import json
import shutil

import pytest
from boards import ROOT
from fake_board import deterministic, line, recorded, result, stochastic, write

from bench.attacks.parts import is_targeting, parts_of
from bench.audit.checks import gradients
from bench.reproducibility.answers import runs
from bench.reproducibility.answers.answer import Answer
from bench.reproducibility.answers.row_attacks import GRADIENT_CHECKS
from bench.reproducibility.availability import availability
from bench.reproducibility.checklist import read_checklist
from bench.reproducibility.deviations import deviations
from bench.reproducibility.subject import subject_of
from bench.store.audits import VERSION, read_audits, write_audits

BROKEN = "broken: vanishing gradients, broken: randomness, broken: quantisation"
AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t", "square")


def answers_of(subject):
    return {i.id: a for name in ("carlini2019", "neurips") for i, a in read_checklist(name).answers(subject)}


def answers(folder):
    return answers_of(subject_of(folder))


@pytest.fixture(scope="module")
def linf():
    return answers(ROOT / "results/digits-linf")


@pytest.fixture(scope="module")
def audited():
    return answers(ROOT / "results/digits-audit")


def ran(attack, name, params=None, right=(1, 1, 1, 0, 0, 0), *, defense="plain", notes=(), **more):
    """A result with the identity of its attack."""
    found = result(line(defense, attack, **more), list(right))
    found.line["identity"] = {"attack": [name, params or {}, "library 1"]}
    found.line["notes"] = list(notes)
    return found


def board(folder, *found):
    return write(folder, [*deterministic()[:2], *found])


def audit_of(label, findings, **more):
    shown = [{"check": check, "status": status, "evidence": "e", "numbers": {}, "images": []}
             for check, status in findings.items()]  # fmt: skip
    failed = [check for check, status in findings.items() if status == "fail"]
    return {"label": label, "fingerprint": {"name": label}, "dataset": "digits", "norm": "Linf", "eps": "1/5",
            "budget": "full", "seed": 0, "images": 6, "passed": not failed, "findings": shown,
            "failed": failed, "version": VERSION} | more  # fmt: skip


def put(folder, *audits):
    (folder / "audit").mkdir(exist_ok=True)
    write_audits(folder, list(audits))
    return folder


def test_gradients_that_nothing_certifies_are_not_exact(audited):
    for item in ("gradients", "gradients/bpda"):
        assert audited[item].state == "no"
        assert audited[item].evidence == f"BPDA or another stand-in: 0 of 3 defenses; not {BROKEN}"
    assert audited["adaptive/whole"].state == "no"
    assert audited["adaptive/whole"].evidence.endswith(f"3 of 6 defenses; not {BROKEN}")


@pytest.mark.parametrize("check", GRADIENT_CHECKS)
def test_a_failed_check_of_gradients_turns_the_answers(tmp_path, check):
    folder = board(tmp_path / "b", ran("apgd", "bench:apgd"))
    assert answers(folder)["adaptive/whole"].state == "yes"
    assert answers(folder)["gradients"].state == "not applicable"
    found = answers(put(folder, audit_of("plain", {check: "fail"})))
    assert found["adaptive/whole"].state == "no"
    assert found["gradients"] == Answer("no", "BPDA or another stand-in: 0 of 1 defense; not plain", "attacks")
    assert answers(put(folder, audit_of("plain", {check: "pass"})))["adaptive/whole"].state == "yes"


def test_the_checks_of_gradients_are_those_of_an_audit():
    source = (ROOT / gradients.__file__).read_text()
    assert all(f'"{check}"' in source for check in GRADIENT_CHECKS)


def test_stand_ins_beside_exact_gradients_count(linf):
    for item in ("gradients", "gradients/bpda"):
        assert linf[item] == Answer("yes", "BPDA or another stand-in: 2 of 2 defenses", "attacks")


def test_a_release_is_for_the_reader_and_no_without_weights(linf, audited):
    unknown = answers(ROOT / "results/digits-poisoning")
    for item in ("release", "access"):
        assert (linf[item].state, audited[item].state) == ("by hand", "by hand")
        assert "a clean commit of 5 of 5 runs, sha256 of 4 weights files" in linf[item].evidence
        assert unknown[item].state == "no"
        assert "sha256 of 0 weights files" in unknown[item].evidence


def test_cells_of_runs_that_are_not_recorded_are_told(tmp_path):
    folder = recorded(tmp_path / "b", deterministic(), [r.line for r in deterministic()])
    whole = subject_of(folder)
    assert whole.lost == ""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("sum", None)
    manifest["runs"][0]["id"] = "another"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    subject = subject_of(folder)
    n = len(deterministic())
    assert subject.lost == f"{n} of {n} cells are of runs that are not recorded"
    assert runs.commands(subject).state == runs.versions(subject).state == "no"
    assert subject.lost in runs.commands(subject).evidence
    told = repr(availability(subject)) + repr(deviations(subject))
    assert told.count(subject.lost) == 2


def test_attacks_count_by_their_parts(linf):
    text = "gradient-free, on the board or in the audit: 4 of 4; on labels alone: 0 of 4"
    assert linf["gradient-free"] == Answer("no", text, "attacks")
    assert linf["strongest-adaptive/others"].state == "yes"
    own = "target classes of their own choice: autoattack:apgd-t, autoattack:fab-t"
    assert linf["targets/told"].evidence == f"targeted and untargeted; {own}"
    assert linf["targets"].state == "no"
    assert linf["targets"].evidence.endswith("both on 2 of 4 defenses; not adp, ebm-mcmc")


def test_parts_that_were_left_out_do_not_count(tmp_path):
    note = "3 classes: apgd-t left out, its loss needs more logits"
    whole = board(tmp_path / "whole", ran("aa", "autoattack:custom", {"attacks": ["apgd-ce", "apgd-t"]}))
    less = board(tmp_path / "less", ran("aa", "autoattack:custom", {"attacks": ["apgd-ce", "apgd-t"]}, notes=[note]))
    assert (answers(whole)["targets"].state, answers(less)["targets"].state) == ("yes", "no")
    assert (answers(whole)["diverse"].state, answers(less)["diverse"].state) == ("yes", "no")


@pytest.mark.parametrize(
    ("name", "params", "parts"),
    [
        ("autoattack:standard", {}, AUTOATTACK),
        ("autoattack:plus", {}, ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t")),
        ("autoattack:rand", {}, ("apgd-ce", "apgd-dlr")),
        ("autoattack:custom", {"attacks": "['fab', 'square']"}, ("fab", "square")),
        ("torchattacks:AutoAttack", {}, AUTOATTACK),
        ("torchattacks:AutoAttack", {"version": "rand"}, ("apgd-ce", "apgd-dlr")),
    ],
)
def test_parts_of_versions(name, params, parts):
    assert parts_of(name, params) == tuple(f"autoattack:{part}" for part in parts)


@pytest.mark.parametrize("name", ["autoattack:square", "bench:adaptive", "foolbox:LinfPGD", "uniform"])
def test_a_single_attack_is_its_own_part(name):
    assert parts_of(name, {}) == (name,)


def test_damaged_parameters_of_a_custom_version_name_no_parts():
    assert parts_of("autoattack:custom", {"attacks": "[open("}) == ("autoattack:custom",)


@pytest.mark.parametrize(
    ("name", "params", "holds"),
    [
        ("autoattack:apgd-t", {}, True),
        ("autoattack:fab", {}, False),
        ("bench:apgd", {}, False),
        ("bench:adaptive", {"restarts": "3"}, True),
        ("bench:apgd", {"losses": "['ce-targeted']"}, True),
        ("bench:square", {}, False),
    ],
)
def test_attacks_that_choose_target_classes(name, params, holds):
    assert is_targeting(name, params) is holds


def test_audits_of_another_version_are_told(tmp_path):
    folder = board(tmp_path / "b", ran("apgd", "bench:apgd"))
    check = "iterative against single step"
    text = "checks of an earlier version of the audit on 1 defense"
    now, then = audit_of("plain", {check: "pass"}), audit_of("plain", {check: "pass"}, version=VERSION - 1)
    never = {key: value for key, value in then.items() if key != "version"}
    for audit, told in ((now, False), (then, True), (never, True)):
        subject = subject_of(put(folder, audit))
        found = answers_of(subject)["sanity/iterative"]
        assert found == Answer("yes", f"audit: passes 1; {text}" if told else "audit: passes 1", "audit")
        assert ("audit of an earlier version: plain" in str(deviations(subject).blocks)) is told


def test_an_answer_by_a_check_of_an_earlier_version_says_so(audited, tmp_path):
    folder = shutil.copytree(ROOT / "results/digits-audit", tmp_path / "digits-audit")
    write_audits(folder, [audit | {"version": VERSION - 1} for audit in read_audits(folder)])
    earlier, text = answers(folder), "checks of an earlier version of the audit"
    for item in ("gradient-free", "gradient-free/known", "convergence/plot", "transfer", "adaptive/whole"):
        assert text in earlier[item].evidence, item
        assert text not in audited[item].evidence, item


def test_infinite_sizes_are_no_sizes(tmp_path, linf):
    text = "finite median size of foolbox:LInfFMNAttack, foolbox:LinfDeepFoolAttack: 1 of 2 defenses; not pgd-at"
    assert linf["curve/distortion"] == Answer("no", text, "attacks")
    found = answers(board(tmp_path / "b", ran("fmn", "foolbox:LInfFMNAttack", right=[0] * 6, minimisation=True)))
    assert found["curve/distortion"].state == "yes"


def test_what_is_not_audited_is_neither_yes_nor_no(tmp_path):
    folder = write(tmp_path / "two", [*deterministic(), *stochastic()])
    check = "iterative against single step"
    whole = "not audited: 2 of 2; purebench audit"
    assert answers(folder)["sanity/iterative"] == Answer("not measured", whole, "audit")
    found = answers(put(folder, audit_of("plain", {check: "pass"})))["sanity/iterative"]
    assert found == Answer("not measured", "audit: passes 1; not audited 1 (noisy)", "audit")
    assert answers(put(folder, audit_of("plain", {check: "fail"})))["sanity/iterative"].state == "no"


def test_counts_of_answers_add_up(tmp_path):
    from bench import build_report

    report = build_report(write(tmp_path / "small", deterministic()), checklists=["carlini2019"])
    (summary,) = [s for s in json.loads(report.json())["sections"] if s["name"] == "summary"]
    text = json.dumps(summary)
    total = sum(int(text.split(f" {state}")[0].split()[-1].strip('"')) for state in
                ("yes", "no,", "not measured", "not applicable", "by hand"))  # fmt: skip
    assert total == len(read_checklist("carlini2019").items)
