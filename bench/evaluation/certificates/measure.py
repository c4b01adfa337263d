"""Measure a certificate of gradients: evidence that a defense's exact gradients are exact."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from bench.evaluation.certificates.certificate import Certificate, Measurement, NoGradient
from bench.evaluation.certificates.differences import LIMIT
from bench.evaluation.certificates.float32_draws import SingleDraws
from bench.evaluation.certificates.line_integral import MOST_MISSED, line_integral_error
from bench.evaluation.certificates.probe import Probe
from bench.evaluation.certificates.purifier_checks import path_checks, purifier_of, replay_checks
from defenses.core.defense import Defense, UserModule
from defenses.core.detector import Guard, Guarded, guard_of, unguarded
from defenses.core.noise import Noise
from defenses.core.purifier import Purifier
from defenses.detectors.gated import Gated
from defenses.utils.modules import shared_copy

_STEPS = 20  # of a purifier: unrolled graphs and central differences stay cheap and well conditioned
_COSINE = 0.9999  # least cosine between float32 and float64
_POINTS = 3  # beside each image, for the precision of float32
_MOST_AT_KINKS = 0.5  # largest share of images that a comparison over all steps leaves out


def certify(defense: Defense, x: Tensor, *, seed: int = 0) -> Certificate | None:
    """Measure how exact the gradients of the mode "exact" are.

    A fixed random combination of the logits is differentiated, under fixed noise; a user-defined random module draws
    in float32 for float64 too. Purifiers are shortened to 20 steps for most checks in float64; over all steps, replayed
    states are compared, float32 with float64, and float64 with differences in one direction, by the median image. The
    gate of a purifier gets a threshold that half of the images exceed, so that both branches are measured. The gradient
    of a detector's scores is compared where the detector declares one. Of a defense without a purifier the gradient is
    integrated along lines, too.

    Pixels are jittered, for flat areas tie in max pooling. Points where the one-sided differences disagree are left out
    of comparisons with differences, and counted; if they are too many, nothing is measured.

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
    defense = _with_median_threshold(defense, x)
    probe = Probe(x, seed)
    purifier = purifier_of(defense)
    steps = None if purifier is None else min(_STEPS, purifier.steps)
    with SingleDraws() if _uses_global_generators(defense) else nullcontext():  # type: ignore[no-untyped-call]
        return Certificate(tuple(_checks(probe, defense)), len(x), steps)


def _checks(probe: Probe, defense: Defense) -> list[Measurement]:
    """Return all measurements of a defense."""
    long = _double(defense)
    short = _shortened(long)
    difference = probe.against_differences("float64 gradient against central differences", partial(probe.value, short))
    precision = _precision_check(probe, defense, long)
    if purifier_of(defense) is None:
        checks = [difference, precision, _line_check(probe, defense)]
    else:
        exact = probe.gradient(short, torch.float64)
        checks = [
            *replay_checks(probe, defense, short, exact),
            difference,
            *path_checks(probe, short, exact),
            precision,
        ]
    if short is not long:
        # In long chains some images lie at kinks, as where restarts change places; a fault shows in most images.
        name, value = "float64 gradient over all steps against a central difference", partial(probe.value, long)
        checks.append(probe.against_differences(name, value, directions=1, over=torch.median, most=_MOST_AT_KINKS))
    guard = guard_of(long)
    if guard is not None and guard.detector.differentiable:
        checks.append(_scores_check(probe, guard))
    return checks


def has_gradient(defense: Defense, x: Tensor) -> bool:
    """Return True if autograd reaches images [B, C, H, W] from the logits of the mode "exact"."""
    with torch.enable_grad():
        logits = defense.logits(x.detach().clone().requires_grad_(), Noise.of(0, len(x), x.device), runs=1)
    return bool(logits.requires_grad)


def _precision_check(probe: Probe, defense: Defense, long: Defense) -> Measurement:
    """Return the least cosine of float32 and float64 gradients over images, at the best of some points beside each.

    Near a kink, rounding puts float32 on the other side; a fault shows at every point.
    """
    best = torch.full((len(probe.x),), -1.0, dtype=torch.float64, device=probe.x.device)
    for i in range(_POINTS):
        single, double = probe.gradient(defense, torch.float32, i=i), probe.gradient(long, torch.float64, i=i)
        best = torch.maximum(best, _cosines(single, double))
        if (best >= _COSINE).all():
            break
    return Measurement("cosine of float32 and float64 gradients", float(best.amin()), _COSINE, least=True)


def _line_check(probe: Probe, defense: Defense) -> Measurement:
    """Return by how much the integral of the gradient along lines misses the change of the logits."""
    error = line_integral_error(partial(probe.value, defense), probe.near(), seed=probe.seed)
    name = "integral of the gradient along lines against the change of the logits"
    return Measurement(name, error, MOST_MISSED)


def _scores_check(probe: Probe, guard: Guard) -> Measurement:
    """Return the error of the gradient of a detector's scores, which adaptive attacks use; `guard` is in float64."""
    name = "float64 gradient of the detector's scores against central differences"
    try:
        return probe.against_differences(name, lambda x: guard.scores(x, probe.noise()))
    except NoGradient:
        return Measurement(name, float("inf"), LIMIT)


def _with_purifier(defense: Defense, purifier: Purifier) -> Defense:
    if isinstance(defense, Guarded):
        return shared_copy(defense, defense=_with_purifier(defense.defense, purifier))
    return shared_copy(defense, purifier=purifier)


def _with_median_threshold(defense: Defense, x: Tensor) -> Defense:
    """Return a defense whose gate, if any, lets half of the images through."""
    purifier = purifier_of(defense)
    return _with_purifier(defense, purifier.with_median_threshold(x)) if isinstance(purifier, Gated) else defense


def _uses_global_generators(defense: Defense) -> bool:
    """Return True if it draws from global generators, not from `Noise`, whose values are the same in float64."""
    return defense.stochastic and isinstance(unguarded(defense), UserModule)


def _double(defense: Defense) -> Defense:
    double = copy.deepcopy(defense).double()
    for parameter in double.parameters():
        if parameter.is_leaf:  # those of a TorchScript module may be none after the change of type
            parameter.requires_grad_(False)
    return double


def _shortened(defense: Defense) -> Defense:
    purifier = purifier_of(defense)
    if purifier is None or purifier.steps <= _STEPS:
        return defense
    return _with_purifier(defense, purifier.shortened(_STEPS))


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosines of two gradients [B, ...], [B]; two gradients of zero have cosine 1."""
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    both_zero = (flat_a.norm(dim=1) == 0) & (flat_b.norm(dim=1) == 0)
    cosine = nn.functional.cosine_similarity(flat_a, flat_b, dim=1, eps=1e-300)
    return torch.where(both_zero, torch.ones_like(cosine), cosine)
