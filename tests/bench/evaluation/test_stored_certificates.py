"""Certificates are measured before a run, kept with its results, and missed in its tables."""

import json

import pytest
from boards import MODELS, purebench_here
from certificate_checks import KINKED, only_wide_differences

from bench.analysis.caveats import UNCERTIFIED
from bench.api.benchmark import benchmark
from bench.board.load import load_board
from bench.evaluation.certificates.stored import FILE, read
from bench.execution.options import Options
from bench.execution.run_board import run_board
from bench.spec.cell import digest
from defenses import load_model
from defenses.utils.errors import UserError

BOARD = """
name = "certified"
dataset = "digits"
indices = "first-6"
[threat]
norm = "Linf"
eps = "1/5"
[[defense]]
name = "adp"
[[defense]]
name = "undefended"
[[attack]]
name = "foolbox:LinfPGD"
params = { steps = 2 }
"""
HIDDEN = '''
from defenses.core.defense import Defense

class Hides(Defense):
    """Declares exact gradients and detaches them."""

    num_classes = 10

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10, bias=False)
        self.layer.weight.data = torch.linspace(-1, 1, 640).view(10, 64)
        self.eval()

    def logits(self, x, noise, *, gradient="exact", runs=None):
        return self.layer(x.detach().flatten(1))

class Pretends(Hides):
    """Straight through a rounding: a gradient that is not the one of its values."""

    def logits(self, x, noise, *, gradient="exact", runs=None):
        return self.layer((x + ((4 * x).round() / 4 - x).detach()).flatten(1))
'''


def board(folder, text=BOARD, defense=None):
    if defense is not None:
        (folder / "mine.py").write_text(MODELS + HIDDEN)
        text = text.replace('name = "undefended"', f'name = "{folder}/mine.py:{defense}"\nlabel = "mine"')
    path = folder / "certified.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certified")
    path = board(folder)
    assert run_board(load_board(path), folder / "out", Options(quiet=True)) == []
    return path, folder / "out"


def test_a_run_measures_and_keeps_them(certified):
    path, out = certified
    found = read(out)
    assert set(found) == {digest(d.fingerprint) for d in load_board(path).defenses}
    assert all(c["passed"] for c in found.values())
    assert UNCERTIFIED not in purebench_here("table", out, "--format", "markdown").stdout


def test_they_are_measured_once(certified, monkeypatch):
    path, out = certified
    text = path.read_text()
    path.write_text(text.replace("steps = 2", "steps = 3"))
    monkeypatch.setattr("bench.evaluation.certificates.measure.certify", None)  # would be called here, in this process
    assert run_board(load_board(path), out, Options(quiet=True, workers=0)) == []
    path.write_text(text)


def test_a_row_without_one_is_marked(certified, tmp_path):
    import shutil

    out = tmp_path / "out"
    shutil.copytree(certified[1], out)
    content = json.loads((out / FILE).read_text())
    (out / FILE).write_text(json.dumps(content | {"certificates": {}}))  # its checksum is wrong: it is not believed
    shown = purebench_here("table", out, "--format", "markdown").stdout
    assert shown.count(f"exact, 1 EOT x S runs {UNCERTIFIED}") == 1
    assert f"adp {UNCERTIFIED}" in shown
    assert "adp: no certificate; undefended: no certificate" in shown
    assert "gradient certificate: no certificate" in purebench_here("table", out, "--format", "csv").stdout
    done = purebench_here("certify", certified[0], "--out", out)
    assert done.returncode == 0
    assert done.stdout.count("passed on 4 images") == 2
    assert UNCERTIFIED not in purebench_here("table", out, "--format", "markdown").stdout


def test_a_gradient_that_is_not_that_of_the_values_is_named(tmp_path):
    path, out = board(tmp_path, defense="Pretends"), tmp_path / "out"
    assert run_board(load_board(path), out, Options(quiet=True, defenses=("mine",))) == []
    shown = purebench_here("table", out).stdout
    assert "mine: fails: float64 gradient against central differences" in " ".join(shown.split())
    done = purebench_here("certify", path, "--out", tmp_path / "none")
    assert done.returncode == 1
    assert "mine: FAILED" in done.stdout
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_defense_that_declares_exact_gradients_and_has_none_is_refused(tmp_path, workers):
    loaded = load_board(board(tmp_path, defense="Hides"))
    with pytest.raises(UserError, match="mine declares exact gradients and has none: leave"):
        run_board(loaded, tmp_path / "out", Options(quiet=True, workers=workers))
    assert [p for p in tmp_path.rglob("out/**/*") if p.is_file()] == []


def test_a_model_in_memory_has_one_where_results_are_kept(tmp_path):
    model = load_model("undefended", "digits")
    benchmark(model, 6, attacks=[{"name": "foolbox:LinfPGD", "steps": 1}], eps="1/5", out=tmp_path / "out")
    assert [c["passed"] for c in read(tmp_path / "out").values()] == [True]


def in_memory(defense, out):
    space = {"__name__": "models_of_test"}
    exec(MODELS + HIDDEN, space)
    attacks = [{"name": "foolbox:LinfPGD", "steps": 1}, {"name": "foolbox:LinfPGD", "steps": 2}]
    return benchmark(space[defense](), 6, attacks=attacks, eps="1/5", out=out, name="mine")


@pytest.mark.parametrize("kept", [True, False])
def test_a_model_in_memory_without_a_gradient_is_refused_before_any_attack(tmp_path, monkeypatch, kept):
    monkeypatch.setattr("bench.execution.run_board.run_cells", None)  # would do the cells
    with pytest.raises(UserError, match="mine declares exact gradients and has none: leave"):
        in_memory("Hides", tmp_path / "out" if kept else None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kept", [True, False])
def test_a_model_in_memory_whose_gradient_is_another_is_marked(tmp_path, kept):
    with pytest.warns(UserWarning, match=r"^mine: exact gradients that nothing certifies \(fails: float64 gradient"):
        frame = in_memory("Pretends", tmp_path / "out" if kept else None)
    marked = frame["warnings"].str.contains("gradient certificate: fails: float64 gradient against central differences")
    assert marked.equals(frame["attack"].str.startswith("foolbox:"))


def test_one_with_a_certificate_is_not_marked():
    frame = benchmark("undefended", 6, attacks=[{"name": "foolbox:LinfPGD", "steps": 1}], eps="1/5")
    assert frame["warnings"].str.contains("steps").any()  # of the short budget
    assert not frame["warnings"].str.contains("certificate").any()


def test_a_defense_by_name(capsys):
    done = purebench_here("certify", "adp", "--set", "sigma=1/8")
    assert done.returncode == 0
    assert "ok   the path through step_size contributes" in done.stdout
    assert "unknown defense" in purebench_here("certify", "nope").stderr


def test_one_that_is_not_measurable_has_its_own_exit_code(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(KINKED)
    name = f"{tmp_path}/net.py:made"
    done = purebench_here("certify", name)
    assert (done.returncode, done.stdout.startswith("net.py:made: passed on 4 images")) == (0, True)
    only_wide_differences(monkeypatch)
    done = purebench_here("certify", name)
    assert done.returncode == 3
    assert "net.py:made: not measurable on 4 images in float64" in done.stdout
    assert "  ?    float64 gradient against central differences: " in done.stdout
    assert "of 12 points left out, at kinks" in done.stdout


NOISY = '''
import torch
from defenses import load_model

class Noisy(torch.nn.Module):
    """A network behind noise of torch's global generator."""

    def __init__(self):
        super().__init__()
        self.net = load_model("undefended", dataset="digits")
        self.eval()

    def forward(self, x):
        return self.net(x + 0.1 * torch.randn_like(x))
'''


def test_a_random_module_by_name(tmp_path):
    (tmp_path / "noisy.py").write_text(NOISY)
    name = f"{tmp_path}/noisy.py:Noisy"
    done = purebench_here("certify", name)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "it is random; declare it random: stochastic = true in a board, --stochastic in a command" in done.stderr
    assert done.stdout == ""
    done = purebench_here("certify", name, "--stochastic")
    assert done.returncode == 0, done.stdout
    assert "ok   cosine of float32 and float64 gradients" in done.stdout


def test_a_random_module_by_name_and_preset(tmp_path):
    (tmp_path / "noisy.py").write_text(NOISY)
    what = "run", "--preset", "standard", "--dataset", "digits", "--eps", "1/5", "--indices", "first-2"
    asked = *what, "--defense", f"{tmp_path}/noisy.py:Noisy", "--out", tmp_path / "out"
    done = purebench_here(*asked)
    assert done.returncode == 2
    assert "--stochastic in a command" in done.stderr
    assert not (tmp_path / "out").exists()
    done = purebench_here(*asked, "--stochastic", "--attack", "autoattack:apgd-ce")
    assert done.returncode == 0, done.stderr
    assert [c["passed"] for c in read(tmp_path / "out").values()] == [True]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("certify", "adp", "--stochastic"), '(--stochastic) is for modules of your own; leave it out for "adp"'),
        (("certify", "quickstart", "--stochastic"), "--stochastic is for a single defense; a board says it itself"),
        (("certify", "quickstart", "--set", "sigma=1/8"), "--set is for a single defense"),
        (("run", "quickstart", "--stochastic"), "--stochastic is for a run without a board; in a board"),
    ],
)
def test_what_is_not_for_it_is_refused(asked, said):
    done = purebench_here(*asked)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(("end", "values"), [("softmax(-1)", "probabilities"), ("sigmoid()", "values in [0, 1]")])
def test_one_of_squashed_outputs_names_them(tmp_path, end, values):
    sharp = f"self.layer(x.flatten(1)).mul(60).{end}"
    path, out = board(tmp_path, defense="Hides"), tmp_path / "out"
    (tmp_path / "mine.py").write_text(
        MODELS + HIDDEN.replace("self.layer(x.detach().flatten(1))", sharp)  # so sure that no gradient is left
    )
    told = f"returns {values}; return logits (remove the softmax, sigmoid or clamp), or attacks lose gradients"
    done = purebench_here("certify", f"{tmp_path}/mine.py:Hides")
    assert done.returncode == 1
    assert f"mine.py:Hides: FAILED on 4 images in float64: {told}\n" in done.stdout
    assert run_board(load_board(path), out, Options(quiet=True, probabilities=frozenset(["mine"]))) == []
    assert f"(mine: {told})" in " ".join(purebench_here("table", out).stdout.split())


def test_a_value_is_printed_on_its_side_of_the_limit():
    from bench.evaluation.certificates.certificate import rounded

    assert rounded(0.99985, 0.9999) == "0.99985"
    assert (rounded(0.9999994, 0.9999), rounded(1e-7, 1e-6), rounded(1.0004e-6, 1e-6)) == ("1", "1e-07", "1.0004e-06")
    assert (rounded(float("inf"), 1), rounded(float("nan"), 1)) == ("inf", "nan")


def test_a_gradient_that_says_nothing_is_named():
    import torch
    from torch import nn

    from bench.evaluation.certificates.stored import certificate_of
    from defenses.core.defense import Classifier, Purified
    from defenses.purifiers.langevin import Langevin

    torch.manual_seed(0)
    energy = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.LeakyReLU(), nn.Linear(32, 1), nn.Flatten(0))
    behind = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), num_classes=10, input_shape=(1, 8, 8))
    defense = Purified(Langevin(energy, eps=0.1, steps=8), behind).requires_grad_(False)
    found = certificate_of(defense, torch.rand(4, 1, 8, 8), "leaky")
    assert not found["passed"]
    assert found["note"].startswith("exact gradients through leaky equal bpda")
    assert "smooth or difference" in found["note"]
