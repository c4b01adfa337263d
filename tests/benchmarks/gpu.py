"""What a GPU gives, in one run of at most ten minutes: correctness against the CPU, then shares of its peak speed.

Run: python tests/benchmarks/gpu.py [--device cuda:0] [--tiny] [--out tests/benchmarks/gpu.md] [--only SECTION ...]

Correctness: noise, every gradient mode of purifiers on digits, a batch that does not fit, two workers, a board. Speed:
purification and exact gradients of networks for CIFAR-10 at batch 512, as shares of the speed of a large product of
matrices in the same precision; replay's memory and time at 100 steps; `torch.compile` on and off. `--tiny` makes all of
it small, for a test on a CPU, whose figures say nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from gpu_speed import Machine, compilation, purification, replay

from defenses.core.noise import Draw, Noise

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-5  # of logits and gradients, relative to their largest


def noise(on: Machine) -> Iterator[str]:
    """Values of all laws on both devices."""
    for kind in ("uniform", "rademacher", "normal"):
        here, there = (Noise.of(3, 8, device).draw(Draw((3, 32, 32), kind), range(5)) for device in ("cpu", on.device))
        apart = float((here - there.cpu()).abs().max())
        equal = "the same bits" if torch.equal(here, there.cpu()) else f"{apart:.1e} apart"
        # Integers are the same everywhere; logarithm and cosine are those of the device.
        assert apart <= (1e-5 if kind == "normal" else 0.0), (kind, apart)
        yield f"| {kind} | {equal} |"


def parity(on: Machine) -> Iterator[str]:
    """Logits and gradients of every mode of purifiers on digits."""
    from defenses import load_model
    from defenses.data.dataset import load_dataset

    x = load_dataset("digits").x[:4]
    for name in ("undefended", "adp", "ebm-mcmc")[: 2 if on.tiny else 3]:
        there = load_model(name).to(on.device)
        here = load_model(name)
        for mode in getattr(here, "gradients", ("exact",)):
            found = [_logits_and_gradient(model, x.to(at), mode) for model, at in ((here, "cpu"), (there, on.device))]
            apart = max(
                float((a - b.cpu()).abs().max() / a.abs().max().clamp_min(1e-12)) for a, b in zip(*found, strict=True)
            )
            yield f"| {name} | {mode} | {apart:.1e}{'' if apart <= TOLERANCE else ', more than 1e-5'} |"


def _logits_and_gradient(model: nn.Module, x: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    logits = model.logits(leaf, Noise.of(1, len(x), x.device), gradient=mode)  # type: ignore[operator]
    if not logits.requires_grad:
        return logits.detach(), torch.ones(1)
    return logits.detach(), torch.autograd.grad(logits.logsumexp(1).sum(), leaf)[0]


def memory(on: Machine) -> Iterator[str]:
    """A batch that does not fit into a share of the device: it is halved, with the answers of small batches."""
    from bench.evaluation.view import attack_view
    from bench.spec.view import ViewSpec
    from defenses.core.defense import Classifier

    if not on.cuda:
        yield "not on a CPU"
        return
    network = nn.Sequential(
        nn.Conv2d(3, 512, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)
    )
    defense = Classifier(network.to(on.device).eval(), num_classes=10, input_shape=(3, 32, 32))
    x = torch.rand(2048, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(on.device)
    with torch.no_grad():
        expected = torch.cat([network(part) for part in x.split(64)])
    torch.cuda.empty_cache()
    share = 1.5 * 2**30 / torch.cuda.get_device_properties(on.device).total_memory
    torch.cuda.set_per_process_memory_fraction(share, on.device)
    try:
        with attack_view(defense, ViewSpec(), seed=0) as (view, _), torch.no_grad():
            logits = view(x)
            limit = view._memory.limit
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, on.device)
    assert limit is not None
    apart = float((logits - expected).abs().max())
    yield f"2,048 rows in 1.5 GiB: pieces of {limit}, logits {apart:.1e} apart"


def boards(on: Machine) -> Iterator[str]:
    """Quickstart, or one deterministic row of it, with one and with two workers."""
    rows = ("--defense", "undefended", "--attack", "foolbox:LinfPGD") if on.tiny else ()
    with tempfile.TemporaryDirectory() as scratch:
        outs = [Path(scratch) / str(workers) for workers in (1, 2)]
        for workers, out in enumerate(outs, 1):
            words = ["run", "quickstart", "--out", out, "--device", on.device, "--workers", workers, "--quiet", *rows]
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-m", "bench", *map(str, words)], cwd=ROOT, check=True, capture_output=True)
            yield f"| {workers} | {time.perf_counter() - begin:.0f} s |"
        yield f"| rows with equal verdicts | {_equal_rows(*outs)} |"


def _equal_rows(one: Path, two: Path) -> str:
    from bench import load_results

    frames = [load_results(out).set_index(["defense", "attack", "view", "image"]).sort_index() for out in (one, two)]
    same = frames[0]["correct"] == frames[1]["correct"]
    return f"{int(same.sum())} of {len(same)}"


SECTIONS: dict[str, tuple[str, Callable[[Machine], Iterator[str]], str]] = {
    "noise": ("Noise on the device and on the CPU", noise, "| law | |"),
    "parity": ("Logits and gradients on the device and on the CPU, relative", parity, "| defense | gradient | |"),
    "memory": ("A batch that does not fit", memory, ""),
    "boards": ("Quickstart", boards, "| workers | |"),
    "purification": ("Speed", purification, "| | precision | time | TFLOP/s | of the peak |"),
    "replay": ("Replay", replay, "| | whole graph, GiB | replay, GiB | time, replay / whole graph |"),
    "compilation": ("Compilation: times as fast", compilation, "| | mode | |"),
}


def main(argv: list[str] | None = None) -> int:
    """Run the sections and write their file; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tiny", action="store_true", help="small enough for a test")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    given = parser.parse_args(argv)
    torch.backends.cudnn.allow_tf32 = False
    on = Machine(torch.device(given.device), given.tiny)
    name = torch.cuda.get_device_name(on.device) if on.cuda else "CPU"
    lines, failed = [f"# {name}, torch {torch.__version__}"], False
    for key in given.only:
        title, section, head = SECTIONS[key]
        begin = time.perf_counter()
        lines += ["", f"## {title}", ""]
        lines += [head, "|" + "---|" * (head.count("|") - 1)] if head else []
        try:
            for line in section(on):
                lines.append(line)
                print(line, flush=True)
        except Exception as error:  # the others are worth their time all the same
            failed = True
            lines.append(f"\nfailed: {type(error).__name__}: {error}")
            print(lines[-1], flush=True)
        lines.append(f"\n{time.perf_counter() - begin:.0f} s")
        given.out.write_text("\n".join(lines) + "\n")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
