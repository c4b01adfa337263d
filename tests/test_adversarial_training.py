"""Adversarial training: every method against cases whose answer is known, its cost, and a short real training."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.data import load_dataset
from defenses.errors import UserError
from defenses.networks import build_network
from defenses.training import train
from defenses.training.adversarial.attacks import fgsm, pgd
from defenses.training.adversarial.awp import WeightPerturbation, kept_buffers
from defenses.training.adversarial.ensemble_at import EnsembleTraining
from defenses.training.adversarial.fgsm_at import FgsmTraining
from defenses.training.adversarial.free_at import FreeTraining
from defenses.training.adversarial.grad_align import GradAlignTraining
from defenses.training.adversarial.mart import MartTraining, mart_loss
from defenses.training.adversarial.trades import TradesTraining
from defenses.training.loop import Phase
from defenses.training.objective import Material, accuracy
from defenses.training.pgd_at import PgdTraining
from defenses.training.recipe import load_recipe
from defenses.training.schedules import learning_rates
from defenses.training.streams import stream
from defenses.weights_io import find_weights, load_network, read_sidecar

W = torch.linspace(-1, 1, 64)
ROWS = torch.arange(10)
ATTACK = {"eps": 0.1, "step": 0.05, "iterations": 4}
METHODS = {
    PgdTraining: ATTACK,
    TradesTraining: ATTACK,
    MartTraining: ATTACK,
    FgsmTraining: {"eps": 0.1},
    FreeTraining: {"eps": 0.1, "replays": 3},
    EnsembleTraining: {"eps": 0.1},
    GradAlignTraining: {"eps": 0.1},
}


def linear() -> nn.Module:
    """Logits (w x, -w x)."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False))
        network[1].weight.copy_(torch.stack((W, -W)))
    return network


def material(network: nn.Module | None = None) -> Material:
    generator = torch.Generator().manual_seed(0)
    x = 0.3 + 0.4 * torch.rand(20, 1, 8, 8, generator=generator)
    y = torch.arange(20) % 2
    return Material(x, y, x, y, trained=lambda name: network or linear().requires_grad_(False))


def made(method, network=None, **more):
    return method(network or linear(), material(), 0, {**METHODS[method], **more})


def corner(x, y, eps):
    """Where the cross-entropy of `linear` is largest."""
    return x - eps * (1 - 2 * y).view(-1, 1, 1, 1) * W.sign().view(8, 8)


# --- formulas


def test_eps_grows_over_the_warmup_and_validation_meets_all_of_it():
    objective = made(PgdTraining, eps_warmup=4, validation_step=0.1, validation_iterations=1)
    reached, loss_at = [], objective.loss_at

    def watched(x, at, y, generator):
        reached.append(float((at - x).abs().max()))
        return loss_at(x, at, y, generator)

    objective.loss_at = watched
    for step in range(6):
        objective.loss(ROWS, step)
    assert reached == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1], rel=1e-4)
    x, y = objective.data.x, objective.data.y
    objective.loss(ROWS, 0)
    robust = accuracy(objective.network, corner(x, y, 0.1), y)
    assert objective.validate()["robust"] == robust != accuracy(objective.network, corner(x, y, 0.025), y)


def test_one_step_finds_the_corner_and_its_loss():
    objective = made(FgsmTraining)
    x, y = objective.data.x[ROWS], objective.data.y[ROWS]
    at = fgsm(objective.network, x, y, eps=0.1)
    torch.testing.assert_close(at, corner(x, y, 0.1))
    half = [0.5 * F.cross_entropy(objective.network(v), y) for v in (x, at)]
    torch.testing.assert_close(objective.loss(ROWS, 0), half[0] + half[1])


def test_pgd_training_is_the_loss_at_the_corner():
    objective = made(PgdTraining, iterations=10)
    x, y = objective.data.x[ROWS], objective.data.y[ROWS]
    torch.testing.assert_close(objective.loss(ROWS, 0), F.cross_entropy(objective.network(corner(x, y, 0.1)), y))


def test_trades_reaches_a_corner_and_adds_beta_times_kl():
    objective = made(TradesTraining, iterations=10, beta=3.0)
    x, y = objective.data.x[ROWS], objective.data.y[ROWS]
    at = objective.attack(x, y, stream(0, "t"))
    side = (at - x)[:, :, 0, 0].sign().view(-1, 1, 1, 1)
    torch.testing.assert_close(at, x + 0.1 * side * W.sign().view(8, 8) * W[0].sign())
    p, q = (torch.distributions.Categorical(logits=objective.network(v)) for v in (x, at))
    expected = F.cross_entropy(objective.network(x), y) + 3 * torch.distributions.kl_divergence(p, q).mean()
    torch.testing.assert_close(objective.loss_at(x, at, y, stream(0, "t")), expected)


def test_mart_by_hand():
    clean, attacked = (torch.randn(6, 4, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    total = 0.0
    for i, label in enumerate(y.tolist()):
        p, q = clean[i].softmax(0), attacked[i].softmax(0)
        most = max(float(q[k]) for k in range(4) if k != label)
        kl = float((p * (p / q).log()).sum())
        total += float(-q[label].log()) - torch.tensor(1.0001 - most).log().item() + 5 * kl * (1 - float(p[label]))
    assert float(mart_loss(clean, attacked, y, 5.0)) == pytest.approx(total / 6, rel=1e-5)


def test_aligned_gradients_cost_nothing_and_others_do():
    objective = made(GradAlignTraining, lam=7.0)
    x, y = objective.data.x[ROWS], objective.data.y[ROWS]
    expected = F.cross_entropy(objective.network(corner(x, y, 0.1)), y)
    torch.testing.assert_close(objective.loss(ROWS, 0), expected)
    curved = build_network("small-cnn", num_classes=2)
    losses = [float(made(GradAlignTraining, curved, lam=lam).loss(ROWS, 0).detach()) for lam in (0.0, 1.0)]
    assert 0 < losses[1] - losses[0] < 2


def test_gradalign_survives_gradients_that_vanish():
    flat = linear()
    nn.init.zeros_(flat[1].weight)
    loss = made(GradAlignTraining, flat).loss(ROWS, 0)
    loss.backward()
    assert torch.isfinite(flat[1].weight.grad).all()


def test_the_free_perturbation_moves_by_eps_and_lives_on():
    objective = made(FreeTraining)
    y = objective.data.y[ROWS]
    sign = (2 * y - 1).view(-1, 1, 1, 1) * W.sign().view(8, 8)
    for step in range(2):  # at the wall of the ball from the first step on
        objective.loss(ROWS, step).backward()
        objective.after(step)
        torch.testing.assert_close(objective.perturbed, (0.1 * sign).expand(-1, 1, -1, -1))
    assert objective.replays == 3


def test_sources_are_drawn_and_attacked_with_the_label_they_predict():
    other = linear()
    with torch.no_grad():
        other[1].weight[:, ::2].zero_()
    objective = EnsembleTraining(linear(), material(other), 0, {"eps": 0.1})
    x, y = objective.data.x[ROWS], objective.data.y[ROWS]
    seen = set()
    for step in range(12):
        at = objective.attack(x, y, stream(0, "augment", step))
        by = [fgsm(n, x, n(x).argmax(1), eps=0.1) for n in (objective.network, other)]
        seen.add([torch.equal(at, b) for b in by].index(True))
    assert seen == {0, 1}
    with pytest.raises(UserError, match="write a list"):
        made(EnsembleTraining, sources="undefended")


# --- weight perturbation, average, statistics


def test_weights_move_by_gamma_of_their_norm_uphill_and_back():
    network = build_network("small-cnn")
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    x, y = material().x, material().y
    loss = F.cross_entropy(network(x), y)
    perturbation = WeightPerturbation(network, 0.01)
    perturbation.away(loss)
    for n, p in network.named_parameters():
        moved = float((p - before[n]).detach().norm() / before[n].norm())
        assert moved == pytest.approx(0.01 if p.ndim > 1 else 0, rel=1e-3)
    assert F.cross_entropy(network(x), y) > loss
    perturbation.back()
    perturbation.back()
    assert all(torch.allclose(p, before[n], atol=1e-7) for n, p in network.named_parameters())


def test_awp_descends_on_the_gradient_elsewhere():
    plain, moved = (made(PgdTraining, build_network("small-cnn"), awp=awp, awp_warmup=1) for awp in (0.0, 0.05))
    assert float(plain.loss(ROWS, 0).detach()) == float(moved.loss(ROWS, 0).detach())  # before the warm-up's end
    assert float(moved.loss(ROWS, 1).detach()) > float(plain.loss(ROWS, 1).detach())
    moved.after(1)
    same = zip(moved.network.parameters(), plain.network.parameters(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in same)


def test_statistics_are_kept():
    network = build_network("resnet20", blocks=1, in_channels=1).train()
    before = [b.clone() for b in network.buffers()]
    with kept_buffers(network):
        network(material().x)
    assert all(torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))


def test_the_average_is_shipped():
    objective = made(PgdTraining, ema=0.5)
    weight = objective.network[1].weight
    with torch.no_grad():
        for step in range(3):
            weight.fill_(step)
            objective.after(step)
    # The first is taken as it is; then shares of min(.5, (1 + step) / (10 + step)) of the average stay.
    expected = (0 * 2 / 11 + 1 * 9 / 11) * 3 / 12 + 2 * 9 / 12
    torch.testing.assert_close(objective.shipped()["1.weight"], torch.full((2, 64), expected))
    again = made(PgdTraining, ema=0.5)
    again.restore(objective.state())
    assert torch.equal(again.shipped()["1.weight"], objective.shipped()["1.weight"])


@pytest.mark.parametrize("more", [{"eps": 0}, {"ema": 1.0}, {"awp": -0.1}, {"eps_warmup": -1}])
def test_settings_out_of_range_are_one_line(more):
    with pytest.raises(UserError, match="are needed"):
        made(PgdTraining, **more)


# --- cost

FORWARDS = {
    PgdTraining: 4 + 1,
    TradesTraining: 1 + 4 + 2,
    MartTraining: 4 + 2,
    FgsmTraining: 1 + 1,
    FreeTraining: 1,
    GradAlignTraining: 1 + 3,
}


@pytest.mark.parametrize("method", FORWARDS)
def test_passes_of_a_step(method):
    objective, calls = made(method), []
    objective.network.register_forward_hook(lambda *_: calls.append(1))
    objective.loss(ROWS, 0)
    assert len(calls) == FORWARDS[method]


@pytest.mark.parametrize("method", METHODS)
def test_seeds_decide_everything(method):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    a, b = (made(method, build_network("small-cnn", num_classes=2)).loss(ROWS, 4) for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(before, torch.get_rng_state())


# --- schedules


def test_schedules_are_the_closed_forms():
    steps = torch.arange(10)
    cosine = 0.01 + 0.5 * (0.2 - 0.01) * (1 + torch.cos(torch.pi * steps / 10))
    torch.testing.assert_close(torch.tensor(learning_rates("cosine", 0.2, 0.01, 10)), cosine)
    triangle = 0.2 * (1 - (steps / 5 - 1).abs())
    torch.testing.assert_close(torch.tensor(learning_rates("cyclic", 0.2, 0.0, 10)), triangle)


def test_a_phase_says_its_schedule_only_where_it_has_one():
    assert "schedule" not in Phase(3, "sgd", 0.1).described()
    assert Phase(3, "sgd", 0.1, schedule="cosine").described()["schedule"] == "cosine"
    # The recipe of the shipped weights from before schedules came.
    assert load_recipe("pgd-at", "digits").fingerprint(0).startswith("8a5f1db2eaca")
    with pytest.raises(UserError, match="did you mean cosine"):
        load_recipe("pgd-at", "digits", {"phases": [{"until": 3, "optimizer": "sgd", "lr": 1, "schedule": "cosin"}]})


# --- real trainings

SHORT = {
    "unit": "steps",
    "validate_every": 100,
    "phases": [{"until": 100, "optimizer": "adam", "lr": 3e-3, "schedule": "cyclic"}],
    "objective.validation_iterations": 10,
}
# (clean, robust) accuracy on validation images that 100 steps must reach; natural training reaches robust .0x.
LEAST = {
    "fgsm-at": (0.85, 0.0),
    "fast-at": (0.85, 0.3),
    "free-at": (0.8, 0.15),
    "pgd-at": (0.85, 0.3),
    "trades": (0.85, 0.3),
    "mart": (0.8, 0.3),
    "awp": (0.8, 0.3),
    "ensemble-at": (0.85, 0.2),
    "grad-align": (0.8, 0.2),
}


@pytest.mark.parametrize("name", LEAST)
def test_a_short_training_learns(name, tmp_path):
    given = SHORT | ({"objective.iterations": 4} if name in ("pgd-at", "trades", "mart", "awp") else {})
    path = train(name, "digits", out=tmp_path, overrides=given, device="cpu", progress=False)
    found = json.loads(path.with_suffix(".json").read_text())["metrics"]["validation"]
    assert found["clean"] >= LEAST[name][0]
    assert found["robust"] >= LEAST[name][1]


@pytest.mark.parametrize(
    "network",
    [
        {"network.kind": "timm", "network.args.name": "test_resnet"},
        {
            "network.kind": "robustbench",
            "network.args.name": "dm_wide_resnet.DMWideResNet",
            "network.args.depth": 10,
            "network.args.width": 1,
            "network.args.padding": 12,
        },
    ],
)
def test_networks_of_other_libraries_are_trained_and_loaded(network, tmp_path):
    given = {**SHORT, **network, "phases": [{"until": 2, "optimizer": "sgd", "lr": 0.1}], "objective.iterations": 1}
    path = train("pgd-at", "digits", out=tmp_path / "digits", overrides=given, device="cpu", progress=False)
    side = read_sidecar(path)
    assert side["network"]["kind"] == network["network.kind"]
    assert side["network"]["args"]["in_channels"] == 1
    loaded = load_network("pgd-at", "digits", root=tmp_path)
    assert loaded(load_dataset("digits", "validation").x[:3]).shape == (3, 10)


def test_networks_that_do_not_fit_are_refused_before_training(tmp_path):
    given = {"network.kind": "robustbench", "network.args.name": "resnet.PreActResNet18"}
    with pytest.raises(UserError, match="does not take images of 1x8x8") as caught:
        train("fast-at", "digits", out=tmp_path, overrides=given, device="cpu", progress=False)
    assert "\n" not in str(caught.value)


# --- what is shipped


def robust(name: str, eps: float) -> float:
    held, network = load_dataset("digits", "validation"), load_network(name, "digits")
    at = pgd(network, held.x, held.y, stream(1, "t"), eps=eps, step=eps / 4, iterations=50)
    return accuracy(network, at, held.y)


@pytest.mark.parametrize(
    ("name", "least"),
    [("fast-at", 0.5), ("trades", 0.5), ("mart", 0.5), ("awp", 0.5), ("grad-align", 0.5), ("gan-at", 0.4)],
)
def test_shipped_weights_are_robust(name, least):
    assert robust(name, 0.2) >= least


def test_fgsm_training_collapses_and_pgd_training_does_not():
    """Its own attack at its own eps leaves most, PGD with 50 steps nearly nothing; at 1/5 PGD-AT holds far more."""
    assert robust("fgsm-at", 0.3) <= 0.1
    last = read_sidecar(find_weights("fgsm-at", "digits"))["metrics"]["validation"]
    assert last["fgsm"] >= last["robust"] + 0.5
    assert robust("fgsm-at", 0.2) <= robust("pgd-at", 0.2) - 0.15
