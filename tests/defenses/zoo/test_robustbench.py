"""RobustBench unchanged: its benchmark() on our defenses, through the module `autoattack` that it imports."""

import ast
import inspect
import time
from pathlib import Path

import autoattack
import pyautoattack
import pytest
import torch
from autoattack.state import EvaluationState
from boards import MODELS
from torch import nn

from defenses.core.defense import Classifier, Purified
from defenses.data.dataset import load_dataset
from defenses.purifiers.adp import ADP
from defenses.utils.paths import data_root

SIGNATURES = {  # fra31/auto-attack at a392200
    "__init__": "model, norm, eps, seed, verbose, attacks_to_run, version, is_tf_model, device, log_path",
    "run_standard_evaluation": "x_orig, y_orig, bs, return_labels, state_path",
    "run_standard_evaluation_individual": "x_orig, y_orig, bs, return_labels",
    "clean_accuracy": "x_orig, y_orig, bs",
    "set_version": "version",
}


@pytest.fixture(scope="module")
def models():
    space: dict = {"__name__": "models_of_test"}
    exec(MODELS, space)
    return space


@pytest.fixture(scope="module")
def digits(models):
    data = load_dataset("digits")
    return models["linear"](), data.x[:24], data.y[:24]


def suite(model, attacks=("apgd-ce", "square"), **options):
    made = autoattack.AutoAttack(
        model, eps=0.1, seed=0, device="cpu", version="custom", attacks_to_run=attacks, **options
    )
    made.apgd.n_restarts, made.square.n_queries = 1, 50
    return made


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_module_has_the_signature_of_fra31(name):
    given = list(inspect.signature(getattr(autoattack.AutoAttack, name)).parameters)
    assert ", ".join(given[1:]) == SIGNATURES[name]


def test_the_module_knows_nothing_of_purebench():
    for file in Path(autoattack.__file__).parent.glob("*.py"):
        names = {
            n.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Import) for n in node.names
        }
        names |= {node.module for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)}
        assert not {n.partition(".")[0] for n in names} & {"bench", "defenses", "leaderboards"}


def test_the_module_gives_what_pyautoattack_gives(digits, tmp_path, capsys):
    model, x, y = digits
    direct = pyautoattack.AutoAttack(model, attacks=["apgd-ce", "square"], eps=0.1, seed=0, version="custom")
    direct.apgd.n_restarts, direct.square.n_queries = 1, 50
    expected, classes = direct.run_standard_evaluation(x, y, batch_size=10)
    log = tmp_path / "log.txt"
    given = suite(model, log_path=log)
    assert torch.equal(given.run_standard_evaluation(x, y, 10), expected)
    assert "initial accuracy" in capsys.readouterr().out
    assert "robust accuracy after SQUARE" in log.read_text()
    quiet = suite(model, verbose=False)
    assert torch.equal(quiet.run_standard_evaluation(x, y, bs=10, return_labels=True)[1], classes)
    assert capsys.readouterr().out == ""
    assert quiet.clean_accuracy(expected, y) == float((classes == y).double().mean())


def test_every_attack_by_itself(digits):
    model, x, y = digits
    whole = suite(model, verbose=False)
    found = whole.run_standard_evaluation_individual(x, y, bs=24)
    assert list(found) == whole.attacks_to_run == ["apgd-ce", "square"]
    alone = suite(model, ["square"], verbose=False).run_standard_evaluation(x, y, bs=24)
    assert torch.equal(found["square"], alone)


def test_a_warning_is_printed_even_when_quiet(models, capsys):
    data = load_dataset("digits")
    suite(models["Probabilities"](), ["apgd-ce"], verbose=False).run_standard_evaluation(data.x[:4], data.y[:4])
    assert "Warning: it seems that the output is a probability distribution" in capsys.readouterr().out


def test_an_interrupted_evaluation_goes_on(digits, tmp_path):
    model, x, y = digits
    expected = suite(model, verbose=False).run_standard_evaluation(x, y, bs=24)
    path = tmp_path / "state.json"
    first = suite(model, verbose=False)
    first.square.perturb = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        first.run_standard_evaluation(x, y, bs=24, state_path=path)
    assert EvaluationState.from_disk(path).run_attacks == {"apgd-ce"}
    second = suite(model, verbose=False)
    second.apgd.perturb = None  # is not asked again
    x_adv, y_adv = second.run_standard_evaluation(x, y, bs=24, return_labels=True, state_path=path)
    state = EvaluationState.from_disk(path)
    withstood = model(expected).argmax(1) == y
    assert torch.equal(state.robust_flags.bool(), withstood)
    assert 0 < state.robust_accuracy < state.clean_accuracy
    assert torch.equal(y_adv, model(x_adv).argmax(1))
    by_square = (x_adv != x).flatten(1).any(1)
    assert torch.equal(x_adv[by_square], expected[by_square])
    with pytest.raises(ValueError, match="give another path"):
        suite(model, ["fab"], verbose=False).run_standard_evaluation(x, y, state_path=path)


class Mean(nn.Module):
    """The nearest class mean of CIFAR-10."""

    def __init__(self, data):
        super().__init__()
        means = torch.stack([data.x[data.y == c].mean(0).flatten() for c in range(10)])
        self.layer = nn.Linear(3072, 10)
        self.layer.weight.data, self.layer.bias.data = means, -means.square().sum(1) / 2
        self.requires_grad_(False).eval()

    def forward(self, x):
        return self.layer(x.flatten(1))


class Pull(nn.Module):
    """The score of a standard normal about grey."""

    def forward(self, x):
        return 0.5 - x


@pytest.fixture(scope="module")
def cifar(need_data):
    return Mean(need_data("cifar10").select(range(2000)))


def theirs(model, monkeypatch, n=8, **more):
    """(what RobustBench's benchmark returns, what it scored); the clock that seeds its attack stands still."""
    from robustbench import eval as robustbench_eval

    scored = []

    def score(model, x, *arguments, **options):
        scored.append(x.clone())
        return original(model, x, *arguments, **options)

    def fewer(self, version):
        self._set_version(version)
        self.square.n_queries, self.fab.n_iter = 50, 5
        self.apgd_targeted.n_target_classes = self.fab.n_target_classes = 2

    original = robustbench_eval.clean_accuracy
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 1.7e9)
        patch.setattr(robustbench_eval, "clean_accuracy", score)
        patch.setattr(autoattack.AutoAttack, "set_version", fewer)
        options = {"dataset": "cifar10", "threat_model": "Linf", "eps": 4 / 255, "data_dir": str(data_root())} | more
        return robustbench_eval.benchmark(model, n_examples=n, batch_size=n, **options), scored


@pytest.mark.slow
def test_robustbench_benchmarks_a_defense_as_the_bare_network(cifar, monkeypatch, tmp_path):
    bare, scored = theirs(cifar, monkeypatch)
    defense = Classifier(cifar, num_classes=10, input_shape=(3, 32, 32))
    wrapped, again = theirs(defense, monkeypatch)
    assert wrapped == bare
    assert all(torch.equal(a, b) for a, b in zip(scored, again, strict=True))
    assert 0 < bare[1] < bare[0]
    state = tmp_path / "state.json"
    kept, _ = theirs(defense, monkeypatch, aa_state_path=state)
    assert kept == bare
    assert theirs(defense, monkeypatch, aa_state_path=state)[0] == bare


@pytest.mark.slow
def test_robustbench_benchmarks_a_trained_network_at_its_full_budget(need_data, monkeypatch):
    from robustbench import eval as robustbench_eval

    from defenses.networks.registry import build_network
    from defenses.zoo.checkpoint_checks import load_tensors

    need_data("cifar10")
    path = data_root().parent / "models" / "cifar10-resnet20.safetensors"
    if not path.is_file():
        pytest.skip(f"{path.name} is not at hand")
    network = build_network("resnet20", mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]).eval()
    load_tensors(network, path.read_bytes(), path)
    figures = []
    for model in (network, Classifier(network, num_classes=10, input_shape=(3, 32, 32))):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: 1.7e9)
            options = {"dataset": "cifar10", "threat_model": "Linf", "eps": 8 / 255, "data_dir": str(data_root())}
            figures.append(robustbench_eval.benchmark(model, n_examples=8, **options))
    assert figures[0] == figures[1]
    assert figures[0][0] >= 7 / 8
    assert figures[0][1] == 0  # naturally trained


def test_robustbench_benchmarks_purifiers(cifar, models, monkeypatch):
    classifier = Classifier(cifar, num_classes=10, input_shape=(3, 32, 32))
    noisy = models["Purified"](models["Jitter"](), classifier, runs=2)
    adp = Purified(ADP(Pull(), steps=2), classifier, runs=1)
    for defense in (noisy, adp):
        (clean, robust), scored = theirs(defense, monkeypatch, n=4)
        assert {clean, robust} <= {0, 0.25, 0.5, 0.75, 1}  # its draws are its own, so either may be the larger one
        assert torch.equal(scored[0], load_dataset("cifar10").x[:4])
        assert float((scored[1] - scored[0]).abs().amax()) <= 4 / 255 + 1e-6
