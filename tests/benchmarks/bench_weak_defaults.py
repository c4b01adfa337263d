"""Accuracy that defaults and short budgets of attacks leave, beside longer ones: why tables warn of them.

Run: python tests/benchmarks/bench_weak_defaults.py [--images N] [--threads N] [--only WORD]

The adversarially trained pgd-at on digits. One line for each threat and attack, budgets from small to large.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from bench import benchmark
from defenses import load_model

Budgets = tuple[dict[str, Any], ...]


def budgets(name: str, *values: int | None) -> Budgets:
    """Return parameters with each value; {} for None, the default."""
    return tuple({} if value is None else {name: value} for value in values)


CASES: tuple[tuple[str, str, str, Budgets], ...] = (  # norm, eps, attack, budgets
    ("Linf", "1/5", "foolbox:LinfPGD", budgets("steps", None, 100)),
    ("Linf", "1/5", "torchattacks:PGD", budgets("steps", None, 40)),
    ("Linf", "1/5", "torchattacks:FGSM", ({},)),
    ("Linf", "1/5", "torchattacks:FFGSM", ({},)),
    ("Linf", "1/5", "torchattacks:TPGD", budgets("steps", 100)),
    ("Linf", "1/5", "torchattacks:SPSA", budgets("nb_iter", 1, 20, 50)),
    ("Linf", "1/5", "torchattacks:Square", budgets("n_queries", 500, 1000, 2000, 5000)),
    ("Linf", "1/5", "bench:square", budgets("queries", 200, 500, 2000)),
    ("L2", "1", "foolbox:L2PGD", budgets("steps", None, 200)),
    ("L2", "1", "torchattacks:PGDL2", budgets("steps", None, 100)),
    ("L2", "1", "foolbox:L2DeepFoolAttack", ({},)),
    ("L2", "1", "torchattacks:DeepFool", ({},)),
    ("L2", "1", "torchattacks:CW", ({},)),
    ("L2", "1", "autoattack:apgd-t", ({},)),
    ("L0", "5", "torchattacks:JSMA", ({},)),
    ("L0", "5", "torchattacks:SparseFool", ({},)),
    ("L0", "5", "torchattacks:OnePixel", budgets("steps", 20)),
    ("L0", "20", "torchattacks:Pixle", budgets("max_iterations", 10, 50, 500)),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="attacks whose names contain this")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load_model("pgd-at", dataset="digits")
    for norm, eps, attack, choices in CASES:
        if arguments.only not in attack:
            continue
        left = []
        for params in choices:
            entry = {"name": attack, "label": "measured", **params}
            frame = benchmark(model, arguments.images, "digits", norm, eps=eps, attacks=entry)
            mean = frame[frame["attack"] == "measured"]["accuracy"].mean()
            left.append(f"{', '.join(f'{k} {v}' for k, v in params.items()) or 'default'}: {mean:.1%}")
        print(f"{norm} {eps}, {attack}: {'; '.join(left)}", flush=True)


if __name__ == "__main__":
    main()
