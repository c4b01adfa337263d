"""Identity of modules: of values in plain objects, and of the architectures of libraries."""

import dataclasses
import functools
import threading
import types
import warnings

import pytest
import torch
from torch import nn

from defenses.utils import identity as identities
from defenses.utils.identity import identity


class Holder:
    """A plain object with a network."""

    def __init__(self, net):
        self.net = net


class Slotted:
    __slots__ = ("k",)

    def __init__(self, k):
        self.k = k


@dataclasses.dataclass
class Config:
    k: int = 1
    more: dict = dataclasses.field(default_factory=dict)


def net(scale=1.0):
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, scale)
    nn.init.zeros_(layer.bias)
    return layer


def module(**attributes):
    made = nn.Flatten()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    "value",
    [
        lambda k: types.SimpleNamespace(inner=types.SimpleNamespace(k=k)),
        lambda k: Config(k),
        lambda k: Config(more={"a": [Config(k)]}),
        lambda k: Slotted(k),
        lambda k: Holder(net(k)),
        lambda k: (Holder(net(k)), 1),
        lambda k: functools.partial(net, k),
        lambda k: net(k).forward,
        lambda k: torch.Generator().manual_seed(k),
        lambda k: __import__("numpy").random.default_rng(k),
        lambda k: __import__("fractions").Fraction(1, k + 1),
        lambda k: __import__("re").compile(str(k)),
        lambda k: __import__("collections").deque([k]),
        lambda k: __import__("collections").namedtuple("Pair", "a b")(k, 1),
        lambda k: range(k),
        lambda k: type("List", (list,), {})([k]),
    ],
)
def test_values_in_objects_are_part_of_it(value):
    digests = [identity(module(value=value(k))) for k in (1, 1, 2)]
    assert all(d.complete for d in digests), digests[0].problem
    assert digests[0] == digests[1] != digests[2]


def test_objects_that_refer_to_each_other():
    def ring(k):
        first, second = Holder(k), Holder(0)
        first.other, second.other = second, first
        return module(value=first)

    assert identity(ring(1)) == identity(ring(1)) != identity(ring(2))


@pytest.mark.parametrize("value", [threading.Lock(), (k for k in "ab"), nn.Linear(2, 2, device="meta").weight])
def test_what_cannot_be_hashed_is_named(value):
    found = identity(module(inner=module(cfg=Config(more={"a": value}))))
    assert not found.complete
    assert found.problem.startswith("inner.cfg.more.a is ")


def architectures():
    """Yield a network of every file of torchvision and timm, and every kind of RobustBench's, without memory."""
    import timm
    import torchvision
    from robustbench.model_zoo import model_dicts

    makers, seen = [], set()
    for name in torchvision.models.list_models(module=torchvision.models):
        if (file := torchvision.models.get_model_builder(name).__module__) in seen:
            continue
        seen.add(file)
        more = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
        makers.append((name, functools.partial(torchvision.models.get_model, name, weights=None, **more)))
    for name in timm.list_models():
        if (file := timm.models._registry._model_to_module[name]) not in seen:
            seen.add(file)
            makers.append((name, functools.partial(timm.create_model, name)))
    for by_threat in model_dicts.values():
        for name, entry in [pair for models in by_threat.values() for pair in models.items()]:
            make = entry["model"][0] if isinstance(entry["model"], list) else entry["model"]
            names = make.__code__.co_names if hasattr(make, "__code__") else (make,)
            if names not in seen:
                seen.add(names)
                makers.append((name, make))
    for name, make in makers:
        try:
            with torch.device("meta"):
                made = make()
        except (NotImplementedError, RuntimeError):  # it computes with the values of its weights
            continue
        yield name, made


@pytest.mark.slow
def test_architectures_of_the_libraries_are_complete(monkeypatch):
    import defenses  # noqa: F401  provides autoattack

    monkeypatch.setattr(identities._Digest, "_tensor", lambda self, value: self._write("tensor", str(value.shape)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problems = {name: identity(made).problem for name, made in architectures()}
    assert len(problems) > 140
    assert {name: problem for name, problem in problems.items() if problem} == {}
