"""Measure what only purifiers have: replayed steps, and paths of the gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from bench.evaluation.certificates.certificate import PATH_CONTRIBUTION, Measurement, NoGradient
from bench.evaluation.certificates.differences import LIMIT
from bench.evaluation.certificates.probe import Probe
from defenses.core.defense import Defense, Purified
from defenses.core.detector import unguarded
from defenses.core.purifier import Purifier
from defenses.core.purify import unrolled
from defenses.core.replay import replayed
from defenses.core.steps import advance, start, step_noise

_STATES = 1e-6  # most relative difference of replayed states in float32


def purifier_of(defense: Defense) -> Purifier | None:
    """Return the purifier of a defense, behind its detector if any; None if it has none."""
    inside = unguarded(defense)
    return inside.purifier if isinstance(inside, Purified) else None


def replay_checks(probe: Probe, defense: Defense, short: Defense, exact: Tensor) -> list[Measurement]:
    """Return the measurements of replayed steps: their states, and gradients against unrolled autograd."""
    plain = probe.gradient(short, torch.float64, unrolled)
    replays = [probe.gradient(short, torch.float64, partial(replayed, length=n)) for n in (1, 3)]
    worst = max(_relative(g, plain) for g in (*replays, exact))
    return [
        Measurement("replayed states against those of the forward pass", _states(purifier_of(defense), probe), _STATES),
        Measurement("replayed float64 gradient against unrolled autograd", worst, LIMIT),
    ]


def _states(purifier: Purifier | None, probe: Probe) -> float:
    """Return the largest relative difference of a state that is replayed with a graph; 0 where all are equal."""
    assert purifier is not None
    x, noise = probe.near(), probe.noise()
    with torch.no_grad():
        state, ctx = start(purifier, x, noise)
    worst, z, again = 0.0, step_noise(purifier, x, noise), step_noise(purifier, x, noise)
    for k in range(purifier.steps):
        with torch.no_grad():
            after = advance(purifier, state, ctx, range(k, k + 1), z)
        with torch.enable_grad():
            leaf = {n: v.detach().requires_grad_(v.is_floating_point()) for n, v in state.items()}
            repeated = advance(purifier, leaf, ctx, range(k, k + 1), again)
        for name, value in after.items():
            other = repeated[name].detach()
            if not value.is_floating_point():
                worst = worst if torch.equal(value, other) else float("inf")
            elif value.numel():
                worst = max(worst, float((value - other).abs().amax() / value.abs().amax().clamp_min(1e-12)))
        state = after
    return worst


def path_checks(probe: Probe, short: Defense, exact: Tensor) -> list[Measurement]:
    """Return the relative change of the gradient without each declared path, which must not be zero."""
    purifier = purifier_of(short)
    assert purifier is not None
    checks = []
    for path in purifier.paths if purifier.steps else ():
        try:
            with _cut(purifier, path):
                change = _relative(probe.gradient(short, torch.float64), exact)
        except NoGradient:  # all of it goes this way, as through an autoencoder
            change = 1.0
        note = "" if change > PATH_CONTRIBUTION else "this path carries nothing on these images"
        name = f"the path through {path} contributes"
        checks.append(Measurement(name, change, PATH_CONTRIBUTION, least=True, note=note))
    return checks


@contextmanager
def _cut(purifier: Purifier, path: str) -> Iterator[None]:
    """Cut the gradient through the output of one method or network of a purifier, within the context."""
    where, _, name = path.rpartition(".")
    owner = purifier.get_submodule(where)
    part = getattr(owner, name)
    if isinstance(part, nn.Module):
        handle = part.register_forward_hook(lambda _module, _inputs, output: output.detach())
        try:
            yield
        finally:
            handle.remove()
        return
    object.__setattr__(owner, name, lambda *args: part(*args).detach())
    try:
        yield
    finally:
        object.__delattr__(owner, name)


def _relative(gradient: Tensor, exact: Tensor) -> float:
    return float((gradient - exact).norm() / exact.norm().clamp_min(torch.finfo(torch.float64).tiny))
