"""Sequential verdicts: draws and agreement with the full count, against other rules, on committed draws and for real.

Run: python tests/benchmarks/bench_sequential.py [--images N] [--repeats N] [--device D]

1. Rules of 65 draws, exact over an even spread of accuracies: ours, Wald's SPRT (a constant lead) and Pocock's boundary
   (a lead in proportion to sqrt(n)), these two with the smallest constant that errs no more often than ours.
2. Images with accuracies spread evenly, and the draws of results/digits-linf: share of equal decisions with Clopper and
   Pearson's interval, share of the draws. Rows of one run share their images: the interval of all of them is too short.
3. ADP on adversarial digits of that run: `verdict` with 65 draws and `sequential_verdict`, in turns; ratio of times.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bench.stats.proportions import clopper_pearson
from bench.stats.sequential import Decisions, Sequential
from bench.stats.voting import majority
from defenses.utils.arrays import I64, Bools

RESULTS, N = "results/digits-linf", 65


@dataclass(frozen=True)
class Lead(Sequential):
    """Stops at a lead of `scale` n^power of one side: power 0 is the SPRT, 1/2 Pocock's boundary."""

    scale: float = 0.0
    power: float = 0.0

    @cached_property
    def bounds(self) -> tuple[I64, I64]:
        """See `Sequential.bounds`; what cannot change any more is decided too."""
        n = np.arange(self.n_max + 1)
        lead = np.maximum(self.scale * n**self.power, 1)
        upper = np.minimum(np.ceil((n + lead) / 2), self.need)
        lower = np.maximum(np.floor((n - lead) / 2), self.need - 1 - (self.n_max - n))
        return upper.astype(np.int64), lower.astype(np.int64)


def rules() -> None:
    """The first part."""
    ours = Sequential(N)
    print(f"rules of {N} draws, even spread, exact: draws used, decisions that differ (of the worst image)")
    found = [("predictive, error .01", ours)]
    for name, power, scales in (("SPRT", 0.0, range(2, N)), ("Pocock", 0.5, np.arange(1, 5, 0.01))):
        candidates = (Lead(N, scale=float(scale), power=power) for scale in scales)
        best = next(rule for rule in candidates if rule.mean_error <= ours.mean_error)
        found.append((f"{name}, lead {best.scale:.4g}{' sqrt(n)' if power else ''}", best))
    found += [(f"predictive, error {error}", Sequential(N, error)) for error in (0.002, 0.005, 0.02, 0.05)]
    found += [(f"predictive, error .01, N = {n}", Sequential(n)) for n in (15, 33, 151)]
    for name, rule in found:
        print(
            f"  {name}: {rule.mean_draws / rule.n_max:.1%} ({rule.mean_draws:.1f}), "
            f"{rule.mean_error:.2%} ({rule.worst_error:.1%})"
        )


def agreement(name: str, said: Decisions, full: Bools) -> None:
    """A line: how often the full count says the same, and what it took."""
    same = int((said.right == full).sum())
    low, high = clopper_pearson(same, len(full))
    print(
        f"  {name}: {same / len(full):.2%} [{low:.2%}, {high:.2%}] of {len(full):,} decisions equal, "
        f"{said.drawn.mean() / N:.1%} of the draws"
    )


def committed() -> tuple[list[str], I64, I64]:
    """Names of the stochastic rows of the committed run, predicted classes [rows, images, draws], labels [images]."""
    from bench import load_draws, load_results

    draws, records = load_draws(RESULTS), load_results(RESULTS)
    draws = draws[draws["held_out"] & draws["defense"].isin(["adp", "ebm-mcmc"])]
    draws = draws.sort_values(["defense", "attack", "view", "image", "draw"])
    pred = np.where(draws["rejected"], -1, draws["pred"]).astype(np.int64)
    images = draws["image"].nunique()
    names = draws.iloc[:: images * N][["defense", "attack", "view"]].agg(" | ".join, axis=1).tolist()
    label = records.drop_duplicates("image").sort_values("image")["label"].to_numpy(np.int64)
    return names, pred.reshape(len(names), images, N), label


def draws_of_others() -> None:
    """The second part."""
    rng, rule = np.random.default_rng(0), Sequential(N)
    correct = rng.random((50_000, N)) < rng.random((50_000, 1))
    print("agreement with the full count:")
    agreement("accuracies spread evenly", rule.decide(correct), correct.sum(1) > N // 2)
    two = rng.random((2, 50_000, N)) < rng.random((50_000, 1))
    same = (two[0].sum(1) > N // 2) == (two[1].sum(1) > N // 2)
    print(f"  (two independent full counts: {same.mean():.2%})")
    names, pred, label = committed()
    for name, row in zip(names, pred, strict=True):
        agreement(name, rule.decide_votes(row, label), majority(row, label))
    every, labels = pred.reshape(-1, N), np.tile(label, len(names))
    agreement("all rows of the committed run", rule.decide_votes(every, labels), majority(every, labels))


def for_real(images: int, repeats: int, device: str) -> None:
    """The third part."""
    import torch

    from bench.evaluation.sequential_verdict import sequential_verdict
    from bench.evaluation.verdict import verdict
    from defenses import load_model
    from defenses.data.dataset import load_dataset

    torch.set_num_threads(1)
    defense, data = load_model("adp", dataset="digits").to(device), load_dataset("digits")
    x, y = data.x[:images].to(device), data.y[:images].to(device)
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).to(device)
    x = (x + 0.4 * (noise - 0.5)).clamp(0, 1)
    blind = x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(defense.classifier.network(blind), y).backward()
    x, index = (x + 0.1 * blind.grad.sign()).clamp(0, 1), torch.arange(images)
    ratios, said = [], None
    for _ in range(repeats):
        begin = time.perf_counter()
        full = verdict(defense, x, index, draws=N, selection=0, seed=0)
        middle = time.perf_counter()
        said = sequential_verdict(defense, x, y, index, Sequential(N), 0)
        ratios.append((time.perf_counter() - middle) / (middle - begin))
    assert said is not None
    print(f"ADP on {images} perturbed digits, {device}:")
    agreement("decisions", said, majority(full.predictions.T.cpu().numpy(), y.cpu().numpy()))
    spread = f"{min(ratios):.1%} to {max(ratios):.1%}"
    print(f"  {statistics.median(ratios):.1%} of the full count's time (median of {repeats}: {spread})")


def main() -> None:
    """All parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    rules()
    draws_of_others()
    for_real(arguments.images, arguments.repeats, arguments.device)


if __name__ == "__main__":
    main()
