"""What draws are combined to, and null attacks that a board may ask for."""

import json

import numpy as np
import pytest
import torch
from boards import purebench_here, write_board
from fake_board import HELD, SEL, line, result, row, write
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.summary import WORST, summary
from bench.board.load import load_board
from bench.evaluation.view import attack_view
from bench.execution.options import Options
from bench.execution.run_board import run_board
from bench.report.tables import write_tables
from bench.spec.aggregation import Aggregation, aggregation_of, check_m
from bench.spec.view import ViewSpec
from bench.stats.proportions import wilson
from defenses.utils.errors import UserError


@pytest.mark.parametrize(
    ("verdict_table", "words"),
    [
        ("draws = 4", "draws is 4, and a majority of an even number may tie; write 3 or 5"),
        ("draws = 5\nk = 2", "k is 2, and a majority of an even number may tie; write 1 or 3"),
        ("draws = 5\nk = 7", "a majority of 7 takes 7 draws"),
        ("draws = 5\nm = [5, 6]", "Rob(6) takes 6 held-out draws of an image, and there are 5"),
        ("draws = 5\nm = []", "m in [verdict]"),
    ],
)
def test_too_few_draws_and_even_votes_are_refused_before_any_work(tmp_path, verdict_table, words):
    path = write_board(tmp_path)
    path.write_text(path.read_text().replace("draws = 5", verdict_table))
    done = purebench_here("run", path, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_even_draws_matter_to_randomised_defenses_alone(tmp_path):
    path = write_board(tmp_path)
    start = path.read_text().replace("draws = 5", "draws = 4")
    first, _, rest = start.partition('[[defense]]\nname = "' + str(tmp_path / "models.py") + ':noisy"')
    path.write_text(first + rest.partition('label = "noisy"')[2])
    assert load_board(path).verdict.draws == 4
    Aggregation(k=3).check(4)


def test_a_sequential_rule_is_for_more_draws_than_every_image_has():
    Aggregation(k=9, sequential=0.01).check(8)
    Aggregation(m=(3,), k=3).check(3)
    Aggregation().check(1)
    for k, draws in ((9, 9), (None, 9)):
        with pytest.raises(
            UserError, match=f"more draws than the {draws} of every image; write k = {4 * draws + 1}, say"
        ):
            Aggregation(k=k, sequential=0.01).check(draws)
    with pytest.raises(UserError, match="draws is 4, and a majority of an even number may tie; write 3 or 5"):
        Aggregation().check(4)
    with pytest.raises(UserError, match="a majority of 7 takes 7 draws of an image, and there are 5; raise draws"):
        Aggregation(k=7).check(5)
    with pytest.raises(UserError, match=r"error rate 0\.7 lies outside"):
        Aggregation(k=9, sequential=0.7).check(8)
    with pytest.raises(UserError, match="k is 10, and a majority of an even number may tie; write 9 or 11"):
        Aggregation(k=10, sequential=0.01).check(8)
    with pytest.raises(UserError, match=r"Rob\(9\) takes 9 held-out draws of an image, and there are 8"):
        Aggregation(m=(9,), k=9, sequential=0.01).check(8)


def test_an_aggregation_comes_back_from_the_manifest():
    full = Aggregation((2, 3), 33, 0.01)
    assert full.as_dict() == {"m": [2, 3], "k": 33, "sequential": 0.01}
    assert Aggregation(k=3).as_dict() == {"k": 3}
    assert full.rule == (33, 0.01)
    assert Aggregation(k=33).rule is Aggregation(sequential=0.01).rule is None
    for stored in (full, Aggregation(), Aggregation(k=3), Aggregation((5,))):
        assert aggregation_of({"protocols": stored.as_dict()}) == stored
    assert aggregation_of({}) == aggregation_of({"protocols": None}) == Aggregation(None, None, None)
    assert len({full, Aggregation((2, 3), 33, 0.01)}) == 1


def test_tables_show_five_and_fifteen_submissions_unless_told(tmp_path):
    columns = summary(votes_folder(tmp_path, [15] * 6)).columns
    assert [c for c in columns if c.startswith("rob_m") and c[5:].isdigit()] == ["rob_m5", "rob_m15"]


@given(st.integers(1, 80), st.lists(st.integers(1, 100), max_size=4))
def test_an_m_needs_as_many_draws(draws, m):
    if all(i <= draws for i in m):
        check_m(m, draws)
    else:
        with pytest.raises(UserError, match="Rob"):
            check_m(m, draws)


def votes_folder(tmp_path, right):
    more = {"stochastic": True, "draws": HELD, "selection": SEL}
    return write(tmp_path, [result(line("noisy", a, **more), right, [4] * 6) for a in ("none", "uniform", "apgd")])


def test_every_protocol_has_an_interval(tmp_path):
    right = np.array([15, 12, 9, 7, 3, 0])
    found = row(summary(votes_folder(tmp_path, right), m=(3,)), "noisy", "apgd")
    shares = {"robust_mean": right / 15, "majority": right > 7, "mean_logit": right > 7}
    for name, values in shares.items():
        stem = name.removesuffix("_mean")
        wanted = [float(end) for end in wilson(values.sum(), 6)]
        assert found[name] == pytest.approx(values.mean())
        assert [found[f"{stem}_low"], found[f"{stem}_high"]] == pytest.approx(wanted)
    assert found.n_images == 6
    assert found.rob_m3_low < found.rob_m3 < found.rob_m3_high
    table = (tmp_path / "tables.md").read_text() if write_tables(tmp_path) else ""
    assert f"{100 * found.majority:.2f} [{100 * found.majority_low:.2f}, {100 * found.majority_high:.2f}]" in table


def test_more_submissions_than_draws_are_refused_by_tables_too(tmp_path):
    with pytest.raises(UserError, match="Rob\\(16\\) takes 16"):
        summary(votes_folder(tmp_path, [15] * 6), m=(16,))


def test_majority_of_the_first_k(tmp_path):
    """Draws are right first: of 15, 7 right ones lose the vote, but win that of the first three."""
    folder = votes_folder(tmp_path, [15, 12, 9, 7, 3, 1])
    assert row(summary(folder), "noisy", "apgd").majority == pytest.approx(3 / 6)
    (folder / "manifest.json").write_text(json.dumps({"protocols": {"k": 3}}))
    found = row(summary(folder), "noisy", "apgd")
    assert found.majority == pytest.approx(5 / 6)
    assert found.mean_logit == pytest.approx(5 / 6)
    assert found.robust_mean == pytest.approx(np.mean([15, 12, 9, 7, 3, 1]) / 15)


def test_protocols_reach_the_manifest_and_the_tables(tmp_path):
    path = write_board(tmp_path)
    text = path.read_text().replace("first-60", "first-20")
    path.write_text(text.replace("draws = 5", "draws = 5\nm = [2, 3]\nk = 3"))
    run_board(load_board(path), tmp_path / "out", Options(workers=0, quiet=True))
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert aggregation_of(manifest) == Aggregation((2, 3), 3)
    write_tables(tmp_path / "out")
    text = (tmp_path / "out/tables.md").read_text()
    assert "Rob(2)" in text
    assert "Rob(3)" in text
    assert "Rob(5)" not in text
    assert "of the first 3 held-out draws" in text


NULLS = 'nulls = ["none", "uniform", "transfer"]\n'


def test_transfer_is_a_null_attack_where_a_board_asks_for_it(tmp_path):
    path = write_board(tmp_path)
    before = {c.key for c in load_board(path).cells()}
    bare = '\n[[defense]]\nname = "undefended"\n\n[[attack]]'
    text = path.read_text().replace("first-60", "first-20")
    path.write_text(NULLS + text.replace("\n[[attack]]", bare, 1))
    cells = load_board(path).cells()
    transfer = {c.defense.label: c for c in cells if c.attack.label == "transfer"}
    assert set(transfer) == {"linear", "noisy"}  # not undefended, to which its own images are no transfer
    assert transfer["linear"].surrogate.name == "undefended"
    assert transfer["noisy"].surrogate is None
    assert {c.view_label for c in transfer.values()} == {"blind"}
    assert len({c.key for c in cells}) == len(cells)
    path.write_text(text)
    assert {c.key for c in load_board(path).cells()} & {c.key for c in cells}
    assert before == {c.key for c in load_board(write_board(tmp_path)).cells()}


def test_transferred_images_are_those_of_the_bare_classifier(tmp_path):
    from safetensors.torch import load_file

    from bench.attacks.registry import find_attack
    from bench.audit.reproduction.verify import VerifyOptions, verify
    from defenses.data.dataset import load_dataset
    from defenses.zoo.registry import load_model

    path = write_board(tmp_path)
    bare = '\n[[defense]]\nname = "undefended"\n\n[[attack]]'
    path.write_text(NULLS + path.read_text().replace("first-60", "first-20").replace("\n[[attack]]", bare, 1))
    board = load_board(path)
    assert run_board(board, tmp_path / "out", Options(workers=0, quiet=True)) == []
    frame = summary(tmp_path / "out")
    found = row(frame, "linear", "transfer")
    assert found.status == "ok"
    assert found.evaluations_per_image > 0
    assert row(frame, "linear", WORST).status == row(frame, "undefended", WORST).status == "ok"
    assert verify(tmp_path / "out", VerifyOptions(defenses=("linear",), code=tmp_path)).agrees
    cell = next(c for c in board.cells() if c.defense.label == "linear" and c.attack.label == "transfer")
    data, params = load_dataset("digits", "test"), {"n_iter": 20, "n_restarts": 1}
    with attack_view(load_model("undefended", "digits"), ViewSpec(), seed=0) as (view, _):
        seed = cell.noise_seed("attack") % (1 << 32)
        given = {"threat": cell.threat, "target": None, "seed": seed, "num_classes": 10}
        made = find_attack("autoattack:apgd-ce", params).run(view, data.x[:20], data.y[:20], **given, **params)
    stored = {key: x for file in (tmp_path / "out").rglob("*.safetensors") for key, x in load_file(file).items()}
    assert torch.equal(stored[cell.key], made)


SOURCE = """
[[defense]]
name = "undefended"

[[attack]]
label = "FGSM from undefended"
name = "foolbox:LinfFastGradientAttack"
source = "undefended"

[[attack]]"""


def test_images_made_on_a_named_source_are_judged_on_the_others(tmp_path):
    from safetensors.torch import load_file

    from bench.attacks.registry import find_attack
    from defenses.data.dataset import load_dataset
    from defenses.zoo.registry import load_model

    path = write_board(tmp_path)
    plain = {c.key for c in load_board(path).cells()}
    path.write_text(path.read_text().replace("\n[[attack]]", SOURCE, 1))
    assert plain < {c.key for c in load_board(path).cells()}, "other rows keep their keys"
    path.write_text(path.read_text().replace("first-60", "first-20"))
    board = load_board(path)
    cells = {c.defense.label: c for c in board.cells() if c.attack.label == "FGSM from undefended"}
    assert set(cells) == {"linear", "noisy"}
    assert {(c.surrogate.label, c.view_label) for c in cells.values()} == {("undefended", "blind")}
    assert run_board(board, tmp_path / "out", Options(workers=0, quiet=True)) == []
    data, cell, name = load_dataset("digits", "test"), cells["linear"], "foolbox:LinfFastGradientAttack"
    with attack_view(load_model("undefended", "digits"), ViewSpec(), seed=0) as (view, _):
        given = {"threat": cell.threat, "target": None, "seed": 0, "num_classes": 10}
        made = find_attack(name, {}).run(view, data.x[:20], data.y[:20], **given)
    stored = {key: x for file in (tmp_path / "out").rglob("*.safetensors") for key, x in load_file(file).items()}
    assert torch.equal(stored[cell.key], made)


def test_images_made_on_a_view_of_a_random_source_are_judged_on_the_others(tmp_path):
    from safetensors.torch import load_file

    from bench.attacks.registry import find_attack
    from bench.board.defense_entry import load_reference
    from defenses.data.dataset import load_dataset

    path = write_board(tmp_path)
    source = SOURCE.replace('source = "undefended"', 'source = "noisy"\nviews = [{ eot = 3 }]')
    path.write_text(path.read_text().replace("\n[[attack]]", source, 1).replace("first-60", "first-20"))
    board = load_board(path)
    cells = {c.defense.label: c for c in board.cells() if c.attack.label == "FGSM from undefended"}
    assert set(cells) == {"linear", "undefended"}
    assert {(c.source_view, c.view_label) for c in cells.values()} == {(ViewSpec(eot=3), "blind")}
    assert run_board(board, tmp_path / "out", Options(workers=0, quiet=True)) == []
    data, cell, name = load_dataset("digits", "test"), cells["undefended"], "foolbox:LinfFastGradientAttack"
    noisy = load_reference(cell.surrogate, "digits", {"weights_root": None, "data_root": None})
    stored = {key: x for file in (tmp_path / "out").rglob("*.safetensors") for key, x in load_file(file).items()}
    for eot in (1, 3):
        with attack_view(noisy, ViewSpec(eot=eot), seed=cell.noise_seed("view")) as (view, _):
            given = {"threat": cell.threat, "target": None, "seed": 0, "num_classes": 10, "indices": torch.arange(20)}
            made = find_attack(name, {}).run(view, data.x[:20], data.y[:20], **given)
        assert torch.equal(stored[cell.key], made) == (eot == 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('source = "undefendet"', "did you mean undefended"),
        ('source = "noisy"\nviews = [{ eot = 2 }, { eot = 4 }]', "is random; give one view of it, without seed"),
        ('source = "noisy"\nviews = [{ seed = "known" }]', "is random; give one view of it, without seed"),
        ('source = "undefended"\nviews = [{ gradient = "exact" }]', "leave its views out"),
        ("source = 3", "source in ..attack.. 1 is 3; it must be a text"),
    ],
)
def test_sources_that_cannot_be(tmp_path, change, words):
    path = write_board(tmp_path)
    path.write_text(path.read_text().replace("\n[[attack]]", SOURCE.replace('source = "undefended"', change), 1))
    with pytest.raises(UserError, match=words) as caught:
        load_board(path)
    assert "\n" not in str(caught.value)


def test_a_source_of_several_trainings_is_refused(tmp_path):
    from dataclasses import replace

    from bench.board.views import surrogate_of

    defense = load_board(write_board(tmp_path)).defenses[0]
    trainings = [replace(defense, training_seed=seed) for seed in (0, 1)]
    with pytest.raises(UserError, match="it must be a defense of one training"):
        surrogate_of({"name": "bench:apgd", "source": defense.label}, trainings)


@pytest.mark.parametrize(
    ("nulls", "words"),
    [('["none"]', 'lacks "uniform"'), ('["none", "uniform", "tranfer"]', "mean transfer"), ("3", "list of names")],
)
def test_null_attacks_that_are_none(tmp_path, nulls, words):
    path = write_board(tmp_path)
    path.write_text(f"nulls = {nulls}\n" + path.read_text())
    with pytest.raises(UserError, match=words):
        load_board(path)
