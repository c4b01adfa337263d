"""Every command and public function that judges a model checks it first, and sees answers that change later."""

from __future__ import annotations

import subprocess

import pytest
import torch
from boards import purebench_here
from torch import nn

from bench import benchmark, clean_accuracy, load_results
from bench.analysis.results import load_cells
from defenses import load_model
from defenses.data import load_dataset
from defenses.utils.errors import UserError

MODELS = """
import torch
from torch import nn
from defenses import load_model
from defenses.utils.plugins import load_object


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = load_model("undefended").network
        self.eval()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.answer(x, self.inner(x))


class Trained(Base):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.9)
        self.drop.train()

    def answer(self, x, z):
        return self.drop(z)


class Column(Base):
    def answer(self, x, z):
        return z.argmax(1, keepdim=True).float()


class NotANumber(Base):
    def answer(self, x, z):
        return z * float("nan")


class Random(Base):
    def answer(self, x, z):
        return z + torch.randn_like(z)


class Unsure(Base):
    '''Draws for images that it is not sure of.'''

    def answer(self, x, z):
        top = z.softmax(1).amax(1, keepdim=True)
        return torch.where(top < 0.9, z + 5 * torch.randn_like(z), z)


class Rarely(Base):
    '''Draws in one call of twenty.'''

    def answer(self, x, z):
        return z + torch.randn_like(z) if self.calls % 20 == 0 else z


class Tired(Base):
    '''Answers otherwise after 60 calls.'''

    def answer(self, x, z):
        return z if self.calls < 60 else z.flip(1)
"""

BOARD = """
dataset = "digits"
indices = "first-{n}"
block = {n}
threat = {{ norm = "Linf", eps = "1/5" }}
defense = [{{ name = "{path}:{model}", label = "own" }}]
attack = [{{ name = "foolbox:LinfPGD", params = {{ steps = 40 }} }}]
"""


@pytest.fixture
def models(tmp_path):
    path = tmp_path / "models_of_gate.py"
    path.write_text(MODELS)
    return path


COMMANDS = {
    "run": ("run", "b.toml", "--out", "out"),
    "certify": ("certify", "{model}"),
    "corruptions": ("corruptions", "{model}", "--corruptions", "contrast", "--severities", "1", "--out", "out"),
    "smooth": ("smooth", "gaussian-noise", "--set", "classifier={model}", "--sigma", "1/4", "--out", "out"),
    "judge": ("judge", "x.npz", "--defense", "{model}", "--eps", "1/5", "--out", "out"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("Trained", "is in train mode"),
        ("Column", "it must be"),
        ("NotANumber", "returns NaN or infinite logits"),
        ("Random", "--stochastic"),
    ],
)
def test_no_command_judges_a_model_without_its_checks(command, model, words, models, tmp_path, monkeypatch, capsys):
    from bench.cli.main import main

    if command == "smooth" and model in ("Trained", "Random"):
        pytest.skip("a composition puts its classifier into evaluation mode, and refuses a random one by itself")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.toml").write_text(BOARD.format(n=8, path=models, model=model))
    data = load_dataset("digits")
    import numpy as np

    np.savez(tmp_path / "x.npz", x_adv=data.x[:4].numpy(), index=np.arange(4), y=data.y[:4].numpy())
    code = main([part.replace("{model}", f"{models}:{model}") for part in COMMANDS[command]])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2, error
    assert words in error
    assert not list(tmp_path.glob("out/**/*.jsonl"))
    assert not (tmp_path / "out").exists() or command == "judge"


@pytest.mark.parametrize(
    ("model", "words"),
    [("Trained", "is in train mode"), ("Column", "the model has 1 classes"), ("NotANumber", "returns NaN")],
)
def test_clean_accuracy_checks_the_model(model, words, models):
    from defenses.utils.plugins import load_object

    data = load_dataset("digits")
    with pytest.raises(UserError, match=words):
        clean_accuracy(load_object(f"{models}:{model}")(), data.x[:50], data.y[:50])


def test_clean_accuracy_refuses_labels_of_another_shape():
    data, model = load_dataset("digits"), load_model("undefended")
    assert clean_accuracy(model, data.x[:50], data.y[:50]) > 0.9
    for labels in (data.y[:50, None], data.y[:50].float(), data.y[:50] + 5):
        with pytest.raises(UserError, match="labels"):
            clean_accuracy(model, data.x[:50], labels)


class Noisy(nn.Module):
    def forward(self, x):
        return torch.randn(len(x), 10)


class NoisyLater(nn.Module):
    """A network that draws for images beyond the first ones alone."""

    def forward(self, x):
        z = x.flatten(1)[:, :10]
        return z if len(x) < 50 else z + torch.randn_like(z)


@pytest.mark.parametrize("model", [Noisy, NoisyLater])
def test_clean_accuracy_of_random_models_is_declared(model):
    data = load_dataset("digits")
    with pytest.raises(UserError, match="stochastic=True in Python"):
        clean_accuracy(model().eval(), data.x[:50], data.y[:50])
    assert 0 <= clean_accuracy(model().eval(), data.x[:50], data.y[:50], stochastic=True) < 0.5


def test_clean_accuracy_takes_any_device_and_size():
    data = load_dataset("digits")
    assert clean_accuracy(load_model("undefended"), data.x[:1], data.y[:1], device="cpu") == 1


@pytest.mark.parametrize("model", ["Unsure", "Tired"])
@pytest.mark.parametrize("workers", [0, 1])
def test_answers_that_change_later_are_errors_on_record(model, workers, models, tmp_path):
    board = tmp_path / "b.toml"
    board.write_text(BOARD.format(n=40, path=models, model=model))
    done = purebench_here("run", board, "--out", tmp_path / "out", "--workers", workers, "--quiet")
    assert done.returncode == 2
    cells = load_cells(tmp_path / "out").set_index("attack")
    assert cells.loc["foolbox:LinfPGD", "status"] == "error"
    assert "stochastic = true" in cells.loc["foolbox:LinfPGD", "error"]
    assert load_results(tmp_path / "out").query("attack == 'foolbox:LinfPGD'")["accuracy"].isna().all()


def test_a_model_that_draws_in_one_call_of_twenty_is_refused(models, tmp_path):
    board = tmp_path / "b.toml"
    board.write_text(BOARD.format(n=8, path=models, model="Rarely"))
    done = purebench_here("run", board, "--out", tmp_path / "out", "--workers", 0, "--quiet")
    assert done.returncode == 2
    assert "--stochastic" in done.stderr


def test_a_second_verdict_is_no_cost(models, tmp_path):
    frame = benchmark(load_model("undefended").network, n_examples=8, eps="1/5", attacks="bench:pgd")
    assert (frame.query("attack == 'none'")["forwards_verdict"] == 1).all() if "forwards_verdict" in frame else True
    cells = tmp_path / "out"
    benchmark(load_model("undefended").network, n_examples=8, eps="1/5", attacks="bench:pgd", out=cells)
    assert set(load_cells(cells)["forwards_verdict"]) == {8}


def test_a_registered_defense_is_not_judged_twice(tmp_path, monkeypatch):
    from bench.evaluation import steadiness

    monkeypatch.setattr(steadiness, "verdict", lambda *_, **__: pytest.fail("judged again"))
    benchmark("undefended", n_examples=4, eps="1/5", attacks="bench:pgd")


def test_a_declared_random_module_runs(models, tmp_path):
    board = tmp_path / "b.toml"
    text = BOARD.format(n=8, path=models, model="Unsure").replace('label = "own"', 'label = "own", stochastic = true')
    board.write_text(text + "verdict = { draws = 3, selection = 1 }\n")
    done: subprocess.CompletedProcess[str] = purebench_here("run", board, "--out", tmp_path / "out", "--quiet")
    assert done.returncode == 0, done.stderr
