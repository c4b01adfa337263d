"""Random states and settings of the process after other code."""

import contextlib
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from defenses.utils.isolation import kept_settings, seeded_globals


def draws():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_the_same_seed_gives_the_same_draws_and_leaves_the_generators_as_they_were():
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with seeded_globals(3, torch.device("cpu")):
        first = draws()
    with seeded_globals(3, torch.device("cpu")):
        assert draws() == first
    with seeded_globals(4, torch.device("cpu")):
        assert draws() != first
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_on_the_cpu_no_generator_of_another_device_is_seeded(monkeypatch):
    """What is not restored must not be seeded: `torch.manual_seed` seeds the generators of all devices."""
    seeded = []
    for module in (torch.cuda, torch.mps, torch.xpu):
        for name in ("manual_seed", "manual_seed_all"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, seeded.append)
    with seeded_globals(3, torch.device("cpu")):
        draws()
    assert seeded == []


@pytest.mark.parametrize("name", ["cuda:1", "xpu:0", "mps"])
def test_the_generator_of_the_device_is_seeded_and_restored(name, monkeypatch):
    device, calls = torch.device(name), []
    where = () if name == "mps" else (device,)
    module = SimpleNamespace(
        get_rng_state=lambda *on: ("state", on),
        set_rng_state=lambda *state: calls.append(state),
        manual_seed=calls.append,
        device=lambda on: contextlib.nullcontext(calls.append(on)),
    )
    monkeypatch.setattr(torch, "get_device_module", lambda on: {device: module}[on])
    with seeded_globals(3, device):
        assert calls == [*where, 3]
    assert calls == [*where, 3, (("state", where), *where)]


def test_settings_of_cudnn_are_restored(monkeypatch):
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    with kept_settings():
        cudnn.benchmark, cudnn.deterministic = not before[0], not before[1]
    assert (cudnn.benchmark, cudnn.deterministic) == before


def test_algorithms_that_nobody_chose_are_left_alone(monkeypatch):
    """`torch.use_deterministic_algorithms` imports the compiler: seconds, and 80 MiB in every process."""
    calls, real = [], torch.use_deterministic_algorithms
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *a, **k: (calls.append(a), real(*a, **k)))
    with kept_settings():
        pass
    assert calls == []
    with kept_settings():
        real(True, warn_only=True)
    assert calls == [(False,)]
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
