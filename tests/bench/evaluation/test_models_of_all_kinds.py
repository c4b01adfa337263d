"""Exported, quantised and unusual models run as any other, or are refused with a remedy that works."""

import pickle
import re
import warnings

import pytest
import torch
from boards import purebench_here
from torch import nn

import bench
from defenses import FixedBatch, load_model
from defenses.data import load_dataset
from defenses.utils.errors import UserError
from defenses.utils.identity import identity

FEW = {"n_examples": 4, "eps": "1/5", "attacks": "foolbox:LinfFastGradientAttack"}
pytestmark = pytest.mark.filterwarnings("ignore:.*(TorchScript|torch.jit|quantiz|GraphModule|is deprecated).*")


@pytest.fixture(scope="module")
def network():
    return load_model("undefended").network.eval()


@pytest.fixture(scope="module")
def x():
    return load_dataset("digits").x[:4]


def few(model, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = bench.benchmark(model, **{**FEW, **more})
    return frame.groupby("attack", sort=False)["accuracy"].mean().tolist()


def exported(network, x, size=None):
    rows = {0: torch.export.Dim("rows")} if size is None else None
    return torch.export.export(network, (x[:size],), dynamic_shapes=None if rows is None else (rows,))


def scripted(network, x, kind):
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    makers = {
        "trace": lambda: torch.jit.trace(network, x),
        "script": lambda: torch.jit.script(plain),
        "frozen": lambda: torch.jit.freeze(torch.jit.script(plain)),
    }
    return makers[kind]()


@pytest.mark.parametrize("kind", ["trace", "script", "frozen"])
def test_torchscript_runs_and_is_resumed(network, x, kind, tmp_path):
    torch.manual_seed(0)
    torch.jit.save(scripted(network, x, kind), tmp_path / "net.pt")
    models = [torch.jit.load(tmp_path / "net.pt") for _ in range(2)]
    first = bench.benchmark(models[0], out=tmp_path / "out", **FEW)
    assert first.query("attack == 'foolbox:LinfFastGradientAttack'")["forwards"].min() >= 1
    again = bench.benchmark(models[1], out=tmp_path / "out", **FEW)
    assert list(again["seconds"]) == list(first["seconds"])
    if kind == "trace":
        assert few(network) == first.groupby("attack", sort=False)["accuracy"].mean().tolist()


def test_the_identity_of_torchscript_is_its_code_and_tensors(network, x, tmp_path):
    torch.jit.save(torch.jit.trace(network, x), tmp_path / "net.pt")
    digest = identity(torch.jit.load(tmp_path / "net.pt"))
    assert digest.complete
    torch.jit.trace(nn.Sequential(nn.Flatten()).eval(), x)  # moves the numbers of compiled classes on
    again = torch.jit.load(tmp_path / "net.pt")
    assert identity(again) == digest
    next(again.parameters()).data[0] += 1
    assert identity(again) != digest


def test_exported_programs_run_and_are_resumed(network, x, tmp_path):
    torch.export.save(exported(network, x), tmp_path / "net.pt2")
    models = [torch.export.load(tmp_path / "net.pt2").module() for _ in range(2)]
    assert identity(models[0]) == identity(models[1])
    first, again = (bench.benchmark(m, out=tmp_path / "out", **FEW) for m in models)
    assert list(again["seconds"]) == list(first["seconds"])
    assert few(network) == first.groupby("attack", sort=False)["accuracy"].mean().tolist()
    with pytest.raises(UserError, match=r"ExportedProgram; give its module: model\.module\(\)"):
        few(exported(network, x))


def test_a_module_around_an_exported_program_says_how_it_leaves_train_mode(network, x):
    assert few(nn.Sequential(exported(network, x).module())) == few(network)  # no code of it reads its mode
    around = nn.Sequential(exported(network, x).module(), nn.Dropout(0.5))
    with pytest.raises(UserError, match=r"set \.training = False there, as the exported program in it refuses eval"):
        few(around)
    around.training = around[1].training = False
    assert few(around) == few(network)


def test_own_files_of_exported_models(network, x, tmp_path):
    torch.jit.save(torch.jit.trace(network, x), tmp_path / "script.pt")
    torch.export.save(exported(network, x), tmp_path / "net.pt2")
    (tmp_path / "own.py").write_text(
        "import pathlib, torch\nhere = pathlib.Path(__file__).parent\n"
        "def script():\n    return torch.jit.load(str(here / 'script.pt'))\n"
        "def program():\n    return torch.export.load(str(here / 'net.pt2'))\n"
        "def exported():\n    return program().module()\n"
    )
    words = (
        "--dataset",
        "digits",
        "--eps",
        "1/5",
        "--indices",
        "first-3",
        "--workers",
        "0",
        "--attack",
        "bench:square",
    )
    for name in ("script", "exported"):
        command = ("run", "--defense", f"{tmp_path}/own.py:{name}", *words, "--out", tmp_path / name)
        assert purebench_here(*command).returncode == 0
        assert "[" not in purebench_here(*command).stderr  # nothing is run again
    told = purebench_here("run", "--defense", f"{tmp_path}/own.py:program", *words, "--out", tmp_path / "none")
    assert told.returncode == 2
    assert told.stderr.endswith('own.py:program" is no torch.nn.Module but ExportedProgram; return its .module()\n')


class Viewed(nn.Module):
    """A batch size in its code."""

    def __init__(self, network, size):
        super().__init__()
        self.network, self.size = network, size
        self.eval()

    def forward(self, x):
        return self.network(x.view(self.size, -1).view(self.size, 1, 8, 8))


class Squeezed(Viewed):
    """Takes no single image."""

    def forward(self, x):
        return self.network(x.squeeze().unsqueeze(1))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda n, x: Viewed(n, 32), r"it takes batches of 32; .* defenses\.FixedBatch\(model, 32\)"),
        (lambda n, x: exported(n, x, 2).module(), r"it takes batches of 2; .* defenses\.FixedBatch\(model, 2\)"),
        (lambda n, x: Squeezed(n, 0), r"Squeezed takes no batch of one image .* defenses\.FixedBatch\(model, 4\)"),
    ],
)
def test_a_model_of_one_batch_size_is_wrapped(network, x, make, words):
    model = make(network, x)
    with pytest.raises(UserError, match=words) as told:
        few(model)
    size = int(re.search(r"FixedBatch\(model, (\d+)\)", str(told.value))[1])
    assert few(FixedBatch(model, size)) == few(network)


def test_fixed_batches_leave_each_image_its_logits(network):
    x = load_dataset("digits").x[:7].requires_grad_()
    wrapped = FixedBatch(Viewed(network, 4), 4)
    assert torch.allclose(wrapped(x), network(x), atol=1e-5)
    (ours,), (theirs,) = (torch.autograd.grad(m(x)[:, 3].sum(), x) for m in (wrapped, network))
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.equal(pickle.loads(pickle.dumps(wrapped))(x), wrapped(x))
    with pytest.raises(UserError, match="size is 0; it must be a whole number, at least 1"):
        FixedBatch(network, 0)


class Sized(nn.Module):
    """As timm's transformers: one size of images alone."""

    def __init__(self, channels=1):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layer = nn.Linear(channels * 32 * 32, 10)
        self.layer.weight.data = torch.randn(self.layer.weight.shape, generator=generator) / 10
        self.channels = channels
        self.eval()

    def forward(self, x):
        assert x.shape[1] == self.channels, f"expected {self.channels} channels."
        assert x.shape[-1] == 32, f"Input height ({x.shape[-1]}) doesn't match model (32)."
        return self.layer(x.flatten(1))


def test_a_model_of_another_size_says_which_and_how_to_resize():
    import torchvision

    with pytest.raises(UserError) as told:
        few(Sized())
    assert str(told.value) == (
        "Sized does not take 4 images of 1x8x8: Input height (8) doesn't match model (32).; it takes images of 32x32 "
        "pixels; put the size before it: torch.nn.Sequential(torchvision.transforms.Resize((32, 32)), model)"
    )
    resized = eval("torch.nn.Sequential(torchvision.transforms.Resize((32, 32)), model)",
                   {"torch": torch, "torchvision": torchvision, "model": Sized()})  # fmt: skip
    assert len(few(resized.eval())) == 3


def test_a_model_of_other_channels_says_how_to_make_them():
    with pytest.raises(
        UserError, match=r"takes images of 32x32 pixels and 3 channels; call it on .*Resize.*x\.expand\("
    ):
        few(Sized(3))


def test_dropout_that_is_meant_stays_on(network):
    model, data = nn.Sequential(nn.Dropout(0.5), network).train(), load_dataset("digits")
    with pytest.raises(
        UserError, match=r"if dropout is meant to stay on, declare it random: .*, stochastic=True in Py"
    ):
        few(model)
    draws = {"draws": 5, "selection": 2}
    frame = bench.benchmark(model, stochastic=True, **draws, **FEW)
    assert frame["stochastic"].all()
    assert frame["correct"].between(1, 4).any()  # some draws right, others wrong
    assert all(m.training for m in model.modules())
    alone = nn.Sequential(nn.Dropout(0.5), network.eval()).eval()
    alone[0].train()
    assert len(few(alone, stochastic=True, **draws)) == 3
    norm = nn.Sequential(nn.BatchNorm2d(1), network).train()
    with pytest.raises(UserError, match=r'Sequential \(its part "0"\) is in train mode; call \.eval\(\)'):
        few(norm, stochastic=True, **draws)
    with pytest.raises(UserError, match=r"in train mode; call .*, stochastic=True in Python"):
        bench.clean_accuracy(model, data.x[:4], data.y[:4])
    assert 0 <= bench.clean_accuracy(model, data.x[:4], data.y[:4], stochastic=True) <= 1
    network.eval()


def test_dropout_that_is_meant_on_the_command_line(tmp_path):
    (tmp_path / "own.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def dropped():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)).train()\n"
    )
    words = ("run", "--defense", f"{tmp_path}/own.py:dropped", "--dataset", "digits", "--eps", "1/5", "--indices")
    words = (*words, "first-3", "--workers", "0", "--attack", "foolbox:LinfFastGradientAttack", "--out", tmp_path / "o")
    told = purebench_here(*words)
    assert (told.returncode, "--stochastic in a command" in told.stderr) == (2, True)
    assert purebench_here(*words, "--stochastic").returncode == 0


def quantised(network):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8).eval()


def test_a_quantised_model_meets_attacks_without_gradients_alone(network):
    with pytest.raises(
        UserError, match=r"each image alone, as for dynamic quantisation: defenses\.FixedBatch\(model, 1\)"
    ):
        few(quantised(network))
    model = FixedBatch(quantised(network), 1)
    clean, _, attacked = few(model, attacks={"name": "bench:square", "queries": 200})
    assert attacked < clean == 1
    for attack in ("bench:pgd", "bench:adaptive", "foolbox:LinfPGD", "torchattacks:PGD", "autoattack:apgd-ce"):
        with pytest.raises(RuntimeError, match=r"have no gradient to the image .*as quantised ones.*as bench:square"):
            few(model, attacks=attack, n_examples=1)


def test_clean_accuracy_of_a_model_for_other_images_is_one_line():
    data = load_dataset("digits")
    with pytest.raises(UserError, match="it takes images of 32x32"):
        bench.clean_accuracy(Sized(), data.x[:4], data.y[:4])
