"""Attacks of the harness's own for randomised purifiers: `bench:adaptive`, and its parts one by one.

- adaptive: gradient modes one after another, blind -> bpda -> surrogate -> exact (those that the defense has, up to the
  view's own), each from where the last one ended and only on images that still stand; restarts with other losses.
- apgd, pgd: the same with the view's mode alone.
- transfer: gradients of the bare classifier alone; iterates are chosen on the defense.
- spsa: gradients estimated from paired draws (Spall 1992; Uesato et al. 2018).
- square: random search (Andriushchenko et al. 2020), which accepts a change on the mean of paired draws.

Copies, restarts and noise are the attack's own affair: it asks the defense of the view directly. So the view's `eot`
must be 1. With `runs` in the view, every copy combines so many runs; without, it is one run, or with `on_top` the
deployed S runs. Under a known seed there are no copies: the attack meets the judged draw, all S runs of it, alone.

Against a detector: with `detector` = lambda the loss, which counts up to 1 (3 of a random defense), is less by lambda
times what the score is above the threshold, in standard deviations of clean scores, and success is a wrong class that
is not refused (as Carlini & Wagner 2017, arXiv 1705.07263, attack classifier and detector together).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from bench.attacks.adaptive.settings import ATTACKS, ENOUGH, copies_of, settings_of
from bench.attacks.base import Attack
from bench.attacks.budgets import short_of
from defenses.utils.errors import unknown

if TYPE_CHECKING:
    from torch import Tensor

    from bench.spec.threat import ThreatModel

VERSION = "purebench adaptive 1"  # counts up when the images that come out change


def names() -> list[str]:
    """The local names."""
    return list(ATTACKS)


def find(local: str, params: dict[str, Any]) -> Attack:
    """See `bench.attacks.registry.find_attack`."""
    name = f"bench:{local}"
    if local not in ATTACKS:
        raise unknown("attack", name, [f"bench:{n}" for n in ATTACKS])
    chosen = settings_of(local, params)
    return Attack(
        name=name,
        run=partial(_run, local),
        minimisation=False,
        version=VERSION,
        notes=partial(_notes, local),
        warnings=(*short_of(params, ENOUGH), *_let_go(params)),
        copies=copies_of(chosen),
    )


def _let_go(params: dict[str, Any]) -> tuple[str, ...]:
    """Of attacks that stop at images which a rule has decided: what their rows are no evidence of."""
    read = {"majority": "a majority vote", "screen": "Rob(M)"}
    return tuple(
        f"{name} = {params[name]} stops at images that it decides; read {what} in its row, the mean is too high"
        for name, what in read.items()
        if params.get(name)
    )


def _notes(local: str, threat: ThreatModel, num_classes: int, params: dict[str, Any]) -> tuple[str, ...]:  # noqa: ARG001
    chosen = settings_of(local, params)
    low, high = chosen.eot
    copies = f"{low} to {high} copies" if high > low else f"{low} copies"
    kind = "the deployed S runs" if chosen.on_top else "one run"
    said = f"averages {copies} of a random defense a step, each of {kind} where the view says no other"
    return (f"{said}; with the seed known, it meets the judged draw alone",)


def _run(
    local: str,
    view: Any,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatModel,
    target: Tensor | None,
    seed: int,
    num_classes: int,
    indices: Tensor | None = None,
    **params: Any,
) -> Tensor:
    from bench.attacks.adaptive.problem import Problem
    from bench.attacks.adaptive.program import attacked

    problem = Problem.of(x, y, threat=threat, target=target, seed=seed, num_classes=num_classes, indices=indices)
    return attacked(local, view, problem, settings_of(local, params))
