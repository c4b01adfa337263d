"""Adversarial training: every method against cases whose answer is known, and its cost."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from defenses.networks.registry import build_network
from defenses.training.adversarial.attacks import fgsm
from defenses.training.adversarial.awp import WeightPerturbation, preserved_buffers
from defenses.training.adversarial.ensemble_at import EnsembleTraining
from defenses.training.adversarial.fgsm_at import FgsmTraining
from defenses.training.adversarial.free_at import FreeTraining
from defenses.training.adversarial.grad_align import GradAlignTraining
from defenses.training.adversarial.mart import MartTraining, mart_loss
from defenses.training.adversarial.pgd_at import PgdTraining
from defenses.training.adversarial.trades import TradesTraining, divergence
from defenses.training.objective import Material, accuracy
from defenses.training.streams import stream
from defenses.utils.errors import UserError

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
    assert not x.requires_grad  # the batch of the caller stays as it is
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


@pytest.mark.parametrize("loss", [mart_loss, lambda clean, at, y, beta: beta * divergence(at, clean).mean()])
def test_logits_far_apart_have_finite_gradients(loss):
    """A gap of 110: the softmax of float32 is 0 there, and the logarithm of 0 has no gradient."""
    y, found = torch.tensor([0, 0]), []
    for dtype in (torch.float32, torch.float64):
        clean = torch.tensor([[110.0, 0, 0], [0, 110, 0]], dtype=dtype, requires_grad=True)
        at = torch.tensor([[0.0, 110, 0], [1, 2, 3]], dtype=dtype, requires_grad=True)
        logits = (clean, at) if loss is mart_loss else (clean.log_softmax(1), at.log_softmax(1))
        value = loss(*logits, y, 5.0)
        found.append([v.double() for v in (value.detach(), *torch.autograd.grad(value, (clean, at)))])
    assert float(found[0][0]) > 50
    for single, double in zip(*found, strict=True):
        assert single.isfinite().all()
        torch.testing.assert_close(single, double, rtol=1e-5, atol=1e-6)


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
    with pytest.raises(UserError, match="must be a list"):
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
    with preserved_buffers(network):
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
    (key,) = more
    with pytest.raises(UserError, match=rf"recipe: objective\.{key} is {more[key]}; it must be"):
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
