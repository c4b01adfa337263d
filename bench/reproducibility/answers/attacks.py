"""Answers from the attacks of a board."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

from bench.attacks.budgets import small_search
from bench.attacks.catalogue import catalogue
from bench.report.attack_warnings import listed
from bench.reproducibility.answers.answer import Answer, Answerer, absent, decided, hand, of_rows
from bench.reproducibility.answers.row_attacks import (
    audited,
    every_part,
    knows,
    met_free,
    mode,
    named,
    of_earlier,
    parts,
)
from bench.reproducibility.subject import Subject, attacks_of, finished, warnings_of
from bench.site.model import SiteRow
from bench.spec.cell import PRECOMPUTED

_LABELS = re.compile(r"boundary|hopskipjump|geoda|qeba|decision", re.IGNORECASE)  # attacks on labels alone


def adaptive(subject: Subject) -> Answer:
    """Return if each defense met an attack that is not blind to it."""
    return of_rows(
        subject.attacked, lambda row: bool(finished(row, knows)), "an attack that knows the defense", "results"
    )


def strongest(subject: Subject) -> Answer:
    """Return if no short or greedy attack decides a worst case."""

    def holds(row: SiteRow) -> bool:
        names = (row.values["worst_attack"], row.values["worst_view"])
        deciding = [a for a in attacks_of(row) if (a["attack"], a["view"]) == names]
        return not any(small_search(text) for a in deciding for text in warnings_of(a))

    return of_rows(subject.attacked, holds, "the deciding attack has no short budget and is not greedy", "deviations")


def distortion(subject: Subject) -> Answer:
    """Return if attacks without a bound have the sizes of their perturbations."""
    unbounded = {str(line["attack"]) for line in subject.lines if line.get("minimisation")}
    rows = [row for row in subject.attacked if any(a["attack"] in unbounded for a in finished(row))]

    def holds(row: SiteRow) -> bool:
        return all(_finite(a["median_perturbation"]) for a in finished(row) if a["attack"] in unbounded)

    what = f"finite median size of {listed(sorted(unbounded))}"
    return of_rows(rows, holds, what, "attacks", none="no attack without a bound is on the board")


def _finite(size: float | None) -> bool:
    return size is not None and math.isfinite(size)


def other_kinds(subject: Subject) -> Answer:
    """Return if each defense met noise, and a transfer or an attack without gradients."""

    def on_board(row: SiteRow) -> bool:
        blind = any(mode(found) == "blind" for found in finished(row)) or met_free(row)
        return blind and _met_noise(row)

    what = "noise, and a transfer or a gradient-free attack, on the board or in the audit"
    return _or_audited(subject, subject.attacked, on_board, "white box against S", what, "attacks")


def _or_audited(
    subject: Subject, rows: list[SiteRow], on_board: Callable[[SiteRow], bool], check: str, what: str, section: str
) -> Answer:
    """Return yes if all rows met something on the board, or in a check of their audits."""
    checked = [row.label for row in rows if not on_board(row) and audited(row, check)]
    return of_rows(
        rows, lambda row: on_board(row) or audited(row, check), what, section, more=of_earlier(subject, checked)
    )


def diverse(subject: Subject) -> Answer:
    """Return if each defense met two attacks or more, of different gradients or libraries."""

    def holds(row: SiteRow) -> bool:
        return len({(part, mode(found)) for found in finished(row) for part in parts(row, found)}) > 1

    counts = [len(list(every_part(row))) for row in subject.attacked]
    size = f"{min(counts)} to {max(counts)}" if counts and min(counts) < max(counts) else str(max(counts, default=0))
    return of_rows(subject.attacked, holds, f"two kinds of attacks or more ({size} attacks each)", "attacks")


def gradient_free(subject: Subject) -> Answer:
    """Return if each defense met an attack without gradients and one on labels alone."""
    if not subject.attacked:
        return absent("no attack ran here")
    rows, n = subject.attacked, len(subject.attacked)
    checked = [row.label for row in rows if not met_free(row) and audited(row, "white box against S")]
    without = sum(map(met_free, rows)) + len(checked)
    labels = sum(any(map(_LABELS.search, every_part(row))) for row in rows)
    text = f"gradient-free, on the board or in the audit: {without} of {n}; on labels alone: {labels} of {n}"
    return decided(without == labels == n, text + of_earlier(subject, checked), "attacks")


def queries(subject: Subject) -> Answer:
    """Return if each defense met SPSA, on the board or in its audit."""

    def on_board(row: SiteRow) -> bool:
        return any("spsa" in part.lower() for part in every_part(row))

    what = "SPSA, on the board or in the audit"
    return _or_audited(subject, subject.attacked, on_board, "white box against SPSA", what, "audit")


def transfer(subject: Subject) -> Answer:
    """Return if each defense met a transfer; the bare classifier itself has none."""
    rows = [row for row in subject.attacked if not row.about.undefended]

    def on_board(row: SiteRow) -> bool:
        return bool(finished(row, lambda found: mode(found) == "blind"))

    what = "a transfer or blind attack, on the board or in the audit"
    return _or_audited(subject, rows, on_board, "white box against transfer", what, "attacks")


def averaging(subject: Subject) -> Answer:
    """Return if each randomised defense met an attack that averages its draws."""
    rows = [row for row in subject.attacked if row.values["stochastic"]]

    def holds(row: SiteRow) -> bool:
        copies = [re.search(r"(?:(\d+)-)?(\d+) EOT", str(found["view"])) for found in finished(row)]
        return any(found and int(found[2]) > 1 for found in copies) or any(map(_averages, _names(row)))

    return of_rows(rows, holds, "an attack that averages several draws", "attacks", none="no randomised defense here")


def noise_known(subject: Subject) -> Answer:
    """Return what attackers know of the randomness of the defenses."""
    if not any(row.values["stochastic"] for row in subject.attacked):
        return absent("no randomised defense here")
    known = sum(bool(a["seed_known"]) for row in subject.attacked for a in attacks_of(row))
    text = "attackers draw noise of their own; that of the verdict is unknown to them"
    more = f"; in {known} rows they know it, which are no candidates for the worst case" if known else ""
    return decided(True, text + more, "protocol")


def convergence_plot(subject: Subject) -> Answer:
    """Return if audits have the numbers that purebench figures draws against the effort of the attack."""
    what = "an audit for purebench figures --only convergence"
    return _or_audited(subject, subject.attacked, lambda _: False, "twice ", what, "audit")


def random_noise(subject: Subject) -> Answer:
    """Return if each defense met uniform noise in the ball."""
    return of_rows(subject.attacked, _met_noise, "uniform noise in the ball", "attacks")


def many_noises(subject: Subject) -> Answer:
    """Return that one point of noise is tried for each image."""
    if not subject.attacked:
        return absent("no attack ran here")
    return decided(False, "one point in the ball for each image", "protocol")


def own_attacks(subject: Subject) -> Answer:
    """Return if attacks of the user's own are on the board."""
    own = _own(subject)
    return hand(f"attacks of your own: {listed(own)}") if own else absent("no attack of the user's own is here")


def own_source(subject: Subject) -> Answer:
    """Return if the source of the user's own attacks is recorded by checksum."""
    own = _own(subject)
    if not own:
        return absent("no attack of the user's own is here")
    known = {str(line["attack"]) for line in subject.lines if line.get("sources")}
    return hand(f"publish the source of {listed(own)}; its checksum is recorded for {len(known & set(own))}")


def _own(subject: Subject) -> list[str]:
    """Return the labels of attacks that are of no library that purebench knows."""
    known = {entry.name for entry in catalogue()}
    pairs = {(a["attack"], named(row, a)) for row in subject.attacked for a in attacks_of(row)}
    return sorted({str(a) for a, name in pairs if name and name not in known and not name.startswith(PRECOMPUTED)})


def _met_noise(row: SiteRow) -> bool:
    return any(found["attack"] == "uniform" and found["robust_mean"] is not None for found in row.attacks)


def _names(row: SiteRow) -> Iterator[str]:
    yield from (named(row, found) for found in finished(row))


def _averages(name: str) -> bool:
    return name in ("bench:adaptive", "torchattacks:EOTPGD", "autoattack:rand")


FIELDS: dict[str, Answerer] = {
    function.__name__: function
    for function in (
        *(adaptive, strongest, distortion, other_kinds, diverse, gradient_free, queries, transfer),
        *(averaging, noise_known, convergence_plot, random_noise, many_noises, own_attacks, own_source),
    )
}
