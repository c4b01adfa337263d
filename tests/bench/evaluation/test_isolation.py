"""What a call of a model may not change."""

import pytest
import torch
from torch import nn

from bench.evaluation.isolation import state
from bench.evaluation.model_checks import refuse_train_mode
from defenses.core.defense import Classifier
from defenses.utils.errors import UserError


def network():
    inner = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 36, 10))
    inner.register_buffer("mask", torch.tensor([True, False, True]))
    inner.register_buffer("small", torch.ones(5, dtype=torch.bfloat16))
    return Classifier(inner.requires_grad_(False), num_classes=10, input_shape=(1, 8, 8))


def test_every_bit_of_every_tensor_is_part_of_the_state():
    model = network()
    before = state(model)
    for tensor in (*model.parameters(), *model.buffers()):
        flat = tensor.view(-1).view(torch.uint8)
        for at in {0, len(flat) // 2, len(flat) - 1}:
            for bit in range(1 if tensor.dtype == torch.bool else 8):
                flat[at] ^= 1 << bit
                assert state(model) != before
                flat[at] ^= 1 << bit
    assert state(model) == before


def swapped(weight):
    weight[0], weight[1] = weight[1].clone(), weight[0].clone()


@pytest.mark.parametrize(
    "change",
    [swapped, lambda w: w.neg_(), lambda w: w.zero_(), lambda w: w.mul_(2), lambda w: w[2:4].neg_()],
    ids=["two rows swapped", "all signs", "zeros", "doubled", "some signs"],
)
def test_changes_that_cancel_in_a_sum_are_seen(change):
    model = network()
    before = state(model)
    change(model.network[3].weight)
    assert state(model) != before


def test_modes_are_part_of_the_state():
    model = network()
    before = state(model)
    model.network[1].train()
    assert state(model) != before


def test_a_part_in_train_mode_is_named():
    inner = network().network.eval()
    refuse_train_mode(inner, "mine")
    inner[1].train()
    with pytest.raises(UserError, match=r'^mine \(its part "1"\) is in train mode; call \.eval\(\) on mine: model'):
        refuse_train_mode(inner, "mine")
    with pytest.raises(UserError, match=r"^mine is in train mode"):
        refuse_train_mode(inner.train(), "mine")


class Plain(nn.Module):
    """A module whose code never reads its mode, over another one."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    @torch.enable_grad()
    def forward(self, x):
        return self.inner(x.flatten(1))


class Reads(Plain):
    @torch.enable_grad()
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), training=self.training)


class Gets(Plain):
    @property
    def share(self):
        return 0.5 * getattr(self, "training")  # noqa: B009


@pytest.mark.parametrize(
    "inner", [nn.Linear(64, 10), nn.Sequential(nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 10)), Plain(nn.Identity())]
)
def test_a_module_that_never_reads_its_mode_is_put_in_evaluation_mode(inner):
    module = Plain(inner).train()
    refuse_train_mode(module, "mine")
    assert not any(part.training for part in module.modules())


@pytest.mark.parametrize(
    "inner",
    [
        *(nn.Dropout(), nn.BatchNorm1d(64), nn.RReLU(), nn.LSTM(64, 10), nn.MultiheadAttention(64, 1)),
        *(Reads(nn.Identity()), Gets(nn.Identity()), nn.utils.parametrizations.spectral_norm(nn.Linear(64, 10))),
    ],
    ids=lambda module: type(module).__name__,
)
def test_a_module_of_which_a_part_reads_its_mode_is_refused_and_left_alone(inner):
    module = Plain(inner).train()
    with pytest.raises(UserError, match=r"^mine is in train mode"):
        refuse_train_mode(module, "mine")
    assert all(part.training for part in module.modules())
