"""Checklists: every item has one source, and is answered once for every committed folder."""

import dataclasses

import pytest
from boards import ROOT
from fake_board import deterministic, failed, line, result, stochastic, write

from bench.reproducibility.answers.answer import Answer
from bench.reproducibility.checklist import FIELDS, NAMES, read_checklist
from bench.reproducibility.protocol import protocol
from bench.reproducibility.subject import subject_of
from bench.store.audits import write_audits
from defenses.utils.errors import UserError

FOLDERS = sorted(path for path in (ROOT / "results").iterdir() if path.is_dir())
STATES = {"yes", "no", "not measured", "not applicable", "by hand"}


def answers(folder, name="carlini2019", **options):
    return {item.id: answer for item, answer in read_checklist(name).answers(subject_of(folder, **options))}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write(tmp_path_factory.mktemp("report") / "small", [*deterministic(), *stochastic()])


@pytest.mark.parametrize("name", NAMES)
def test_every_item_has_one_source_and_a_name_of_its_own(name):
    items = read_checklist(name).items
    assert len({item.id for item in items}) == len({item.text for item in items}) == len(items)
    for item in items:
        assert [bool(item.audit), item.field in FIELDS, bool(item.hand)].count(True) == 1, item
        parent = item.id.partition("/")[0]
        assert any(other.id == parent for other in items), item


def test_every_answer_is_asked_for():
    used = {item.field for name in NAMES for item in read_checklist(name).items}
    assert used - {""} == set(FIELDS)


def test_carlini_has_its_three_groups_of_heads():
    heads = [item.group for item in read_checklist("carlini2019").items if "/" not in item.id]
    assert [heads.count(group) for group in dict.fromkeys(heads)] == [9, 9, 7]


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_item_is_answered_for_every_committed_folder(folder):
    subject = subject_of(folder)
    for name in NAMES:
        checklist = read_checklist(name)
        found = list(checklist.answers(subject))
        assert [item.id for item, _ in found] == [item.id for item in checklist.items]
        for item, answer in found:
            assert answer.state in STATES
            assert answer.evidence.strip(), item
            assert (answer.state == "by hand") >= bool(item.hand)


def test_data_answer_what_they_know(small):
    found = answers(small)
    assert found["clean"] == Answer("yes", "clean accuracy: 2 of 2 defenses", "results")
    assert found["sanity/iterative"] == Answer("not measured", "not audited: 2 of 2; purebench audit", "audit")
    assert found["randomness"] == Answer("yes", "an attack that averages several draws: 1 of 1 defense", "attacks")
    assert found["targets"] == Answer("no", "untargeted alone", "protocol")
    assert found["new-attacks"].state == "not applicable"
    assert found["worst-case"].evidence == "worst case: 2 of 2 defenses"
    neurips = answers(small, "neurips")
    assert neurips["reproducibility"] == Answer("no", "no run is recorded", "environment")
    assert neurips["significance"].state == "yes"


def test_a_defense_without_a_number_turns_an_answer(tmp_path):
    rows = [*deterministic(), result(line("gap", "none"), [1] * 6), failed(line("gap", "apgd"), "error", "boom")]
    found = answers(write(tmp_path / "gap", rows))
    assert found["worst-case"] == Answer("no", "worst case: 1 of 2 defenses; not gap", "results")
    assert found["adaptive"].state == "no"
    assert answers(tmp_path / "gap", defenses=["plain"])["worst-case"].state == "yes"


@pytest.mark.parametrize(("status", "state"), [("pass", "yes"), ("fail", "no"), ("not applicable", "not applicable")])
def test_a_check_of_an_audit_decides_its_item(tmp_path, status, state):
    folder = write(tmp_path / "audited", deterministic())
    (folder / "audit").mkdir()
    finding = {"check": "iterative against single step", "status": status, "evidence": "e", "numbers": {}, "images": []}
    audit = {"label": "plain", "fingerprint": {"name": "plain"}, "dataset": "digits", "norm": "Linf", "eps": "1/5",
             "budget": "full", "seed": 0, "images": 6, "passed": status == "pass", "findings": [finding],
             "failed": ["iterative against single step"] if status == "fail" else []}  # fmt: skip
    write_audits(folder, [audit])
    assert answers(folder)["sanity/iterative"].state == state
    write_audits(folder, [audit | {"outdated": "the weights changed"}])
    assert answers(folder)["sanity/iterative"].state == "not measured"


def test_audits_of_another_folder_count_by_fingerprint(tmp_path):
    folder = ROOT / "results/digits-linf"
    subject = subject_of(folder, ["adp"], [ROOT / "results/digits-audit"])
    found = {item.id: answer for item, answer in read_checklist("carlini2019").answers(subject)}
    assert found["sanity/iterative"] == Answer("yes", "audit: passes 1", "audit")
    assert subject.partial


def test_an_unknown_checklist_and_an_unknown_defense(small):
    with pytest.raises(UserError, match='unknown checklist "carlini"; did you mean carlini2019'):
        read_checklist("carlini")
    with pytest.raises(UserError, match='unknown defense "nosy"; did you mean noisy'):
        subject_of(small, ["nosy"])


def test_the_protocol_names_every_attack(small):
    (table,) = [block.table for block in protocol(subject_of(small)).blocks if hasattr(block, "table")]
    assert {row[0] for row in table.rows} == {"clean images", "uniform noise", "apgd", "square"}
    assert dataclasses.is_dataclass(table)
