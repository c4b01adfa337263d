"""Layouts of published `.pt` files: wrappers and prefixes in any order load, and what does not fit is named."""

import pytest
import torch
from diffusion_releases import run

from defenses.importers.registry import import_weights
from defenses.importers.torch_files import tensors_of
from defenses.networks.registry import build_network
from defenses.utils.errors import UserError
from defenses.zoo.checkpoints import load_network, read_sidecar

SMALL = {"depth": 10, "widen_factor": 1}
ARCHITECTURE = {"name": "wide_resnet.WideResNet", **SMALL}


def state(seed=1):
    return build_network("robustbench", seed=seed, **ARCHITECTURE).network.state_dict()


def prefixed(prefix):
    return lambda tensors: {prefix + name: value for name, value in tensors.items()}


LAYOUTS = {
    "plain": lambda s: s,
    "module.": prefixed("module."),
    "module.module.": prefixed("module.module."),
    "_orig_mod.": prefixed("_orig_mod."),
    "module._orig_mod.": prefixed("module._orig_mod."),
    "_orig_mod.module.": prefixed("_orig_mod.module."),
    "model.": prefixed("model."),
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "best_acc": 0.9},
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer": {"state": {}}},
    "model": lambda s: {"model": s},
    "net": lambda s: {"net": s, "acc": 0.9},
    "nested": lambda s: {"model": {"state_dict": {"net": prefixed("module.")(s)}}, "epoch": 1},
    "averaged": lambda s: {"n_averaged": torch.tensor(7), **prefixed("module.")(s)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_loads(layout, tmp_path):
    given = state()
    torch.save(LAYOUTS[layout](given), file := tmp_path / "a.pt")
    import_weights("robustbench", file, "cifar10", out=tmp_path / "w" / "cifar10", name="wrn", options=SMALL)
    found = load_network("wrn", "cifar10", root=tmp_path / "w").network.state_dict()
    assert all(torch.equal(found[n], v) for n, v in given.items() if v.is_floating_point())


def without(name):
    return lambda s: {n: v for n, v in s.items() if n != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without("block2.layer.0.bn1.bias"),
            'a.pt does not fit the network: tensor "block2.layer.0.bn1.bias" is missing',
        ),
        (lambda s: s | {"fc.scale": torch.ones(1)}, 'it has a tensor "fc.scale" that the network has not'),
        (lambda s: s | {"fc.bias": torch.ones(100)}, 'tensor "fc.bias" is [100], not [10]'),
        (
            lambda s: prefixed("module.")(without("fc.bias")(s)) | {"fc.bias": s["fc.bias"]},
            '"block1.layer.0.bn1.bias" is missing',
        ),
        (
            lambda s: s | {"fc.bias": torch.full((10,), torch.nan)},
            'tensor "network.fc.bias" has values that are not finite',
        ),
    ],
)
@pytest.mark.parametrize("layout", ["plain", "nested"])
def test_the_first_mismatch_is_one_line(change, message, layout, tmp_path, capsys):
    torch.save(LAYOUTS[layout](change(dict(state()))), tmp_path / "a.pt")
    options = ["--set", *(f"{k}={v}" for k, v in SMALL.items())]
    assert run("robustbench", tmp_path / "a.pt", "--out", tmp_path / "w", *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_another_architecture_is_one_line(tmp_path, capsys):
    torch.save(state(), tmp_path / "a.pt")
    for options, message in [
        (["depth=28"], 'tensor "block1.layer.0.bn2.bias" is [16], not [160]'),
        (["depth=11"], "does not take images of 3x32x32"),
        (["widen=3"], 'unknown argument of robustbench\'s "wide_resnet.WideResNet" "widen"'),
        (["architecture=wide_resnet.Wide"], 'unknown architecture in wide_resnet "Wide"; did you mean WideResNet'),
    ]:
        assert run("robustbench", tmp_path / "a.pt", "--out", tmp_path / "w", "--set", *options) == 2
        error = capsys.readouterr().err
        assert message in error, error
        assert error.count("\n") == 1


def test_a_classifier_of_robustbench_needs_a_name(tmp_path, capsys):
    """The name of the bare classifier would make purifiers and transfers take a robust one for it."""
    torch.save(state(), tmp_path / "a.pt")
    small = ["--out", tmp_path / "w", "--set", *(f"{k}={v}" for k, v in SMALL.items())]
    for name, message in [
        ([], "weights of robustbench have no name of their own; give one, as --name carmon"),
        (["--name", "undefended"], 'weights of robustbench cannot be called "undefended"'),
    ]:
        assert run("robustbench", tmp_path / "a.pt", *name, *small) == 2
        error = capsys.readouterr().err
        assert message in error, error
        assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()
    assert run("robustbench", tmp_path / "a.pt", "--name", "wrn", *small) == 0
    assert "method" not in read_sidecar(tmp_path / "w" / "cifar10" / "wrn.safetensors")["recipe"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("source=x", 'unknown argument of robustbench\'s "wide_resnet.WideResNet" "source"'),
        ("info=1", 'unknown argument of robustbench\'s "wide_resnet.WideResNet" "info"'),
        ("architecture=3", 'architecture is 3; it must be a text, as "wide_resnet.WideResNet"'),
        ("name=zzz", '"name" is no option of robustbench; set architecture'),
        ("in_channels=3", '"in_channels" is no option of robustbench; leave it out'),
        ("size=32", '"size" is no option'),
        ("num_classes=10", '"num_classes" is no option'),
        ("kind=small-cnn", '"kind" is no option'),
        ("seed=x", '"seed" is no option'),
        ("mean=1", "mean is 1; it must be a list, each a number"),
        ("mean=abc", "it must be a list, each a number"),
        ("std=[1, x, 1]", "it must be a list, each a number"),
        ("mean=[0.5, 0.5]", "mean is of 2 channels"),
        ("depth=x", "does not take images of 3x32x32 with these arguments"),
    ],
)
def test_an_option_of_another_kind_is_one_line(option, message, tmp_path, capsys):
    torch.save(state(), tmp_path / "a.pt")
    assert run("robustbench", tmp_path / "a.pt", "--name", "wrn", "--out", tmp_path / "w", "--set", option) == 2
    error = capsys.readouterr().err
    assert message in error, error
    assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_names_of_two_networks_do_not_fall_together(tmp_path):
    found = tensors_of({"module.a": torch.ones(1), "a": torch.zeros(1)}, tmp_path)
    assert found.keys() == {"module.a", "a"}


def test_names_that_are_one_without_their_prefix_are_refused(tmp_path):
    ones, count = torch.ones(1), torch.tensor(3)
    for prefix in ("module.", "_orig_mod."):
        content = {f"{prefix}w": ones, f"{prefix}n": count, "n": torch.tensor(7)}
        with pytest.raises(UserError, match=f'has tensors "n" and "{prefix}n"; remove one of them'):
            tensors_of(content, tmp_path)


def test_two_state_dicts_are_refused(tmp_path):
    one, other = {"a": torch.ones(1)}, {"a": torch.zeros(1)}
    beside = {"state_dict": one, "model": {"net": other}}
    for content in (beside, {"net": {"state_dict": beside}}):
        with pytest.raises(UserError, match='holds tensors under "state_dict" and "model"; give one state dict alone'):
            tensors_of(content, tmp_path)
    assert tensors_of({"state_dict": {"lr": 0.1}, "model": one}, tmp_path).keys() == {"a"}


def test_a_wrapper_of_another_name_is_named(tmp_path):
    with pytest.raises(UserError, match='"student" is no tensor but dict; give the state dict alone'):
        tensors_of({"student": {"a": torch.ones(1)}}, tmp_path)


def test_a_dict_that_holds_itself_is_refused(tmp_path):
    content: dict = {}
    content["model"] = content
    torch.save(content, file := tmp_path / "a.pt")
    with pytest.raises(UserError, match='"model" is no tensor but dict'):
        import_weights("robustbench", file, "cifar10", out=tmp_path / "w")
