"""RobustBench unchanged: its benchmark() on our defenses, and its models by name."""

import ast
import inspect
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import autoattack
import numpy as np
import pyautoattack
import pytest
import torch
from autoattack.state import EvaluationState
from boards import MODELS, purebench_here
from torch import nn

from bench import benchmark
from bench.board import load_board
from bench.data import data_root, load_dataset
from bench.describe import describe, describe_loaded
from defenses import load_model, robustbench_zoo
from defenses.adp import build
from defenses.base import Classifier
from defenses.errors import UserError

SMALL = "Hendrycks2020AugMix_WRN"  # 2.2 million parameters
CORRUPT = {"dataset": "cifar10", "threat_model": "corruptions"}
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


@pytest.mark.slow
def test_robustbench_is_imported_by_a_plain_python(tmp_path):
    code = "import sys, robustbench.eval, robustbench.data; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not {"bench", "defenses"} & set(ast.literal_eval(done.stdout))


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

    from defenses.networks import build_network
    from defenses.weights_io import load_tensors

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
    adp = build(lambda n: Pull() if n == "adp" else cifar, num_classes=10, input_shape=(3, 32, 32), runs=1, steps=2)
    for defense in (noisy, adp):
        (clean, robust), scored = theirs(defense, monkeypatch, n=4)
        assert {clean, robust} <= {0, 0.25, 0.5, 0.75, 1}  # its draws are its own, so either may be the larger one
        assert torch.equal(scored[0], load_dataset("cifar10").x[:4])
        assert float((scored[1] - scored[0]).abs().amax()) <= 4 / 255 + 1e-6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder with a fresh network under the name of a model of the zoo."""
    from robustbench.model_zoo.cifar10 import common_corruptions

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("weights")
    path = root / "robustbench" / "cifar10" / "corruptions" / f"{SMALL}.pt"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": common_corruptions[SMALL]["model"]().state_dict()}, path)
    return root, path


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No weights at hand, and an empty cache."""
    monkeypatch.delenv("PUREBENCH_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "purebench" / "weights" / "robustbench" / "cifar10" / "corruptions"


def test_a_model_of_the_zoo_is_what_robustbench_loads(checkpoint, nowhere):
    from robustbench.utils import load_model as their_load_model

    root, _ = checkpoint
    before = torch.random.get_rng_state()
    model = load_model(f"robustbench:{SMALL}", weights_root=root, **CORRUPT)
    assert torch.equal(torch.random.get_rng_state(), before)
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    direct = their_load_model(SMALL, model_dir=root / "robustbench", **CORRUPT)
    assert torch.equal(model(x), direct(x))
    assert not model.stochastic
    assert (model.num_classes, model.input_shape) == (10, (3, 32, 32))


def test_a_model_of_the_zoo_has_one_fingerprint(checkpoint, nowhere):
    import hashlib

    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    root, path = checkpoint
    entry = {"name": f"robustbench:{SMALL}", "params": {"threat_model": "corruptions"}}
    reference = describe(entry, "cifar10-c/fog/5", weights_root=root)
    enums = {"dataset": BenchmarkDataset.cifar_10, "threat_model": ThreatModel.corruptions}
    loaded = describe_loaded(load_model(f"robustbench:{SMALL}", weights_root=root, **enums), None, name="")
    assert loaded == reference
    assert reference.fingerprint["weights"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    assert (reference.fingerprint["threat_model"], reference.fingerprint["robustbench"]) == ("corruptions", "1.1.1")


def test_the_zoo_is_read_as_robustbench_lists_it():
    from robustbench.model_zoo import model_dicts

    for dataset, by_threat in model_dicts.items():
        for threat, listed in by_threat.items():
            assert robustbench_zoo.names(dataset.value, threat.value) == list(listed)
            for name, facts in listed.items():
                entry = robustbench_zoo.find(
                    f"robustbench:{name}", "own.npz", {"trained_on": dataset.value, "threat_model": threat.value}
                )
                ids = facts["gdrive_id"]
                assert entry.ids == (tuple(ids) if isinstance(ids, list) else (ids,) if ids else ())
                assert not isinstance(ids, list) or len(ids) > 1
                assert entry.preprocessing == facts.get("preprocessing")


@pytest.mark.parametrize(
    ("name", "dataset", "params", "words"),
    [
        ("Wong2020Fas", "cifar10", {}, "did you mean Wong2020Fast"),
        ("Wong2020Fast", "digits", {}, "is for cifar10, cifar100, imagenet"),
        ("Wong2020Fast", "cifar10", {"threat_model": "Linff"}, "did you mean Linf"),
        ("Wong2020Fast", "cifar10", {"threat_model": "L2"}, 'give it threat_model = "Linf"'),
        ("Wong2020Fast", "cifar10", {"treat_model": "L2"}, "did you mean threat_model"),
        ("Wong2020Fast", "imagenet", {}, 'dataset = "imagenet/Crop288"'),
    ],
)
def test_names_of_the_zoo_that_do_not_exist(name, dataset, params, words):
    with pytest.raises(UserError, match=words) as caught:
        load_model(f"robustbench:{name}", dataset, **params)
    assert "\n" not in str(caught.value)


def test_weights_that_change_before_they_are_loaded_are_refused(checkpoint, nowhere, tmp_path):
    from bench.run import Options
    from bench.work import Workshop

    nowhere.mkdir(parents=True)
    file = nowhere / f"{SMALL}.pt"
    file.write_bytes(checkpoint[1].read_bytes())
    np.savez(tmp_path / "own.npz", x=np.zeros((4, 3, 32, 32), np.float32), y=np.arange(4), num_classes=10)
    path = tmp_path / "zoo.toml"
    path.write_text(BOARD.format(data=tmp_path / "own.npz", model=SMALL))
    board = load_board(path)
    cell = board.cells()[0]
    assert Workshop(board, Options()).defense(cell).num_classes == 10
    content = torch.load(file)
    content["state_dict"]["fc.bias"] += 1
    torch.save(content, file)
    with pytest.raises(UserError, match="changed while the board was read"):
        Workshop(board, Options()).defense(cell)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_is_never_unpickled(nowhere, tmp_path, monkeypatch):
    nowhere.mkdir(parents=True)
    torch.save({"state_dict": {"a": Bomb(tmp_path / "ran")}}, nowhere / f"{SMALL}.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(UserError, match="holds more than tensors") as caught:
        load_model(f"robustbench:{SMALL}", **CORRUPT)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"


def test_a_damaged_checkpoint_is_named(checkpoint, nowhere):
    nowhere.mkdir(parents=True)
    file = nowhere / f"{SMALL}.pt"
    file.write_bytes(checkpoint[1].read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"WRN\.pt cannot be loaded: .*mend it or remove it"):
        load_model(f"robustbench:{SMALL}", **CORRUPT)
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, file)
    with pytest.raises(UserError, match="cannot be loaded: RuntimeError: Error"):
        load_model(f"robustbench:{SMALL}", **CORRUPT)


def download(monkeypatch, content, error=None):
    """Let Google Drive send this."""
    import robustbench.utils

    def send(id, output):
        Path(output).write_bytes(content)
        if error is not None:
            raise error

    monkeypatch.setattr(robustbench.utils.gdown, "download", send)


def test_a_model_is_downloaded_once(checkpoint, nowhere, monkeypatch, capsys):
    download(monkeypatch, checkpoint[1].read_bytes())
    load_model(f"robustbench:{SMALL}", **CORRUPT)
    assert [f.name for f in nowhere.iterdir()] == [f"{SMALL}.pt"]
    assert capsys.readouterr().out == ""
    download(monkeypatch, b"", OSError("not twice"))
    load_model(f"robustbench:{SMALL}", **CORRUPT)


@pytest.mark.parametrize("kind", ["half", "page", "nothing"])
def test_a_failed_download_leaves_nothing_and_says_what_to_do(checkpoint, nowhere, monkeypatch, kind):
    half = checkpoint[1].read_bytes()[:50_000]
    error = ConnectionError("the line\nbroke") if kind == "nothing" else None
    download(monkeypatch, {"half": half, "page": b"<html>quota</html>", "nothing": half}[kind], error)
    with pytest.raises(UserError, match="could not be downloaded") as caught:
        load_model(f"robustbench:{SMALL}", **CORRUPT)
    message = str(caught.value)
    assert "\n" not in message
    assert str(nowhere / f"{SMALL}.pt") in message
    assert "https://drive.google.com/file/d/" in message
    assert list(nowhere.iterdir()) == []


def test_models_that_timm_hosts_go_up_to_the_download(nowhere, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked = []

    def no_network(url, *_, **__):
        asked.append(getattr(url, "full_url", url))
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.urlopen", no_network)
    with pytest.raises(UserError, match=r"OSError: no network\); save https://.*xcit-s-cifar10-linf.pth.tar by hand"):
        load_model("robustbench:Debenedetti2022Light_XCiT-S12", "cifar10")
    assert len(asked) == 1


BOARD = """
dataset = "{data}"
[threat]
norm = "Linf"
eps = "8/255"
[[defense]]
name = "robustbench:{model}"
params = {{ threat_model = "corruptions", trained_on = "cifar10" }}
[[attack]]
name = "foolbox:LinfFastGradientAttack"
"""


def test_a_model_of_the_zoo_on_a_board(checkpoint, nowhere, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((4, 3, 32, 32), np.float32), rng.integers(0, 10, 4)
    np.savez(tmp_path / "own.npz", x=x, y=y, num_classes=10)
    board = tmp_path / "zoo.toml"
    board.write_text(BOARD.format(data=tmp_path / "own.npz", model=SMALL))
    out = tmp_path / "out"
    done = purebench_here("run", board, "--out", out, "--weights-root", checkpoint[0])
    assert done.returncode == 0, done.stderr
    keys = {json.loads(line)["key"] for line in (out / "plan.jsonl").read_text().splitlines()}
    model = load_model(f"robustbench:{SMALL}", weights_root=checkpoint[0], **CORRUPT)
    again = benchmark(model, dataset=str(tmp_path / "own.npz"), eps=8 / 255, attacks="foolbox:LinfFastGradientAttack")
    assert set(again["defense"]) == {f"robustbench:{SMALL}"}
    assert set(again["cell"]) == keys == {c.key for c in load_board(board, weights_root=checkpoint[0]).cells()}
