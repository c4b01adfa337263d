"""Write the generated parts of the READMEs: `python tests/tools/readmes.py`.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from tools import readme_attacks as attacks
from tools import readme_reference as reference
from tools import readme_results as results

ROOT = Path(__file__).parents[2]
READMES = ("README.md", *(f"{f}/README.md" for f in ("bench", "defenses", "leaderboards", "results", "tests")))
COMMAND = "python tests/tools/readmes.py"
PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
PARTS: dict[str, Callable[[], str]] = {
    "digits": results.digits,
    "digits-defenses": results.digits_defenses,
    "mnist-defenses": results.mnist_defenses,
    "cifar10": results.cifar10,
    "cifar10-purifiers": results.cifar10_purifiers,
    "overfitting": results.overfitting,
    "gan": results.gan,
    "detectors": results.detectors,
    "audit": results.audit,
    "reproduction": results.reproduction,
    "adaptive-cost": attacks.adaptive_cost,
    "leaky-energy": attacks.leaky,
    "surrogates": attacks.surrogates,
    "smoothing": results.smoothing,
    "poisoning": results.poisoning,
    "folders": results.folders,
    "commands": reference.commands,
    "options": reference.options,
    "board-keys": reference.board_keys,
    "gradient-modes": reference.gradient_modes,
    "presets": reference.presets,
    "boards": reference.boards,
    "attack-counts": reference.attack_counts,
    "families": reference.families,
    "cards": reference.cards,
    "recipes": reference.recipes,
    "datasets": reference.datasets,
    "dataset-forms": reference.dataset_forms,
    "importers": reference.importers,
    "layers-of-bench": partial(reference.layers, "bench"),
    "layers-of-defenses": partial(reference.layers, "defenses"),
    "benchmarks": reference.benchmarks,
    "faults": reference.faults,
}


def renewed(text: str) -> str:
    """Return a README with its generated parts made anew."""
    return PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]()}\n\n{part[4]}", text)


if __name__ == "__main__":
    for name in READMES:
        path = ROOT / name
        path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(path)
