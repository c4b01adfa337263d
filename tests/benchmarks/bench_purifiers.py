"""Purification against the plain published loop: same network, weights and noise, equal output.

Run: python tests/benchmarks/bench_purifiers.py [--pairs N] [--threads N]

Prints, for every case, the ratio of the times (plain / ours) over interleaved pairs: its median, and the lower end of
a one-sided 95% bootstrap interval of that median; then, as medians over interleaved pairs too, the share of our time
that the calls of the network take alone, on the same batches, and the share that drawing the noise adds. Then the peak
memory of purification at few and at many steps.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from defenses.core.noise import Draw, Noise
from defenses.core.purifier import Purifier
from defenses.core.purify import purify
from defenses.networks.registry import build_network, deployed
from defenses.purifiers.adp import ADP
from defenses.purifiers.langevin import Langevin
from defenses.zoo.checkpoints import load_network


def plain_adp(score: nn.Module, x: Tensor, z: Tensor, p: ADP) -> Tensor:
    """The published loop, corrected for the contrast drift: every row, every step."""
    with torch.no_grad():
        u = torch.clamp(x + z * p.sigma, 0.0, 1.0)
        alive = torch.ones(len(x))
        for _ in range(p.steps):
            grid = u * 255 / 256 + 1 / 512
            g = score(grid)
            probe = score(grid + p.delta * g)
            a, b = g.reshape(len(x), -1), probe.reshape(len(x), -1)
            gamma = torch.bmm(a[:, None], b[:, :, None]).flatten() / torch.bmm(a[:, None], a[:, :, None]).flatten()
            alpha = torch.clamp(p.lam * p.delta / (1 - gamma), 1e-5, 1e-1)
            alive = alive * (alpha > p.tau)
            if alive.sum() == 0:
                break
            moved = grid + (alive * alpha).view(-1, 1, 1, 1) * g
            u = torch.clamp(moved * 256 / 255 - 1 / 510, 0.0, 1.0)
        return u


def plain_langevin(energy: nn.Module, x: Tensor, z: Tensor, p: Langevin) -> Tensor:
    """The published loop: autograd for the gradient."""
    u = torch.autograd.Variable(2 * x - 1, requires_grad=True)
    for k in range(p.steps):
        gradient = torch.autograd.grad(energy(u).sum(), [u])[0]
        u.data += -gradient + p.eps * z[k]
    return (u.detach() + 1) / 2


@dataclass(frozen=True)
class Case:
    """One comparison: two functions of nothing, and how far their results may be apart.

    `drawing` is ours with the noise drawn anew; `network` is what our purifier calls.
    """

    name: str
    ours: Callable[[], Tensor]
    plain: Callable[[], Tensor]
    tolerance: float
    drawing: Callable[[], Tensor]
    network: nn.Module


class _Replay(Noise):
    """Noise that was drawn before, so that neither side's time has the drawing of it in."""

    def __init__(self, source: Noise):
        super().__init__(source.keys)
        self._children: dict[tuple[int, ...], _Replay] = {}
        self._drawn: dict[object, Tensor] = {}

    def child(self, *path: int) -> Noise:
        if path not in self._children:
            self._children[path] = _Replay(Noise(self.keys).child(*path))
        return self._children[path]

    def draw(self, what: Draw, steps: range | None = None) -> Tensor:
        key = (what, steps)
        if key not in self._drawn:
            self._drawn[key] = super().draw(what, steps)
        return self._drawn[key]


def _images(rows: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.rand(rows, *shape, generator=torch.Generator().manual_seed(0))


def _case(name: str, p: Purifier, x: Tensor, noise: Noise, plain: Callable[[], Tensor], network: nn.Module) -> Case:
    drawing = partial(purify, p, x)
    return Case(name, partial(drawing, noise), plain, 1e-3, lambda: drawing(Noise.of(0, len(x))), network)


def _adp_case(name: str, score: nn.Module, plain_score: nn.Module, x: Tensor, p: ADP) -> Case:
    noise = _Replay(Noise.of(0, len(x)))
    z = noise.child(0, 0).draw(p.noise(tuple(x.shape[1:])).start[0])
    return _case(name, p, x, noise, lambda: plain_adp(plain_score, x, z, p), p.score)


def _langevin_case(name: str, plain_energy: nn.Module, x: Tensor, p: Langevin) -> Case:
    noise = _Replay(Noise.of(0, len(x)))
    z = noise.child(1).child(0).draw(Draw(tuple(x.shape[1:])), range(p.steps))
    return _case(name, p, x, noise, lambda: plain_langevin(plain_energy, x, z, p), p.gradient)


def _digits(rows: int) -> Tensor:
    from defenses.data.dataset import load_dataset

    x = load_dataset("digits", "validation").x
    return x.repeat(-(-rows // len(x)), 1, 1, 1)[:rows]


def _fresh(kind: str, **args: object) -> tuple[nn.Module, nn.Module]:
    """A network as we deploy it, and the same as a plain implementation would use it."""
    plain = build_network(kind, **args).eval()
    return deployed(copy.deepcopy(plain)), plain


def cases() -> list[Case]:
    """All comparisons."""
    digits, tiny = _digits(500), _images(8, (3, 32, 32))
    score, energy = load_network("adp", "digits"), load_network("ebm-mcmc", "digits")
    ncsn, ncsn_plain = _fresh("ncsnv2", ngf=16)
    hill, hill_plain = _fresh("energy-conv")
    deployed_adp = ADP(score, sigma=0.25, steps=5, lam=0.2)
    return [
        _adp_case("ADP, digits MLP, as deployed, 500 rows", score, score, digits, deployed_adp),
        _adp_case("ADP, NCSNv2 (ngf 16) 32x32x3, 8 rows", ncsn, ncsn_plain, tiny, ADP(ncsn, steps=5)),
        _adp_case("ADP, digits MLP, tau .02: rows leave, 500 rows", score, score, digits, ADP(score, tau=0.02)),
        _langevin_case("Langevin, digits MLP, 50 rows", energy, digits[:50], Langevin(energy, eps=0.03, steps=100)),
        _langevin_case("Langevin, digits MLP, 500 rows", energy, digits, Langevin(energy, eps=0.03, steps=100)),
        _langevin_case("Langevin, Hill's net 32x32x3, 8 rows", hill_plain, tiny, Langevin(hill, eps=0.01, steps=20)),
    ]


def _timed(f: Callable[[], Tensor]) -> tuple[float, Tensor]:
    begun = time.perf_counter()
    out = f()
    return time.perf_counter() - begun, out


def compare(case: Case, pairs: int) -> tuple[float, float, float]:
    """(median ratio, its lower bound, share of rows whose outputs differ) of a case, from interleaved pairs."""
    ratios, apart = [], 0.0
    case.ours(), case.plain()
    for i in range(pairs):
        order = (case.ours, case.plain) if i % 2 else (case.plain, case.ours)
        (t0, a), (t1, b) = _timed(order[0]), _timed(order[1])
        ratios.append(t1 / t0 if i % 2 else t0 / t1)
        apart = max(apart, float(((a - b).abs().flatten(1).amax(1) > case.tolerance).float().mean()))
    sample = torch.tensor(ratios)
    pick = torch.randint(pairs, (2000, pairs), generator=torch.Generator().manual_seed(0))
    lower = float(sample[pick].median(1).values.quantile(0.05))
    return float(sample.median()), lower, apart


def shares(case: Case, pairs: int) -> tuple[float, float]:
    """(time of the network's calls alone, time that drawing the noise adds) over our time: medians of pairs."""
    batches: list[Tensor] = []
    hook = case.network.register_forward_pre_hook(lambda _, args: batches.append(args[0].clone()))
    case.ours()
    hook.remove()

    def calls() -> Tensor:
        with torch.no_grad():
            for batch in batches:
                out: Tensor = case.network(batch)
        return out

    calls(), case.drawing()
    alone, noise = [], []
    for _ in range(pairs):
        ours, network, drawing = (_timed(f)[0] for f in (case.ours, calls, case.drawing))
        alone.append(network / ours)
        noise.append(drawing / ours - 1)
    return statistics.median(alone), statistics.median(noise)


_PEAK = """
import resource, sys, torch
from defenses.purifiers.adp import ADP
from defenses.purifiers.langevin import Langevin
from defenses.networks.registry import build_network, deployed
from defenses.core.noise import Noise
from defenses.core.purify import purify
kind, steps = sys.argv[1], int(sys.argv[2])
network = deployed(build_network("energy-conv" if kind == "langevin" else "score-conv", in_channels=3))
purifier = Langevin(network, steps=steps) if kind == "langevin" else ADP(network, steps=steps)
x = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
purify(purifier, x, Noise.of(0, 32))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak_memory(kind: str, steps: int) -> float:
    """Peak resident memory, MB, of a process that purifies 32 images of 32x32x3."""
    out = subprocess.run([sys.executable, "-c", _PEAK, kind, str(steps)], capture_output=True, text=True, check=True)
    return float(out.stdout)


def main(argv: list[str] | None = None) -> int:
    """Print everything; 1 if outputs differ or memory grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="one is the steadiest on a shared machine")
    given = parser.parse_args(argv)
    pairs = given.pairs
    torch.set_num_threads(given.threads)
    failed = False
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {pairs} interleaved pairs")
    for case in cases():
        ratio, lower, apart = compare(case, pairs)
        # Rounding decides where alpha meets tau: there a row may stop a step apart.
        failed |= apart > 0.02
        print(
            f"{case.name}: {ratio:.2f} times as fast (95% lower bound {lower:.2f}); "
            f"{apart:.1%} of the rows differ by more than {case.tolerance}"
        )
        alone, noise = shares(case, pairs)
        print(f"  its network alone takes {alone:.0%} of that time, noise adds {noise:.1%}", flush=True)
    for kind, few, many in (("adp", 5, 100), ("langevin", 200, 1000)):
        low, high = peak_memory(kind, few), peak_memory(kind, many)
        failed |= high > 1.1 * low + 20
        print(f"{kind}: peak memory {low:.0f} MB at {few} steps, {high:.0f} MB at {many}")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
