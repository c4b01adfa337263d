"""Training: recipes, the loop's resumption, and the shipped weights."""

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from defenses import load_model
from defenses.catalogue import card
from defenses.errors import UserError
from defenses.networks import build_network
from defenses.noise import Noise
from defenses.training import loop, train
from defenses.training.adversarial.attacks import pgd
from defenses.training.ebm import EnergyTraining
from defenses.training.loop import Phase, Plan, fit
from defenses.training.objective import Material, Objective, accuracy
from defenses.training.recipe import load_recipe, methods
from defenses.training.streams import Order, augmented, stream
from defenses.weights_io import find_weights, load_network, read_sidecar

QUICK = {"unit": "steps", "validate_every": 4, "phases": [{"until": 9, "optimizer": "adam", "lr": 1e-3}]}
SHORT = {
    "undefended": QUICK,
    "pgd-at": {
        "unit": "steps",
        "validate_every": 4,
        "phases": [{"until": 6, "optimizer": "adam", "lr": 1e-3}],
        "objective.iterations": 2,
        "objective.validation_iterations": 2,
        "objective.validation_images": 50,
    },
    "smoothing": QUICK,
    "adp": {
        "validate_every": 4,
        "phases": [
            {"until": 4, "optimizer": "adam", "lr": 1e-3, "lr_end": 1e-4},
            {"until": 9, "optimizer": "sgd", "lr": 1e-4, "momentum": 0.9},
        ],
    },
    "score-sde": {"validate_every": 4, "phases": [{"until": 9, "optimizer": "adam", "lr": 0.0, "lr_end": 1e-3}]},
    "vat": {"validate_every": 4, "phases": [{"until": 9, "optimizer": "adam", "lr": 1e-3}]},
    "few-labels": {"validate_every": 4, "phases": [{"until": 9, "optimizer": "adam", "lr": 1e-3}]},
    "ebm-mcmc": {
        "validate_every": 4,
        "phases": [{"until": 9, "optimizer": "adam", "lr": 1e-3}],
        "objective.langevin_steps": 3,
    },
    "defense-gan": {**QUICK, "objective.critic_steps": 2},
    "defense-vae": QUICK,
    "magnet": QUICK,
    "jem": {**QUICK, "objective.steps": 3},
    "igebm": {**QUICK, "objective.steps": 3},
}
for _name in ("fgsm-at", "free-at", "ensemble-at", "grad-align", "gan-at"):  # no steps of an inner attack to shorten
    SHORT[_name] = {k: v for k, v in SHORT["pgd-at"].items() if k != "objective.iterations"}
for _name in ("fast-at", "trades", "mart", "awp"):
    SHORT[_name] = {**SHORT["pgd-at"], "objective.ema": 0.9}
SHORT["free-at"] |= {"objective.replays": 4}


@pytest.fixture(autouse=True)
def _one_thread():
    """Small networks gain nothing from more, and wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(name: str, out: Path, **more: object) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    given = {"overrides": SHORT[name], "device": "cpu", "progress": False, **more}
    return load_file(train(name, "digits", out=out, **given))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", methods())
def test_resuming_gives_the_same_weights(name, tmp_path, monkeypatch):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    whole = run(name, tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), before), "training touched the global generator"
    step = loop._step

    def interrupted(objective, schedule, order, k, dropout):
        if k == 5:
            raise RuntimeError("power cut")
        return step(objective, schedule, order, k, dropout)

    monkeypatch.setattr(loop, "_step", interrupted)
    with pytest.raises(RuntimeError, match="power cut"):
        run(name, tmp_path / "b", checkpoint_every=3)
    monkeypatch.setattr(loop, "_step", step)
    assert (tmp_path / "b" / f"{name}.checkpoint.pt").exists()
    resumed = run(name, tmp_path / "b", checkpoint_every=3)
    assert not (tmp_path / "b" / f"{name}.checkpoint.pt").exists()
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[n], resumed[n]) for n in whole)


def test_resuming_in_the_second_phase(tmp_path, monkeypatch):
    whole = run("adp", tmp_path / "a")
    step = loop._step

    def interrupted(objective, schedule, order, k, dropout):
        if k == 7:
            signal.raise_signal(signal.SIGINT)
        return step(objective, schedule, order, k, dropout)

    monkeypatch.setattr(loop, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("adp", tmp_path / "b")
    monkeypatch.setattr(loop, "_step", step)
    resumed = run("adp", tmp_path / "b")
    assert all(torch.equal(whole[n], resumed[n]) for n in whole)


def test_other_recipes_and_damaged_checkpoints_are_refused(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("power cut")

    monkeypatch.setattr(loop, "_validate", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        run("undefended", tmp_path, checkpoint_every=2)
    monkeypatch.undo()
    checkpoint = tmp_path / "undefended.checkpoint.pt"
    with pytest.raises(UserError, match="another recipe or seed"):
        run("undefended", tmp_path, overrides={**SHORT["undefended"], "batch": 7})
    other = checkpoint.with_name("undefended.seed1.checkpoint.pt")
    other.write_bytes(checkpoint.read_bytes())
    with pytest.raises(UserError, match="another recipe or seed"):
        run("undefended", tmp_path, seed=1)
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    with pytest.raises(UserError, match="cannot be read"):
        run("undefended", tmp_path)


class Exploding(Objective):
    """A loss that is finite for some steps."""

    def loss(self, index, step):
        return self.network(self.data.x[index]).sum() * (float("nan") if step == 5 else 1e-3)


def material() -> Material:
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(20, dtype=torch.int64)
    return Material(x, y, x, y, trained=lambda name: nn.Identity())


def test_a_checkpoint_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    objective = Exploding(build_network("small-cnn"), material(), 0)
    with pytest.raises(UserError, match="cannot write checkpoint"):
        fit(objective, Plan(5, (Phase(3, "sgd", 1e-3),), 100, 1, 0, "x"), tmp_path / "file" / "x.pt", progress=False)


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
    step = loop._step

    def diverging(objective, schedule, order, k, dropout):
        if k == 5 and schedule.phases[0].lr == 1e-3:
            raise loop.Diverged("loss nan")
        return step(objective, schedule, order, k, dropout)

    monkeypatch.setattr(loop, "_step", diverging)
    with pytest.raises(UserError, match=r"kept, of this recipe only; .*phases\.0\.lr=0\.0001, under another name"):
        run("undefended", tmp_path)
    lower = {"overrides": {**SHORT["undefended"], "phases.0.lr": 0.0001}}
    with pytest.raises(UserError, match="another recipe or seed; train under another name"):
        run("undefended", tmp_path, **lower)
    assert run("undefended", tmp_path, weights="slow", **lower)
    assert (tmp_path / "undefended.checkpoint.pt").exists()


def test_every_validation_leaves_a_checkpoint_to_go_on_from(tmp_path, monkeypatch):
    step, steps = loop._step, []

    def interrupted(objective, schedule, order, k, dropout):
        steps.append(k)
        if k == 6 and steps.count(6) == 1:
            raise RuntimeError("power cut")
        return step(objective, schedule, order, k, dropout)

    monkeypatch.setattr(loop, "_step", interrupted)
    with pytest.raises(RuntimeError, match="power cut"):
        run("undefended", tmp_path, weights="mine")
    run("undefended", tmp_path, weights="mine")
    assert steps == [0, 1, 2, 3, 4, 5, 6, 4, 5, 6, 7, 8]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.json", "mine.safetensors"]


def test_seconds_of_the_processor_are_summed_over_interruptions(tmp_path):
    class Counted(Exploding):
        def loss(self, index, step):
            begun = time.process_time()
            while time.process_time() - begun < 0.05:
                pass
            if step == 2 and not (tmp_path / "x.pt").exists():
                signal.raise_signal(signal.SIGINT)
            return self.network(self.data.x[index]).mean()

    plan = Plan(5, (Phase(6, "sgd", 1e-3),), 100, 100, 0, "x")
    with pytest.raises(KeyboardInterrupt):
        fit(Counted(build_network("small-cnn"), material(), 0), plan, tmp_path / "x.pt", progress=False)
    found = fit(Counted(build_network("small-cnn"), material(), 0), plan, tmp_path / "x.pt", progress=False)
    assert 6 * 0.05 <= found.cpu_seconds < 6 * 0.05 + 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"network": {}}, "belongs to another recipe"),
        (torch.zeros(3), "belongs to another recipe"),
        ({"fingerprint": "x"}, "not whole .*KeyError"),
        ({"fingerprint": "x", "run": {"stepp": 3}}, "not whole"),
        ({"fingerprint": "x", "run": {}, "network": {"a": torch.zeros(1)}}, "not whole"),
    ],
)
def test_foreign_checkpoints_are_one_clear_line(content, message, tmp_path):
    torch.save(content, tmp_path / "x.pt")
    objective = Exploding(build_network("small-cnn"), material(), 0)
    with pytest.raises(UserError, match=message) as caught:
        fit(objective, Plan(5, (Phase(3, "sgd", 1e-3),), 100, 1, 0, "x"), tmp_path / "x.pt", progress=False)
    assert "\n" not in str(caught.value)


def test_dropout_is_reproducible_and_leaves_the_global_generator(tmp_path):
    results = []
    for name in "ab":
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 1))
        with torch.no_grad():
            for p in network.parameters():
                p.zero_()
        torch.manual_seed(ord(name))
        before = torch.get_rng_state()
        plan = Plan(5, (Phase(4, "sgd", 1e-1),), 100, 100, 0, "x")
        results.append(fit(Exploding(network, material(), 0), plan, tmp_path / name, progress=False).weights)
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(results[0][n], results[1][n]) for n in results[0])


def test_order_is_a_permutation_every_epoch():
    order = Order(10, 3, 0)
    epoch = torch.cat([order(i) for i in range(3)])
    assert len(epoch.unique()) == 9
    assert torch.equal(Order(10, 3, 0)(4), order(4))
    assert not torch.equal(order(0), order(3))
    assert Order(2, 5, 0)(7).tolist() in ([0, 1], [1, 0])


def test_augmentation_moves_whole_images():
    x = torch.zeros(200, 1, 8, 8)
    x[:, :, 3, 2] = 1
    out = augmented(x, stream(0, "a"), shift=1, flip=True)
    assert out.sum() == 200
    assert set(out.nonzero()[:, 2].tolist()) == {2, 3, 4}
    assert set(out.nonzero()[:, 3].tolist()) == {1, 2, 3, 4, 5, 6}


def test_pgd_stays_in_ball_and_box_and_finds_the_corner():
    weight = torch.linspace(-1, 1, 64)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.stack((weight, -weight)))
    x = torch.full((3, 1, 8, 8), 0.95)
    at = pgd(network, x, torch.zeros(3, dtype=torch.int64), stream(0, "x"), eps=0.1, step=0.05, iterations=10)
    corner = (x - 0.1 * weight.sign().view(8, 8)).clamp(0, 1)
    torch.testing.assert_close(at, corner)


def test_energy_training_keeps_its_bank():
    objective = EnergyTraining(
        build_network("energy-mlp"), material(), 0, {"eps": 0.03, "eps_data": 0.06, "langevin_steps": 2}
    )
    before = objective.bank.clone()
    assert before.shape == (20, 1, 8, 8)
    assert -1 <= float(before.min()) < float(before.max()) <= 1
    objective.loss(torch.arange(5), 0)
    assert int((objective.bank != before).flatten(1).any(1).sum()) == 5
    assert objective.monitor()["r"] > 0


# --- recipes


@pytest.mark.parametrize("name", methods())
def test_recipes_are_complete(name):
    assert set(card(name).recipes) == {"digits", "mnist", "cifar10"}
    for dataset in card(name).recipes:
        recipe = load_recipe(name, dataset)
        assert recipe.phases[-1].until > 0


@pytest.mark.parametrize(
    ("name", "dataset", "overrides", "message"),
    [
        ("adb", "digits", {}, 'unknown recipe "adb"; did you mean adp'),
        ("adp", "svhn", {}, "no recipe.*cifar10, digits, mnist"),
        ("adp", "digits", {"bach": 3}, "batch"),
        ("adp", "digits", {"objective.sigma_mx": 3}, "sigma_max"),
        ("adp", "digits", {"phases": []}, "phases"),
        ("adp", "digits", {"phases": [{"until": 3, "optimizer": "adam", "lrr": 1}]}, "did you mean lr"),
        ("adp", "digits", {"phases": [{"until": 3, "optimizer": "adamm", "lr": 1}]}, "did you mean adam"),
        ("adp", "digits", {"network.kind": "score-mpl"}, "score-mlp"),
        ("adp", "digits", {"unit": "weeks"}, "epochs"),
    ],
)
def test_bad_recipes_are_one_clear_line(name, dataset, overrides, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        train(name, dataset, out=tmp_path, overrides=overrides, device="cpu", progress=False)
    assert "\n" not in str(caught.value)


# --- what is shipped


@pytest.fixture(scope="module")
def validation():
    from bench.data import load_dataset

    return load_dataset("digits", "validation")


@pytest.mark.parametrize("name", methods())
def test_shipped_weights_are_of_the_shipped_recipe(name):
    side = read_sidecar(find_weights(name, "digits"))
    recipe = load_recipe(name, "digits")
    assert side["recipe"]["objective"] == recipe.objective
    assert side["recipe"]["deploy"] == recipe.deploy
    assert side["recipe"]["phases"] == [p.described() for p in recipe.phases]
    assert find_weights(name, "digits").stat().st_size < 1_000_000


@pytest.mark.parametrize(("name", "clean"), [("undefended", 0.95), ("pgd-at", 0.95)])
def test_shipped_classifiers(name, clean, validation):
    network = load_network(name, "digits")
    assert accuracy(network, validation.x, validation.y) >= clean
    at = pgd(network, validation.x, validation.y, stream(1, "t"), eps=0.2, step=0.05, iterations=20)
    robust = accuracy(network, at, validation.y)
    assert robust >= 0.55 if name == "pgd-at" else robust <= 0.1


@pytest.mark.parametrize(("name", "clean", "transfer"), [("adp", 0.92, 0.25), ("ebm-mcmc", 0.93, 0.08)])
def test_shipped_purifiers(name, clean, transfer, validation):
    defense = load_model(name, **load_recipe(name, "digits").deploy)
    x, y = validation.x, validation.y
    network = load_network("undefended", "digits")
    at = pgd(network, x, y, stream(1, "t"), eps=0.2, step=0.05, iterations=20)
    for images, least in ((x, clean), (at, transfer)):
        hits = defense.logits(images, Noise.of(0, len(images))).argmax(1) == y
        assert float(hits.float().mean()) >= least


def test_stability_lies_beside_the_energy():
    path = find_weights("ebm-mcmc", "digits")
    found = json.loads(path.with_suffix(".stability.json").read_text())
    assert found["weights_sha256"] == read_sidecar(path)["sha256"]
    assert found["steps"] >= 10 * load_recipe("ebm-mcmc", "digits").deploy["steps"]
    data, noise = (found[n][-1] for n in ("from_data", "from_noise"))
    assert abs(data["U"] - noise["U"]) < 0.01 * abs(data["U"])
    assert min(data["classes"]) > 0.02
