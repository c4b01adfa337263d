"""Tables of the READMEs that are made from committed results."""

from __future__ import annotations

import csv
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from tools.readme_reference import code, table

RESULTS = Path(__file__).parents[2] / "results"
WORST = "worst case"


@cache
def summary(folder: str) -> Any:
    """Return the summary of a committed folder."""
    import bench

    return bench.summary(RESULTS / folder)


def row(folder: str, defense: str, attack: str, gradient: str = "") -> Any:
    """Return the row of a defense and an attack, or of one view of it; None where it is not attacked so."""
    frame = summary(folder)
    rows = frame[(frame["defense"] == defense) & (frame["attack"] == attack)]
    rows = rows[rows["view"].str.startswith(gradient)] if gradient else rows
    assert len(rows) < 2, (folder, defense, attack)
    return rows.iloc[0] if len(rows) else None


def share(row: Any, name: str = "robust") -> str:
    """Return a share in percent."""
    return "–" if row is None else f"{100 * row[f'{name}_mean']:.1f}"


def interval(row: Any) -> str:
    """Return a share in percent with its interval."""
    return f"**{share(row)}** [{100 * row['robust_low']:.1f}, {100 * row['robust_high']:.1f}]"


def _first(folder: str, defense: str, attacks: tuple[str, ...]) -> Any:
    """Return the row of the first of these attacks, "label" or "label @ gradient", that the defense meets."""
    return next((r for r in (row(folder, defense, *a.split(" @ ")) for a in attacks) if r is not None), None)


def digits() -> str:
    """Return the digits table: six attacks by four defenses."""
    folder, defenses = "digits-linf", ("undefended", "pgd-at", "adp", "ebm-mcmc")
    pgd, auto = "foolbox:LinfPGD, 50 steps", ("autoattack:standard", "autoattack:rand", "autoattack:rand, bpda")
    rows = {
        "none: clean images": lambda d: share(row(folder, d, "none")),
        "PGD-100, blind¹": lambda d: share(row(folder, d, "foolbox:LinfPGD")),
        "PGD-50, BPDA": lambda d: share(row(folder, d, pgd, "bpda")),
        "AutoAttack²": lambda d: share(_first(folder, d, auto)),
        "PGD-50, exact": lambda d: share(row(folder, d, pgd, "exact")),
        "worst case [95 %]": lambda d: interval(row(folder, d, WORST)),
    }
    body = [(name, *(cell(d) for d in defenses)) for name, cell in rows.items()]
    return table(("attack", *defenses), body)


def _ranked(folder: str) -> list[str]:
    """Return the defenses of a folder, best worst case first."""
    frame = summary(folder)
    worst = frame[frame["attack"] == WORST].sort_values("robust_mean", ascending=False, kind="stable")
    return list(worst["defense"])


def _family_table(folder: str, columns: dict[str, tuple[str, ...]]) -> str:
    """Return the defenses of a folder by groups of attacks; of each group the first that a defense meets."""
    rows = []
    for d in _ranked(folder):
        cells = [share(_first(folder, d, attacks)) for attacks in columns.values()]
        rows.append((d, share(row(folder, d, "none")), *cells, interval(row(folder, d, WORST))))
    return table(("defense", "clean", *columns, "worst case [95 %]"), rows)


def digits_defenses() -> str:
    """Return the family of defenses on digits."""
    return _family_table(
        "digits-defenses",
        {
            "transfer": ("transfer",),
            "PGD-50, BPDA": ("PGD-50, BPDA",),
            "exact¹": ("autoattack:standard", "APGD-50, exact", "APGD-25, exact"),
            "bench:adaptive": ("adaptive",),
            "bench:square": ("bench:square",),
            "joint²": ("APGD, joint", "APGD of 4 copies, joint"),
        },
    )


def mnist_defenses() -> str:
    """Return the family of defenses on MNIST."""
    return _family_table(
        "mnist-defenses",
        {
            "transfer": ("transfer",),
            "BPDA": ("PGD-20, BPDA", "PGD-10, BPDA"),
            "exact": ("autoattack:standard", "APGD-20, exact", "APGD-10, exact"),
            "bench:square": ("bench:square", "Square-100"),
            "joint": ("APGD, joint",),
        },
    )


def cifar10() -> str:
    """Return the classifiers of CIFAR-10."""
    return _family_table(
        "cifar10-linf",
        {"transfer": ("transfer",), "PGD-50": ("foolbox:LinfPGD",), "AutoAttack": ("autoattack:standard",)},
    )


def cifar10_purifiers() -> str:
    """Return the randomised defenses of CIFAR-10, and two classifiers on the same images."""
    return _family_table(
        "cifar10-purifiers",
        {
            "transfer": ("transfer",),
            "PGD-50, blind": ("PGD-50 @ blind",),
            "PGD-50, BPDA": ("PGD-50 @ bpda",),
            "AutoAttack": ("autoattack:standard",),
            "bench:adaptive": ("bench:adaptive",),
        },
    )


def overfitting() -> str:
    """Return the table of catastrophic overfitting."""
    columns = {a: (a,) for a in ("transfer", "FGSM", "PGD-50")} | {"AutoAttack": ("autoattack:standard",)}
    return _family_table("digits-overfitting", columns)


def gan() -> str:
    """Return the table of the GAN adversarial network."""
    white = {"FGSM": ("FGSM",), "PGD-50": ("PGD-50",), "AutoAttack": ("autoattack:standard",)}
    black = {f"PGD-50 from {n}": (f"PGD-50 from {n}",) for n in ("pgd-at", "gan-at")}
    return _family_table("digits-gan", white | black)


def detectors() -> str:
    """Return what is right or refused of attacked images: under a transfer, and under the attack on both."""
    from bench.analysis.detection import detection

    frame = detection(RESULTS / "digits-defenses")
    rows = []
    for defense, group in frame.groupby("defense", sort=False):
        by = group.set_index("attack")
        joint = next((a for a in by.index if a.endswith("joint")), None)
        if joint is None:
            continue
        shares = [f"{100 * by.loc[a, 'right_or_refused']:.1f}" for a in ("transfer", joint)]
        clean = f"{100 * by.loc[joint, 'clean_refused']:.1f}"
        rows.append(
            (str(defense), clean, *shares, f"{by.loc['transfer', 'auroc']:.3f}", f"{by.loc[joint, 'auroc']:.3f}")
        )
    header = (
        "clean: refused",
        "transfer: right or refused",
        "joint: right or refused",
        "transfer: AUROC",
        "joint: AUROC",
    )
    return table(("detector", *header), rows)


def audit() -> str:
    """Return the outcome of the committed audits."""
    page = (RESULTS / "digits-audit" / "audit" / "audit.md").read_text(encoding="utf-8")
    lines = [line for line in page.split("\n## ")[0].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return table(rows[0], rows[2:])


def smoothing() -> str:
    """Return the certified accuracies."""
    rows, header = [], []
    for folder in ("smooth-digits-smoothing", "smooth-digits-denoised"):
        page = (RESULTS / folder / "tables.md").read_text(encoding="utf-8")
        lines = [line for line in page.splitlines() if line.startswith("|")]
        header, _, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
        name = page.split(": ")[1].split(" on ")[0]
        rows += [(f"[{name}]({folder}/tables.md)", *cells) for cells in body]
    return table(("defense", *header), rows)


def reproduction() -> str:
    """Return what the protocols of claims leave here, beside the full one."""
    from bench import reproduction

    frame = reproduction(RESULTS / "reproduction-digits")
    rows = []
    for _, row in frame[frame["status"] == "ok"].iterrows():
        claimed = "–" if row["claimed"] != row["claimed"] else f"{100 * row['claimed']:.1f}"
        claimed += " (secondary)" if row["evidence"] == "secondary" else ""
        shares = [
            f"{100 * row[n]:.1f} [{100 * row[f'{n}_low']:.1f}, {100 * row[f'{n}_high']:.1f}]" for n in ("own", "full")
        ]
        low, points, high = (f"{100 * row[name]:+.1f}" for name in ("weakness_low", "weakness", "weakness_high"))
        shares += [f"{100 * row['null']:.1f}", f"**{points}** [{low}, {high}]"]
        rows.append((row["defense"], row["protocol"], claimed, *shares))
    sides = ("claimed, of another network", "its protocol", "full protocol", "transfer", "points")
    return table(("defense", "protocol", *sides), rows)


def poisoning() -> str:
    """Return how often the trigger works, by what is cleaned; the strongest ratio of each attack, and the control."""
    path = RESULTS / "digits-poisoning" / "tables.csv"
    lines = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    ratios = {line["attack"]: max(float(x["ratio"]) for x in lines if x["attack"] == line["attack"]) for line in lines}
    rows = []
    for line in lines:
        if float(line["ratio"]) != ratios[line["attack"]]:
            continue
        cells = [f"{100 * float(line[f'{name}_mean']):.1f}" for name in ("clean", "asr")]
        attack = line["attack"] if line["attack"] == "none" else f"{line['attack']} {float(line['ratio']):g}"
        rows.append((attack, line["purifier"] or "–", line["cleaning"], *cells))
    return table(("attack", "purifier", "cleans", "clean accuracy", "trigger succeeds"), rows)


def folders() -> str:
    """Return the table of committed folders: what they hold, and the command that makes them."""
    rows = []
    ignored = (RESULTS.parent / ".gitignore").read_text(encoding="utf-8")
    for path in (RESULTS / name for name in sorted(re.findall(r"!results/([\w-]+)/", ignored))):
        title = (path / "tables.md").read_text(encoding="utf-8").partition("\n")[0].removeprefix("## ")
        board = RESULTS.parent / "leaderboards" / f"{path.name}.toml"
        if board.is_file():
            command = f"purebench {'poison' if 'poisoning' in path.name else 'run'} {path.name}"
        else:
            command = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["runs"][0][
                "command"
            ].removesuffix(" --quiet")
        rows.append((f"[{path.name}]({path.name}/tables.md)", title, code(command)))
    return table(("folder", "first table", "made by"), rows)
