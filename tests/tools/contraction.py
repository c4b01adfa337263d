"""Print the contraction of purifiers beside their worst cases in results/digits-defenses, and draw both.

Run: python tests/tools/contraction.py [--images 32] [--picture contraction.png]

It makes the table of results/README.md. Purifiers are as their names load them, so the board has to be of such rows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import bench
from defenses import load_model
from defenses.data.dataset import load_dataset

FOLDER = Path(__file__).parents[2] / "results" / "digits-defenses"
NAMES = ("adp", "gdmp", "denoise-once", "score-sde", "diffpure", "ebm-mcmc", "igebm", "jem-refine", "smoothing")
ENDS = (("", "_mean"), ("_low", "_low"), ("_high", "_high"))  # of columns: here, and in the leaderboard


def rates(images: int) -> pd.DataFrame:
    """Return `defense`, `contraction` and the worst case as `robust`, `robust_low` and `robust_high`."""
    leaders = bench.leaderboard(FOLDER).set_index("defense")
    board = leaders.iloc[0]
    x = load_dataset(board["dataset"]).x[:images]
    found = []
    for name in NAMES:
        rate = bench.contraction(load_model(name, dataset=board["dataset"]), x, float(board["eps_value"])).mean()
        worst = {f"robust{end}": leaders.loc[name, f"worst{kind}"] for end, kind in ENDS}
        found.append({"defense": name, "contraction": rate, **worst})
    return pd.DataFrame(found).sort_values("contraction", ignore_index=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    agreement, rows = bench.contraction_agreement(rates(given.images))
    print("| defense | rate | robust | rate and attacks |\n| --- | --- | --- | --- |")
    for row in rows.itertuples():
        print(f"| `{row.defense}` | {row.contraction:.3f} | {row.robust:.1%} | {row.says} |")
    print(f"Spearman {agreement.value:.2f} [{agreement.low:.2f}, {agreement.high:.2f}]")
    if given.picture:
        from bench.plots import contraction, save

        save(contraction(rows).figure, given.picture)


if __name__ == "__main__":
    main()
