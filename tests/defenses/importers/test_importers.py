"""Published checkpoints: files of Hill's format, made from random weights, and what is refused."""

import pytest
import torch
from torch import nn

from bench.cli.main import main
from defenses.importers.registry import import_weights
from defenses.utils.errors import UserError
from defenses.zoo.checkpoints import load_network, read_sidecar


class Energy(nn.Module):
    """The energy of ebm-defense by its names."""

    def __init__(self, channels=3, f=4):
        super().__init__()
        layers = [nn.Conv2d(channels, f, 3, 1, 1)]
        for i in range(3):
            layers += [nn.LeakyReLU(0.05), nn.Conv2d(f * 2**i, f * 2 ** (i + 1), 4, 2, 1)]
        self.f = nn.Sequential(*layers, nn.LeakyReLU(0.05), nn.Conv2d(8 * f, 1, 4))

    def forward(self, x):
        return self.f(x).flatten()


def random_classifier(width=1, classes=10):
    """A state dict by the names of ebm-defense's classifier, depth 10."""
    shapes = {"conv1.weight": (16, 3, 3, 3), "conv1.bias": (16,)}

    def norm(name, n):
        shapes.update({f"{name}.{k}": (n,) for k in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    wide = 16
    for i in (1, 2, 3):
        out, at = 16 * width * 2 ** (i - 1), f"layer{i}.0"
        norm(f"{at}.bn1", wide)
        norm(f"{at}.bn2", out)
        shapes |= {f"{at}.conv1.weight": (out, wide, 3, 3), f"{at}.conv1.bias": (out,)}
        shapes |= {f"{at}.conv2.weight": (out, out, 3, 3), f"{at}.conv2.bias": (out,)}
        if wide != out or i > 1:
            shapes |= {f"{at}.shortcut.0.weight": (out, wide, 1, 1), f"{at}.shortcut.0.bias": (out,)}
        wide = out
    norm("bn1", wide)
    shapes |= {"linear.weight": (classes, wide), "linear.bias": (classes,)}
    torch.manual_seed(0)
    return {
        n: torch.tensor(7) if n.endswith("tracked") else torch.rand(s) if n.endswith("var") else torch.randn(s) / 8
        for n, s in shapes.items()
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_energy(tmp_path, zipped):
    torch.manual_seed(0)
    energy = Energy()
    torch.save(energy.state_dict(), tmp_path / "ebm.pth", _use_new_zipfile_serialization=zipped)
    path = import_weights("hill-ebm", tmp_path / "ebm.pth", "cifar10", out=tmp_path / "w" / "cifar10")
    network = load_network("ebm-mcmc", "cifar10", root=tmp_path / "w")
    x = 2 * torch.rand(2, 3, 32, 32) - 1
    torch.testing.assert_close(network(x), energy(x))
    side = read_sidecar(path)
    assert side["recipe"]["deploy"]["temperature"] == pytest.approx(5e-5)
    assert side["recipe"]["imported"]["file"] == "ebm.pth"


def test_the_full_energy_has_its_published_number_of_parameters():
    assert sum(p.numel() for p in Energy(f=32).parameters()) == 693_569


def forward(state, x):
    """The classifier of ebm-defense, written out for one block a stage and images in [-1, 1]."""
    import torch.nn.functional as F

    def norm(name, h):
        mean, var, w, b = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.relu(F.batch_norm(h, mean, var, w, b))

    h = F.conv2d(x, state["conv1.weight"], state["conv1.bias"], padding=1)
    for i in (1, 2, 3):
        at, stride = f"layer{i}.0", 1 if i == 1 else 2
        inner = F.conv2d(norm(f"{at}.bn1", h), state[f"{at}.conv1.weight"], state[f"{at}.conv1.bias"], padding=1)
        inner = norm(f"{at}.bn2", inner)
        inner = F.conv2d(inner, state[f"{at}.conv2.weight"], state[f"{at}.conv2.bias"], stride, 1)
        if f"{at}.shortcut.0.weight" in state:
            h = F.conv2d(h, state[f"{at}.shortcut.0.weight"], state[f"{at}.shortcut.0.bias"], stride)
        h = inner + h
    return F.linear(norm("bn1", h).mean((2, 3)), state["linear.weight"], state["linear.bias"])


def test_classifier(tmp_path):
    state = random_classifier()
    torch.save(state, tmp_path / "clf.pth")
    argv = ["import", "hill-clf", str(tmp_path / "clf.pth"), "--dataset", "cifar10", "--out", str(tmp_path / "w")]
    assert main(argv) == 0
    network = load_network("hill-clf", "cifar10", root=tmp_path / "w")
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(network(x), forward(state, 2 * x - 1), atol=1e-4, rtol=1e-4)
    assert main(argv) == 2, "weights are not overwritten"


class Evil:
    def __reduce__(self):
        return (print, ("code was run",))


def test_what_is_refused(tmp_path, capsys):
    good = Energy().state_dict()
    clf = random_classifier()
    missing = {n: v for n, v in clf.items() if n != "layer2.0.conv2.bias"}
    cases = [
        ("hill-ebm", {**good, "g.weight": torch.zeros(1)}, 'has a tensor "g.weight"'),
        ("hill-ebm", {n: v for n, v in good.items() if n != "f.4.bias"}, 'tensor "4.bias" is missing'),
        ("hill-ebm", {**good, "f.2.bias": torch.zeros(3)}, r'tensor "2.bias" is \[3\], not \[8\]'),
        ("hill-ebm", {**good, "f.2.bias": torch.full((8,), float("nan"))}, "not finite"),
        ("hill-ebm", Energy(channels=1).state_dict(), r'tensor "0.weight" is \[4, 1, 3, 3\], not \[4, 3, 3, 3\]'),
        ("hill-ebm", clf, "is no energy of ebm-defense"),
        ("hill-ebm", {"state": good, "step": 3}, "is no tensor but"),
        ("hill-ebm", [1], "holds no tensors by name but list"),
        ("hill-ebm", {"f.0.weight": Evil()}, "cannot be read"),
        ("hill-clf", good, "is no classifier of ebm-defense"),
        ("hill-clf", missing, 'tensor "layer2.0.conv2.bias" is missing'),
        ("hill-clf", random_classifier(classes=100), r'"linear.bias" is \[100\], not \[10\]'),
    ]
    for i, (form, content, message) in enumerate(cases):
        file = tmp_path / f"{i}.pth"
        torch.save(content, file)
        with pytest.raises(UserError, match=message) as caught:
            import_weights(form, file, "cifar10", out=tmp_path / "w" / "cifar10")
        assert "\n" not in str(caught.value)
        assert str(i) in str(caught.value)
    assert "code was run" not in capsys.readouterr().out
    assert not (tmp_path / "w").exists()
    with pytest.raises(UserError, match="there is no file"):
        import_weights("hill-ebm", tmp_path / "none.pth", "cifar10", out=tmp_path)
    with pytest.raises(UserError, match="did you mean hill-ebm"):
        import_weights("hil-ebm", tmp_path / "0.pth", "cifar10", out=tmp_path)
    with pytest.raises(UserError, match="no published step size"):
        import_weights("hill-ebm", tmp_path / "1.pth", "mnist", out=tmp_path)
