"""Networks with kinks, in three sizes and more, and faults that a classifier can have."""

import torch
from torch import nn
from torch.nn import functional

from defenses.data.dataset import load_dataset

SIZES = ("mlp", "conv", "resnet")


class Textbook(nn.Module):
    """The network of PyTorch's MNIST example."""

    def __init__(self, channels=1, size=28):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, 32, 3), nn.Conv2d(32, 64, 3)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(64 * ((size - 4) // 2) ** 2, 128), nn.Linear(128, 10)

    def forward(self, x):
        x = self.conv2(self.conv1(x).relu()).relu()
        x = self.dropout1(functional.max_pool2d(x, 2)).flatten(1)
        return self.fc2(self.dropout2(self.fc1(x).relu()))


class Block(nn.Module):
    """A residual block with batch normalisation."""

    def __init__(self, width):
        super().__init__()
        layers = [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))

    def forward(self, x):
        return (x + self.layers(x)).relu()


class ResNet(nn.Module):
    """Residual blocks behind max pooling, in evaluation mode, with the statistics of some random images."""

    def __init__(self, channels=1, classes=10, width=16, blocks=3, size=28):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(nn.MaxPool2d(2), *(Block(width) for _ in range(blocks)))
        self.head = nn.Linear(width, classes)
        with torch.no_grad():
            self.train()(torch.rand(32, channels, size, size))
        self.eval()

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def classifier(size, side=6, classes=4):
    """A network of grey images of `side` pixels: an MLP, a convolution with max pooling, or a `ResNet`."""
    torch.manual_seed(0)
    if size == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(side**2, 32), nn.ReLU(), nn.Linear(32, classes)).eval()
    if size == "resnet":
        return ResNet(1, classes, width=32, blocks=4, size=side)
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8 * (side // 2) ** 2, classes)).eval()


class Behind(nn.Module):
    """A network behind something that happens to its images."""

    def __init__(self, before, network):
        super().__init__()
        self.before, self.network = before, network
        self.eval()

    def forward(self, x):
        return self.network(self.before(x))


def straight_through(x, levels=4):
    return x + ((x * levels).round() / levels - x).detach()


FAULTS = {
    "straight-through rounding": straight_through,
    "straight-through rounding to 8 bits": lambda x: straight_through(x, 255),
    "rounding": lambda x: (x * 4).round() / 4,
    "rounding to 8 bits": lambda x: (x * 255).round() / 255,
    "rounding of a part": lambda x: (x + (x * 4).round() / 4) / 2,
    "a detached part": lambda x: 0.99 * x + 0.01 * x.detach(),
    "a detached factor": lambda x: x * x.detach(),
    "a scaled gradient": lambda x: 1.01 * x - 0.01 * x.detach(),
}


def flat_images(n, side=28):
    """The first `n` digits in the middle of black images of `side` pixels, as MNIST has them."""
    digits = load_dataset("digits").x[:n].repeat_interleave(2, 2).repeat_interleave(2, 3)
    margin = (side - 16) // 2
    return functional.pad(digits, (margin, side - 16 - margin) * 2)
