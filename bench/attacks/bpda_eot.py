"""The attack of the EBM paper: BPDA with EOT, whose iterates are screened, and verified with more draws."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.attacks.base import Unsupported
from bench.attacks.noise import uniform_in_ball
from defenses.core.noise import Noise

if TYPE_CHECKING:
    from bench.evaluation.view import AttackView
    from bench.spec.threat import ThreatModel

_START, _VERIFY = 0x53544152, 0x56455249  # names of noise streams


def bpda_eot(
    view: AttackView,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatModel,
    target: Tensor | None,
    seed: int,
    indices: Tensor,
    steps: int = 50,
    rel_stepsize: float = 0.25,
    verify: int = 150,
) -> Tensor:
    """Take sign steps from a random start; an image ends when it is wrong at an iterate and under new replicates.

    Args:
        view: its `eot` copies (15 in the paper) make the gradient, and screen the iterates.
        x: images, float32 [B, C, H, W] in [0, 1].
        y: labels, int64 [B].
        threat: Linf.
        target: None.
        seed: of start and verification.
        indices: in the data set, int64 [B].
        steps: updates; iterates number one more.
        rel_stepsize: of a step, in units of eps (2/255 of 8/255 in the paper).
        verify: replicates that verify a wrong iterate.

    Returns:
        The iterate that was wrong in its verification, else the last one, float32 [B, C, H, W].

    Raises:
        Unsupported: another norm, or a targeted threat.

    Source: Hill, Mitchell and Zhu, ICLR 2021, and its code.
    """
    if threat.norm != "Linf":
        raise Unsupported(f"the EBM paper's attack works in Linf, the threat is {threat.norm}")
    if target is not None:
        raise Unsupported("the EBM paper's attack has no targeted mode")
    eps, rows = float(threat.eps), torch.arange(len(x), device=x.device)
    adv = uniform_in_ball(x, threat, Noise.of(seed, indices, x.device).child(_START))
    verifier = type(view)(view.defense, replace(view.spec, eot=verify), seed=seed ^ _VERIFY, memory=view.memory)
    for step in range(steps + 1):
        wrong, gradient = _screen(view, adv[rows], y[rows])
        if wrong.any():
            suspected = rows[wrong]
            with torch.no_grad():
                broken = suspected[verifier(adv[suspected]).argmax(1) != y[suspected]]
            view.count_queries(len(suspected))
            standing = ~torch.isin(rows, broken)
            rows, gradient = rows[standing], gradient[standing]
        if step == steps or not len(rows):
            return adv
        moved = adv[rows] + rel_stepsize * eps * gradient.sign()
        adv[rows] = torch.clamp(moved, x[rows] - eps, x[rows] + eps).clamp(0, 1)
    return adv


def _screen(view: AttackView, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return (bool [B]: wrong under the mean logits of the copies, the gradient of the summed cross-entropy at x)."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        logits = view(leaf)
        loss = torch.nn.functional.cross_entropy(logits, y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
    return logits.detach().argmax(1) != y, gradient
