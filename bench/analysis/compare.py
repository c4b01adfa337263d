"""Compare two rows of a table on the same images: two defenses, or two attacks on one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.analysis.caveats import caveats
from bench.analysis.results import Results, read_results
from bench.analysis.rows import SETTING, Group, grouped
from bench.analysis.sides import Side, incomparable, parsed, sides_of
from bench.stats.bootstrap import Interval, over_trainings
from bench.stats.paired import Paired, paired_difference
from bench.store.parts import stored
from defenses.utils.errors import UserError

RESAMPLES = 10_000  # of the bootstrap over several trainings


@dataclass(frozen=True, eq=False)
class Comparison:
    """Comparison of row a with row b in one setting.

    Args:
        a: the first row.
        b: the second row.
        planned: number of images of the setting.
        difference: mean of a minus mean of b, over images, in [-1, 1].
        how: method of its interval.
        decisions: difference of majority decisions (or of the single verdicts of deterministic defenses), with
            McNemar's test; None for several trainings.
        both: number of images that both decide right; 0 if `decisions` is None.
        caveats: caveats of both sides, see `bench.analysis.caveats`.
    """

    a: Side
    b: Side
    planned: int
    difference: Interval
    how: str
    decisions: Paired | None
    both: int
    caveats: tuple[str, ...] = ()


def compare(
    source: str | Path,
    a: str,
    b: str,
    *,
    other: str | Path | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[Comparison]:
    """Compare two rows of results on the same images, in every setting that has both.

    The difference has Bonett and Price's interval over images (`bench.stats.paired.paired_difference`); the variance
    of draws is in the shares. If a side has several trainings, a bootstrap varies these too (`bench.stats.bootstrap`).

    Args:
        source: the results folder.
        a: a row: "adp" (its worst case), "adp@autoattack:rand" (one attack), "adp@autoattack:rand (bpda)" (one view of
            several), "adp@none" (clean images).
        b: another row.
        other: the results folder of b. Default: `source`.
        confidence: in (0, 1).
        seed: of the bootstrap over several trainings.
        resamples: number of resamples of that bootstrap.

    Returns:
        A comparison per setting.

    Raises:
        UserError: unknown row, or rows that do not compare: other images, threat, draws, budget or data.
    """
    results_a = read_results(source)
    results_b = results_a if other is None else read_results(other)
    if a == b and other is None:
        raise UserError(f'"{a}" is compared with itself; name another defense or attack')
    first, second = ({side.setting: side for side in sides_of(r, name)} for r, name in ((results_a, a), (results_b, b)))
    settings = [setting for setting in first if setting in second]
    if not settings:
        of_a, of_b = (next(iter(sides.values())).where for sides in (first, second))
        raise UserError(f"{a} was judged on {of_a} and {b} on {of_b}; compare rows of one setting")
    if other is not None:
        _check_same_data(Path(source), Path(other), settings)
    planned = {tuple(group.rows[0].names[n] for n in SETTING): group.rows[0].planned for group in _groups(results_a)}
    texts = [*_caveats(source, results_a, a), *_caveats(other or source, results_b, b)]
    comparisons = []
    for setting in settings:
        left, right = first[setting], second[setting]
        if problem := incomparable(left, right):
            raise UserError(problem)
        comparison = compared(
            left, right, planned=planned[setting], confidence=confidence, seed=seed, resamples=resamples
        )
        comparisons.append(replace(comparison, caveats=tuple(dict.fromkeys(texts))))
    return comparisons


def _caveats(folder: str | Path, results: Results, name: str) -> list[str]:
    defense, _ = parsed(name, list(dict.fromkeys(results.cells["defense"])))
    return caveats(Path(folder), results).get(defense, [])


def compared(
    a: Side, b: Side, *, planned: int, confidence: float = 0.95, seed: int = 0, resamples: int = RESAMPLES
) -> Comparison:
    """Return the comparison of two rows that compare (`bench.analysis.sides.incomparable`), see `compare`."""
    decisions, both = None, 0
    if a.decisions is not None and b.decisions is not None:
        decisions = paired_difference(a.decisions, b.decisions, confidence=confidence)
        both = int((a.decisions & b.decisions).sum())
    if len(a.shares) > 1 or len(b.shares) > 1:
        interval = over_trainings(a.shares, b.shares, confidence=confidence, seed=seed, resamples=resamples)
        return Comparison(a, b, planned, interval, "images resampled, trainings by Student's t", decisions, both)
    shares = paired_difference(a.shares[0], b.shares[0], confidence=confidence)
    interval = Interval(shares.difference, shares.low, shares.high, shares.n)
    return Comparison(a, b, planned, interval, "Bonett and Price, paired images", decisions, both)


def _groups(results: Results) -> Iterator[Group]:
    return (group for seeds in grouped(results) for group in seeds)


def _check_same_data(folder: Path, other: Path, settings: Sequence[tuple[Any, ...]]) -> None:
    """Refuse folders with different versions of a data set.

    Raises:
        UserError: their revisions or index lists differ.
    """
    versions = []
    for results in (folder, other):
        lines = [line for line, _ in stored(results / "parts").values()]
        versions.append({(x["dataset"], x["split"], x["indices"], *x["identity"]["data"][2:4]) for x in lines})
    for setting in settings:
        left, right = ({v for v in keys if v[:3] == setting[:3]} for keys in versions)
        if left != right:
            data = " ".join(setting[:3])
            raise UserError(f"{folder} and {other} hold other versions of {data}; run one of them again")
