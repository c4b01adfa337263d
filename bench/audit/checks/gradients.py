"""Checks of gradients: zeros, agreement between seeds, saturated outputs, and the certificate."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bench.audit.findings import Finding, Plot, Status, not_applicable, status_of
from bench.audit.subject import FINITE, Subject
from bench.evaluation.certificates.certificate import Certificate, Measurement, NoGradient, State, rounded
from bench.evaluation.certificates.measure import certify
from bench.evaluation.model_checks import are_probabilities, squashed
from bench.evaluation.view import attack_view
from bench.stats.proportions import wilson
from bench.store.audits import SOFTMAX
from defenses.core.noise import Noise

_ZEROS = 0.01  # largest share of images without a gradient
_AGREEMENT = 0.1  # least mean cosine of two seeds' gradients; independent directions have 0
_PAIRS = 2  # pairs of seeds
_MORE = 4  # copies at the end of the curve, as a multiple of those of the attacks
_CERTIFIED = 4  # images
_DECADES = 16.0  # range of the plot; an error of 0 lies at its end
_STATUSES: dict[State, Status] = {"passed": "pass", "failed": "fail", "not measurable": "not measurable"}
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def zeros(subject: Subject) -> Finding:
    """Check that the gradient of the cross-entropy is finite, and not zero."""
    check, mode = "zero gradients", subject.modes[0]
    try:
        gradient = _gradient(subject, mode, subject.eot, subject.seed_for("zeros"))
    except NoGradient:
        return Finding(check, "fail", "the logits have no gradient at all", {"share": 1.0})
    flat = gradient.flatten(1)
    lost = ((flat == 0).all(1) | ~flat.isfinite().all(1)).cpu().numpy()
    low, high = (float(v) for v in wilson(lost.sum(), len(lost)))
    pixels = float((flat == 0).double().mean())
    return Finding(
        check,
        status_of(low <= _ZEROS),
        f"{int(lost.sum())} of {len(lost)} images have no cross-entropy gradient; {pixels:.0%} of all pixels have none",
        {"share": float(lost.mean()), "low": low, "high": high, "limit": _ZEROS, "pixels": pixels},
        subject.images(lost),
        Plot("bar", "", "without gradient", {"share": (("images", "pixels"), (float(lost.mean()), pixels))}, _ZEROS),
    )


def agreement(subject: Subject) -> Finding:
    """Check that gradients under different noise agree, with as many copies as the attacks average."""
    check = "gradients agree between seeds"
    if not subject.defense.stochastic:
        return not_applicable(check, "the defense is deterministic")
    counts = sorted({1, subject.eot, _MORE * subject.eot})
    try:
        means = {n: _cosine(subject, n) for n in counts}
    except NoGradient:
        return Finding(check, "fail", "the logits have no gradient at all")
    return Finding(
        check,
        status_of(means[subject.eot] >= _AGREEMENT),
        f"mean cosine {means[subject.eot]:.2f} with {subject.eot} copies, {means[counts[-1]]:.2f} with {counts[-1]}; "
        f"at least {_AGREEMENT} is asked, chance is 0",
        {f"{n} copies": mean for n, mean in means.items()} | {"limit": _AGREEMENT},
        plot=Plot(
            "line",
            "copies in the gradient",
            "mean cosine of two seeds",
            {"cosine": (tuple(counts), tuple(means.values()))},
            _AGREEMENT,
        ),
    )


def outputs(subject: Subject) -> Finding:
    """Check that the defense returns logits, not probabilities."""
    with torch.no_grad():
        logits = subject.defense.logits(subject.x, Noise.of(subject.seed, subject.indices, subject.x.device))
    top = logits.topk(2).values
    gaps = (top[:, 0] - top[:, 1]).double()
    gap = float(gaps.median())
    is_softmax = are_probabilities(logits)
    evidence = f"the defense {squashed(logits) or 'returns logits'}; the median gap between the top two is {gap:.3g}"
    spread = tuple(gaps.quantile(torch.tensor(_QUANTILES).to(gaps)).tolist())
    plot = Plot("line", "quantile of images", "gap", {"gap": (_QUANTILES, spread)})
    return Finding(SOFTMAX, status_of(not is_softmax), evidence, {"median gap": gap}, plot=plot)


def certificate(subject: Subject) -> Finding:
    """Check the gradient certificate of `bench.evaluation.certificates.measure`."""
    check = "gradient certificate"
    try:
        measured = certify(subject.defense, subject.x[:_CERTIFIED], seed=subject.seed)
    except NoGradient:
        return Finding(check, "fail", "the logits have no gradient at all")
    except FloatingPointError as error:
        return Finding(check, "fail", str(error))
    if measured is None:
        return not_applicable(check, "the defense has no exact gradients")
    others = [m for m in subject.modes if m in FINITE]
    if measured.carries_no_gradient and others and not subject.informative:
        text = f"exact gradients equal bpda, the steps being piecewise linear; judged by {' and '.join(others)} too"
        return not_applicable(check, text)
    shown = [c for c in measured.checks if c.state != "not measurable"]
    spare = (tuple(c.name for c in shown), tuple(_spare(c) for c in shown))
    plot = Plot("rows", "decades inside the limit; below 0 beyond it", "", {"decades": spare})
    numbers = {c.name: c.value for c in shown}
    return Finding(check, _STATUSES[measured.state], _evidence(measured), numbers, plot=plot)


def _evidence(measured: Certificate) -> str:
    """Return what fails; else what is not measurable; else the number of measurements, and the points left out."""
    if measured.state == "failed":
        broken = (c for c in measured.checks if c.state == "failed")
        return "; ".join(f"{c.name}: {rounded(c.value, c.limit)} (limit {c.limit:g})" for c in broken)
    notes = [f"{c.name}: {c.note}" for c in measured.checks if c.left_out]
    if measured.state == "passed":
        notes.insert(0, f"{len(measured.checks)} measurements hold")
    return "; ".join(notes)


def _spare(c: Measurement) -> float:
    """Return the decades by which a measurement is inside its limit, in [-16, 16]; for a cosine those of 1 - cosine."""
    value, limit, least = c.value, c.limit, c.least
    if c.name.startswith("cosine"):
        value, limit, least = 1 - value, 1 - limit, False
    if math.isnan(value):
        return -_DECADES
    small, large = (limit, value) if least else (value, limit)
    decades = math.log10(max(large, 1e-300)) - math.log10(max(small, 1e-300))
    return max(-_DECADES, min(_DECADES, decades))


def _cosine(subject: Subject, copies: int) -> float:
    """Return the mean cosine of gradients under pairs of seeds."""
    cosines = []
    for i in range(_PAIRS):
        pair = [_gradient(subject, subject.modes[0], copies, subject.seed_for("seed", i, side)) for side in (0, 1)]
        a, b = (g.flatten(1).double() for g in pair)
        cosines.append(nn.functional.cosine_similarity(a, b, dim=1, eps=1e-300))
    return float(torch.stack(cosines).mean())


def _gradient(subject: Subject, mode: str, copies: int, seed: int) -> Tensor:
    """Return the gradient of the cross-entropy at the clean images, [N, C, H, W].

    Raises:
        NoGradient: the logits have none.
    """
    with attack_view(subject.defense, subject.view(mode, copies), seed=seed) as (view, _), torch.enable_grad():
        x = subject.x.clone().requires_grad_()
        loss = nn.functional.cross_entropy(view(x), subject.y, reduction="sum")
        if not loss.requires_grad:
            raise NoGradient
        gradient: Tensor = torch.autograd.grad(loss, x, allow_unused=True, materialize_grads=True)[0]
    return gradient
