"""Networks and their weights on disk."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from defenses.data.dataset import load_dataset
from defenses.networks.ncsnv2 import _RefineBlock
from defenses.networks.registry import build_network, data_args, deployed, kinds
from defenses.utils.checksums import with_checksum
from defenses.utils.errors import UserError
from defenses.utils.paths import data_root
from defenses.zoo.checkpoint_checks import load_tensors
from defenses.zoo.checkpoints import load_network, save_network, weights_hash
from defenses.zoo.weight_paths import find_weights

SMALL = {
    "wrn-28-10": {"depth": 10, "width": 1},
    "ncsnv2": {"ngf": 4},
    "energy-conv": {"features": 4},
    "ncsnpp": {"channels": 8, "blocks": 1, "multipliers": (1, 2), "attention": (4, 14, 16)},
    "unet-diffusers": {
        "config": {
            "block_out_channels": (8, 16),
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "norm_num_groups": 4,
        }
    },
    "noise-generator": {"features": 4, "blocks": 1},
    "timm": {"name": "test_resnet"},
    "robustbench": {"name": "dm_wide_resnet.DMWideResNet", "depth": 10, "width": 1, "padding": 12},
}

# Kinds that return images, and kinds that return one number an image; all others return logits.
IMAGES = {"ncsnv2", "score-mlp", "score-conv", "noise-mlp", "unet-diffusers", "ncsnpp", "noise-generator"}
IMAGES |= {"autoencoder", "vae", "dcgan-generator"}
ENERGIES = {"energy-conv", "energy-mlp", "energy-mlp-leaky", "igebm-mlp", "igebm-resnet", "dcgan-discriminator"}


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("kind", kinds())
def test_every_network_on_every_shape(kind, shape):
    network = build_network(kind, **data_args(kind, shape, 7), **SMALL.get(kind, {}))
    network = deployed(network)
    input_shape = (network.latent,) if kind == "dcgan-generator" else shape
    x = torch.rand(5, *input_shape, generator=torch.Generator().manual_seed(0))
    times = (torch.linspace(0.1, 0.9, 5),) if hasattr(network, "sde") else ()  # the time
    y = network(x, *times)
    assert y.shape == (5,) + (shape if kind in IMAGES else () if kind in ENERGIES else (7,))
    assert y.dtype == torch.float32
    # Rows are independent.
    torch.testing.assert_close(network(x[2:3], *(t[2:3] for t in times)), y[2:3], atol=1e-5, rtol=1e-4)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(network(x, *times).sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "count"), [("energy-conv", 693_569), ("resnet20", 269_722), ("wrn-28-10", 36_479_194)]
)
def test_parameter_counts_are_the_published_ones(kind, count):
    assert sum(p.numel() for p in build_network(kind).parameters()) == count


def test_the_chains_of_ncsnv2_pool_with_the_maximum():
    """A block with one pooling left, followed by the identity."""

    block = _RefineBlock([2], 2).requires_grad_(False)
    for weight in block.parameters():
        weight.zero_()
    block.pools[0].weight[:, :, 1, 1] = torch.eye(2)
    x = torch.randn(3, 2, 9, 7, generator=torch.Generator().manual_seed(0))
    h = torch.nn.functional.elu(x)
    padded = torch.nn.functional.pad(h, (2, 2, 2, 2), value=-9.0)
    largest = padded.unfold(2, 5, 1).unfold(3, 5, 1).amax((-2, -1))
    torch.testing.assert_close(block([x], x.shape[2:]), h + largest)
    with pytest.raises(UserError, match="pool"):
        build_network("ncsnv2", pool="avg")


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = (build_network("small-cnn", seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert not torch.equal(a["head.1.weight"], c["head.1.weight"])


def test_normalisation_lies_inside():
    plain = build_network("resnet20").eval()
    inside = build_network("resnet20", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)).eval()
    assert plain.state_dict().keys() == inside.state_dict().keys()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    by_hand = (x - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    torch.testing.assert_close(inside(x), plain(by_hand))


@pytest.mark.parametrize(
    ("kind", "args", "message"),
    [
        ("smal-cnn", {}, "small-cnn"),
        ("small-cnn", {"channel": [3]}, "channel"),
        ("wrn-28-10", {"depth": 27}, "6n"),
        ("energy-conv", {"size": 4}, "at least 8"),
        ("noise-generator", {"size": 9}, "multiples of 4"),
        ("timm", {"name": "resnet81"}, "did you mean resnet18"),
        ("timm", {"name": "test_vit", "size": 8}, 'timm\'s "test_vit" does not take images of 3x8x8 with these arg'),
        ("timm", {"name": "test_resnet", "widht": 3}, "widht"),
        ("robustbench", {"name": "wide_resnet.WideResNet", "depht": 3}, "unknown argument .* mean depth"),
        ("robustbench", {"name": "WideResNet"}, 'write it as "wide_resnet.WideResNet"'),
        ("robustbench", {"name": "resnet.PreActResNet81"}, "did you mean PreActResNet18"),
        ("robustbench", {"name": "resnet.PreActResNet18", "in_channels": 1}, "images of 1x32x32"),
        ("robustbench", {"name": "resnet.PreActResNet18", "size": 8}, "images of 3x8x8"),
        ("robustbench", {"name": "resnet.PreActResNet18", "num_classes": 7}, "not 7 logits"),
    ],
)
def test_bad_arguments(kind, args, message):
    with pytest.raises(UserError, match=message):
        build_network(kind, **args)
    with pytest.raises(UserError, match="square"):
        data_args("small-cnn", (1, 8, 9), 10)


def test_resnet20_has_its_published_accuracy(need_data):
    need_data("cifar10")

    path = data_root().parent / "models" / "cifar10-resnet20.safetensors"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    test = load_dataset("cifar10", "test")
    network = build_network("resnet20", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    load_tensors(network, path.read_bytes(), path)
    network = deployed(network)
    with torch.no_grad():
        hits = [(network(test.x[i : i + 250]).argmax(1) == test.y[i : i + 250]).sum() for i in range(0, 1000, 250)]
    # 91.73% on all 10,000: three standard errors of 1,000 images.
    assert abs(float(torch.stack(hits).sum()) / 1000 - 0.9173) < 0.027


# --- weights on disk


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "digits" / "mine.safetensors"
    save_network(path, build_network("small-cnn", seed=3), "small-cnn", {}, {"steps": 1})
    return path


def load(path: Path) -> nn.Module:
    return load_network(path.stem, path.parent.name, root=path.parent.parent)


def test_weights_survive_the_disk(saved):
    network, source = load(saved), build_network("small-cnn", seed=3)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert all(torch.equal(v, source.state_dict()[n]) for n, v in network.state_dict().items())
    assert (
        weights_hash("mine", "digits", saved.parent.parent)
        == json.loads(saved.with_suffix(".json").read_text())["sha256"]
    )


def test_half_precision_is_loaded_as_float32(tmp_path):
    path = tmp_path / "digits" / "mine.safetensors"
    save_network(path, build_network("resnet20"), "resnet20", {}, {}, half=True)
    network = load(path)
    assert all(v.dtype == torch.float32 for v in network.state_dict().values() if v.is_floating_point())
    assert path.stat().st_size < 700_000


def test_environment_is_looked_at_before_the_package(saved, monkeypatch):
    monkeypatch.setenv("PUREBENCH_WEIGHTS", str(saved.parent.parent))
    assert find_weights("mine", "digits") == saved
    assert find_weights("adp", "digits").parent.parent.name == "weights"
    with pytest.raises(UserError, match=r"unknown data set .mnisk.; did you mean mnist"):
        find_weights("adp", "mnisk")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _no_sidecar(path: Path) -> None:
    path.with_suffix(".json").unlink()


def _bad_sidecar(path: Path) -> None:
    path.with_suffix(".json").write_text("{")


def _other_network(path: Path) -> None:
    side = json.loads(path.with_suffix(".json").read_text())
    side["network"]["args"] = {"hidden": 64}
    path.with_suffix(".json").write_text(json.dumps(with_checksum(side)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "damaged.*purebench train RECIPE --name mine --dataset digits"),
        (_no_sidecar, "missing.*purebench train RECIPE --name mine --dataset digits"),
        (_bad_sidecar, "cannot be read.*purebench train RECIPE --name mine --dataset digits"),
        (_other_network, r'"head.1.bias" is \[128\], not \[64\]'),
    ],
)
def test_damaged_weights_are_one_clear_line(saved, damage, message):
    damage(saved)
    with pytest.raises(UserError, match=message) as caught:
        load(saved)
    assert "\n" not in str(caught.value)


def test_names_must_agree(saved):
    data = saved.read_bytes()
    with pytest.raises(UserError, match="missing"):
        load_tensors(build_network("small-cnn", channels=(32, 64, 64, 64)), data, saved)
    with pytest.raises(UserError, match="no safetensors"):
        load_tensors(build_network("small-cnn"), b"garbage", saved)


def test_hashes_are_read_without_torch():

    code = (
        "import sys; from defenses.zoo.checkpoints import weights_hash; "
        "assert len(weights_hash('adp', 'digits')) == 64; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
