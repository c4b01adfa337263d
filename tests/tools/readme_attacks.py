"""Tables of the READMEs that set attacks on one defense side by side, from committed results."""

from __future__ import annotations

from tools import readme_results as results
from tools.readme_reference import table
from tools.readme_results import RESULTS, WORST, interval, share, summary


def _points(folder: str, a: str, b: str) -> str:
    """Return the paired difference of two rows, "defense@attack", in points with its interval."""
    from bench import compare

    (found,) = compare(RESULTS / folder, a, b)
    d = found.difference
    return f"{100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"


def adaptive_cost() -> str:
    """Return accuracy and evaluations of `bench:adaptive` and of longer attacks, and its paired difference to each."""
    ours, rows = "bench:adaptive", []
    for folder, data in (("adaptive-cost", ""), ("adaptive-cost-mnist", ", MNIST")):
        frame = summary(folder)
        for _, row in frame[(frame["evaluations_per_image"] > 0) & (frame["attack"] != WORST)].iterrows():
            defense, attack = row["defense"], row["attack"]
            base = f"{ours}, BPDA" if "BPDA" in attack else ours
            points = "–" if attack == base else _points(folder, f"{defense}@{base}", f"{defense}@{attack}")
            rows.append((f"{defense}{data}", attack, share(row), f"{row['evaluations_per_image']:,.0f}", points))
    return table(("defense", "attack", "accuracy", "evaluations an image", "bench:adaptive less it [95 %]"), rows)


def leaky() -> str:
    """Return what each attack leaves of the LeakyReLU energy, paired with BPDA's, and of its twin."""
    folder, names = "leaky-energy", {"none": "none: clean images", WORST: WORST, "given:silu": "PGD-20, exact, on SiLU"}
    frame = summary(folder)
    ours = frame[(frame["defense"] == "LeakyReLU") & (frame["attack"] != "uniform")]
    base = "LeakyReLU@PGD-20 (bpda, 4 EOT x 1 run, log-mean-prob)"
    rows = []
    for _, row in ours.iterrows():
        mode = row["view"].split(",")[0]
        pgd = row["attack"].startswith("PGD-20")
        points = "–"
        if row["attack"] not in ("none", WORST) and not (pgd and mode == "bpda"):
            points = _points(folder, f"LeakyReLU@{row['attack']} ({row['view']})", base)
        name = f"PGD-20, {mode}" if pgd else names.get(row["attack"], row["attack"])
        twin = results.row(folder, "SiLU", row["attack"], mode)
        rows.append((name, interval(row), points, "–" if twin is None else interval(twin).replace("**", "")))
    return table(("attack", "LeakyReLU [95 %]", "minus PGD-20, bpda: points [95 %]", "SiLU [95 %]"), rows)


def surrogates() -> str:
    """Return what attacks leave that see a purifier, a part of it, or a surrogate alone, and their evaluations."""
    folder, exact = "digits-surrogates", "PGD-50 (exact, 4 EOT x 1 run)"
    frame, rows = summary(folder), []
    attacked = frame[~frame["attack"].isin(("none", "uniform", WORST))]
    for defense in ("adp", "diffpure", "ebm-mcmc"):
        fitted = (attacked["defense"] == f"{defense}, fitted backward") & (attacked["attack"] != "transfer")
        for _, row in attacked[(attacked["defense"] == defense) | fitted].iterrows():
            attack, this = row["attack"], f"{row['attack']} ({row['view']})"
            name = f"PGD-50, {row['gradient']}" if attack in ("PGD-50", "PGD-50 of a part") else attack
            same = row["defense"] == defense and this == exact
            points = "–" if same else _points(folder, f"{row['defense']}@{this}", f"{defense}@{exact}")
            rows.append((defense, name, interval(row), f"{row['evaluations_per_image']:,.0f}", points))
    return table(("defense", "attack", "accuracy [95 %]", "evaluations an image", "minus PGD-50, exact [95 %]"), rows)
