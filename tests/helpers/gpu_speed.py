"""Speed of purification and exact gradients on a device, as shares of its peak; see gpu.py."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from defenses.core.noise import Noise
from defenses.core.purifier import Purifier
from defenses.core.purify import purify, unrolled
from defenses.core.replay import replayed
from defenses.networks.registry import build_network, deployed
from defenses.purifiers.adp import ADP
from defenses.purifiers.langevin import Langevin
from defenses.utils.precision import autocast, multiplied_in


@dataclass(frozen=True)
class Machine:
    """Where things run, and how large they are."""

    device: torch.device
    tiny: bool

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def seconds(self, f: Callable[[], object], repeats: int = 3) -> float:
        """Median seconds of a function, after a call to warm up."""
        if not self.tiny:
            f()
        took = []
        for _ in range(1 if self.tiny else repeats):
            self.wait()
            begin = time.perf_counter()
            f()
            self.wait()
            took.append(time.perf_counter() - begin)
        return statistics.median(took)

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def peak(self, f: Callable[[], object]) -> float:
        """GiB that the device holds at most during a function; NaN on a CPU."""
        if not self.cuda:
            f()
            return float("nan")
        torch.cuda.reset_peak_memory_stats(self.device)
        f()
        return torch.cuda.max_memory_allocated(self.device) / 2**30


def peaks(on: Machine) -> dict[str, float]:
    """TFLOP/s of a product of matrices by precision."""
    n = 256 if on.tiny else 8192
    a = torch.rand(n, n, device=on.device)
    found = {}
    for name, how in _precisions(on).items():
        with how():
            found[name] = 2 * n**3 / on.seconds(lambda: a @ a) / 1e12
    return found


def _precisions(on: Machine) -> dict[str, Callable[[], AbstractContextManager[object]]]:
    found = {name: partial(multiplied_in, name) for name in (("float32", "tf32") if on.cuda else ("float32",))}
    return {**found, "bf16": partial(autocast, "bf16", on.device)}  # type: ignore[dict-item]


def _purifiers(on: Machine, steps: int) -> dict[str, tuple[Purifier, int]]:
    """Name -> (purifier, images), of networks for CIFAR-10 with random weights."""
    rows = 2 if on.tiny else 512
    unet_args = {"channels": 8 if on.tiny else 64, "multipliers": (1, 2, 2), "blocks": 1 if on.tiny else 2}
    networks = {"ncsnv2": {"ngf": 4 if on.tiny else 48}, "energy-conv": {}, "ncsnpp": unet_args}
    ncsn, hill, unet = (deployed(build_network(kind, **args)) for kind, args in networks.items())  # type: ignore[arg-type]
    found: dict[str, tuple[Purifier, int]] = {
        "ADP, DDPM++ U-Net": (ADP(_Score(unet), steps=steps, tau=0.0), rows),
        "ADP, NCSNv2": (ADP(ncsn, steps=steps, tau=0.0), rows),
        "Langevin, Hill's energy": (Langevin(hill, steps=steps, eps=0.01), rows),
    }
    for purifier, _ in found.values():
        purifier.requires_grad_(False).to(on.device)
    return found


class _Score(nn.Module):
    """A noise predictor at one time as a score."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = -self.network(x, torch.full((len(x),), 0.1, device=x.device))
        return out


def purification(on: Machine) -> Iterator[str]:
    """Purification and exact gradients in each precision, as shares of the peak."""
    best = peaks(on)
    yield from (f"| product of matrices | {name} | | {tflops:.2f} | 1 |" for name, tflops in best.items())
    for name, (purifier, rows) in _purifiers(on, 2 if on.tiny else 10).items():
        x = torch.rand(rows, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(on.device)
        work = {
            "purification": partial(_purified, purifier, x),
            "exact gradient": partial(_gradient, purify, purifier, x),
        }
        for what, f in work.items():
            with FlopCounterMode(display=False) as counted:
                f()
            for precision, how in _precisions(on).items():
                with how():
                    seconds = on.seconds(f)
                speed = counted.get_total_flops() / seconds / 1e12
                share = f"{speed:.2f} | {speed / best[precision]:.2f}"
                yield f"| {name}, {what} | {precision} | {seconds:.2f} s | {share} |"


def _purified(purifier: Purifier, x: Tensor) -> Tensor:
    return purify(purifier, x, Noise.of(0, len(x), x.device))


def _replayed(length: int, purifier: Purifier, x: Tensor, noise: Noise) -> Tensor:
    return replayed(purifier, x, noise, length=length, last=length)


def _gradient(how: Callable[..., Tensor], purifier: Purifier, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(how(purifier, leaf, Noise.of(0, len(x), x.device)).sum(), leaf)[0]


def replay(on: Machine) -> Iterator[str]:
    """Replay against the whole graph: memory and time."""
    steps, length = (4, 2) if on.tiny else (100, 10)
    for name, (purifier, rows) in _purifiers(on, steps).items():
        x = torch.rand(max(2, rows // 16), 3, 32, 32, device=on.device)
        ways = [partial(_gradient, how, purifier, x) for how in (unrolled, partial(_replayed, length))]
        held, seconds = [on.peak(way) for way in ways], [on.seconds(way, 1) for way in ways]
        yield f"| {name}, {len(x)} rows | {held[0]:.2f} | {held[1]:.2f} | {seconds[1] / seconds[0]:.2f} |"


def compilation(on: Machine) -> Iterator[str]:
    """A network's call with `torch.compile`, and with CUDA graphs, against plain calls."""
    if not on.cuda:
        yield "not on a CPU"
        return
    for kind, args in (("ncsnv2", {"ngf": 48}), ("resnet20", {})):
        network = deployed(build_network(kind, **args)).to(on.device).requires_grad_(False)
        for rows in (32, 512):
            x = torch.rand(rows, 3, 32, 32, device=on.device)
            with torch.no_grad():
                plain = on.seconds(partial(network, x))
                for mode in ("default", "reduce-overhead"):
                    fast = torch.compile(network, mode=mode)
                    yield f"| {kind}, {rows} rows | {mode} | {plain / on.seconds(partial(fast, x)):.2f} |"
