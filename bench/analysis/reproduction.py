"""Hold the protocols of claims against the full protocol, on the same networks and images.

A board with several [[protocol]] tables has the attacks of each preset on the same defense. What a protocol leaves
above `standard`, or above the board's own attacks where `standard` is too dear, is the weakness of its attacks; the
rest of the distance to a claim is that of another network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.caveats import fingerprints_of
from bench.analysis.claim_files import Claim, interval_of, read_claims
from bench.analysis.columns import with_columns
from bench.analysis.public_names import public
from bench.analysis.results import CLEAN, Results, read_results
from bench.analysis.rows import SETTING, Group, choose, grouped
from bench.analysis.weights_used import name_and_weights
from bench.board.presets import Preset, find_preset, protocol_of
from bench.spec.cell import NULLS, TRANSFER, title_of
from bench.stats.paired import paired_difference
from bench.stats.proportions import wilson
from bench.store.kinds import Paths, paths_of
from bench.store.manifest import Manifest, read_manifest
from defenses.utils.arrays import F64

FULL, OWN = "standard", "the board's own attacks"
_ENDS = ("", "_low", "_high")
_NAN, _NONE = float("nan"), np.zeros(0)
Points = tuple[float, float, float]  # points of 100 with the ends of their interval
NO_POINTS = (_NAN, _NAN, _NAN)
COLUMNS = (
    *("results", "defense", "protocol", "dataset", "norm", "eps"),
    *("paper", "kind", "evidence", "claimed_dataset", "claimed_threat", "claimed_network"),
    *(f"{name}{end}" for name in ("claimed", "own", "full", "null", "clean", "weakness") for end in _ENDS),
    *("n_images", "status", "left_out"),
)


@dataclass(frozen=True)
class _Side:
    """Verdicts of one side of a comparison.

    Args:
        shares: share of the held-out draws of each image that withstand, [images]; empty without a verdict.
        problem: why there is no verdict; "": there is one.
    """

    shares: F64
    problem: str = ""

    def interval(self) -> tuple[float, float, float]:
        """Return the mean with its Wilson interval (95%, n = images); NaN without a verdict."""
        n = len(self.shares)
        if not n:
            return _NAN, _NAN, _NAN
        low, high = wilson(self.shares.sum(), n)
        return float(self.shares.mean()), float(low), float(high)


@with_columns
def reproduction(results: Paths, claims: Iterable[Claim] | None = None) -> pd.DataFrame:
    """Return what protocols leave of defenses beside the full protocol, and beside what was claimed with them.

    Args:
        results: a results folder, or several.
        claims: the claims; None: those that come with purebench.

    Returns:
        A row per defense and preset, `standard` apart, whose attacks met it on a board with [[protocol]], beside what
        `standard`, or without it the board's own attacks, leave; a training of a defense has rows of its own. The claim
        is that on the defense in the paper of the preset. What is unknown is NaN or "".
        Columns: those of `purebench columns reproduction`.

    Raises:
        UserError: no results there, or a damaged file.
    """
    known = read_claims() if claims is None else list(claims)
    folders = paths_of(results)
    frames = [protocols_of(read_results(f), read_manifest(f), known).assign(results=str(f)) for f in folders]
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS))
    return public(frame[list(COLUMNS)])


def protocols_of(results: Results, manifest: Manifest, claims: Iterable[Claim]) -> pd.DataFrame:
    """Return the rows of `reproduction` of one results folder, with "" for its path.

    Args:
        results: from `read_results`.
        manifest: of the folder.
        claims: the claims.
    """
    known = list(claims)
    rows = [row for seeds in grouped(results) for group in seeds for row in _rows(group, len(seeds), manifest, known)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(group: Group, trainings: int, manifest: Manifest, claims: list[Claim]) -> Iterator[dict[str, Any]]:
    """Yield the rows of one trained defense in one setting."""
    full, null, clean = _full(group), _worst(group, TRANSFER), _worst(group, CLEAN)
    head = group.rows[0].names
    label = str(head["defense"])
    name, _ = name_and_weights(fingerprints_of(manifest, label).values(), str(head["dataset"]))
    for protocol in _protocols(group):
        own = _worst(group, protocol, CLEAN)
        sides = {"own": own, "full": full, "null": null, "clean": clean}
        values = {"results": "", "protocol": protocol, "n_images": len(own.shares) or len(full.shares)}
        values |= {"defense": title_of(label, group.training_seed) if trainings > 1 else label}
        values |= {key: head[key] for key in ("dataset", "norm", "eps")}
        values |= _of_claim(claim_of(find_preset(protocol), name, claims))
        for of, side in sides.items():
            values |= _ends(of, side.interval())
        values |= _ends("weakness", _difference(own, full))
        status = "; ".join(filter(None, (own.problem, full.problem, *_without(group, protocol)))) or "ok"
        yield values | {"status": status, "left_out": _left_out(group, protocol)}


def _protocols(group: Group) -> list[str]:
    """Return the presets that attacked a defense, `standard` apart."""
    return [name for name in dict.fromkeys(protocol_of(row.attack) for row in group.attacks) if name not in ("", FULL)]


def _full(group: Group) -> _Side:
    """Return the worst case of `standard`; on a defense that did not meet it, of the board's own attacks."""
    return _worst(group, _full_protocol(group), CLEAN, TRANSFER)


def _full_protocol(group: Group) -> str:
    """Return `standard`; of a defense that did not meet it "", the protocol of the board's own attacks."""
    attacks = [row for row in group.needed if row.attack not in (*NULLS, TRANSFER) and not row.seed_known]
    met = {protocol_of(row.attack) for row in attacks}
    return "" if "" in met and FULL not in met else FULL


def points_by_defense(results: Results) -> dict[tuple[str, ...], dict[str, Points]]:
    """Return `points_of` each defense of a results folder, by label and `SETTING` as texts; empty without presets."""
    found: dict[tuple[str, ...], dict[str, Points]] = {}
    if not any(map(protocol_of, results.cells["attack"].unique())):
        return found
    for seeds in grouped(results):
        names = seeds[0].rows[0].names
        found[str(names["defense"]), *(str(names[name]) for name in SETTING)] = points_of(seeds)
    return found


def points_of(seeds: Sequence[Group]) -> dict[str, Points]:
    """Return the `weakness` of each preset that attacked a defense in one setting, in points of 100.

    Args:
        seeds: its trainings.

    Returns:
        By the preset; of several trainings the mean, without an interval.
    """
    found = {}
    for protocol in _protocols(seeds[0]):
        ends = [100 * np.array(_difference(_worst(group, protocol, CLEAN), _full(group))) for group in seeds]
        point, low, high = np.mean(ends, axis=0).tolist()
        found[protocol] = (point, low, high) if len(seeds) == 1 else (point, _NAN, _NAN)
    return found


def points_on(claim: Claim, defense: str, protocols: Mapping[str, Points], claims: Iterable[Claim]) -> Points:
    """Return the points of the preset that a claim was made with; NaN without one among those that ran.

    A preset is of the claim that `claim_of` finds, and of those under the same attack and norm in the same publication.

    Args:
        claim: the claim.
        defense: registered name of the defense.
        protocols: see `points_of`.
        claims: where `claim_of` looks.
    """
    for name, points in protocols.items():
        own = claim_of(find_preset(name), defense, claims)
        if own is not None and _protocol(own) == _protocol(claim):
            return points
    return NO_POINTS


def _protocol(claim: Claim) -> tuple[str, ...]:
    return claim.defense, claim.url, claim.kind, claim.attack, claim.norm, claim.aggregation


def _left_out(group: Group, protocol: str) -> str:
    """Return which attacks of a preset know the judged draw; "" without any."""
    return ", ".join(dict.fromkeys(r.attack for r in group.rows if r.seed_known and protocol_of(r.attack) == protocol))


def _without(group: Group, protocol: str) -> Iterator[str]:
    """Yield the attacks of both protocols that can run on no defense here, and are no part of a worst case."""
    for row in group.attacks:
        if protocol_of(row.attack) in (protocol, _full_protocol(group)) and row not in group.needed:
            yield f"without {row.attack}: {row.status}"


def _worst(group: Group, what: str, *also: str) -> _Side:
    """Return the worst case of a defense over the attacks of a preset, or over one attack, and over further attacks.

    Args:
        group: the defense.
        what: name of the preset, or label of the attack.
        also: labels of the further attacks, as that of clean images.
    """
    rows = [row for row in group.needed if what in (protocol_of(row.attack), row.attack)]
    if not rows:
        return _Side(_NONE, f"no attack of {what}")
    rows += [row for row in group.needed if row.attack in also]
    missing = [f"{row.attack}: {row.status}" for row in rows if row.status != "ok"]
    choice = None if missing else choose(rows)
    if choice is None:
        return _Side(_NONE, f"without {missing[0] if missing else f'the selection draws of {what or OWN}'}")
    return _Side(choice[0].withstood / choice[0].draws)


def _difference(own: _Side, full: _Side) -> tuple[float, float, float]:
    if not len(own.shares) or len(own.shares) != len(full.shares):
        return _NAN, _NAN, _NAN
    found = paired_difference(own.shares, full.shares)
    return found.difference, found.low, found.high


def claim_of(preset: Preset, defense: str, claims: Iterable[Claim]) -> Claim | None:
    """Return the claim on a defense that a preset is the protocol of; None without one.

    Args:
        preset: the preset; without a url or radii it has none.
        defense: registered name of the defense.
        claims: where to look: those of its publication, at its radii, of means over draws. Of the defense's authors, or
            under the attack that the preset names, the first is taken, else the lowest.
    """

    def fits(claim: Claim) -> bool:
        radius = preset.eps.get(claim.dataset, {}).get(claim.norm) if claim.threat else None
        return radius is not None and Fraction(radius) == claim.eps

    found = [c for c in claims if preset.url and c.url == preset.url and c.defense == defense and c.robust is not None]
    found = [c for c in found if c.aggregation == "mean" and preset.claimed_attack in ("", c.attack) and fits(c)]
    own = found if preset.claimed_attack else [c for c in found if c.kind == "claim"]
    return own[0] if own else min(found, key=lambda c: c.robust or 0.0, default=None)


def _of_claim(claim: Claim | None) -> dict[str, Any]:
    if claim is None:
        return dict.fromkeys(
            ("paper", "kind", "evidence", *(f"claimed_{n}" for n in ("dataset", "threat", "network"))), ""
        )
    values = {f"claimed_{name}": getattr(claim, name) for name in ("dataset", "threat", "network")}
    low, high = interval_of(claim.robust, claim.n)
    return (
        values
        | {"paper": claim.paper, "kind": claim.kind, "evidence": claim.evidence}
        | _ends("claimed", (claim.robust or 0.0, low, high))
    )


def _ends(name: str, values: tuple[float, float, float]) -> dict[str, float]:
    return {f"{name}{end}": value for end, value in zip(_ENDS, values, strict=True)}
