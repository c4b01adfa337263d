"""Exact gradients by replay against plain autograd through 100 steps: memory and time, in turns in one run.

    python tests/benchmarks/bench_replay.py [--steps 100] [--repeats 5] [--device cpu]

Memory is what the graph holds between the forward and the backward pass (every stored tensor once, weights apart).
The graph of the last steps is kept as far as .05 of the whole graph allows, of one step at least.
Printed per network: held by replay over held by the whole graph, over the stored states and the graph of one step, and
seconds of replay over seconds of plain autograd (medians of turns): of a clock, and of the processor, which leaves out
other programs' turns. A turn before them, untimed, has the memory of the whole graph mapped.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial

import torch
from torch import Tensor, nn

from defenses.core.noise import Noise
from defenses.core.purifier import Purifier
from defenses.core.purify import unrolled
from defenses.core.replay import bytes_per_row, graph_bytes, replayed
from defenses.purifiers.adp import ADP
from defenses.purifiers.langevin import Langevin

SHARE = 0.05  # of the whole graph may be held for convolutions


class Towards(nn.Module):
    """A score that pulls images to what a network makes of them: steps of ADP neither stop nor meet a clamp."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] -> the same."""
        out: Tensor = self.network(x) - x
        return out


def purifiers(steps: int) -> dict[str, tuple[Purifier, tuple[int, ...]]]:
    """Name -> (purifier, shape of its images)."""
    torch.manual_seed(0)

    def convolutions(c: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Conv2d(c, 32, 3, padding=1), nn.SiLU()]
        for _ in range(2):
            layers += [nn.Conv2d(32, 32, 3, padding=1), nn.SiLU()]
        return nn.Sequential(*layers, nn.Conv2d(32, c, 3, padding=1))

    energy = nn.Sequential(
        *[nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.SiLU()],
        *[nn.Conv2d(32, 1, 16), nn.Flatten(0)],
    )
    mlp = nn.Sequential(
        *[nn.Flatten(), nn.Linear(64, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU()],
        *[nn.Linear(256, 64), nn.Unflatten(1, (1, 8, 8))],
    )
    small = nn.Sequential(
        *[nn.Flatten(), nn.Linear(64, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, 1), nn.Flatten(0)]
    )
    return {
        "convolutions, ADP": (ADP(Towards(convolutions(3)), steps=steps), (16, 3, 32, 32)),
        "convolutions, Langevin": (Langevin(energy, steps=steps), (16, 3, 32, 32)),
        "MLP, ADP": (ADP(Towards(mlp), steps=steps), (256, 1, 8, 8)),
        "MLP, Langevin": (Langevin(small, steps=steps), (256, 1, 8, 8)),
    }


def turn(how: object, purifier: Purifier, x: Tensor) -> tuple[float, float]:
    """Seconds of a forward and a backward pass: of a clock, and of the processor."""
    leaf = x.clone().requires_grad_()
    begin, cpu = time.perf_counter(), time.process_time()
    out = how(purifier, leaf, Noise.of(0, len(x), x.device))  # type: ignore[operator]
    torch.autograd.grad(out.sum(), leaf)
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begin, time.process_time() - cpu


def held(how: object, purifier: Purifier, x: Tensor) -> int:
    """Bytes that the graph holds."""
    leaf = x.clone().requires_grad_()
    with graph_bytes(purifier) as total:
        out = how(purifier, leaf, Noise.of(0, len(x), x.device))  # type: ignore[operator]
    del out
    return total[0]


def main() -> None:
    """Take turns and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, (purifier, shape) in purifiers(arguments.steps).items():
        purifier.requires_grad_(False).to(arguments.device)
        x = torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(arguments.device)
        state, graph = (len(x) * n for n in bytes_per_row(purifier, x.requires_grad_(), Noise.of(0, len(x), x.device)))
        x = x.detach()
        best = max(1, round((arguments.steps * state / graph) ** 0.5))
        whole = held(unrolled, purifier, x)
        for length in sorted({1, best}):
            last = max(length, int(SHARE * arguments.steps - arguments.steps * state / (length * graph)))
            replay = partial(replayed, length=length, last=last)
            turn(unrolled, purifier, x), turn(replay, purifier, x)
            pairs = [(turn(unrolled, purifier, x), turn(replay, purifier, x)) for _ in range(arguments.repeats)]
            clock, cpu = (statistics.median(b[i] / a[i] for a, b in pairs) for i in range(2))
            between = held(replay, purifier, x)
            # The graph of the last steps is gone before that of others comes.
            peak = between + max(0, length - last) * graph
            least = arguments.steps * state + graph
            print(
                f"{name}, {length} a segment, {last} kept: peak {peak / whole:.3f} of the whole graph and "
                f"{peak / least:.2f} of states and one step's graph, time {clock:.2f}, of the processor {cpu:.2f} "
                f"({', '.join(f'{a[1]:.2f}/{b[1]:.2f}' for a, b in pairs)} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
