"""The Python entry points: one's own module, with and without randomness, in memory."""

import pytest
import torch
from boards import MODELS
from torch import nn

import bench
from bench import ThreatModel, ViewSpec, benchmark, clean_accuracy, load_results
from bench.data import load_dataset
from defenses.errors import UserError

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
        "adp", threat_model=ThreatModel("L2", "1/2"), views=[ViewSpec("bpda", 2, 1)], draws=3, selection=2,
        **{**few, "attacks": ["foolbox:L2FastGradientAttack"]},
    )
    assert set(frame["norm"]) == {"L2"}
    assert set(frame["eps"]) == {"1/2"}
    assert frame[frame["attack"] != "none"]["l2"].max() <= 0.5 + 1e-5


def test_results_can_be_kept(models, tmp_path):
    model = models["linear"]()
    first = benchmark(model, out=tmp_path / "kept", **FEW)
    again = benchmark(model, out=tmp_path / "kept", **FEW)
    assert (first["seconds"] == again["seconds"]).all()  # nothing was recomputed
    assert len(load_results(tmp_path / "kept")) == len(first)


def test_parameters_are_part_of_what_a_model_is(models, tmp_path):
    model = models["linear"]()
    benchmark(model, out=tmp_path / "kept", **FEW)
    model[1].weight.data *= 0.5
    other = benchmark(model, out=tmp_path / "kept", **FEW)
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
        ({"attacks": [{"steps": 3}]}, "no name"),
        ({"dataset": "digit"}, "digits"),
        ({"n_examples": 10_000}, "500"),
        ({"views": [ViewSpec("exact", 1)], "model": nn.Linear(2, 2).train()}, "train mode"),
    ],
)
def test_bad_arguments(models, arguments, words):
    model = arguments.pop("model", None) or models["linear"]()
    with pytest.raises(UserError, match=words):
        benchmark(model, **{**FEW, **arguments})


def test_an_attack_that_fails_is_a_warning_and_no_number(models, tmp_path):
    path = tmp_path / "attacks.py"
    path.write_text(MODELS)
    with pytest.warns(UserWarning, match="the attack broke"):
        frame = benchmark(models["linear"](), n_examples=20, eps="1/10", attacks=[f"{path}:raises"])
    assert set(frame["attack"]) == {"none", "uniform"}


def test_clean_accuracy(models):
    data = load_dataset("digits")
    model = models["linear"]()
    expected = float((model(data.x).argmax(1) == data.y).float().mean())
    assert clean_accuracy(model, data.x, data.y, batch_size=7) == pytest.approx(expected)
    with pytest.raises(UserError, match=r"\[0, 1\]"):
        clean_accuracy(model, data.x * 255, data.y)
    with pytest.raises(UserError, match="labels"):
        clean_accuracy(model, data.x, data.y[:3])


def test_public_names_are_there():
    for name in bench.__all__:
        assert getattr(bench, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = bench.nonsense
