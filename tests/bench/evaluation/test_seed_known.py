"""A seed that the attacker knows: its view is the judged draw, and its rows stand apart."""

import numpy as np
import pytest
import torch
from boards import purebench_here, write_board
from fake_board import row
from hypothesis import given
from hypothesis import strategies as st
from linear_purifier import Shift

from bench.analysis.summary import WORST, summary
from bench.attacks.registry import find_attack
from bench.board.load import load_board
from bench.board.views import view_for
from bench.evaluation.verdict import known_noise, verdict
from bench.evaluation.view import AttackView, attack_view
from bench.execution.options import Options
from bench.execution.run_board import run_board
from bench.report.comparison_table import attack_tables
from bench.report.tables import write_tables
from bench.spec.cell import AttackRef
from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from defenses.core.defense import Classifier, Purified, UserModule
from defenses.core.noise import Draw, Noise
from defenses.utils.errors import UserError

SHAPE = (1, 1, 2)
KNOWN = ViewSpec(seed="known")


def linear(sigma=0.2, runs=3):
    """Class 1 where w (mean of shifted images) > .5 |w|; the mean over runs is linear in the image."""
    layer = torch.nn.Linear(2, 2)
    layer.weight.data = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    layer.bias.data = torch.tensor([0.0, 0.3])
    network = torch.nn.Sequential(torch.nn.Flatten(), layer).eval()
    classifier = Classifier(network, num_classes=2, input_shape=SHAPE)
    return Purified(Shift(sigma), classifier, runs=runs, combine="logit-mean")


class Dropping(torch.nn.Module):
    """Uses the global generator."""

    def forward(self, x):
        return (x + torch.randn_like(x)).flatten(1)


def images(n=9, seed=0):
    return Noise.of(seed, n).draw(Draw(SHAPE, "uniform"))


@pytest.mark.parametrize("make", [linear, lambda: UserModule(Dropping(), stochastic=True)])
@given(st.permutations(range(9)), st.integers(1, 9))
def test_the_view_of_a_known_seed_is_the_judged_draw_for_any_sub_batch(make, order, n):
    x, defense = images(), make()
    judged = verdict(defense, x, torch.arange(9), draws=1, selection=0, seed=4, known=True)
    assert judged.logits.shape[0] == 1
    assert judged.held_out.all()
    view = AttackView(defense, KNOWN, seed=4)
    part = torch.tensor(order[:n])
    for _ in range(2):
        assert torch.allclose(view(x[part]), judged.logits[0, part], atol=1e-6)
    leaf = x[part].clone().requires_grad_()
    assert torch.autograd.grad(view(leaf).sum(), leaf)[0].isfinite().all()


def test_a_known_seed_is_no_draw_that_other_verdicts_have_seen():
    defense, x = linear(), images(1)
    keys = {tuple(k) for k in known_noise(4, 3, x.device).keys.tolist()}
    assert len(keys) == 1
    other = verdict(defense, x, torch.arange(1), draws=30, selection=10, seed=4)
    known = verdict(defense, x, torch.arange(1), draws=30, selection=10, seed=4, known=True)
    assert len(known.logits) == 1
    assert not (other.logits == known.logits).all(-1).any()
    another = verdict(defense, x, torch.arange(1), draws=1, selection=0, seed=5, known=True)
    assert not torch.equal(known.logits, another.logits)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("autoattack:apgd-ce", {"n_iter": 20}),
        ("bench:apgd", {"steps": 20}),
        ("bench:pgd", {"steps": 20}),
        ("bench:adaptive", {"steps": 20}),
        ("bench:spsa", {"steps": 20}),
        ("bench:square", {"queries": 60}),
    ],
)
def test_an_attack_that_knows_the_seed_reaches_the_closed_form(name, own):
    """w (x + eps sign) + sigma w mean z + b: who knows z breaks exactly the images whose margin is below eps |w|_1."""
    defense, x = linear(), images(64)
    y = (x.flatten(1) @ torch.tensor([1.0, -2.0]) + 0.3 > 0).long()
    threat = ThreatModel("Linf", "1/20")
    attack = find_attack(name, own)
    inner = 0.2 + 0.6 * x  # away from the box
    with attack_view(defense, KNOWN, seed=4) as (view, _):
        params = {"threat": threat, "target": None, "seed": 0, "num_classes": 2}
        x_adv = attack.run(view, inner, y, **params, **own)
    judged = verdict(defense, x_adv, torch.arange(64), draws=1, selection=0, seed=4, known=True)
    shift = verdict(defense, inner, torch.arange(64), draws=1, selection=0, seed=4, known=True).logits[0]
    margin = (shift[:, 1] - shift[:, 0]) * (2 * y - 1)
    assert torch.equal(judged.predictions[0] == y, margin - 3 / 20 > 0)


def test_attacks_of_our_own_ask_a_random_module_about_the_judged_draw():
    """Logits x + z, with one z for all images when each is asked alone."""
    defense, x, threat = UserModule(Dropping(), stochastic=True), 0.2 + 0.6 * images(40), ThreatModel("Linf", "1/20")
    y = x.flatten(1).argmax(1)
    before = verdict(defense, x, torch.arange(40), draws=1, selection=0, seed=4, known=True)
    params = {"threat": threat, "target": None, "seed": 0, "num_classes": 2}
    with attack_view(defense, KNOWN, seed=4) as (view, _):
        x_adv = find_attack("bench:pgd").run(view, x, y, **params, steps=20)
    after = verdict(defense, x_adv, torch.arange(40), draws=1, selection=0, seed=4, known=True)
    assert torch.equal(after.predictions[0] == y, before.margins(y)[0] > 2 / 20)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"seed": "known", "eot": 4}, "leave out eot and runs"),
        ({"seed": "known", "runs": 1}, "leave out eot and runs"),
        ({"seed": "known", "gradient": "blind"}, "blind attacker"),
        ({"seed": "secret"}, "seed of a view"),
    ],
)
def test_views_of_a_known_seed_that_make_no_sense(spec, words):
    with pytest.raises(UserError, match=words) as caught:
        ViewSpec(**spec)
    assert "\n" not in str(caught.value)


def with_known(folder, more=""):
    path = write_board(folder)
    text = path.read_text().replace("eot = 2", 'seed = "known"') + more
    path.write_text(text.replace('label = "slow"', 'label = "slow"\non = "stochastic"'))
    return path


def test_a_board_with_a_known_seed(tmp_path):
    board = load_board(with_known(tmp_path))
    known = [c for c in board.cells() if c.view.known]
    assert {c.attack.label for c in known} == {"none, seed known", "uniform, seed known", "slow"}
    assert {(c.defense.label, c.verdict.draws, c.verdict.selection) for c in known} == {("noisy", 1, 0)}
    assert {c.view_label for c in known} == {"exact, seed known", "deployed, seed known"}
    run_board(board, tmp_path / "out", Options(workers=0, quiet=True))
    frame = summary(tmp_path / "out")
    slow, clean = row(frame, "noisy", "slow"), row(frame, "noisy", "none, seed known")
    assert (slow.draws, clean.draws) == (1, 1)
    assert slow.clean_mean == clean.robust_mean == clean.clean_mean
    assert slow.asr_originally_correct == round(60 * clean.robust_mean)
    assert np.isnan(slow.rob_m5)
    assert slow.majority == slow.robust_mean
    worst = row(frame, "noisy", WORST)
    assert worst.status == "ok"
    assert worst.evaluations_per_image == row(frame, "noisy", "autoattack:apgd-ce").evaluations_per_image
    table = write_tables(tmp_path / "out")
    assert any(note.startswith("seed known:") for note in table.footnotes)
    (attacks,) = attack_tables(frame)  # the deterministic defense of the board has no such row
    assert any("clean images, seed known" in row[0] for row in attacks.rows)
    assert "clean images, seed known" in (tmp_path / "out/tables.txt").read_text()


def test_images_that_are_made_already_know_no_seed(tmp_path):
    noisy = next(d for d in load_board(with_known(tmp_path)).defenses if d.stochastic)
    with pytest.raises(UserError, match="made already; give seed"):
        view_for(noisy, KNOWN, AttackRef("x", "given:x.npz", {}, "1"))


def test_a_known_seed_is_refused_where_there_is_none(tmp_path):
    path = with_known(tmp_path)
    path.write_text(path.read_text().replace('\non = "stochastic"', ""))
    done = purebench_here("run", path, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "linear is deterministic" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
