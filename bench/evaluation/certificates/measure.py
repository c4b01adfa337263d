"""Measure a certificate of gradients: evidence that a defense's exact gradients are exact."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bench.evaluation.certificates.certificate import PATH_CONTRIBUTION, Certificate, Measurement, NoGradient
from bench.evaluation.certificates.float32_draws import SingleDraws
from defenses.core.defense import Defense, Purified, UserModule
from defenses.core.detector import Guard, Guarded, guard_of, unguarded
from defenses.core.noise import Noise
from defenses.core.purifier import Purifier
from defenses.core.purify import unrolled
from defenses.core.replay import replayed
from defenses.core.steps import advance, start, step_noise
from defenses.detectors.gated import Gated
from defenses.utils.modules import shared_copy

_STEPS = 20  # of a purifier: unrolled graphs and central differences stay cheap and well conditioned
_DOUBLE = 1e-6  # most relative error of gradients in float64
_STATES = 1e-6  # most relative difference of replayed states in float32
_COSINE = 0.9999  # least cosine between float32 and float64
_WIDTHS = (1e-4, 1e-5, 1e-6, 1e-7)  # of central differences: the best counts, between rounding and curvature
_PROBES = 3  # directions of central differences

Loop = Callable[[Purifier, Tensor, Noise], Tensor]  # runs the steps of a purifier


def certify(defense: Defense, x: Tensor, *, seed: int = 0) -> Certificate | None:
    """Measure how exact the gradients of the mode "exact" are.

    A fixed random combination of the logits is differentiated, under fixed noise; a user-defined random module draws
    in float32 for float64 too. Purifiers are shortened to 20 steps for most checks in float64; over all steps, replayed
    states are compared, float32 with float64, and float64 with differences in one direction, by the median image. The
    gate of a purifier gets a threshold that half of the images exceed, so that both branches are measured. The gradient
    of a detector's scores is compared where the detector declares one.

    Args:
        defense: the defense, on its device.
        x: a few images, float32 [B, C, H, W] in [0, 1].
        seed: of noise and directions.

    Returns:
        The certificate; None for a defense without the mode "exact".

    Raises:
        FloatingPointError: a gradient is not finite.
        NoGradient: the logits do not depend on the image as far as autograd sees.
    """
    if "exact" not in defense.gradients:
        return None
    probe, defense = _Probe(x, seed), _with_median_threshold(defense, x)
    purifier = _purifier(defense)
    steps = None if purifier is None else min(_STEPS, purifier.steps)
    with SingleDraws() if _uses_global_generators(defense) else nullcontext():  # type: ignore[no-untyped-call]
        return Certificate(tuple(_checks(probe, defense)), len(x), steps)


def _checks(probe: _Probe, defense: Defense) -> list[Measurement]:
    """Return all measurements of a defense."""
    long = _double(defense)
    short = _shortened(long)
    exact = probe.gradient(short, torch.float64)
    worst = probe.against_differences(partial(probe.value, short), exact)
    checks = [Measurement("float64 gradient against central differences", worst, _DOUBLE)]
    if _purifier(defense) is not None:
        checks = [*_replay_checks(probe, defense, short, exact), *checks, *_paths(probe, short, exact)]
    single, double = probe.gradient(defense, torch.float32), probe.gradient(long, torch.float64)
    checks.append(Measurement("cosine of float32 and float64 gradients", _cosine(single, double), _COSINE, least=True))
    if short is not long:
        # In long chains some images lie at kinks, as where restarts change places; a fault shows in most images.
        middle = probe.against_differences(partial(probe.value, long), double, probes=1, over=torch.median)
        checks.append(Measurement("float64 gradient over all steps against a central difference", middle, _DOUBLE))
    guard = guard_of(long)
    if guard is not None and guard.detector.differentiable:
        checks.append(_scores_check(probe, guard))
    return checks


def has_gradient(defense: Defense, x: Tensor) -> bool:
    """Return True if autograd reaches images [B, C, H, W] from the logits of the mode "exact"."""
    with torch.enable_grad():
        logits = defense.logits(x.detach().clone().requires_grad_(), Noise.of(0, len(x), x.device), runs=1)
    return bool(logits.requires_grad)


@dataclass(frozen=True)
class _Probe:
    """The images, noise and directions of all measurements."""

    x: Tensor
    seed: int

    def noise(self) -> Noise:
        return Noise.of(self.seed, len(self.x), self.x.device)

    def value(self, defense: Defense, x: Tensor, loop: Loop | None = None) -> Tensor:
        """Return a fixed combination [B] of the logits of one run, under the same noise every time.

        `loop` runs the steps of the purifier; None: as the defense does.
        """
        noise = self.noise()
        if loop is None:
            logits = defense.logits(x, noise, runs=1)
        else:
            inside = unguarded(defense)
            assert isinstance(inside, Purified)
            logits = inside.classifier.logits(loop(inside.purifier, x, noise.copies(1)), noise)
        generator = torch.Generator().manual_seed(self.seed)
        return logits @ torch.randn(logits.shape[-1], generator=generator).to(logits)

    def gradient(self, defense: Defense, dtype: torch.dtype, loop: Loop | None = None) -> Tensor:
        """Return the gradient of `value`, float64 [B, C, H, W], computed in `dtype`."""
        x = self.x.to(dtype, copy=True).requires_grad_()
        with torch.enable_grad():
            value = self.value(defense, x, loop).sum()
        if not value.requires_grad:
            raise NoGradient
        gradient = torch.autograd.grad(value, x, allow_unused=True, materialize_grads=True)[0]
        if not gradient.isfinite().all():
            raise FloatingPointError("the gradient is not finite on clean images")
        return gradient.double()

    @torch.no_grad()
    def against_differences(
        self,
        value: Callable[[Tensor], Tensor],
        gradient: Tensor,
        *,
        probes: int = _PROBES,
        over: Callable[[Tensor], Tensor] = torch.amax,
    ) -> float:
        """Return the relative error of directional derivatives, the largest (`over`) of all directions and images."""
        errors = []
        for i in range(probes):
            generator = torch.Generator().manual_seed(self.seed + 1 + i)
            along = torch.randn(self.x.shape, generator=generator, dtype=torch.float64).to(self.x.device)
            slope = (gradient * along).flatten(1).sum(1)
            scale = gradient.flatten(1).norm(dim=1) * along.flatten(1).norm(dim=1) / along[0].numel() ** 0.5
            best = torch.full_like(slope, float("inf"))
            for h in _WIDTHS:
                up, down = (value(self.x.double() + s * h * along) for s in (1, -1))
                best = torch.minimum(best, ((up - down) / (2 * h) - slope).abs())
            errors.append(best / scale.clamp_min(torch.finfo(torch.float64).tiny))
        return float(over(torch.stack(errors)))


def _replay_checks(probe: _Probe, defense: Defense, short: Defense, exact: Tensor) -> list[Measurement]:
    """Return the measurements of replayed steps: their states, and gradients against unrolled autograd."""
    plain = probe.gradient(short, torch.float64, unrolled)
    replays = [probe.gradient(short, torch.float64, partial(replayed, length=n)) for n in (1, 3)]
    worst = max(_relative(g, plain) for g in (*replays, exact))
    return [
        Measurement("replayed states against those of the forward pass", _states(_purifier(defense), probe), _STATES),
        Measurement("replayed float64 gradient against unrolled autograd", worst, _DOUBLE),
    ]


def _states(purifier: Purifier | None, probe: _Probe) -> float:
    """Return the largest relative difference of a state that is replayed with a graph; 0 where all are equal."""
    assert purifier is not None
    x, noise = probe.x, probe.noise()
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


def _paths(probe: _Probe, short: Defense, exact: Tensor) -> list[Measurement]:
    """Return the relative change of the gradient without each declared path, which must not be zero."""
    purifier = _purifier(short)
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


def _scores_check(probe: _Probe, guard: Guard) -> Measurement:
    """Return the error of the gradient of a detector's scores, which adaptive attacks use; `guard` is in float64."""

    def scores(x: Tensor) -> Tensor:
        return guard.scores(x, probe.noise())

    x = probe.x.to(torch.float64, copy=True).requires_grad_()
    with torch.enable_grad():
        value = scores(x).sum()
    gradient = torch.autograd.grad(value, x)[0] if value.requires_grad else torch.zeros_like(x)
    name = "float64 gradient of the detector's scores against central differences"
    return Measurement(name, probe.against_differences(scores, gradient), _DOUBLE)


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


def _purifier(defense: Defense) -> Purifier | None:
    inside = unguarded(defense)
    return inside.purifier if isinstance(inside, Purified) else None


def _with_purifier(defense: Defense, purifier: Purifier) -> Defense:
    if isinstance(defense, Guarded):
        return shared_copy(defense, defense=_with_purifier(defense.defense, purifier))
    return shared_copy(defense, purifier=purifier)


def _with_median_threshold(defense: Defense, x: Tensor) -> Defense:
    """Return a defense whose gate, if any, lets half of the images through."""
    purifier = _purifier(defense)
    return _with_purifier(defense, purifier.with_median_threshold(x)) if isinstance(purifier, Gated) else defense


def _uses_global_generators(defense: Defense) -> bool:
    """Return True if it draws from global generators, not from `Noise`, whose values are the same in float64."""
    return defense.stochastic and isinstance(unguarded(defense), UserModule)


def _double(defense: Defense) -> Defense:
    return copy.deepcopy(defense).double().requires_grad_(False)


def _shortened(defense: Defense) -> Defense:
    purifier = _purifier(defense)
    if purifier is None or purifier.steps <= _STEPS:
        return defense
    return _with_purifier(defense, purifier.shortened(_STEPS))


def _relative(gradient: Tensor, exact: Tensor) -> float:
    return float((gradient - exact).norm() / exact.norm().clamp_min(torch.finfo(torch.float64).tiny))


def _cosine(a: Tensor, b: Tensor) -> float:
    """Return the smallest cosine of two gradients over images; two gradients of zero have cosine 1."""
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    both_zero = (flat_a.norm(dim=1) == 0) & (flat_b.norm(dim=1) == 0)
    cosine = nn.functional.cosine_similarity(flat_a, flat_b, dim=1, eps=1e-300)
    return float(torch.where(both_zero, torch.ones_like(cosine), cosine).amin())
