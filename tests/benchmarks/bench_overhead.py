"""What purebench adds to an attack: libraries through a view against the same libraries called directly.

Run: python tests/benchmarks/bench_overhead.py [--pairs N] [--images B]

Same network (the digits classifier's shape, fixed weights), block, seed and thread; every pair runs both ways, in
alternating order, and first checks once that the images that come out are the same bits. eps is so small that no
image breaks and every attack makes all its steps. Printed: the ratio of the times (through purebench / directly) over
the pairs, as its geometric mean with one-sided 95% bounds (t over log-ratios), and the microseconds that a view and its
meter add to one call of the model, from blocks of calls in the same kind of pairs.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.attacks.registry import find_attack
from bench.evaluation.view import attack_view
from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from defenses.core.defense import Classifier
from defenses.networks.small_cnn import SmallCNN
from defenses.utils.isolation import seeded_globals

SEED, EPS = 5, "1/1000"


@dataclass(frozen=True)
class Case:
    """An attack, and the same run by its library alone."""

    name: str
    params: dict[str, Any]
    directly: Callable[[nn.Module, Tensor, Tensor], Tensor]


def autoattack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    from pyautoattack import AutoAttack

    suite = AutoAttack(model, norm="Linf", eps=1 / 1000, seed=SEED, version="standard")
    return suite.run_standard_evaluation(x, y, batch_size=len(x))[0]  # type: ignore[no-any-return]


def foolbox(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    import foolbox as fb

    attack = fb.attacks.LinfPGD(steps=50)
    return attack(fb.PyTorchModel(model, (0, 1), device="cpu"), x, y, epsilons=1 / 1000)[1]  # type: ignore[no-any-return]


def torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    import torchattacks as ta

    return ta.PGD(model, eps=1 / 1000, alpha=1 / 4000, steps=50)(x, y)  # type: ignore[no-any-return]


CASES = (
    Case("autoattack:standard", {}, autoattack),
    Case("foolbox:LinfPGD", {"steps": 50}, foolbox),
    Case("torchattacks:PGD", {"steps": 50, "alpha": 1 / 4000}, torchattacks),
)


def problem(images: int) -> tuple[Classifier, Tensor, Tensor]:
    with seeded_globals(0, torch.device("cpu")):
        network = SmallCNN().eval().requires_grad_(False)
        x = torch.rand(images, 1, 8, 8)
    return Classifier(network, num_classes=10, input_shape=(1, 8, 8)), x, network(x).argmax(1)


def through(case: Case, defense: Classifier, x: Tensor, y: Tensor) -> Tensor:
    attack, threat = find_attack(case.name, case.params), ThreatModel("Linf", EPS)  # type: ignore[arg-type]
    with attack_view(defense, ViewSpec(), seed=0) as (view, _):
        return attack.run(view, x, y, threat=threat, target=None, seed=SEED, num_classes=10, **case.params)  # type: ignore[no-any-return]


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def pairs(ours: Callable[[], Any], theirs: Callable[[], Any], n: int) -> list[tuple[float, float]]:
    """(seconds of ours, of theirs), the order alternating."""
    found = []
    for i in range(n):
        first, second = (ours, theirs) if i % 2 else (theirs, ours)
        a, b = seconds(first), seconds(second)
        found.append((a, b) if i % 2 else (b, a))
    return found


def bounds(values: list[float]) -> tuple[float, float, float]:
    """Mean, and the ends of the two one-sided 95% intervals for it."""
    from scipy.stats import t

    mean = statistics.fmean(values)
    reach = float(t.ppf(0.95, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - reach, mean + reach


def attack_phase(case: Case, n: int, images: int) -> None:
    defense, x, y = problem(images)

    def theirs() -> Tensor:
        with seeded_globals(SEED, x.device):
            return case.directly(defense.network, x.clone(), y)

    same = torch.equal(through(case, defense, x, y), theirs())
    timed = pairs(lambda: through(case, defense, x, y), theirs, n)
    mean, low, high = (math.exp(v) for v in bounds([math.log(a / b) for a, b in timed]))
    direct = statistics.median(b for _, b in timed)
    print(
        f"{case.name:22s} {n} pairs of {images} images, {direct:.2f} s directly, same bits: {same}; "
        f"ratio {mean:.4f} [{low:.4f}, {high:.4f}]",
        flush=True,
    )


def per_call(images: int, gradient: bool, n: int, calls: int = 200) -> None:
    (metered, x, _), (bare, _, _) = problem(images), problem(images)

    def block(model: nn.Module) -> Callable[[], None]:
        def run() -> None:
            for _ in range(calls):
                if gradient:
                    point = x.clone().requires_grad_()
                    torch.autograd.grad(model(point).sum(), point)
                else:
                    with torch.no_grad():
                        model(x)

        return run

    with attack_view(metered, ViewSpec(), seed=0) as (view, _meter):
        timed = pairs(block(view), block(bare.network), n)
    mean, low, high = (1e6 * v / calls for v in bounds([a - b for a, b in timed]))
    direct = 1e6 * statistics.median(b for _, b in timed) / calls
    kind = "with gradient" if gradient else "no gradient"
    print(f"{images:4d} images, {kind}: {direct:.0f} us directly, {mean:+.1f} us [{low:.1f}, {high:.1f}]", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--images", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("attack phase, through purebench / directly (target: lower bound at most 1.03)")
    for case in CASES:
        quick = case.name != "autoattack:standard"
        attack_phase(case, options.pairs * (5 if quick else 1), options.images * (4 if quick else 1))
    print("added to one call of the model (target: at most 50 us)")
    for images in (1, options.images):
        for gradient in (False, True):
            per_call(images, gradient, 4 * options.pairs)


if __name__ == "__main__":
    main()
