"""Answers from the attacks of a board."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from bench.attacks.budgets import is_small_budget
from bench.attacks.catalogue import catalogue
from bench.report.attack_warnings import listed
from bench.reproducibility.answers.answer import Answer, Answerer, absent, decided, hand, of_rows
from bench.reproducibility.subject import Subject, Values, attacks_of, finished, warnings_of
from bench.site.model import SiteRow
from bench.spec.cell import DEPLOYED, GIVEN, PRECOMPUTED

_STAND_INS = ("bpda", "surrogate", "smooth", "difference")
_LABELS = re.compile(r"boundary|hopskipjump|geoda|qeba|decision", re.IGNORECASE)  # attacks on labels alone
_NONE = (DEPLOYED, GIVEN)


def _mode(found: Values) -> str:
    """Return the gradient mode of an attack on a row, without its number."""
    return str(found["gradient"]).partition(":")[0]


def _adaptive(found: Values) -> bool:
    return _mode(found) not in ("", "blind") and found["view"] not in _NONE


def adaptive(subject: Subject) -> Answer:
    """Return if each defense met an attack that is not blind to it."""
    return of_rows(
        subject.attacked, lambda row: bool(finished(row, _adaptive)), "an attack that knows the defense", "results"
    )


def whole_defense(subject: Subject) -> Answer:
    """Return if each defense met an attack through its exact gradients, or its own answers."""
    free = _asking("logits")

    def holds(row: SiteRow) -> bool:
        return any(
            _mode(found) == "exact" or (_adaptive(found) and _named(row, found) in free) for found in finished(row)
        )

    return of_rows(subject.attacked, holds, "exact gradients or queries of the whole defense", "results")


def strongest(subject: Subject) -> Answer:
    """Return if no short attack decides a worst case."""

    def holds(row: SiteRow) -> bool:
        names = (row.values["worst_attack"], row.values["worst_view"])
        deciding = [a for a in attacks_of(row) if (a["attack"], a["view"]) == names]
        return not any(is_small_budget(text) for a in deciding for text in warnings_of(a))

    return of_rows(subject.attacked, holds, "the deciding attack has no short budget", "deviations")


def distortion(subject: Subject) -> Answer:
    """Return if attacks without a bound have the sizes of their perturbations."""
    unbounded = {str(line["attack"]) for line in subject.lines if line.get("minimisation")}
    rows = [row for row in subject.attacked if any(a["attack"] in unbounded for a in finished(row))]

    def holds(row: SiteRow) -> bool:
        return all(a["median_perturbation"] is not None for a in finished(row) if a["attack"] in unbounded)

    what = f"median size of {listed(sorted(unbounded))}"
    return of_rows(rows, holds, what, "attacks", none="no attack without a bound is on the board")


def other_kinds(subject: Subject) -> Answer:
    """Return if each defense met noise, and a transfer or an attack without gradients."""
    free = _asking("logits")

    def holds(row: SiteRow) -> bool:
        blind = any(_mode(found) == "blind" or _named(row, found) in free for found in finished(row))
        return (blind and _met_noise(row)) or _audited(row, "white box against S")

    what = "noise, and a transfer or a gradient-free attack, on the board or in the audit"
    return of_rows(subject.attacked, holds, what, "attacks")


def diverse(subject: Subject) -> Answer:
    """Return if each defense met two attacks or more, of different gradients or libraries."""

    def holds(row: SiteRow) -> bool:
        return len({(_named(row, found), _mode(found)) for found in finished(row)}) > 1

    counts = [len(finished(row)) for row in subject.attacked]
    size = f"{min(counts)} to {max(counts)}" if counts and min(counts) < max(counts) else str(max(counts, default=0))
    return of_rows(subject.attacked, holds, f"two kinds of attacks or more ({size} attacks each)", "attacks")


def gradient_free(subject: Subject) -> Answer:
    """Return if each defense met an attack without gradients and one on labels alone."""
    if not subject.attacked:
        return absent("no attack ran here")
    free, n = _asking("logits"), len(subject.attacked)
    without = sum(
        any(_named(row, a) in free for a in finished(row)) or _audited(row, "white box against S")
        for row in subject.attacked
    )
    labels = sum(any(_LABELS.search(_named(row, a)) for a in finished(row)) for row in subject.attacked)
    text = f"gradient-free, on the board or in the audit: {without} of {n}; on labels alone: {labels} of {n}"
    return decided(without == labels == n, text, "attacks")


def queries(subject: Subject) -> Answer:
    """Return if each defense met SPSA, on the board or in its audit."""
    return of_rows(
        subject.attacked,
        lambda row: _audited(row, "white box against SPSA") or any("spsa" in name.lower() for name in _names(row)),
        "SPSA, on the board or in the audit",
        "audit",
    )


def transfer(subject: Subject) -> Answer:
    """Return if each defense met a transfer; the bare classifier itself has none."""
    rows = [row for row in subject.attacked if row.about.parts[:1] != (("classifier", "undefended"),)]
    return of_rows(
        rows,
        lambda row: (
            bool(finished(row, lambda found: _mode(found) == "blind")) or _audited(row, "white box against transfer")
        ),
        "a transfer or blind attack, on the board or in the audit",
        "attacks",
    )


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


def stand_in(subject: Subject) -> Answer:
    """Return if defenses without exact gradients met attacks through a stand-in."""
    rows = [row for row in subject.attacked if not any(_mode(a) == "exact" for a in attacks_of(row))]
    return of_rows(
        rows,
        lambda row: bool(finished(row, lambda found: _mode(found) in _STAND_INS)),
        "BPDA or another stand-in",
        "attacks",
        none="every defense has exact gradients, and met them" if subject.attacked else "no attack ran here",
    )


def convergence_plot(subject: Subject) -> Answer:
    """Return if audits have the numbers that purebench figures draws against the effort of the attack."""
    return of_rows(
        subject.attacked,
        lambda row: _audited(row, "twice "),
        "an audit for purebench figures --only convergence",
        "audit",
    )


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
    named = {(a["attack"], _named(row, a)) for row in subject.attacked for a in attacks_of(row)}
    return sorted({str(a) for a, name in named if name and name not in known and not name.startswith(PRECOMPUTED)})


def _met_noise(row: SiteRow) -> bool:
    return any(found["attack"] == "uniform" and found["robust_mean"] is not None for found in row.attacks)


def _audited(row: SiteRow, check: str) -> bool:
    return any(str(c["check"]).startswith(check) and c["status"] in ("pass", "fail") for c in row.checks)


def _named(row: SiteRow, found: Values) -> str:
    """Return the name of an attack in its library; "" if it has not run."""
    recipe = row.recipes.get((found["attack"], found["view"]))
    return recipe.name if recipe else ""


def _names(row: SiteRow) -> Iterator[str]:
    yield from (_named(row, found) for found in finished(row))


def _averages(name: str) -> bool:
    return name in ("bench:adaptive", "torchattacks:EOTPGD", "autoattack:rand")


@functools.cache
def _asking(what: str) -> frozenset[str]:
    """Return the names of attacks that ask a model for "gradients", "logits" or "nothing"."""
    return frozenset(entry.name for entry in catalogue() if entry.asks == what)


FIELDS: dict[str, Answerer] = {
    function.__name__: function
    for function in (
        *(adaptive, whole_defense, strongest, distortion, other_kinds, diverse, gradient_free, queries, transfer),
        *(averaging, noise_known, stand_in, convergence_plot, random_noise, many_noises, own_attacks, own_source),
    )
}
