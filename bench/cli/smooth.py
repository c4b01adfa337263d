"""`purebench smooth`: certify the accuracy of a smoothed defense."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.board.indices import resolve
from bench.cli import arguments as shared
from bench.cli.terminal import fitted
from bench.tracks.smoothing.noisy_defense import noisy, number
from defenses.data.dataset import load_dataset
from defenses.utils.text import file_name
from defenses.zoo.registry import load_model


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    text = "a registered defense, which gets the filter gaussian-noise in front, or robustbench:<id>"
    sub.add_argument("defense", help=text)
    sub.add_argument("--sigma", nargs="+", default=[], help="of the noise, as 1/4 (default: the defense's own)")
    sub.add_argument("--n0", type=shared.positive, default=100, help="draws that choose the class (default: 100)")
    sub.add_argument("--n", type=shared.positive, default=100_000, help="draws that certify it (default: 100000)")
    sub.add_argument("--alpha", type=float, default=0.001, help="chance of a wrong certificate (default: 0.001)")
    sub.add_argument("--radii", nargs="+", default=None, help="of the table (default: 0 1/4 1/2 3/4 1)")
    sub.add_argument("--dataset", default="digits", help="default: digits")
    shared.add_split(sub, "default: test")
    sub.add_argument("--indices", default="first-100", help="which images (default: first-100)")
    shared.add_parameters(sub, "parameters of the defense")
    sub.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    sub.add_argument(
        "--batch", type=shared.positive, default=2000, help="draws at once; changes no count (default: 2000)"
    )
    shared.add_device(sub)
    shared.add_out(sub, "results folder (default: results/smooth-<dataset>-<defense>)")
    shared.add_roots(sub)
    shared.add_quiet(sub)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from bench.tracks.smoothing.certify import CertificationProtocol
    from bench.tracks.smoothing.run import SmoothingJob, run_all
    from bench.tracks.smoothing.tables import RADII, write
    from defenses.utils.devices import device_named

    dataset, roots = arguments.dataset, shared.roots_of(arguments)
    params, radii = shared.key_values(arguments.set), arguments.radii or RADII
    for text in radii:
        number("radius", text)
    sigmas: list[float | None] = [number("sigma", text) for text in arguments.sigma]
    noisy_defenses = [noisy(arguments.defense, dataset, params, sigma) for sigma in sigmas or [None]]
    protocols = [
        CertificationProtocol(sigma, arguments.n0, arguments.n, arguments.alpha) for _, _, sigma in noisy_defenses
    ]
    data = load_dataset(dataset, arguments.split, root=arguments.data_root)
    images = resolve(arguments.indices, len(data), dataset=dataset, split=arguments.split, labels=data.y.tolist)
    folder = arguments.out or Path("results") / file_name(f"smooth-{dataset}-{arguments.defense}")
    device = device_named(arguments.device)
    defenses = [load_model(name, dataset, **roots, **merged) for name, merged, _ in noisy_defenses]
    jobs = [
        SmoothingJob(
            arguments.defense, defense.to(device), data, images.positions, protocol, arguments.seed, arguments.batch
        )
        for defense, protocol in zip(defenses, protocols, strict=True)
    ]
    run_all(jobs, folder, indices=arguments.indices, progress=not arguments.quiet)
    title = f"Certified accuracy: {arguments.defense} on {dataset} ({arguments.split})"
    print(fitted(write(folder, radii, title)), end="")
    return 0
