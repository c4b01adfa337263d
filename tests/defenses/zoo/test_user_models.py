"""User-defined models by `load_model`."""

import pytest
import torch

from bench import benchmark
from defenses import UserError, load_model

NET = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        logits = x.flatten(1)[:, :10]
        return logits + torch.randn_like(logits)
"""


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path / 'net.py'}:Net"


def test_a_plain_module_is_deterministic_unless_it_is_said(net):
    assert not load_model(net).stochastic
    assert load_model(net, stochastic=True).stochastic


@pytest.mark.parametrize(("name", "declared"), [("undefended", True), ("adp", False)])
def test_a_registered_defense_must_agree(name, declared):
    assert load_model(name, stochastic=not declared).stochastic is not declared
    with pytest.raises(UserError, match=f'"{name}" says itself whether it is stochastic'):
        load_model(name, stochastic=declared)


def test_what_was_said_when_it_was_loaded_stays(net):
    model = load_model(net, stochastic=True)
    torch.manual_seed(0)
    frame = benchmark(model, 4, eps="1/10", attacks="torchattacks:FGSM", draws=3, selection=1)
    assert frame["stochastic"].all()
