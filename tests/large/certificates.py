"""Certificates of large networks: twelve families on MNIST- and CIFAR-sized images, honest ones and seeded faults.

Not collected by pytest. `python tests/large/certificates.py` prints the table in tests/README.md in about half an hour;
names of families run these alone, as `wrn-28-10`, which is left out otherwise.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from networks import FAULTS, Behind, Textbook

from bench.evaluation.certificates.certificate import NoGradient
from bench.evaluation.certificates.measure import certify
from defenses.core.defense import UserModule
from defenses.data.dataset import load_dataset

SETS = 3  # of four images, for honest networks; faults are seeded on the first
STEPS = 25  # of training, of 32 images
DATA = {"mnist": (1, 28), "cifar10": (3, 32)}


def convolutions(channels, size, act, norm=None, pool=nn.MaxPool2d):
    """Four convolutions with an activation, a normalisation and a pooling."""
    made, before = [], channels
    for i, width in enumerate((32, 32, 64, 64)):
        made += [nn.Conv2d(before, width, 3, padding=1), *([norm(width)] if norm else []), act()]
        made += [pool(2)] if i % 2 else []
        before = width
    return nn.Sequential(*made, nn.Flatten(), nn.Linear(64 * (size // 4) ** 2, 10))


def mlp(channels, size):
    """Three linear layers with ReLU."""
    layers = [nn.Flatten(), nn.Linear(channels * size**2, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(512, 10))


def trades_cnn(channels, size):
    """The network that TRADES published for MNIST."""
    side = ((size - 4) // 2 - 4) // 2
    made = [nn.Conv2d(channels, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.MaxPool2d(2)]
    made += [nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    made += [nn.Linear(64 * side**2, 200), nn.ReLU(), nn.Dropout(0.5), nn.Linear(200, 200), nn.ReLU()]
    return nn.Sequential(*made, nn.Linear(200, 10))


def of_timm(name, channels, **options):
    """A network of timm."""
    import timm

    return timm.create_model(name, pretrained=False, num_classes=10, in_chans=channels, **options)


def mixer(channels, size):
    """An MLP-Mixer with patches of four pixels."""
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(num_classes=10, img_size=size, in_chans=channels, patch_size=4, num_blocks=6, embed_dim=192)


class WideResNet(nn.Module):
    """RobustBench's WRN for any number of channels and pixels."""

    def __init__(self, channels, depth, widen):
        super().__init__()
        from robustbench.model_zoo.architectures.wide_resnet import WideResNet as Wide

        self.inner = Wide(depth=depth, widen_factor=widen, num_classes=10)
        self.inner.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)

    def forward(self, x):
        inner = self.inner
        x = inner.block3(inner.block2(inner.block1(inner.conv1(x))))
        return inner.fc(inner.relu(inner.bn1(x)).mean((2, 3)))


FAMILIES = {
    "relu-mlp": mlp,
    "max-pool": Textbook,
    "trades-cnn": trades_cnn,
    "gelu": lambda channels, size: convolutions(channels, size, nn.GELU),
    "leaky-relu": lambda channels, size: convolutions(channels, size, nn.LeakyReLU, pool=nn.AvgPool2d),
    "batch-norm": lambda channels, size: convolutions(channels, size, nn.ReLU, nn.BatchNorm2d),
    "group-norm": lambda channels, size: convolutions(channels, size, nn.ReLU, lambda width: nn.GroupNorm(8, width)),
    "vit": lambda c, size: of_timm("vit_tiny_patch16_224", c, img_size=size, patch_size=4, depth=6),
    "resnet-18": lambda c, size: of_timm("resnet18", c),
    "wrn-16-4": lambda c, size: WideResNet(c, 16, 4),
    "densenet": lambda c, size: of_timm("densenet121", c, growth_rate=12, block_config=(4, 4, 4)),
    "mixer": mixer,
}
LARGEST = {"wrn-28-10": lambda c, size: WideResNet(c, 28, 10)}  # one set of images, one fault
LARGE_FAULT = "straight-through rounding to 8 bits"


def trained(make, data, train, steps=STEPS):
    """A network after a few steps, in evaluation mode."""
    torch.manual_seed(0)
    network = make(*DATA[data]).train()
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for i in range(steps):
        x, y = (part[32 * i : 32 * (i + 1)] for part in (train.x, train.y))
        optimiser.zero_grad()
        functional.cross_entropy(network(x), y).backward()
        optimiser.step()
    return network.eval().requires_grad_(False)


def measured(network, x):
    """The certificate of a network; None without a gradient."""
    try:
        return certify(UserModule(network, stochastic=False), x)
    except NoGradient:
        return None


def row(name, data, sets, network, faults):
    """A line of the table, and True if all is as it must be."""
    x = load_dataset(data).x
    begin = time.perf_counter()
    honest = [measured(network, x[4 * i : 4 * i + 4]) for i in range(sets)]
    seconds = (time.perf_counter() - begin) / sets
    states = {fault: measured(Behind(before, network), x[:4]) for fault, before in faults.items()}
    missed = [fault for fault, found in states.items() if found is not None and found.state != "failed"]
    passed, weights = sum(c.passed for c in honest), sum(p.numel() for p in network.parameters())
    difference, cosine, line = ([c.checks[i] for c in honest] for i in range(3))
    cells = [
        *(name, data, f"{weights / 1e6:.2g} M", f"{passed} of {sets}"),
        f"{sum(c.left_out for c in difference)} of {sum(c.points for c in difference)}",
        *(f"{max(c.value for c in difference):.0e}", f"{1 - min(c.value for c in cosine):.0e}"),
        *(f"{max(c.value for c in line):.3f}", f"{len(faults) - len(missed)} of {len(faults)}", f"{seconds:.1f} s"),
    ]
    return f"| {' | '.join(cells)} |{' '.join(['', *missed])}", passed == sets and not missed


def main():
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    head = "family", "data", "weights", "passed", "left out", "difference", "1 - cosine", "line", "faults found", "time"
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    faults, fine = {**FAULTS, "a cut graph": lambda x: x.detach()}, True
    for name in sys.argv[1:] or FAMILIES:
        for data in ["cifar10"] if name in LARGEST else DATA:
            make, train = (FAMILIES | LARGEST)[name], load_dataset(data, "train")
            if name in LARGEST:
                told = row(name, data, 1, trained(make, data, train, 5), {LARGE_FAULT: FAULTS[LARGE_FAULT]})
            else:
                told = row(name, data, SETS, trained(make, data, train), faults)
            print(told[0], flush=True)
            fine &= told[1]
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
