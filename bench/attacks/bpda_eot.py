"""The attack of the EBM's paper: BPDA with EOT; iterates are screened as they come, and verified with more draws."""

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
    """Sign steps from a random start; an image that errs at an iterate, and again under fresh replicates, is done.

    Args:
        view: its `eot` copies make the gradient, and screen: 15 in the paper.
        x: images [B, C, H, W].
        y: labels, int64 [B].
        threat: Linf.
        target: None.
        seed: of start and verification.
        indices: in the data set, int64 [B].
        steps: updates; one more iterate than these is looked at.
        rel_stepsize: of a step, in units of eps (2/255 of 8/255 in the paper).
        verify: replicates that verify.

    Returns:
        The iterate that failed its verification, else the last one.

    Raises:
        Unsupported: another norm, or a targeted threat.

    Source: Hill, Mitchell and Zhu, ICLR 2021, and its code.
    """
    if threat.norm != "Linf" or target is not None:
        raise Unsupported("the EBM paper's attack is untargeted and of Linf")
    eps, rows = float(threat.eps), torch.arange(len(x), device=x.device)
    adv = uniform_in_ball(x, threat, Noise.of(seed, indices, x.device).child(_START))
    verifier = type(view)(view.defense, replace(view.spec, eot=verify), seed=seed ^ _VERIFY, memory=view.memory)
    for step in range(steps + 1):
        wrong, gradient = _looked_at(view, adv[rows], y[rows])
        if wrong.any():
            asked = rows[wrong]
            with torch.no_grad():
                broken = asked[verifier(adv[asked]).argmax(1) != y[asked]]
            view.count_queries(len(asked))
            kept = ~torch.isin(rows, broken)
            rows, gradient = rows[kept], gradient[kept]
        if step == steps or not len(rows):
            return adv
        moved = adv[rows] + rel_stepsize * eps * gradient.sign()
        adv[rows] = torch.clamp(moved, x[rows] - eps, x[rows] + eps).clamp(0, 1)
    return adv


def _looked_at(view: AttackView, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(which images err under the mean logits of the copies, the gradient of their cross-entropy)."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        logits = view(leaf)
        loss = torch.nn.functional.cross_entropy(logits, y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
    return logits.detach().argmax(1) != y, gradient
