"""Adaptive attacks for randomised purifiers: `bench:adaptive`, and its parts one by one.

- adaptive: gradient modes one after another, blind -> bpda -> surrogate -> exact (those of the defense, up to that of
  the view), each from the last iterates and only on images that still stand; restarts have other losses.
- apgd, pgd: the same with the view's mode alone.
- transfer: gradients of the bare classifier alone; iterates are chosen on the defense.
- spsa: gradients estimated from paired draws (Spall 1992; Uesato et al. 2018).
- square: random search (Andriushchenko et al. 2020), which accepts a change by the mean of paired draws.

The attack makes copies, restarts and noise itself, and queries the defense of the view directly, so the view's `eot`
must be 1. With `runs` in the view, every copy combines that many runs; else it is one run, or with `on_top` the
deployed S runs. Under a known seed there are no copies: the attack meets the draw of the verdict, all S runs of it.

Against a detector, with `detector` = lambda, the loss is capped at 1 (3 for a random defense), less lambda times the
excess of the score over the threshold, in standard deviations of clean scores; success is a wrong class that is not
refused (Carlini & Wagner 2017, arXiv 1705.07263, attack classifier and detector together).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench.attacks.adaptive.settings import ATTACKS, copies_of, settings_of
from bench.attacks.base import Attack, AttackRequest, keyword_form
from bench.attacks.budgets import short_of
from defenses.utils.introspection import Parameters

if TYPE_CHECKING:
    from torch import Tensor

    from bench.attacks.adaptive.settings import Settings

# They count up when the images change.
VERSION = "purebench adaptive 1"
VERSIONS = {"adaptive": "purebench adaptive 2"}


def names() -> list[str]:
    """Return the local names."""
    return list(ATTACKS)


def find(local: str, params: dict[str, object]) -> Attack:
    """Return one of the attacks, by a name of `names`; see `bench.attacks.registry.find_attack`."""
    settings, default = settings_of(local, params), settings_of(local, {})
    enough = {"steps": default.steps, "queries": default.queries}
    return Attack(
        name=f"bench:{local}",
        run=keyword_form(partial(_run, local)),
        minimisation=False,
        version=VERSIONS.get(local, VERSION),
        warnings=(*short_of(params, enough), *_rule_warnings(params)),
        stochastic_warnings=(_averaging(settings),),
        copies=copies_of(settings),
    )


def parameters(local: str) -> Parameters:
    """Return the parameters of one of the attacks; see `bench.attacks.registry.attack_parameters`."""
    names, settings = ATTACKS[local][0], settings_of(local, {})
    return Parameters(names, defaults={name: getattr(settings, name) for name in names})


def _rule_warnings(params: dict[str, object]) -> tuple[str, ...]:
    """Return the warnings of a sequential rule: the row holds its aggregate alone."""
    aggregates = {"majority": "a majority vote", "screen": "Rob(M)"}
    return tuple(
        f"{name} = {params[name]} stops at images that it decides; read {aggregate} in its row, the mean is too high"
        for name, aggregate in aggregates.items()
        if params.get(name)
    )


def _averaging(settings: Settings) -> str:
    """Return the remark that tells how many copies of a stochastic defense an attack averages."""
    low, high = settings.eot
    copies = f"{low} to {high} copies" if high > low else f"{low} copies"
    kind = "the deployed S runs" if settings.on_top else "one run"
    text = f"averages {copies} of a random defense a step, each of {kind} where the view says no other"
    return f"{text}; with the seed known, it meets the judged draw alone"


def _run(local: str, view: object, request: AttackRequest) -> Tensor:
    from bench.attacks.adaptive.problem import Problem
    from bench.attacks.adaptive.program import adversarial_images

    return adversarial_images(local, view, Problem.of(request), settings_of(local, request.params))
