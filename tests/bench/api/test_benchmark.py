"""Test the Python entry points on user-defined modules in memory, deterministic and random."""

import pytest
import torch
from boards import MODELS
from torch import nn

import bench
from bench import ThreatModel, ViewSpec, benchmark, clean_accuracy, load_results
from bench.board.defense_entry import describe, describe_loaded
from defenses import load_model
from defenses.core.defense import Defense, UserModule
from defenses.data.dataset import load_dataset
from defenses.utils.errors import UserError
from defenses.utils.identity import identity
from defenses.utils.parameters import canonical

FEW = {"n_examples": 20, "eps": "1/4", "attacks": [{"name": "foolbox:LinfPGD", "steps": 5, "rel_stepsize": 0.5}]}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "models.py"
    path.write_text(MODELS)
    space: dict = {"__name__": "models_of_test"}
    exec(compile(MODELS, str(path), "exec"), space)
    return space


def test_a_module_in_memory(models):
    frame = benchmark(models["linear"](), **FEW)
    assert set(frame["attack"]) == {"none", "uniform", "foolbox:LinfPGD"}
    assert set(frame["draws"]) == {1}
    attacked = frame[frame["attack"] == "foolbox:LinfPGD"]
    assert attacked["accuracy"].mean() < attacked["clean"].mean()


def test_a_module_that_uses_the_global_generator(models):
    state = torch.random.get_rng_state()
    a = benchmark(models["GlobalNoise"](), draws=7, selection=3, **FEW)
    torch.manual_seed(123)
    b = benchmark(models["GlobalNoise"](), draws=7, selection=3, **FEW)
    torch.random.set_rng_state(state)
    assert set(a["draws"]) == {7}
    assert a["stochastic"].all()
    assert (a["correct"] == b["correct"]).all()
    assert 0 < a[a["attack"] == "none"]["accuracy"].mean() < 1


def test_the_global_generator_is_left_where_it_was(models):
    model = models["GlobalNoise"]()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    benchmark(model, draws=1, selection=1, **FEW)
    assert torch.equal(torch.rand(3), expected)


def test_a_defense_by_name_and_a_whole_threat_model():
    few = {k: v for k, v in FEW.items() if k != "eps"}
    frame = benchmark(
        "adp",
        threat_model=ThreatModel("L2", "1/2"),
        views=[ViewSpec("bpda", 2, 1)],
        draws=3,
        selection=2,
        **{**few, "attacks": ["foolbox:L2FastGradientAttack"]},
    )
    assert set(frame["norm"]) == {"L2"}
    assert set(frame["eps"]) == {"1/2"}
    assert frame[frame["attack"] != "none"]["l2"].max() <= 0.5 + 1e-5


def test_results_can_be_kept(models, tmp_path):
    model = models["linear"]()
    first = benchmark(model, out=tmp_path / "results", **FEW)
    again = benchmark(model, out=tmp_path / "results", **FEW)
    assert (first["seconds"] == again["seconds"]).all()  # nothing was recomputed
    assert len(load_results(tmp_path / "results")) == len(first)


def test_parameters_are_part_of_what_a_model_is(models, tmp_path):
    model = models["linear"]()
    benchmark(model, out=tmp_path / "results", **FEW)
    model[1].weight.data *= 0.5
    other = benchmark(model, out=tmp_path / "results", **FEW)
    assert len(other) == 3 * 20


def test_the_model_is_left_as_it_was(models):
    model = models["linear"]()
    before = [p.requires_grad for p in model.parameters()]
    benchmark(model, **FEW)
    assert [p.requires_grad for p in model.parameters()] == before
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"eps": None}, "eps is missing"),
        ({"eps": "8/225x"}, "not a number"),
        ({"threat_model": ThreatModel("Linf", "1/5")}, "eps is given twice"),
        ({"attacks": ["foolbox:LinfPDG"]}, "LinfPGD"),
        ({"attacks": [{"steps": 3}]}, "name in .attack. is missing"),
        ({"dataset": "digit"}, "digits"),
        ({"n_examples": 10_000}, "500"),
        ({"draws": 0}, "draws .* at least 1"),
        ({"batch_size": 0}, "batch_size .* at least 1"),
        ({"attacks": []}, "no attack"),
        ({"attacks": [3]}, "an attack is 3"),
        ({"attacks": [{"name": "foolbox:LinfPGD", "label": "none"}]}, "taken by a row"),
        ({"views": [{"eot": 0}]}, "eot .* at least 1"),
        ({"views": [{"eott": 2}]}, "did you mean eot"),
        (
            {"views": [ViewSpec("exact", 1)], "model": nn.Dropout().train()},
            r"Dropout is in train mode; call \.eval\(\) on Dropout",
        ),
    ],
)
def test_bad_arguments(models, arguments, words):
    model = arguments.pop("model", None) or models["linear"]()
    with pytest.raises(UserError, match=words):
        benchmark(model, **{**FEW, **arguments})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: benchmark("undefended", 4, device="cuda:99", eps="1/5"), 'device "cuda:99" cannot be used'),
        (lambda: benchmark("undefended", 4, device=5, eps="1/5"), 'device "5" cannot be used'),
        (lambda: benchmark("undefended", 4, views="exact", eps="1/5"), "views is 'exact'; write"),
        (lambda: benchmark("undefended", 4, stochastic="yes", eps="1/5"), "stochastic is 'yes'; it must be True"),
        (lambda: benchmark("undefended", 4, eps="1/5", out="/proc/x"), "cannot write to /proc/x"),
        (lambda: benchmark("undefended", 4, views=3, eps="1/5"), "views is '3'; write"),
        (lambda: benchmark("undefended", 4, attacks=None, eps="1/5"), "attacks is None; write a name"),
        (lambda: benchmark(None, 4, eps="1/5"), "the model is 'None'; give a torch.nn.Module"),
        (lambda: benchmark("undefended", 4, split=3, eps="1/5"), "split in the board is 3"),
        (lambda: benchmark("undefended", 4, name=3, eps="1/5"), "label in .defense. is 3"),
        (lambda: benchmark("undefended", 4, seed=-1, eps="1/5"), "seed in the board is -1; it must be .* at least 0"),
        (lambda: benchmark("undefended", 4, eps="1e400"), "eps is larger than any image"),
        (lambda: benchmark("undefended", 4, eps=8), "eps is larger than any image: under Linf, .* as 8/255"),
        (lambda: load_model(None), "model_name is None; give a name"),
        (lambda: load_model("adp", training_seed="x"), "training_seed is 'x'; it must be a whole number"),
        (lambda: load_model("adp", norm="Linf"), "give threat_model"),
        (lambda: load_model("adp", custom_checkpoint="a.pt"), "custom_checkpoint is not taken"),
    ],
)
def test_arguments_that_cannot_be(call, words):
    with pytest.raises(UserError, match=words):
        call()


def test_an_attack_that_fails_is_a_warning_and_no_number(models, tmp_path):
    path = tmp_path / "attacks.py"
    path.write_text(MODELS)
    attacks = [f"{path}:raises", "foolbox:SpatialAttack", *FEW["attacks"]]
    with pytest.warns(UserWarning, match="SpatialAttack|the attack broke") as caught:
        frame = benchmark(models["linear"](), **{**FEW, "attacks": attacks}, batch_size=10)
    texts = [str(w.message) for w in caught if w.category is UserWarning]
    assert len(texts) == 2  # once each, not once a block
    assert "unsupported" in texts[1]
    judged = frame[frame["accuracy"].notna()]
    assert set(judged["attack"]) == {"none", "uniform", "foolbox:LinfPGD"}


@pytest.mark.parametrize(("attack", "words"), [("raises", "the attack broke"), ("SpatialAttack", "unsupported")])
def test_no_judged_attack_is_an_error(models, tmp_path, attack, words):
    path = tmp_path / "attacks.py"
    path.write_text(MODELS)
    name = f"{path}:raises" if attack == "raises" else f"foolbox:{attack}"
    with pytest.raises(RuntimeError, match=words):
        benchmark(models["linear"](), n_examples=5, eps="1/10", attacks=name)


def test_one_attack_with_several_parameters():
    attacks = [{"name": "foolbox:LinfPGD", "steps": n} for n in (1, 3)]
    frame = benchmark("undefended", eps="1/5", n_examples=5, attacks=attacks)
    assert {"foolbox:LinfPGD (steps=1)", "foolbox:LinfPGD (steps=3)"} < set(frame["attack"])
    with pytest.raises(UserError, match="occurs twice"):
        benchmark("undefended", eps="1/5", n_examples=5, attacks=[attacks[0], attacks[0]])


def test_views_may_be_given_as_in_a_board():
    options = {"eps": "1/5", "n_examples": 3, "attacks": "foolbox:LinfFastGradientAttack", "draws": 1, "selection": 1}
    frame = benchmark("adp", views=[{"gradient": "bpda", "eot": 2}], **options)
    assert set(frame[frame["attack"] == options["attacks"]]["gradient"]) == {"bpda"}


def reference(model):
    return describe_loaded(model if isinstance(model, Defense) else UserModule(model, stochastic=False), None, name="")


def test_a_registered_defense_is_the_one_of_boards():
    board = describe({"name": "adp"}, "digits")
    assert reference(load_model("adp")) == board
    assert reference(load_model("adp", sigma="1/4")).fingerprint == board.fingerprint
    assert reference(load_model("adp", sigma=1)).fingerprint != board.fingerprint
    used = load_model("adp", runs=2)
    used(load_dataset("digits").x[:2])
    assert reference(used).label == "adp"
    changed = load_model("adp")
    changed.purifier.sigma = 1.0
    assert reference(changed).fingerprint != board.fingerprint
    assert "state" in reference(changed).fingerprint


class Scaled(nn.Module):
    def __init__(self, scale, inner=None):
        super().__init__()
        self.scale, self.inner = scale, inner or nn.Identity()

    def forward(self, x):
        return self.scale * x.flatten(1)[:, :10]


def closure(n):
    return lambda x: n * x


@pytest.mark.parametrize(
    "values",
    [
        (1, 2, True, "1", 1.5, None),
        ([1, 2], [2, 1], (1, 2), [[1], 2], {1, 2}),
        ({"a": 1}, {"a": 2}, {"b": 1}),
        (torch.float32, torch.float64, torch.device("cpu"), "cpu"),
        (torch.zeros(2), torch.ones(2), torch.zeros(2, 1)),
        (torch.relu, torch.tanh, closure(1), closure(2), Scaled, nn.ReLU),
    ],
)
def test_attributes_are_part_of_what_a_model_is(values):
    digests = [identity(Scaled(v)) for v in values]
    assert all(complete for _, complete in digests)
    assert len(set(digests)) == len(values)
    assert digests == [identity(Scaled(v)) for v in values]


def test_submodules_and_hooks_are_part_of_what_a_model_is():
    models = [Scaled(1, nn.ReLU()), Scaled(1, nn.Tanh()), Scaled(1, nn.LeakyReLU(0.1)), Scaled(1, nn.LeakyReLU(0.2))]
    hooked = Scaled(1, nn.ReLU())
    hooked.inner.register_forward_hook(lambda m, i, o: o + 1)
    assert len({identity(m)[0] for m in (*models, hooked)}) == 5


def test_what_cannot_be_hashed_is_never_reused():
    model = Scaled(object())
    assert not identity(model)[1]
    assert reference(model).fingerprint != reference(model).fingerprint
    once = [describe_loaded(UserModule(model, stochastic=False), None, name="", resumable=False) for _ in range(2)]
    assert once[0] == once[1]  # nothing is kept, and the seed decides everything


def test_another_model_is_not_taken_for_the_one_in_the_folder(tmp_path):
    few = {"eps": "1/5", "n_examples": 3, "attacks": "foolbox:LinfFastGradientAttack", "draws": 1, "selection": 1}
    first = benchmark(load_model("adp", steps=1, runs=1), out=tmp_path, **few)
    other = benchmark(load_model("adp", steps=1, runs=1, sigma=1), out=tmp_path, **few)
    assert not set(first["cell"]) & set(other["cell"])


def test_clean_accuracy(models):
    data = load_dataset("digits")
    model = models["linear"]()
    expected = float((model(data.x).argmax(1) == data.y).float().mean())
    assert clean_accuracy(model, data.x, data.y, batch_size=7) == pytest.approx(expected)
    with pytest.raises(UserError, match=r"\[0, 1\]"):
        clean_accuracy(model, data.x * 255, data.y)
    with pytest.raises(UserError, match="labels"):
        clean_accuracy(model, data.x, data.y[:3])
    for size in (0, -1, 2.5, None):
        with pytest.raises(UserError, match=r"batch_size is .* at least 1"):
            clean_accuracy(model, data.x, data.y, batch_size=size)


def test_public_names_are_there():
    for name in bench.__all__:
        assert getattr(bench, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = bench.nonsense


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8 / 255, "8/255"),
        (1 / 255, "1/255"),
        (0.2, "1/5"),
        (0.03, "3/100"),
        (0.5, "1/2"),
        (12.0, "12"),
        (0.0314, "157/5000"),
    ],
)
def test_a_float_is_the_fraction_that_was_meant(value, text):
    assert str(ThreatModel("L2", value).eps) == text
    assert canonical({"alpha": value}) == {"alpha": text}
    assert float(ThreatModel("L2", value).eps) == value
