"""Trainings that diverge: what is told, what is kept, and what can be done then."""

import pytest
import torch
from short_trainings import SHORT, Exploding, material, run

from defenses.networks.registry import build_network
from defenses.training import loop
from defenses.training.loop import fit
from defenses.training.objective import Objective
from defenses.training.phases import Phase
from defenses.training.plan import Plan
from defenses.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_divergence_names_step_and_checkpoint(tmp_path):
    objective = Exploding(build_network("small-cnn"), material(), 0)
    plan = Plan(5, (Phase(9, "sgd", 1e-3),), 100, 2, 0, "x")
    with pytest.raises(UserError, match=r"step 5 .*checkpoint.pt \(step 4\)"):
        fit(objective, plan, tmp_path / "checkpoint.pt", progress=False)


class Spoilt(Objective):
    """Something that is not finite at step 5 though the loss is."""

    def __init__(self, where, network, data):
        super().__init__(network, data, 0)
        self.where, self.validated, self.kept = where, [], torch.zeros(2)

    def loss(self, index, step):
        out = self.network(self.data.x[index]).square().mean()
        if step == 5 and self.where == "gradient":
            last = self.network.head[-1].bias
            # sqrt at 0: the value is 0, and 0 times the infinite slope NaN.
            return out + 0 * (last - last.detach()).square().sum().sqrt()
        return out

    @torch.no_grad()
    def after(self, step):
        if step == 5 and self.where == "weight":
            next(self.network.parameters()).view(-1)[3] = float("inf")
        if step == 5 and self.where == "state":
            self.kept[1] = float("nan")

    def state(self):
        return {"kept": [self.kept]}

    def restore(self, state):
        (self.kept,) = state["kept"]

    def validate(self):
        self.validated.append(all(bool(p.isfinite().all()) for p in self.network.parameters()))
        return {}


@pytest.mark.parametrize(
    ("where", "step", "message"),
    [
        ("gradient", 5, "a gradient that is not finite"),
        ("weight", 6, "a weight that is not finite"),
        ("state", 6, "a state that is not finite"),
    ],
)
@pytest.mark.parametrize("saves", ["validations", "checkpoints"])
def test_what_is_not_finite_is_neither_validated_nor_saved(where, step, message, saves, tmp_path):
    objective, path = Spoilt(where, build_network("small-cnn"), material()), tmp_path / "x.pt"
    every = {"validations": (2, 100), "checkpoints": (100, 2)}[saves]
    plan = Plan(5, (Phase(3, "sgd", 1e-3), Phase(9, "sgd", 1e-4)), *every, 0, "x")
    expected = rf"at step {step} \({message}\); .*x.pt \(step 4\), kept.*phases\.1\.lr=1e-05, under another name"
    with pytest.raises(UserError, match=expected) as caught:
        fit(objective, plan, path, progress=False)
    assert "\n" not in str(caught.value)
    assert all(objective.validated)
    kept = torch.load(path, weights_only=True)
    assert kept["run"]["step"] == 4
    assert all(bool(v.isfinite().all()) for v in kept["network"].values())


def test_large_and_finite_gradients_are_no_divergence(tmp_path):
    """Their squares overflow in float32."""

    class Large(Exploding):
        def loss(self, index, step):
            return 1e25 * self.network(self.data.x[index]).mean()

    plan = Plan(5, (Phase(2, "sgd", 1e-30),), 2, 100, 0, "x")
    result = fit(Large(build_network("small-cnn"), material(), 0), plan, tmp_path / "x.pt", progress=False)
    assert all(bool(v.isfinite().all()) for v in result.weights.values())


def test_a_divergence_without_a_checkpoint_says_so(tmp_path):
    objective = Exploding(build_network("small-cnn"), material(), 0)
    plan = Plan(5, (Phase(9, "sgd", 1e-3),), 100, 100, 0, "x")
    with pytest.raises(UserError, match=r"step 5 \(loss nan\); no checkpoint was written; .*phases\.0\.lr=0\.0001"):
        fit(objective, plan, tmp_path / "checkpoint.pt", progress=False)
    assert not list(tmp_path.iterdir())


def test_what_a_divergence_advises_can_be_done(tmp_path, monkeypatch):
    """The lower rate is taken under another name, with the checkpoint of the first still there."""
    step = loop.training_step

    def diverging(objective, schedule, order, k, dropout):
        if k == 5 and schedule.phases[0].lr == 1e-3:
            raise loop.Diverged("loss nan")
        return step(objective, schedule, order, k, dropout)

    monkeypatch.setattr(loop, "training_step", diverging)
    with pytest.raises(UserError, match=r"kept, of this recipe only; .*phases\.0\.lr=0\.0001, under another name"):
        run("undefended", tmp_path)
    lower = {"overrides": {**SHORT["undefended"], "phases.0.lr": 0.0001}}
    with pytest.raises(UserError, match="another recipe or seed; train under another name"):
        run("undefended", tmp_path, **lower)
    assert run("undefended", tmp_path, weights="slow", **lower)
    assert (tmp_path / "undefended.checkpoint.pt").exists()
