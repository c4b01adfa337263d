"""`purebench smooth`: certified accuracy of a smoothed defense."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from bench.cli.arguments import Declare, key_values, positive


def add(declare: Declare) -> None:
    """Declare the command."""
    text = "Certify L2 radii of a defense under Gaussian noise (randomised smoothing), resumably."
    sub = declare("smooth", _smooth, text)
    what = "a registered defense, which gets the filter gaussian-noise in front, or robustbench:<id>"
    sub.add_argument("defense", help=what)
    sub.add_argument("--sigma", nargs="+", default=[], help="of the noise, as 1/4 (default: the defense's own)")
    sub.add_argument("--n0", type=positive, default=100, help="draws that choose the class (default: 100)")
    sub.add_argument("--n", type=positive, default=100_000, help="draws that certify it (default: 100000)")
    sub.add_argument("--alpha", type=float, default=0.001, help="chance of a wrong certificate (default: 0.001)")
    sub.add_argument("--radii", nargs="+", default=None, help="of the table (default: 0 1/4 1/2 3/4 1)")
    sub.add_argument("--dataset", default="digits", help="default: digits")
    sub.add_argument("--split", default="test", help="default: test")
    sub.add_argument("--indices", default="first-100", help="which images (default: first-100)")
    sub.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="parameters of the defense")
    sub.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    sub.add_argument("--batch", type=positive, default=2000, help="draws at once; changes no count (default: 2000)")
    sub.add_argument("--device", default="cpu", help="where models run, as cuda:0 (default: cpu)")
    sub.add_argument("--out", type=Path, help="results folder (default: results/smooth-<dataset>-<defense>)")
    sub.add_argument("--weights-root", type=Path, help="look here first for <dataset>/<name>.safetensors")
    sub.add_argument("--data-root", type=Path, help="where data sets lie (default: $PUREBENCH_DATA)")
    sub.add_argument("--quiet", action="store_true", help="no progress")


def _smooth(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from bench.board.indices import resolve
    from bench.evaluation.devices import device_named
    from bench.tracks.smoothing.certify import CertificationProtocol
    from bench.tracks.smoothing.run import SmoothingJob, noisy, number, run_all
    from bench.tracks.smoothing.tables import RADII, write
    from defenses.data.dataset import load_dataset
    from defenses.zoo.registry import load_model

    given, dataset = key_values(arguments.set), arguments.dataset
    for text in arguments.radii or RADII:
        number("radius", text)
    sigmas: list[float | None] = [number("sigma", text) for text in arguments.sigma]
    named = [noisy(arguments.defense, dataset, given, sigma) for sigma in sigmas or [None]]
    protocols = [CertificationProtocol(sigma, arguments.n0, arguments.n, arguments.alpha) for _, _, sigma in named]
    data = load_dataset(dataset, arguments.split, root=arguments.data_root)
    chosen = resolve(arguments.indices, len(data), dataset=dataset, split=arguments.split, labels=data.y.tolist)
    label = re.sub(r"[^\w.]+", "-", f"smooth-{dataset}-{arguments.defense}").strip("-.")
    folder, device = arguments.out or Path("results") / label, device_named(arguments.device)
    data = replace(data, x=data.x.to(device))
    roots = {"weights_root": arguments.weights_root, "data_root": arguments.data_root}
    defenses = [load_model(name, dataset, **roots, **params) for name, params, _ in named]
    works = [
        SmoothingJob(
            arguments.defense, defense.to(device), data, chosen.positions, protocol, arguments.seed, arguments.batch
        )
        for defense, protocol in zip(defenses, protocols, strict=True)
    ]
    run_all(works, folder, indices=arguments.indices, progress=not arguments.quiet)
    title = f"Certified accuracy: {arguments.defense} on {dataset} ({arguments.split})"
    print(write(folder, arguments.radii or RADII, title), end="")
    return 0
