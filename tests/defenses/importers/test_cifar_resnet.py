"""ResNets of pytorch_resnet_cifar10: files of their format, the shipped copies, and what is refused."""

import pytest
import torch
from boards import ROOT
from safetensors.torch import save_file

from defenses import load_model
from defenses.data import load_dataset
from defenses.importers.registry import import_weights
from defenses.networks.registry import build_network
from defenses.utils.errors import UserError
from defenses.zoo.checkpoints import load_network, read_sidecar

MODELS = ROOT.parent / "shared" / "models"


def state(kind="resnet20", **args):
    network = build_network(kind, num_classes=10, **args)
    return {n: v for n, v in network.state_dict().items() if not n.startswith("normalise.")}


@pytest.mark.parametrize(("kind", "layout"), [("resnet20", "file"), ("resnet56", "nested"), ("resnet20", "prefix")])
def test_a_file_gives_its_network(kind, layout, tmp_path):
    tensors = state(kind)
    if layout == "file":
        save_file(tensors, source := tmp_path / "a.safetensors")
    else:
        source = tmp_path / "a.th"
        named = {f"module.{n}": v for n, v in tensors.items()} if layout == "prefix" else tensors
        torch.save({"state_dict": named, "best_prec1": 91.7}, source)
    path = import_weights("cifar-resnet", source, "cifar10", out=tmp_path / "w" / "cifar10")
    network = load_network("undefended", "cifar10", root=tmp_path / "w").state_dict()
    assert all(torch.equal(network[n], v) for n, v in tensors.items() if v.is_floating_point())
    side = read_sidecar(path)
    assert side["network"]["kind"] == kind
    assert side["network"]["args"]["mean"] == [0.485, 0.456, 0.406]


def test_half_precision(tmp_path):
    save_file(state(), tmp_path / "a.safetensors")
    whole, half = (
        import_weights("cifar-resnet", tmp_path / "a.safetensors", "cifar10", out=tmp_path / name / "cifar10", half=h)
        for name, h in (("whole", False), ("half", True))
    )
    assert half.stat().st_size < 0.6 * whole.stat().st_size


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: {"a": torch.zeros(1)}, "is no checkpoint of pytorch_resnet_cifar10"),
        (lambda: {n: v for n, v in state().items() if n != "linear.weight"}, "is no checkpoint of"),
        (lambda: state("resnet20", blocks=2), "is no checkpoint of"),
        (lambda: state() | {"linear.bias": torch.zeros(7)}, r'"linear.bias" is \[7\], not \[10\]'),
        (lambda: {n: v for n, v in state().items() if n != "layer2.0.bn1.bias"}, '"layer2.0.bn1.bias" is missing'),
    ],
)
def test_other_files_are_refused(content, words, tmp_path):
    save_file(content(), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=words):
        import_weights("cifar-resnet", tmp_path / "a.safetensors", "cifar10", out=tmp_path / "w")
    (tmp_path / "b.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="is no safetensors file"):
        import_weights("cifar-resnet", tmp_path / "b.safetensors", "cifar10", out=tmp_path / "w")
    assert not (tmp_path / "w").exists()


@pytest.mark.skipif(not MODELS.exists(), reason=f"{MODELS} is not there")
@pytest.mark.parametrize(("number", "name"), [(20, "undefended"), (56, "undefended-resnet56")])
def test_the_shipped_copies_are_the_published_files(number, name, tmp_path):
    path = import_weights("cifar-resnet", MODELS / f"cifar10-resnet{number}.safetensors", "cifar10", out=tmp_path)
    shipped = ROOT / "defenses" / "weights" / "cifar10" / f"{name}.safetensors"
    assert path.read_bytes() == shipped.read_bytes()


def test_the_published_accuracy_on_all_test_images(one_thread):
    try:
        data = load_dataset("cifar10")
    except UserError as error:
        pytest.skip(str(error))
    network = load_model("undefended", dataset="cifar10").to(memory_format=torch.channels_last)
    with torch.no_grad():
        right = sum(
            int((network(x).argmax(1) == y).sum()) for x, y in zip(data.x.split(500), data.y.split(500), strict=True)
        )
    assert right == 9173  # 91.73 %, the table of the repository
