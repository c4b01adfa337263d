"""Functions of libraries that plug-ins replace: noted, and refused beside other defenses."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.models import _registry
from torch.nn.modules import module as hooks

from defenses import load_model
from defenses.utils import replacements
from defenses.utils.errors import UserError
from defenses.utils.plugins import load_object

NET = """
import functools, numpy as np, timm, torch
import torch.nn.functional as F
{imported}

class Net(torch.nn.Module):
    def __init__(self, k=1):
        super().__init__()
        {made}
        self.eval()

    def forward(self, x):
        return x.flatten(1)[:, :10]
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A function that writes a plug-in; all that they replace is put back."""
    monkeypatch.setattr(replacements, "_replaced", {})
    for target, name in (
        (F, "linear"),
        (torch.nn, "ReLU"),
        (torch.nn.Linear, "forward"),
        (torch, "load"),
        (torch, "pi"),
    ):
        monkeypatch.setattr(target, name, getattr(target, name))
    monkeypatch.setattr(_registry, "_model_entrypoints", dict(_registry._model_entrypoints))
    monkeypatch.setattr(hooks, "_global_forward_hooks", hooks._global_forward_hooks.copy())
    monkeypatch.delattr(np, "int", raising=False)

    def write(name, imported="", made="pass"):
        file = tmp_path / f"{name}.py"
        file.write_text(NET.format(imported=imported, made=made))
        return f"{file}:Net"

    return write


CHANGES = {
    "F.linear = lambda x, w, b=None: x": "torch.nn.functional.linear",
    "torch.nn.Linear.forward = lambda self, x: x": "torch.nn.Linear.forward",
    "torch.nn.ReLU = torch.nn.GELU": "torch.nn.ReLU",
    "torch.pi = 3": "torch.pi",
    "timm.models._registry._model_entrypoints['resnet18'] = len": "resnet18",
    "torch.nn.modules.module.register_module_forward_hook(lambda *_: None)": "_global_forward_hooks",
}


@pytest.mark.parametrize("where", ["imported", "made"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_replaced_is_refused_beside_others(plugin, change, where):
    first, other = plugin("a", **{where: change}), plugin("b")
    load_model(other)
    load_model(first)
    load_model(first)  # by itself it is taken
    (note,) = replacements.replacement_notes()
    assert CHANGES[change] in note
    for name in (other, "undefended"):
        with pytest.raises(UserError, match=r"a\.py replaces .* judged alone"):
            load_model(name)


def test_a_constructor_may_replace_by_its_parameters(plugin):
    name = plugin("a", made="F.linear = lambda x, w, b=None: k * x")
    load_model(name, k=1)
    with pytest.raises(UserError, match="judged alone"):
        load_model(name, k=2)


def test_a_plug_in_may_be_part_of_a_composition(plugin):
    name = plugin("a", imported="F.linear = lambda x, w, b=None: x")
    load_model("adp", classifier=name)
    load_model("adp", classifier=name)
    with pytest.raises(UserError, match="judged alone"):
        load_model("adp")


@pytest.mark.parametrize(
    "change",
    [
        "np.int = int",  # a name more
        "torch.load = functools.partial(torch.load, weights_only=False)",
        "plain, F.linear = F.linear, None; F.linear = plain",
        "import torch._dynamo, torchvision, foolbox",
        "timm.create_model('resnet18')",
    ],
)
def test_what_changes_no_other_code_is_taken(plugin, change):
    load_model(plugin("a", imported=change))
    assert not replacements.replacement_notes()
    load_model("undefended")


def test_settings_of_torch_are_put_back(plugin):
    change = "torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False); torch.set_default_device('meta')"
    load_object(plugin("a", imported=change))
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert torch.zeros(1).device.type == "cpu"
