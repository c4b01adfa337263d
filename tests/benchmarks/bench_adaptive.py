"""`bench:adaptive` against long attacks of others, with the same gradients: accuracy on held-out draws, and cost.

Run: python tests/benchmarks/bench_adaptive.py [--images N] [--threads N] [--only adp-1|adp|ebm|short|full]

Rivals: AutoAttack's APGD-CE, best loss, through a view of 20 copies (100 steps), and PGD of 200 steps with 20 copies,
of 50 steps with 8 copies; ours with the defaults of version 1. Also with `majority`, which
lets images go whose majority vote is lost: what it saves, and the majority that is left. Evaluations are the Meter's,
forwards + 2 backwards per image. At last, how full batches are kept while images finish at different times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.attacks.adaptive.problem import Problem
from bench.attacks.adaptive.program import program_of, scheduled
from bench.attacks.adaptive.queries import Query
from bench.attacks.adaptive.settings import settings_of
from bench.attacks.base import AttackRequest
from bench.attacks.registry import find_attack
from bench.evaluation.verdict import verdict
from bench.evaluation.view import attack_view
from bench.spec.threat import ThreatModel, exact
from bench.spec.view import ViewSpec
from bench.stats.voting import majority
from defenses import load_model
from defenses.core.defense import Defense
from defenses.data.dataset import load_dataset

_DRAWS = 65


@dataclass(frozen=True)
class Rival:
    """An attack, how it looks at the defense, and its parameters."""

    label: str
    name: str
    spec: Callable[[str], ViewSpec]
    params: dict[str, Any]


def copies(n: int) -> Callable[[str], ViewSpec]:
    return lambda mode: ViewSpec(mode, eot=n, runs=1, output="log-mean-prob")


OURS = Rival("bench:adaptive", "bench:adaptive", lambda mode: ViewSpec(mode), {})
APGD = Rival("APGD-CE best loss 100 x 20", "autoattack:apgd-ce-best-loss", copies(20), {"n_iter": 100, "n_restarts": 1})
PGD = Rival("PGD 200 x 20", "foolbox:LinfPGD", copies(20), {"steps": 200, "rel_stepsize": 0.02})
SHORT = Rival("PGD 50 x 8", "foolbox:LinfPGD", copies(8), {"steps": 50, "rel_stepsize": 0.05})
CHEAP = Rival("bench:apgd, 30 steps", "bench:apgd", lambda mode: ViewSpec(mode), {"steps": 30, "draws": 16})
FIRST = {"steps": 50, "eot": [4, 64], "draws": 32}
EARLIER = Rival("bench:adaptive, version 1", "bench:adaptive", lambda mode: ViewSpec(mode), FIRST)
VOTES = Rival("bench:adaptive, majority 65", "bench:adaptive", lambda mode: ViewSpec(mode), {"majority": _DRAWS})
CASES = {  # name -> (defense, its parameters, gradient mode, eps, rivals)
    "adp-1": ("adp", {"runs": 1}, "exact", "1/5", (APGD, PGD)),
    "adp": ("adp", {}, "exact", "1/5", (SHORT, EARLIER, APGD, PGD)),
    "ebm": ("ebm-mcmc", {}, "bpda", "1/5", (SHORT, EARLIER, APGD, PGD)),
    "short": ("adp", {"runs": 1}, "exact", "17/100", (SHORT, EARLIER, CHEAP, VOTES)),
}


def judged(defense: Defense, x: Tensor, y: Tensor) -> tuple[float, float]:
    """(Mean accuracy, accuracy of the majority) over draws that no attack has seen."""
    with torch.no_grad():
        draws = verdict(defense, x, torch.arange(len(x)), draws=_DRAWS, selection=1, seed=77)
    said = draws.predictions[draws.held_out]
    return float((said == y).float().mean()), float(majority(said.T.numpy(), y.numpy()).mean())


def measure(rival: Rival, defense: Defense, mode: str, eps: str, x: Tensor, y: Tensor) -> tuple[float, ...]:
    """(held-out accuracy, that of the majority, evaluations per image, seconds)."""
    attack, begun = find_attack(rival.name, rival.params), time.perf_counter()
    with attack_view(defense, rival.spec(mode), seed=5) as (view, meter):
        given: dict[str, Any] = {"threat": ThreatModel("Linf", exact(eps)), "target": None, "seed": 0}
        x_adv = attack.run(view, x.clone(), y, num_classes=10, indices=torch.arange(len(x)), **given, **rival.params)
        cost = meter.evaluations / len(x)
    seconds = time.perf_counter() - begun
    return *judged(defense, x_adv, y), cost, seconds


def compare(name: str, x: Tensor, y: Tensor) -> None:
    """Ours and its rivals on one defense."""
    defense_name, params, mode, eps, rivals = CASES[name]
    defense = load_model(defense_name, dataset="digits", **params)
    print(f"{name}: {defense_name} {params or 'as deployed'}, Linf {eps}, {mode}, clean {judged(defense, x, y)[0]:.1%}")
    ours = measure(OURS, defense, mode, eps, x, y)
    found = {r.label: measure(r, defense, mode, eps, x, y) for r in rivals}
    for label, (accuracy, votes, cost, seconds) in {OURS.label: ours, **found}.items():
        share = f", ours takes {ours[2] / cost:.2f} of that" if not label.startswith("bench:") else ""
        standing = f"{accuracy:.1%} standing ({votes:.1%} by majority)"
        line = f"  {label}: {standing}, {cost:,.0f} evaluations an image, {seconds:.1f} s"
        print(line + share, flush=True)


def fullness(x: Tensor, y: Tensor, rows: int = 256, turns: int = 3) -> None:
    """CPU time of a run in which images finish at different times, against batches that are always full."""
    defense = load_model("adp", dataset="digits")
    chosen = settings_of("apgd", {"rows": rows, "eot": 8})
    problem = Problem.of(AttackRequest(x, y, ThreatModel("Linf", exact("1/5")), None, 0, 10, None, {}))
    ratios = []
    for _ in range(turns):
        with attack_view(defense, ViewSpec("exact"), seed=5) as (view, meter):
            begun = time.process_time()
            tally = scheduled(program_of("apgd", view, problem, chosen), view, chosen)
            run = meter.evaluations / (time.process_time() - begun)
            # The same share of gradients and selection draws as in the run, in calls of exactly `rows` rows.
            gradients, draws = meter.backwards / 11 / rows, (meter.forwards - meter.backwards) / 11 / rows
            before, begun = meter.evaluations, time.process_time()
            ask = Query(view, runs=1, rows=rows)
            some, noise = x[: rows // 8], problem.noise.rows(slice(0, rows // 8))
            copies = torch.full((len(some),), 8)
            for _ in range(round(gradients)):
                ask.gradient(some, noise, copies, "exact", lambda said: said.logits[:, 0])
            for _ in range(round(draws)):
                ask.logits(some, noise, copies, "exact")
            full = (meter.evaluations - before) / (time.process_time() - begun)
        ratios.append(run / full)
    print(f"  {tally.rows / tally.room:.1%} of the rows filled over {tally.calls} calls")
    print(f"  evaluations a second, run / full batches: {', '.join(f'{r:.2f}' for r in ratios)}")


def main(argv: list[str] | None = None) -> int:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--split", default="test")
    parser.add_argument("--only", choices=[*CASES, "full"])
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    data = load_dataset("digits", given.split)
    x, y = data.x[: given.images], data.y[: given.images]
    print(f"torch {torch.__version__}, {given.threads} threads, {len(x)} {given.split} images, {_DRAWS} held-out draws")
    for name in CASES:
        if given.only in (None, name):
            compare(name, x, y)
    if given.only in (None, "full"):
        print("continuous batching, 200 images in batches of 256 rows")
        fullness(data.x[:200], data.y[:200])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
