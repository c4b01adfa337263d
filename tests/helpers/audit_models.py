"""Modules that an audit is tried on; named in tests as "audit_models.py:Name"."""

import torch
from torch import nn

from defenses import Defense, load_model


class Probabilities(nn.Module):
    """Returns a softmax."""

    def __init__(self):
        super().__init__()
        self.bare = load_model("undefended").network
        self.eval()

    def forward(self, x):
        return self.bare(x).softmax(-1)


class Linear(nn.Module):
    """Logits that are linear in the pixels of an 8x8 image."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        torch.manual_seed(0)
        nn.init.normal_(self.layer.weight, std=scale)
        self.eval()

    def forward(self, x):
        return self.layer(x.flatten(1))


class Convolutional(nn.Module):
    """Has no linear layer: its features are its logits."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(1, 10, 8)
        self.eval()

    def forward(self, x):
        return self.layer(x).flatten(1)


class Detached(nn.Module):
    """Hands no gradient back."""

    def __init__(self):
        super().__init__()
        self.bare = load_model("undefended").network
        self.eval()

    def forward(self, x):
        return self.bare(x.detach())


class Jittered(Linear):
    """As `Linear`, of images with a little noise from the global generator."""

    def forward(self, x):
        return super().forward(x + 0.02 * torch.randn_like(x))


class Cut(Defense):
    """Declares exact gradients, and cuts them."""

    def __init__(self):
        super().__init__()
        self.inner = load_model("undefended")

    def logits(self, x, noise, *, gradient="exact", runs=None):
        with torch.no_grad():
            return self.inner.logits(x, noise)


class OffByOne(nn.Module):
    """Numbers the classes from 1, so that no label fits."""

    def __init__(self):
        super().__init__()
        self.bare = load_model("undefended").network
        self.eval()

    def forward(self, x):
        return self.bare(x).roll(1, -1)
